//! What a stack finds in its folder.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Result;
use postroad_directory::hash_password;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use super::{Builder, PASSWORD, Ports};

pub fn write(folder: &Path, ports: &Ports, builder: &Builder) -> Result<()> {
    fs::create_dir(folder.join("conf.d"))?;
    for (number, settings) in builder.settings.iter().enumerate() {
        fs::write(folder.join(format!("conf.d/{number:02}.toml")), settings)?;
    }
    fs::write(folder.join("zone"), format!("{ZONE}{}", builder.zone))?;
    write_private(&folder.join("directory.toml"), &directory(builder)?)?;
    fs::write(folder.join("postroad.toml"), config(folder, ports))?;
    certificates(folder)
}

/// mx1 to mx3 of world.test are 127.0.1.1 to 127.0.1.3.
const ZONE: &str = "\
demo.test          MX   10 mx.demo.test
mx.demo.test       A    127.0.0.1
127.0.0.1          PTR  client.test
client.test        A    127.0.0.1
world.test         MX   10 mx1.world.test
mx1.world.test     A    127.0.1.1
mx2.world.test     A    127.0.1.2
mx3.world.test     A    127.0.1.3
";

fn directory(builder: &Builder) -> Result<String> {
    let hash = hash_password(PASSWORD.as_bytes(), *b"salt for testing")?;
    let mut text =
        String::from("[[domain]]\nname = \"demo.test\"\npostmaster = \"carol@demo.test\"\n");
    let accounts = ["alice", "bob", "carol"].map(|name| format!("{name}@demo.test"));
    for address in accounts.iter().chain(&builder.accounts) {
        text += &format!("[[account]]\naddress = '{address}'\npassword_hash = \"{hash}\"\n");
    }
    Ok(text + &builder.directory)
}

/// Retries, reports and grace in seconds, small segments; otherwise as in production.
fn config(folder: &Path, ports: &Ports) -> String {
    let Ports {
        smtp,
        submission,
        submissions,
        lmtp,
        world,
    } = ports;
    let folder = folder.display();
    format!(
        r#"[common]
hostname = "mx.demo.test"
domain = "demo.test"
state_dir = "{folder}/state"
run_dir = "{folder}/run"
directory = "{folder}/directory.toml"
queue = "unix:{folder}/run/queue.sock"
shutdown_grace = "10s"
allow_root = true

[common.log]
format = "json"

[common.dns]
zone = "{folder}/zone"

[queued.retry]
first = "500ms"
max = "1s"
give_up_after = "1d"
cases = []

[queued.sites]
probe_first = "300ms"
probe_longest = "1s"

[queued.lease]
stream_grace = "500ms"
resume_grace = "1s"

[queued.dsn]
gather = "100ms"

[queued.disk]
reserve_percent = 0
reserve = "1MiB"
segment = "4MiB"
journal_target = "16MiB"

[msa]
submission = ["127.0.0.1:{submission}"]
submissions = ["127.0.0.1:{submissions}"]
queue_timeout = "1s"

[[msa.certificates]]
cert_file = "{folder}/server.pem"
key_file = "{folder}/server.key"

[mta.inbound]
listeners.smtp = "127.0.0.1:{smtp}"
queue_timeout = "1s"

[[mta.inbound.certificates]]
cert_file = "{folder}/server.pem"
key_file = "{folder}/server.key"

[mta.outbound]
port = {world}
allow_networks = ["127.0.0.0/8"]

[mda]
mail_root = "{folder}/mail"

[mda.lmtp]
listeners.lmtp = "127.0.0.1:{lmtp}"
"#
    )
}

/// An authority and what it vouches for: this host, by name and address.
fn certificates(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "Postroad test authority");
    let authority_key = KeyPair::generate()?;
    fs::write(
        folder.join("ca.pem"),
        authority.self_signed(&authority_key)?.pem(),
    )?;
    let issuer = Issuer::new(authority, authority_key);

    let mut server =
        CertificateParams::new(vec!["localhost".to_owned(), "mx.demo.test".to_owned()])?;
    for address in ["127.0.0.1", "::1"] {
        server
            .subject_alt_names
            .push(SanType::IpAddress(address.parse::<IpAddr>()?));
    }
    let key = KeyPair::generate()?;
    fs::write(
        folder.join("server.pem"),
        server.signed_by(&key, &issuer)?.pem(),
    )?;
    write_private(&folder.join("server.key"), &key.serialize_pem())
}

/// Agents refuse secrets that everybody may read.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
