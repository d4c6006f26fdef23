//! What the scenarios share: one stack, and one of each foreign server they need.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Mail, Stack, is_same_mail, stack};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use crate::{
    foreign::{self, Dnsmasq, Postfix, Setup},
    needs::Need,
    samples::Samples,
};

/// Mailboxes of many.test.
pub const MANY: usize = 200;
/// Accounts of demo.test besides those every stack has. Each is for one scenario, so that none reads another's mail.
const ACCOUNTS: [&str; 22] = [
    "swaks.awkward",
    "swaks.empty",
    "smtplib.start.awkward",
    "smtplib.start.empty",
    "smtplib.start.large",
    "smtplib.implicit.awkward",
    "smtplib.implicit.empty",
    "smtplib.implicit.large",
    "curl.awkward",
    "curl.empty",
    "curl.large",
    "msmtp.awkward",
    "msmtp.empty",
    "msmtp.large",
    "refused",
    "relay",
    "bounced",
    "waiting",
    "inbound",
    "lmtp.tcp",
    "lmtp.unix",
    "swaks.large",
];
/// What the name server knows. The zone of the stack has world.test at [`BY_ZONE`].
const HOSTS: [(&str, &str, Ipv4Addr); 2] = [
    ("dns.test", "mx.dns.test", BY_DNS),
    ("waiting.test", "mx.waiting.test", WAITING),
];
const BY_ZONE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const BY_DNS: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);
const WAITING: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 2);

pub struct World {
    folder: TempDir,
    pub stack: Stack,
    pub samples: Samples,
    dnsmasq: Option<Dnsmasq>,
    postfix: Option<Postfix>,
    /// Certificate and key of foreign servers.
    certificate: PathBuf,
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
        let servers = dnsmasq
            .as_ref()
            .map_or("127.0.0.1:9".to_owned(), Dnsmasq::address);
        let lmtp = folder.path().join("lmtp/socket");
        fs::create_dir(folder.path().join("lmtp"))?;
        if needs.contains(&Need::Postfix) {
            // New files get the group of this folder, so that Postfix may open the socket.
            foreign::hand_over(
                &folder.path().join("lmtp"),
                (0, foreign::user("postfix")?.1),
            )?;
            fs::set_permissions(
                folder.path().join("lmtp"),
                fs::Permissions::from_mode(0o2750),
            )?;
        }
        let stack = stack!()
            .settings(&format!(
                "[common.dns]\nservers = [\"{servers}\"]\nzone_falls_through = true\n\
                 [mda.lmtp]\nlisteners.unix = \"unix:{}\"\n",
                lmtp.display()
            ))
            .directory(&format!(
                "[[domain]]\nname = \"many.test\"\npostmaster = \"{}\"\n",
                many(0)
            ))
            .accounts(
                ACCOUNTS
                    .iter()
                    .map(|name| format!("{name}@demo.test"))
                    .chain((0..MANY).map(many)),
            )
            .start()
            .await?;
        let mut world = Self {
            folder,
            stack,
            samples,
            dnsmasq,
            postfix: None,
            certificate,
        };
        if needs.contains(&Need::Postfix) {
            let transport = format!(
                "lmtp.tcp@demo.test lmtp:inet:{}\nlmtp.unix@demo.test lmtp:unix:{}\ndemo.test smtp:[127.0.0.1]:{}\n",
                world.stack.ports.lmtp(),
                lmtp.display(),
                world.stack.ports.smtp().port()
            );
            let mailboxes = ["friend@dns.test", "friend@world.test"];
            let mut postfix = world.new_postfix(
                "postfix",
                "mx.dns.test",
                &[BY_DNS, BY_ZONE],
                &mailboxes,
                &transport,
            )?;
            postfix.go().await?;
            world.postfix = Some(postfix);
        }
        Ok(world)
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
