//! A KDC of two realms, and who has tickets of it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_tests::{free_port, wait_for};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const PASSWORD: &str = "secret";
const PACKAGES: &str =
    "the Debian packages krb5-kdc, krb5-admin-server, krb5-user and libgssapi-perl";
/// What the KDC knows: people, two services of this host, and the way from the other realm into ours.
const OURS: &str = "addprinc -pw secret alice\naddprinc -pw secret alice/admin\naddprinc -pw secret mallory\n\
    addprinc -randkey smtp/localhost\naddprinc -randkey host/localhost\n\
    ktadd -k KEYTAB smtp/localhost host/localhost\naddprinc -pw shared krbtgt/DEMO.TEST@ELSEWHERE.TEST\n";
const THEIRS: &str =
    "addprinc -pw secret alice\naddprinc -pw shared krbtgt/DEMO.TEST@ELSEWHERE.TEST\n";

/// It runs until it is dropped.
pub struct Kdc {
    folder: TempDir,
    _process: Child,
}

/// The tickets of one principal: their file.
pub struct Tickets(PathBuf);

impl Kdc {
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postroad-kdc-").tempdir()?;
        let (at, port) = (folder.path(), free_port()?);
        fs::write(at.join("krb5.conf"), library_config(port))?;
        fs::write(at.join("kdc.conf"), kdc_config(at, port))?;
        let keytab = at.join("smtp.keytab").display().to_string();
        for (realm, orders) in [("DEMO.TEST", OURS), ("ELSEWHERE.TEST", THEIRS)] {
            let mut create = program("kdb5_util", at);
            create.args(["-r", realm, "create", "-s", "-W", "-P", "master"]);
            succeed(create, "").await?;
            let mut admin = program("kadmin.local", at);
            admin.args(["-r", realm]);
            succeed(admin, &orders.replace("KEYTAB", &keytab)).await?;
        }
        ensure!(Path::new(&keytab).exists(), "kadmin.local made no keytab");
        let process = program("krb5kdc", at)
            .args(["-n", "-r", "DEMO.TEST", "-r", "ELSEWHERE.TEST"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context(PACKAGES)?;
        wait_for("KDC", async || {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await?;
        Ok(Self {
            folder,
            _process: process,
        })
    }

    /// What the agent must have in its environment.
    pub fn environment_of_service(&self) -> [(&'static str, OsString); 3] {
        let at = self.folder.path();
        let mut replays = OsString::from("file2:");
        replays.push(at.join("replays"));
        [
            ("KRB5_CONFIG", at.join("krb5.conf").into()),
            ("KRB5_KTNAME", at.join("smtp.keytab").into()),
            ("KRB5RCACHENAME", replays),
        ]
    }

    /// What a client must have.
    pub fn environment_of_client(&self, tickets: &Tickets) -> [(&'static str, OsString); 2] {
        [
            ("KRB5_CONFIG", self.folder.path().join("krb5.conf").into()),
            ("KRB5CCNAME", tickets.0.clone().into()),
        ]
    }

    /// Logs a principal in at the KDC.
    pub async fn tickets(&self, principal: &str) -> Result<Tickets> {
        let name = principal.replace('/', "_");
        let tickets = Tickets(self.folder.path().join(format!("tickets-{name}")));
        let mut kinit = program("kinit", self.folder.path());
        kinit
            .arg(principal)
            .envs(self.environment_of_client(&tickets));
        succeed(kinit, &format!("{PASSWORD}\n")).await?;
        Ok(tickets)
    }

    /// A client's end of a context with this service.
    pub fn client_of(&self, tickets: &Tickets, service: &str) -> Result<ClientContext> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("perl/tickets.pl");
        let mut child = Command::new("perl")
            .arg(script)
            .arg(service)
            .envs(self.environment_of_client(tickets))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(PACKAGES)?;
        let orders = child.stdin.take().context("no stdin")?;
        let told = child.stdout.take().context("no stdout")?;
        Ok(ClientContext {
            _process: child,
            orders,
            told: BufReader::new(told).lines(),
        })
    }
}

/// See `tests/perl/tickets.pl`.
pub struct ClientContext {
    _process: Child,
    orders: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

impl ClientContext {
    /// Token for token, in base64.
    pub async fn step(&mut self, token: &str) -> Result<String> {
        self.order("step", token).await
    }

    pub async fn wrap(&mut self, octets: &[u8]) -> Result<String> {
        let octets = BASE64_STANDARD.encode(octets);
        self.order("wrap", &octets).await
    }

    pub async fn unwrap(&mut self, text: &str) -> Result<Vec<u8>> {
        let octets = self.order("unwrap", text).await?;
        Ok(BASE64_STANDARD.decode(octets)?)
    }

    async fn order(&mut self, verb: &str, text: &str) -> Result<String> {
        let line = format!("{verb} {text}\n");
        self.orders.write_all(line.as_bytes()).await?;
        let told = self.told.next_line().await?.context(PACKAGES)?;
        ensure!(!told.starts_with("error"), "{verb}: {told}");
        Ok(told)
    }
}

/// Programs of the KDC are not on everybody's path.
fn program(name: &str, folder: &Path) -> Command {
    let admins = Path::new("/usr/sbin").join(name);
    let path = match admins.exists() {
        true => admins,
        false => name.into(),
    };
    let mut command = Command::new(path);
    command
        .env("KRB5_CONFIG", folder.join("krb5.conf"))
        .env("KRB5_KDC_PROFILE", folder.join("kdc.conf"));
    command
}

async fn succeed(mut command: Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(PACKAGES)?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().await?;
    let told = [stdout, stderr].concat();
    let told = String::from_utf8_lossy(&told);
    ensure!(status.success(), "{command:?}: {told}");
    Ok(())
}

fn library_config(port: u16) -> String {
    let realm = |name: &str| format!("{name} = {{\n kdc = 127.0.0.1:{port}\n}}\n");
    format!(
        "[libdefaults]\ndefault_realm = DEMO.TEST\ndns_lookup_kdc = false\ndns_lookup_realm = false\n\
         dns_canonicalize_hostname = false\nrdns = false\nudp_preference_limit = 1\n\
         [realms]\n{}{}[domain_realm]\nlocalhost = DEMO.TEST\n\
         [capaths]\nELSEWHERE.TEST = {{\n DEMO.TEST = .\n}}\n",
        realm("DEMO.TEST"),
        realm("ELSEWHERE.TEST")
    )
}

fn kdc_config(folder: &Path, port: u16) -> String {
    let at = folder.display();
    let realm = |name: &str| {
        format!(
            "{name} = {{\n database_name = {at}/{name}.db\n key_stash_file = {at}/{name}.stash\n acl_file = {at}/none\n}}\n"
        )
    };
    format!(
        "[kdcdefaults]\nkdc_listen = 127.0.0.1:{port}\nkdc_tcp_listen = 127.0.0.1:{port}\n\
         [realms]\n{}{}[logging]\nkdc = FILE:{at}/kdc.log\n",
        realm("DEMO.TEST"),
        realm("ELSEWHERE.TEST")
    )
}
