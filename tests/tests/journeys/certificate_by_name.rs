//! Of several certificates the one is shown that fits the name a client asks for (SNI, RFC 6066 §3), by msa and mta, with STARTTLS
//! and with TLS from the first octet; and what is older than TLS 1.2 is refused (RFC 8996).

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postroad_net::{ClientTls, Stream, Trust, connect_tcp};
use postroad_tests::{Agent, Client, free_port, stack, wait_for};
use rcgen::generate_simple_self_signed;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(60);

/// The file, and the names of its certificate.
const CERTIFICATES: [(&str, &[&str]); 4] = [
    ("first", &["mail.demo.test"]),
    ("two", &["smtp.demo.test", "imap.demo.test"]),
    ("wild", &["*.wild.test"]),
    ("exact", &["exact.wild.test"]),
];

/// What is asked for, and the file that has to be shown. An address is no name: then nothing is asked for.
const ASKED: [(&str, &str); 11] = [
    ("mail.demo.test", "first"),
    ("smtp.demo.test", "two"),
    ("imap.demo.test", "two"),
    ("IMAP.Demo.Test", "two"),
    ("a.wild.test", "wild"),
    ("exact.wild.test", "exact"),
    ("a.b.wild.test", "first"),
    ("wild.test", "first"),
    ("unknown.test", "first"),
    ("localhost", "first"),
    ("127.0.0.1", "first"),
];

#[tokio::test]
async fn the_certificate_follows_the_name() -> Result<()> {
    let mut stack = stack!().prepare()?;
    let folder = stack.folder().to_owned();
    make(&folder)?;
    let mut toml = String::new();
    for section in ["msa", "mta.inbound"] {
        for (file, _) in CERTIFICATES {
            let at = folder.join(file);
            let at = at.display();
            write!(
                toml,
                "[[{section}.certificates]]\ncert_file = \"{at}.pem\"\nkey_file = \"{at}.key\"\n"
            )?;
        }
    }
    stack.configure("50-certificates", &toml)?;
    stack.start_all().await?;

    for (name, file) in ASKED {
        for (listener, starttls) in [
            (stack.ports.submission(), true),
            (stack.ports.submissions(), false),
            (stack.ports.smtp(), true),
        ] {
            let shown = shown(listener, starttls, name).await?;
            let which = which(&folder, &shown)?;
            ensure!(
                which == file,
                "{listener} shows {which} to who asks for {name}"
            );
        }
    }
    for (listener, starttls) in [
        (stack.ports.submission(), true),
        (stack.ports.submissions(), false),
        (stack.ports.smtp(), true),
    ] {
        for version in [1, 2] {
            let alert = refused(listener, starttls, version).await?;
            // RFC 8446 §6: an alert, fatal, protocol_version.
            ensure!(alert.first() == Some(&21), "{alert:?}");
            ensure!(alert.get(5..7) == Some(&[2, 70]), "{alert:?}");
        }
    }
    stack.end().await
}

/// What is special about one listener holds for the next connection after a reload, and nothing changes at the others.
#[tokio::test]
async fn a_listeners_own_certificates_and_limits_follow_a_reload() -> Result<()> {
    let mut stack = stack!().prepare()?;
    let folder = stack.folder().to_owned();
    make(&folder)?;
    let (own, smtp) = (
        SocketAddr::from(([127, 0, 0, 1], free_port()?)),
        stack.ports.smtp(),
    );
    let terms = |file: &str, size: &str, most: usize| {
        let at = folder.join(file);
        let at = at.display();
        let special = format!(
            "size_limit = \"{size}\", max_connections = {most}, \
             certificates = [{{ cert_file = \"{at}.pem\", key_file = \"{at}.key\" }}] }}\n"
        );
        format!(
            "[msa]\nlisteners.own = {{ listen = \"{own}\", {special}\
             [mta.inbound]\nlisteners.smtp = {{ listen = \"{smtp}\", {special}"
        )
    };
    stack.configure("50-listeners", &terms("first", "1MiB", 10))?;
    stack.start_all().await?;
    let others = shown(stack.ports.submission(), true, "localhost").await?;
    for (file, size, most, second) in [
        ("first", "1MiB", 10, "220"),
        ("two", "2MiB", 10, "220"),
        ("exact", "2MiB", 1, "421"),
    ] {
        stack.configure("50-listeners", &terms(file, size, most))?;
        stack.reload(Agent::Msa).await?;
        stack.reload(Agent::Mta).await?;
        for listener in [own, smtp] {
            // A connection that has ended gives its place back in its own time.
            let asked = wait_for("a place", async || {
                shown(listener, true, "unknown.test").await.ok()
            });
            ensure!(which(&folder, &asked.await?)? == file, "{listener}");
            let (mut client, heard) = wait_for("a place", async || {
                let (client, heard) = Client::connect(listener).await.ok()?;
                heard.starts_with("220").then_some((client, heard))
            })
            .await?;
            let offers = client.command("EHLO client.test").await?;
            let octets = if size == "1MiB" { 1 << 20 } else { 2 << 20 };
            ensure!(
                offers.contains(&format!("SIZE {octets}")),
                "{heard} {offers}"
            );
            let (_, heard) = Client::connect(listener).await?;
            ensure!(heard.starts_with(second), "{listener}: {heard}");
        }
        ensure!(shown(stack.ports.submission(), true, "localhost").await? == others);
    }
    stack.end().await
}

/// Writes certificates and keys.
fn make(folder: &Path) -> Result<()> {
    for (file, names) in CERTIFICATES {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = generate_simple_self_signed(names)?;
        fs::write(folder.join(format!("{file}.der")), made.cert.der())?;
        fs::write(folder.join(format!("{file}.pem")), made.cert.pem())?;
        let key = folder.join(format!("{file}.key"));
        fs::write(&key, made.signing_key.serialize_pem())?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

async fn open(listener: SocketAddr, starttls: bool) -> Result<Stream> {
    let mut stream = connect_tcp(listener, PATIENCE, None).await?;
    if starttls {
        reply(&mut stream, "220 ").await?;
        for (line, end) in [("EHLO client.test\r\n", "250 "), ("STARTTLS\r\n", "220 ")] {
            stream.write_all(line.as_bytes()).await?;
            reply(&mut stream, end).await?;
        }
    }
    Ok(stream)
}

/// Reads up to the line that begins so.
async fn reply(stream: &mut Stream, end: &str) -> Result<()> {
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await?);
        }
        if line.starts_with(end.as_bytes()) {
            return Ok(());
        }
        ensure!(
            line.get(3) == Some(&b'-'),
            "{}",
            String::from_utf8_lossy(&line)
        );
    }
}

async fn shown(listener: SocketAddr, starttls: bool, name: &str) -> Result<Vec<u8>> {
    let tls = ClientTls::opportunistic(Trust::Files(Vec::new()))?;
    let stream = open(listener, starttls).await?;
    let stream = stream.upgrade_client(&tls, name, &[], PATIENCE).await?;
    let shown = stream.peer_certificate().context("no certificate")?;
    Ok(shown.to_vec())
}

fn which(folder: &Path, shown: &[u8]) -> Result<&'static str> {
    for (file, _) in CERTIFICATES {
        if fs::read(folder.join(format!("{file}.der")))? == shown {
            return Ok(file);
        }
    }
    anyhow::bail!("a certificate that was not configured")
}

/// What a client of TLS 1.0 (1) or 1.1 (2) hears.
async fn refused(listener: SocketAddr, starttls: bool, version: u8) -> Result<Vec<u8>> {
    let mut hello = vec![3, version];
    hello.extend([7; 32]);
    // No session; TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 and _CBC_SHA; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0]);
    // Extensions: the curve P-256, points as they are, signatures by ECDSA with SHA-256.
    hello.extend([0, 22, 0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0]);
    hello.extend([0, 13, 0, 4, 0, 2, 4, 3]);
    let length = u8::try_from(hello.len())?;
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let mut stream = open(listener, starttls).await?;
    stream.write_all(&record).await?;
    let mut heard = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await??;
    Ok(heard)
}
