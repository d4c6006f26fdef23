//! The neighbours as programs: one Postfix with a listener of its own for each, and an Exim for each of the others.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Ports, is_same_mail, wait_for_within};
use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::{
    SOON,
    greylist::Greylist,
    mails::Sent,
    table::{Certificate, Neighbour, Server},
};
use crate::{
    foreign::{Exim, Postfix, folder, hand_over, user},
    swapping::{Authority, write_private},
};

pub struct Servers {
    place: PathBuf,
    postfix: Postfix,
    _exims: Vec<Exim>,
    _greylist: Greylist,
}

impl Servers {
    pub async fn start(place: &Path, neighbours: &[Neighbour], ports: Ports) -> Result<Self> {
        let certificates = certificates(place, neighbours)?;
        let certificate = |one: &Neighbour| {
            let file = certificates.get(one.name);
            file.map(|file| file.display().to_string())
                .context("no certificate")
        };
        let greylist = Greylist::start().await?;
        let mut addresses = Vec::new();
        let (mut master_cf, mut exims) = (String::new(), Vec::new());
        for one in neighbours {
            match one.server {
                Server::Postfix(options) => {
                    let address = one.address(ports.world);
                    addresses.push(address);
                    writeln!(master_cf, "{address} inet n - n - - smtpd")?;
                    writeln!(
                        master_cf,
                        "  -o smtpd_tls_chain_files={}",
                        certificate(one)?
                    )?;
                    writeln!(master_cf, "  -o syslog_name={}", one.name)?;
                    for option in options {
                        let option = option.replace("GREYLIST", &greylist.address.to_string());
                        writeln!(master_cf, "  -o {option}")?;
                    }
                }
                Server::Exim { main, mail, rcpt } => {
                    let place = place.join(one.name);
                    let config =
                        exim_conf(&place, one, &certificate(one)?, ports, [main, mail, rcpt]);
                    exims.push(Exim::start(&place, one.address(ports.world), &config).await?);
                }
            }
        }
        let main_cf = main_cf(place, neighbours, ports)?;
        let mut postfix =
            Postfix::with_listeners(&place.join("postfix"), &addresses, &main_cf, &master_cf)?;
        postfix.go().await?;
        Ok(Self {
            place: place.to_owned(),
            postfix,
            _exims: exims,
            _greylist: greylist,
        })
    }

    pub fn stop(mut self) -> Result<()> {
        self.postfix.stop()
    }

    /// What the neighbour has of this mail, in whatever mailbox.
    pub fn copies(&self, mail: &Sent<'_>) -> Result<Vec<Vec<u8>>> {
        let mut copies = Vec::new();
        for mailbox in self.mailboxes(mail.neighbour) {
            for entry in fs::read_dir(mailbox.join("new")).into_iter().flatten() {
                // One that was moved meanwhile is found the next time.
                let Ok(content) = fs::read(entry?.path()) else {
                    continue;
                };
                let id = mail.message_id();
                if content.windows(id.len()).any(|part| part == id.as_bytes()) {
                    copies.push(content);
                }
            }
        }
        Ok(copies)
    }

    fn mailboxes(&self, one: &Neighbour) -> Vec<PathBuf> {
        match one.server {
            Server::Exim { .. } => vec![self.place.join(one.name).join("mail")],
            Server::Postfix(_) => {
                let all = self.place.join("postfix/mail");
                let of = |name: &&str| all.join(format!("{}-{name}", one.name));
                NAMES.map(|(_, folder)| folder).iter().map(of).collect()
            }
        }
    }

    /// As many copies as recipients, each as it was sent.
    pub async fn compare(&self, mail: &Sent<'_>, wanted: usize) -> Result<()> {
        let copies = wait_for_within(SOON, "mail at the neighbour", async || {
            let copies = self.copies(mail).ok()?;
            (copies.len() >= wanted).then_some(copies)
        });
        let copies = copies.await?;
        ensure!(
            copies.len() == wanted,
            "{} copies, not {wanted}",
            copies.len()
        );
        for copy in copies {
            let shown = String::from_utf8_lossy(&copy);
            ensure!(is_same_mail(&mail.content, &copy), "{shown:.1200}");
        }
        Ok(())
    }

    /// What neighbours should have in their logs and have not.
    pub async fn unsaid(&self, neighbours: &[Neighbour]) -> Vec<String> {
        let mut unsaid = Vec::new();
        for one in neighbours.iter().filter(|one| !one.says.is_empty()) {
            let found = match one.server {
                Server::Postfix(_) => {
                    let name = format!("{}/smtpd[", one.name);
                    let words = [&[name.as_str()], one.says].concat();
                    self.postfix.logged(&words).await.map(drop)
                }
                Server::Exim { .. } => {
                    let log = self.place.join(one.name).join("mainlog");
                    let fits = |line: &str| one.says.iter().all(|word| line.contains(word));
                    let found = wait_for_within(SOON, "line of Exim", async || {
                        let log = fs::read_to_string(&log).ok()?;
                        log.lines().any(fits).then_some(())
                    });
                    found.await
                }
            };
            if found.is_err() {
                unsaid.push(format!("{} did not say {:?}", one.name, one.says));
            }
        }
        unsaid
    }
}

/// Who is there, and the folder of each.
const NAMES: [(&str, &str); 3] = [
    ("friend", "friend"),
    ("second", "second"),
    ("j\u{fc}rgen", "juergen"),
];

/// A file for each neighbour.
fn certificates(place: &Path, neighbours: &[Neighbour]) -> Result<BTreeMap<&'static str, PathBuf>> {
    let authority = Authority::new(place.join("ca.pem"))?;
    let mut files = BTreeMap::new();
    for one in neighbours {
        let (file, host) = (place.join(format!("{}.pem", one.name)), one.host());
        match one.certificate {
            Certificate::Good => authority.issue(&file, &[&host])?,
            Certificate::WrongName => authority.issue(&file, &["mx.elsewhere.test"])?,
            Certificate::Expired => authority.issue_expired(&file, &host)?,
            Certificate::SelfSigned => {
                let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![host])?;
                write_private(&file, &(signing_key.serialize_pem() + &cert.pem()))?;
            }
        }
        if matches!(one.server, Server::Exim { .. }) {
            hand_over(&file, user(crate::foreign::EXIM_USER)?)?;
        }
        files.insert(one.name, file);
    }
    Ok(files)
}

/// Counting is by windows of seconds; nobody is excepted from limits.
fn main_cf(place: &Path, neighbours: &[Neighbour], ports: Ports) -> Result<String> {
    let place = place.join("postfix");
    folder(&place)?;
    let (mail, nobody) = (place.join("mail"), user("nobody")?);
    folder(&mail)?;
    hand_over(&mail, nobody)?;
    let (mut domains, mut mailboxes) = (String::new(), String::new());
    for one in neighbours {
        writeln!(domains, "  {}", one.domain())?;
        for (name, folder) in NAMES {
            let address = one.address_of(name);
            writeln!(mailboxes, "{address} {}-{folder}/", one.name)?;
        }
    }
    fs::write(place.join("mailboxes"), mailboxes)?;
    let (home, place, mail) = (ports.smtp().port(), place.display(), mail.display());
    Ok(format!(
        "compatibility_level = 3.6
inet_interfaces = 127.0.0.1
myhostname = mx.neighbours.test
mydestination =
mynetworks = 127.0.0.99/32
virtual_mailbox_domains =
{domains}virtual_mailbox_base = {mail}
virtual_mailbox_maps = texthash:{place}/mailboxes
virtual_uid_maps = static:{}
virtual_gid_maps = static:{}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
message_size_limit = 0
transport_maps = inline:{{ {{demo.test = smtp:[127.0.0.1]:{home}}} }}
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_security_level = may
smtpd_error_sleep_time = 0
anvil_rate_time_unit = 2s
",
        nobody.0, nobody.1
    ))
}

/// Debian's defaults as far as a sender notices them, with all that Exim can offer.
fn exim_conf(
    place: &Path,
    one: &Neighbour,
    certificate: &str,
    ports: Ports,
    [main, mail, rcpt]: [&str; 3],
) -> String {
    let (host, domain, place) = (one.host(), one.domain(), place.display());
    let home = ports.smtp().port();
    format!(
        "primary_hostname = {host}
domainlist local_domains = {domain}
acl_smtp_mail = check_mail
acl_smtp_rcpt = check_rcpt
never_users = root
dsn_advertise_hosts = *
prdr_enable = true
pipelining_connect_advertise_hosts = *
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {certificate}
{main}
begin acl
check_mail:
{mail}  accept
check_rcpt:
{rcpt}  require message = relay not permitted
          domains = +local_domains
  require verify = recipient
  accept

begin routers
home:
  driver = manualroute
  domains = demo.test
  route_list = demo.test 127.0.0.1 byname
  self = send
  transport = home
mailboxes:
  driver = accept
  domains = +local_domains
  local_parts = ! stranger
  transport = mailbox

begin transports
home:
  driver = smtp
  port = {home}
  allow_localhost
  hosts_try_dane =
mailbox:
  driver = appendfile
  maildir_format
  directory = {place}/mail
  delivery_date_add
  envelope_to_add
  return_path_add

begin retry
* * F,1h,2s
"
    )
}
