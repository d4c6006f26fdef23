//! What is asked: a mail, and how it comes.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use postroad_address::{ForwardPath, Mailbox, ReversePath};
use postroad_directory::{Directory, Resolution};
use postroad_envelope::BodyKind;
use postroad_message::split;
use postroad_smtp_session::{OutgoingMail, OutgoingRecipient};

use crate::compose::with_crlf;
use crate::fault::Fault;

/// Octets of `--eml`.
const LARGEST: u64 = 256 << 20;

/// `postroad explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The sender of the envelope; "<>" for a report
    #[arg(long, value_name = "ADDRESS")]
    pub from: String,
    /// Who is to get it; may be repeated
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub to: Vec<String>,
    /// As a client with this IP address brings it: to port 25 or, with --account, to submission
    #[arg(long, value_name = "IP")]
    pub ip: Option<IpAddr>,
    /// As this account submits it [default: the account that --from belongs to, if it is one of ours and --ip is not given]
    #[arg(long, value_name = "ADDRESS")]
    pub account: Option<String>,
    /// The listener it comes to [default: the first one]
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// The mail itself, header and all; "-" reads standard input
    #[arg(long, value_name = "FILE")]
    pub eml: Option<PathBuf>,
    /// Of this tenant, whatever the directory says
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// With this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// With this fact, as routes ask for it; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = fact)]
    pub fact: Vec<(String, String)>,
    /// The sender demands TLS all the way (REQUIRETLS, RFC 8689)
    #[arg(long)]
    pub requiretls: bool,
    /// Fetch policies of MTA-STS that are not known here; they are kept nowhere
    #[arg(long)]
    pub fetch: bool,
    /// Leave a queue that runs here alone: nothing is said of suppressed recipients and of what it learned of sites
    #[arg(long)]
    pub no_queue: bool,
}

fn fact(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, such as list_id=news.example.org".to_owned()),
    }
}

/// A mail, and how it comes.
pub struct Question {
    /// MAIL FROM.
    pub from: ReversePath,
    /// RCPT TO.
    pub to: Vec<ForwardPath>,
    /// Who brings it.
    pub way: Way,
    /// Whence.
    pub ip: Option<IpAddr>,
    /// The content, with CRLF.
    pub content: Bytes,
    /// It was given; else it is a header without a mail.
    pub is_given: bool,
    /// What holds whatever was found.
    pub given: Given,
}

/// What the command line says of a mail beside its envelope.
#[derive(Debug, Default)]
pub struct Given {
    /// The listener it comes to.
    pub listener: Option<String>,
    /// Instead of the one of the directory.
    pub tenant: Option<String>,
    /// More tags.
    pub tags: Vec<String>,
    /// More facts.
    pub facts: BTreeMap<String, String>,
    /// REQUIRETLS.
    pub requiretls: bool,
}

/// Who brings a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// An account that logged in, by its name.
    Account(String),
    /// Anybody, to port 25.
    World,
    /// The queue itself: a report.
    Report,
}

impl Question {
    /// What the command line asks.
    pub fn read(arguments: ExplainArguments, directory: &Directory) -> Result<Self, Fault> {
        let from = sender(&arguments.from)?;
        let to = arguments.to.iter().map(|to| recipient(to));
        let to = to.collect::<Result<Vec<_>, Fault>>()?;
        let way = way(&arguments, &from, directory)?;
        let content = arguments.eml.as_deref().map(read).transpose()?;
        let is_given = content.is_some();
        Ok(Self {
            content: content.unwrap_or_else(|| header_for(&from)),
            is_given,
            way,
            from,
            to,
            ip: arguments.ip,
            given: Given {
                listener: arguments.listener,
                tenant: arguments.tenant,
                tags: arguments.tag,
                facts: arguments.fact.into_iter().collect(),
                requiretls: arguments.requiretls,
            },
        })
    }

    /// The mail as a client says it. That it demands TLS is added later: here is no TLS under which it could be said.
    pub fn outgoing(&self) -> OutgoingMail {
        let (header, _) = split(&self.content);
        let utf8_header = !header.is_ascii();
        let of_from = self.from.mailbox().is_some_and(Mailbox::needs_smtputf8);
        let mut mailboxes = self.to.iter().filter_map(ForwardPath::mailbox);
        let of_to = mailboxes.any(Mailbox::needs_smtputf8);
        OutgoingMail {
            reverse_path: self.from.clone(),
            recipients: self
                .to
                .iter()
                .map(|to| OutgoingRecipient {
                    forward_path: to.clone(),
                    notify: None,
                    orcpt: None,
                })
                .collect(),
            size: u64::try_from(self.content.len()).unwrap_or(u64::MAX),
            body: match self.content.is_ascii() {
                true => BodyKind::SevenBit,
                false => BodyKind::EightBitMime,
            },
            smtputf8: utf8_header || of_from || of_to,
            utf8_header,
            requiretls: false,
            ret: None,
            envid: None,
            priority: 0,
            deliver_by: None,
            auth: None,
        }
    }
}

fn sender(text: &str) -> Result<ReversePath, Fault> {
    let bare = bare(text);
    if bare.is_empty() {
        return Ok(ReversePath::Null);
    }
    ReversePath::parse(bare)
        .map_err(|error| usage("--from", text, &error, "alice@example.org, or \"<>\""))
}

fn recipient(text: &str) -> Result<ForwardPath, Fault> {
    ForwardPath::parse(bare(text)).map_err(|error| usage("--to", text, &error, "bob@example.net"))
}

fn bare(text: &str) -> &str {
    let inner = text
        .strip_prefix('<')
        .and_then(|text| text.strip_suffix('>'));
    inner.unwrap_or(text)
}

fn usage(flag: &str, text: &str, error: &dyn std::fmt::Display, like: &str) -> Fault {
    Fault::Usage(format!(
        "{flag} {text:?}: {error}; write an address such as {like}"
    ))
}

fn way(
    arguments: &ExplainArguments,
    from: &ReversePath,
    directory: &Directory,
) -> Result<Way, Fault> {
    if let Some(account) = &arguments.account {
        let mailbox = Mailbox::parse(account)
            .map_err(|error| usage("--account", account, &error, "alice@example.org"))?;
        return Ok(Way::Account(mailbox.folded()));
    }
    if arguments.ip.is_some() {
        return Ok(Way::World);
    }
    let Some(mailbox) = from.mailbox() else {
        return Ok(Way::Report);
    };
    let Resolution::Local(leads_to) = directory.resolve(&ForwardPath::Mailbox(mailbox.clone()))
    else {
        return Ok(Way::World);
    };
    Ok(match leads_to.as_slice() {
        [only] if only.local => Way::Account(only.address.folded()),
        _ => Way::World,
    })
}

/// What stands for a mail that was not given.
fn header_for(from: &ReversePath) -> Bytes {
    let author = from.mailbox().map(|mailbox| format!("From: {mailbox}\r\n"));
    Bytes::from(format!("{}\r\n", author.unwrap_or_default()))
}

fn read(path: &Path) -> Result<Bytes, Fault> {
    let unread = |error: std::io::Error| {
        let name = path.display();
        Fault::NotDone(format!(
            "--eml {name}: {error}; name a file that this user can read"
        ))
    };
    let mut octets = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(LARGEST + 1).read_to_end(&mut octets),
        false => {
            let file = std::fs::File::open(path).map_err(unread)?;
            file.take(LARGEST + 1).read_to_end(&mut octets)
        }
    };
    read.map_err(unread)?;
    if octets.len() as u64 > LARGEST {
        return Err(Fault::NotDone(format!(
            "--eml {}: is larger than {} MiB; no mail is",
            path.display(),
            LARGEST >> 20
        )));
    }
    Ok(Bytes::from(with_crlf(&octets)))
}
