//! `postroad sendmail`: takes a mail from a program of this host, as sendmail(8) does.
//!
//! ```text
//! standard input ─► text (line ends, dot) ─► a file without a name ─┐
//! -t: header ─► recipients                                          ├─► SMTP in this process ─► queue ◆ ─► exit status 0
//! -bs: standard input and output ───────────────────────────────────┘       (rules of submission)
//! ```
//!
//! Nothing is kept here: while the queue cannot take the mail the exit status is 75 and whoever called tries again. All
//! recipients get the mail, or none. Who may send what is the queue's to say: see `accounts` of `queued.listen.unix_roles`.

mod arguments;
mod client;
mod header;
mod server;
mod status;
mod text;
pub mod withdraw;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroad_accounts::Accounts;
use postroad_address::{Domain, ForwardPath, Mailbox, ReversePath};
use postroad_daemon::{AccountsFrom, ByteSize, CommonConfig, ConfigFile, DEFAULT_CONFIG_FILE};
use postroad_directory::Resolution;
use postroad_envelope::{BodyKind, OriginalRecipient};
use postroad_message::DEFAULT_HEADER_LIMIT;
use postroad_metrics::Metrics;
use postroad_msa::identity::FromRule;
use postroad_msa::rules::HeaderRules;
use postroad_queue_client::{AdmitRequest, QueueError, QueueNodes};
use postroad_reply::Severity;
use postroad_smtp::HeloName;
use postroad_smtp_session::{OutgoingMail, OutgoingRecipient, Stage};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::fault::Fault;
use crate::terminal::Terminal;
use arguments::{Hold, Job, Order};
use server::Local;
use status::NotSent;
use text::Lines;

/// As `msa.future_release` has it by default.
const LONGEST_HOLD: Duration = Duration::from_secs(30 * 86_400);
/// Octets read at a time.
const READ: usize = 64 << 10;

/// `[sendmail]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whose mail it is, by the user who calls.
    pub accounts: BTreeMap<String, String>,
    /// Whose it is of all other users. Default: the user's name at `common.domain`.
    pub account: Option<String>,
    /// Of whom a mail may say that it is from.
    pub from: FromRule,
    /// Octets of content.
    pub size_limit: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            accounts: BTreeMap::new(),
            account: None,
            from: FromRule::default(),
            size_limit: ByteSize::mib(50),
        }
    }
}

impl Config {
    /// The first thing in the section that reads well and cannot work.
    pub fn check(&self) -> Option<String> {
        let mut accounts = self.accounts.values().chain(&self.account);
        accounts.find_map(|account| {
            let error = Mailbox::parse(account).err()?;
            Some(format!("{account:?}: {error}"))
        })
    }
}

/// Carries out what stands behind `sendmail`.
pub fn carry_out(
    words: &[OsString],
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let words = words.iter().map(|word| word.to_string_lossy().into_owned());
    let job = match arguments::parse(words) {
        Ok(job) => job,
        Err(why) => return ended(Err(NotSent::new(status::USAGE, why)), terminal),
    };
    let result = match job {
        Job::Nothing => Ok(()),
        Job::ShowQueue => return crate::carry_out_as(&["postroad", "queue", "list"], terminal),
        Job::Send(order) => {
            let is_verbose = order.is_verbose;
            let sent = Site::open(config).and_then(|site| site.send(order));
            sent.map(|said| {
                if is_verbose {
                    terminal.line(said);
                }
            })
        }
        Job::Smtp(order) => Site::open(config).and_then(|site| site.speak(order)),
    };
    ended(result, terminal)
}

fn ended(result: Result<(), NotSent>, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let Err(not_sent) = result else {
        return Ok(());
    };
    for line in not_sent.why.lines() {
        terminal.say(format_args!("sendmail: {line}"));
    }
    Err(Fault::Exit(not_sent.status))
}

/// This host, and who calls.
struct Site {
    common: CommonConfig,
    config: Config,
    user: String,
    account: Mailbox,
    domain: Domain,
}

impl Site {
    fn open(config: Option<&Path>) -> Result<Self, NotSent> {
        let bad = |error: &dyn std::fmt::Display| NotSent::new(status::CONFIG, error);
        let path = config.unwrap_or(Path::new(DEFAULT_CONFIG_FILE));
        let file = ConfigFile::load(path).map_err(|error| bad(&error))?;
        let mut common = file.common().map_err(|error| bad(&error))?;
        let config: Config = file.section("sendmail").map_err(|error| bad(&error))?;
        // The directory file holds what passwords are checked by: it is not for users.
        common.accounts.from = AccountsFrom::Queue;
        let user = user_name();
        let domain = common
            .domain
            .clone()
            .unwrap_or_else(|| common.hostname.clone());
        let account = match config.accounts.get(&user).or(config.account.as_ref()) {
            Some(account) => Mailbox::parse(account).map_err(|error| {
                let place = file.place("sendmail.accounts");
                bad(&format!("{place}: {account:?}: {error}"))
            })?,
            None => header::qualified(&user, &domain).map_err(|error| bad(&error))?,
        };
        Ok(Self {
            common,
            config,
            user,
            account,
            domain,
        })
    }

    /// What was said as the mail was taken.
    fn send(self, order: Order) -> Result<String, NotSent> {
        let mail = Spooled::read(
            std::io::stdin().lock(),
            order.ignore_dots,
            self.config.size_limit,
        )?;
        let mut recipients = self.recipients(&order)?;
        if order.from_header {
            let found = header::recipients(&mail.header, &self.domain);
            recipients.extend(found.map_err(|why| NotSent::new(status::DATA, why))?);
        }
        let mut seen = std::collections::HashSet::new();
        recipients.retain(|recipient| seen.insert(recipient.folded()));
        if recipients.is_empty() {
            let why = "nobody to send to: name recipients, or use -t for those of the header";
            return Err(NotSent::new(status::USAGE, why));
        }
        let outgoing = self.outgoing(&order, &recipients, &mail)?;
        let helo = HeloName::parse(&self.user)
            .ok_or_else(|| NotSent::new(status::SOFTWARE, "a user without a name"))?;
        runtime()?.block_on(async {
            let rests = rest(order.hold)?;
            let local = self.local(order.full_name, rests)?;
            admitted(&local, &recipients, mail.size).await?;
            known(&local.accounts, &recipients).await?;
            let (ours, theirs) = UnixStream::pair().map_err(fault)?;
            let (_, sent) = tokio::join!(
                local.serve(theirs),
                client::send(ours, helo, outgoing, mail.file)
            );
            sent
        })
    }

    /// SMTP on standard input and output.
    fn speak(self, order: Order) -> Result<(), NotSent> {
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let local = self.local(order.full_name, rest(order.hold)?)?;
            let (ours, theirs) = UnixStream::pair().map_err(fault)?;
            let (mut heard, mut said) = ours.into_split();
            // Who has said QUIT need not close their end.
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut said).await;
            });
            let mut stdout = tokio::io::stdout();
            let (_, copied) = tokio::join!(
                local.serve(theirs),
                tokio::io::copy(&mut heard, &mut stdout)
            );
            copied.map_err(fault)?;
            stdout.flush().await.map_err(fault)
        });
        // A thread that waits for standard input would keep the process.
        runtime.shutdown_background();
        result
    }

    fn local(&self, full_name: Option<String>, rests: Duration) -> Result<Local, NotSent> {
        let unreachable = |error: &dyn std::fmt::Display| NotSent::new(status::CONFIG, error);
        let queue = QueueNodes::configured(&self.common).map_err(|error| unreachable(&error))?;
        let accounts = Accounts::configured(&self.common, &Metrics::new("sendmail"));
        Ok(Local {
            account: self.account.clone(),
            user: self.user.clone(),
            full_name,
            host: self.common.hostname.clone(),
            domain: self.domain.clone(),
            rules: HeaderRules {
                from: self.config.from,
                undo: rests,
                ..HeaderRules::default()
            },
            size_limit: self.config.size_limit.as_u64(),
            accounts: accounts.map_err(|error| unreachable(&error))?,
            queue: Arc::new(queue),
        })
    }

    fn recipients(&self, order: &Order) -> Result<Vec<Mailbox>, NotSent> {
        // Programs write several into one word, too.
        let words = order.recipients.iter().flat_map(|word| word.split(','));
        let words = words.filter(|word| !word.trim().is_empty());
        let recipients = words.map(|word| header::qualified(word, &self.domain));
        let recipients: Result<_, String> = recipients.collect();
        recipients.map_err(|why| NotSent::new(status::DATA, why))
    }

    fn outgoing(
        &self,
        order: &Order,
        recipients: &[Mailbox],
        mail: &Spooled,
    ) -> Result<OutgoingMail, NotSent> {
        let reverse_path = match order.sender.as_deref() {
            None => self.account.clone().into(),
            Some("" | "<>") => ReversePath::Null,
            Some(sender) => header::qualified(sender, &self.domain)
                .map_err(|why| NotSent::new(status::DATA, format!("-f {why}")))?
                .into(),
        };
        let needs_utf8 = |mailbox: &Mailbox| mailbox.needs_smtputf8();
        let smtputf8 =
            reverse_path.mailbox().is_some_and(needs_utf8) || recipients.iter().any(needs_utf8);
        let recipient = |recipient: &Mailbox| OutgoingRecipient {
            forward_path: ForwardPath::Mailbox(recipient.clone()),
            notify: order.notify,
            orcpt: None::<OriginalRecipient>,
        };
        Ok(OutgoingMail {
            reverse_path,
            recipients: recipients.iter().map(recipient).collect(),
            size: mail.size,
            body: match mail.eight_bit {
                true => BodyKind::EightBitMime,
                false => BodyKind::SevenBit,
            },
            smtputf8,
            utf8_header: mail.eight_bit,
            requiretls: false,
            ret: order.ret,
            envid: order.envid.clone(),
            priority: 0,
            deliver_by: None,
            auth: None,
        })
    }
}

/// How long a mail rests from now on.
fn rest(hold: Option<Hold>) -> Result<Duration, NotSent> {
    let rests = match hold {
        None => Duration::ZERO,
        Some(Hold::For(time)) => time,
        Some(Hold::Until(at)) => at.since(SystemTime::now().into()),
    };
    match rests > LONGEST_HOLD {
        true => Err(NotSent::new(status::USAGE, "a mail rests up to 30 days")),
        false => Ok(rests),
    }
}

/// Whether the queue would take it from us at all: what it says is told better than by SMTP.
async fn admitted(local: &Local, recipients: &[Mailbox], size: u64) -> Result<(), NotSent> {
    let request = AdmitRequest {
        tenant: "default".to_owned(),
        account: Some(local.account.to_string()),
        size: Some(size),
        recipients: recipients.to_vec(),
    };
    local.queue.admit(request).await.map_err(|error| match error {
        QueueError::NotAllowed(_) => NotSent::new(
            status::NOT_ALLOWED,
            format!(
                "the queue takes no mail of {} from this user; an operator may allow it in queued.listen.unix_roles",
                local.account
            ),
        ),
        QueueError::Refused(reply) if reply.severity() == Severity::Permanent => {
            NotSent::new(client::status_of(Stage::Mail, &reply), reply)
        }
        error => NotSent::new(status::TRY_AGAIN, format!("{error}; nothing was sent")),
    })
}

/// All recipients, or none: a program that tries again would send to some twice.
async fn known(accounts: &Accounts, recipients: &[Mailbox]) -> Result<(), NotSent> {
    let mut refused: Option<NotSent> = None;
    for recipient in recipients {
        let path = ForwardPath::Mailbox(recipient.clone());
        let resolved = accounts.resolve(&path).await;
        let resolved = resolved.map_err(|away| NotSent::new(status::TRY_AGAIN, away))?;
        if resolved.resolution == Resolution::ForeignDomain {
            continue;
        }
        if let Err(reply) = resolved.resolution.into_local() {
            let why = format!("<{recipient}>: {reply}");
            let status = client::status_of(Stage::Rcpt, &reply);
            match &mut refused {
                Some(refused) => refused.why = format!("{}\n{why}", refused.why),
                None => refused = Some(NotSent::new(status, why)),
            }
        }
    }
    refused.map_or(Ok(()), Err)
}

/// A mail that was read to its end.
struct Spooled {
    file: File,
    header: Vec<u8>,
    size: u64,
    eight_bit: bool,
}

impl Spooled {
    fn read(mut from: impl Read, ignore_dots: bool, limit: ByteSize) -> Result<Self, NotSent> {
        let unread = |error: std::io::Error| {
            NotSent::new(status::IO, format!("the mail cannot be read: {error}"))
        };
        let full = |error: std::io::Error| {
            NotSent::new(
                status::TRY_AGAIN,
                format!("the mail cannot be put aside: {error}"),
            )
        };
        let mut file = tempfile::tempfile().map_err(full)?;
        let (mut lines, mut head, mut size) = (Lines::new(ignore_dots), Vec::new(), 0_u64);
        let (mut octets, mut made) = (vec![0; READ], Vec::new());
        loop {
            let count = match from.read(&mut octets) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.map_err(unread)?,
            };
            match count {
                0 => lines.finish(&mut made),
                count => lines.push(octets.get(..count).unwrap_or_default(), &mut made),
            }
            if head.len() < DEFAULT_HEADER_LIMIT {
                head.extend_from_slice(&made);
            }
            size += u64::try_from(made.len()).unwrap_or(u64::MAX);
            if size > limit.as_u64() {
                let why = format!("the mail is larger than {limit} (sendmail.size_limit)");
                return Err(NotSent::new(status::UNAVAILABLE, why));
            }
            file.write_all(&made).map_err(full)?;
            made.clear();
            if count == 0 || lines.is_over() {
                break;
            }
        }
        if lines.nul {
            return Err(NotSent::new(
                status::DATA,
                "the mail has a NUL, which no mail may have",
            ));
        }
        Ok(Self {
            file,
            header: text::header_of(&head, DEFAULT_HEADER_LIMIT).unwrap_or(head),
            size,
            eight_bit: lines.eight_bit,
        })
    }
}

/// The name of the user who calls, by the kernel and the system's list of users.
fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    postroad_net::user_name(uid).unwrap_or_else(|| format!("uid{uid}"))
}

fn runtime() -> Result<tokio::runtime::Runtime, NotSent> {
    crate::runtime().map_err(|error| NotSent::new(status::SOFTWARE, error))
}

fn fault(error: std::io::Error) -> NotSent {
    NotSent::new(status::SOFTWARE, error)
}
