//! What the scenarios share: one stack, and one of each foreign server they need.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Mail, Stack, free_port, is_same_mail, stack};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use crate::{
    foreign::{self, Dnsmasq, Postfix, Setup},
    needs::Need,
    samples::Samples,
};

/// Mailboxes of many.test.
pub const MANY: usize = 200;
/// Accounts of demo.test besides those every stack has. Each is for one use, so that no scenario reads another's mail.
const ACCOUNTS: &str = "\
    smtplib.start.awkward smtplib.start.empty smtplib.start.large \
    smtplib.implicit.awkward smtplib.implicit.empty smtplib.implicit.large \
    swaks.awkward swaks.empty swaks.large curl.awkward curl.empty curl.large msmtp.awkward msmtp.empty msmtp.large \
    stranger.trust refused relay bounced bounced.lmtp detected waiting inbound inbound.bounced lmtp.tcp lmtp.unix \
    migrate.sender migrate.one migrate.two migrate.held migrate.utf8";
/// What the name server knows. The zone of the stack has world.test at [`BY_ZONE`].
const HOSTS: [(&str, &str, Ipv4Addr); 2] = [
    ("dns.test", "mx.dns.test", BY_DNS),
    ("waiting.test", "mx.waiting.test", WAITING),
];
const BY_ZONE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const BY_DNS: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);
const MIGRATING: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 3);
const WAITING: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 2);

pub struct World {
    folder: TempDir,
    pub stack: Stack,
    pub samples: Samples,
    /// Where lmtp.test is, by a route of class lmtp.
    pub lmtp: SocketAddr,
    /// Where utf8.test is, by a route of class relay.
    pub utf8: SocketAddr,
    dnsmasq: Option<Dnsmasq>,
    postfix: Option<Postfix>,
    /// Certificate and key of foreign servers; nobody vouches for it.
    pub certificate: PathBuf,
}

impl World {
    pub async fn start(needs: &[Need]) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("postroad-interop-")
            .tempdir()?;
        // Other users than root must find their files in it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let samples = Samples::write(&folder.path().join("samples"))?;
        let certificate = folder.path().join("foreign.pem");
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["mx.dns.test".to_owned()])?;
        fs::write(&certificate, signing_key.serialize_pem() + &cert.pem())?;

        let dnsmasq = match needs.contains(&Need::Dnsmasq) {
            true => Some(Dnsmasq::start(&folder.path().join("dnsmasq"), &HOSTS).await?),
            false => None,
        };
        let (lmtp, utf8) = (local(free_port()?), local(free_port()?));
        let with_postfix = needs.contains(&Need::Postfix);
        let socket = lmtp_socket(folder.path(), with_postfix)?;
        let stack = stack!()
            .settings(&settings(dnsmasq.as_ref(), &socket, lmtp, utf8))
            .directory(&format!(
                "[[domain]]\nname = 'many.test'\npostmaster = '{}'\n",
                many(0)
            ))
            .accounts(
                ACCOUNTS
                    .split_whitespace()
                    .map(|name| format!("{name}@demo.test")),
            )
            .accounts((0..MANY).map(many))
            .start()
            .await?;
        let mut world = Self {
            folder,
            stack,
            samples,
            lmtp,
            utf8,
            dnsmasq,
            postfix: None,
            certificate,
        };
        if with_postfix {
            world.postfix = Some(world.start_postfix(&socket).await?);
        }
        Ok(world)
    }

    /// It sends our mail back to us: on port 25, and for two recipients by LMTP.
    async fn start_postfix(&self, lmtp_socket: &Path) -> Result<Postfix> {
        let ports = self.stack.ports;
        let transport = format!(
            "lmtp.tcp@demo.test lmtp:inet:{}\nlmtp.unix@demo.test lmtp:unix:{}\ndemo.test smtp:[127.0.0.1]:{}\n",
            ports.lmtp(),
            lmtp_socket.display(),
            ports.smtp().port()
        );
        let mailboxes = ["friend@dns.test", "friend@world.test"];
        let addresses = [BY_DNS, BY_ZONE];
        let mut postfix =
            self.new_postfix("postfix", "mx.dns.test", &addresses, &mailboxes, &transport)?;
        postfix.go().await?;
        Ok(postfix)
    }

    /// A Postfix that does not run yet, where the name server and the stack look for it.
    fn new_postfix(
        &self,
        folder: &str,
        host: &str,
        addresses: &[Ipv4Addr],
        mailboxes: &[&str],
        transport: &str,
    ) -> Result<Postfix> {
        let port = self.stack.ports.world;
        let addresses: Vec<SocketAddr> = addresses.iter().map(|&ip| (ip, port).into()).collect();
        let setup = Setup {
            addresses: &addresses,
            host,
            mailboxes,
            transport,
            certificate: &self.certificate,
            ca_file: &self.stack.ca_file(),
        };
        Postfix::prepare(&self.folder.path().join(folder), &setup)
    }

    /// The one that stays up for the whole run.
    pub fn postfix(&self) -> Result<&Postfix> {
        self.postfix
            .as_ref()
            .context("the scenario does not name Postfix as a need")
    }

    pub fn dnsmasq(&self) -> Result<&Dnsmasq> {
        self.dnsmasq
            .as_ref()
            .context("the scenario does not name dnsmasq as a need")
    }

    /// The Postfix of the scenario that stops it.
    pub fn waiting_postfix(&self) -> Result<Postfix> {
        self.new_postfix(
            "waiting",
            "mx.waiting.test",
            &[WAITING],
            &["friend@waiting.test"],
            "",
        )
    }

    /// The Postfix whose queue moves to us: what it has for us waits, since nothing listens there.
    pub fn migrating_postfix(&self) -> Result<Postfix> {
        self.new_postfix(
            "migrating",
            "mx.migrating.test",
            &[MIGRATING],
            &["friend@migrating.test"],
            "demo.test smtp:[127.0.0.1]:9\n",
        )
    }

    /// A folder for a scenario.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for the only mail of an account and compares it with what was sent.
    pub async fn arrives(&self, account: &str, sent: &[u8]) -> Result<Mail> {
        let mut mails = self.stack.wait_for_mails(account, 1).await?;
        ensure!(mails.len() == 1, "{account} has {} mails", mails.len());
        let mail = mails.remove(0);
        ensure!(
            is_same_mail(sent, &mail.content),
            "{account} got something else than was sent ({} octets as sent, {} as filed): {:.600}",
            sent.len(),
            mail.content.len(),
            mail.text()
        );
        Ok(mail)
    }

    /// Stops everything. A stack after a failure is dropped, which shows its logs.
    pub async fn end(mut self, well: bool) -> Result<()> {
        if let Some(postfix) = &mut self.postfix {
            postfix.stop()?;
        }
        if well {
            self.stack.end().await?;
        }
        Ok(())
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What differs from other stacks.
fn settings(
    dnsmasq: Option<&Dnsmasq>,
    lmtp_socket: &Path,
    lmtp: SocketAddr,
    utf8: SocketAddr,
) -> String {
    let servers = dnsmasq.map_or("127.0.0.1:9".to_owned(), Dnsmasq::address);
    let lmtp_socket = lmtp_socket.display();
    format!(
        r#"[common.dns]
servers = ["{servers}"]
zone_falls_through = true

# The samples are from strangers, whoever sends them.
[msa]
from = "any"

[msa.auth]
delay = "100ms"
max_delay = "100ms"

[mda.lmtp]
listeners.unix = "unix:{lmtp_socket}"

[[queued.routes]]
domain = "lmtp.test"
class = "lmtp"
next_hop = "{lmtp}"

[[queued.routes]]
domain = "utf8.test"
class = "relay"
next_hop = "{utf8}"
"#
    )
}

/// A place for the socket of the delivery agent. New files in it get its group, so that Postfix may open them.
fn lmtp_socket(folder: &Path, for_postfix: bool) -> Result<PathBuf> {
    let folder = folder.join("lmtp");
    fs::create_dir(&folder)?;
    if for_postfix {
        let (_, group) = foreign::user("postfix")?;
        foreign::hand_over(&folder, (0, group))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o2750))?;
    }
    Ok(folder.join("socket"))
}

/// The address of one of the many.
pub fn many(number: usize) -> String {
    format!("u{number:03}@many.test")
}

/// The header block, unfolded.
pub fn header(mail: &Mail) -> String {
    let text = mail.text();
    let header = text.split("\n\n").next().unwrap_or_default();
    header.replace("\n\t", " ").replace("\n ", " ")
}
