//! What can be typed.

mod mailboxes;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use postroad_address::Mailbox;
use postroad_counters::Key;
use postroad_envelope::{EventKind, NextHop};

pub use mailboxes::{AccountVerb, MailboxVerb};

use crate::conformance::ConformanceVerb;
use crate::migrate::MigrateVerb;
use crate::pki::PkiVerb;
use crate::queue::ClassArgument;
use crate::queue::counters::{CountersArguments, UnbanArguments};
use crate::queue::filter::{FilterArguments, SelectionArguments};
use crate::queue::usage::UsageArguments;
use crate::setup::SetupArguments;

/// Postroad carries mail: submission, transfer and delivery around one durable queue.
#[derive(Debug, Parser)]
#[command(
    name = "postroad",
    version,
    max_term_width = 100,
    after_help = "New here? Try: postroad run --demo"
)]
pub struct Cli {
    /// The configuration; without it that of a running demo, else /etc/postroad/postroad.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run everything in one process, for trying and testing; --demo needs no configuration
    Run(RunArguments),
    /// Send a mail from an account of the demo
    Send(SendArguments),
    /// Send a mail of a program of this host, as sendmail(8) does: -t -i -f -F -oi -bs -bp -N -R -V; exit statuses of sysexits
    #[command(disable_help_flag = true)]
    Sendmail {
        /// Flags and recipients, as programs write them for sendmail
        #[arg(
            value_name = "FLAG|RECIPIENT",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        words: Vec<std::ffi::OsString>,
    },
    /// Accounts of the directory
    #[command(subcommand)]
    Account(AccountVerb),
    /// The mails in the queue
    Queue {
        /// Of a queue of several nodes only this one, as `common.queue` names it: its host, or the path of its socket
        #[arg(long, global = true, value_name = "NAME")]
        node: Option<String>,
        /// What to do.
        #[command(subcommand)]
        verb: Box<QueueVerb>,
    },
    /// Show what happened to a mail, on all hosts, also for some time after it is done
    Trace {
        /// Of a queue of several nodes ask only this one
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Of what.
        #[command(flatten)]
        arguments: TraceArguments,
    },
    /// The agents that take mail from the queue
    Agent {
        /// Of a queue of several nodes only at this one
        #[arg(long, global = true, value_name = "NAME")]
        node: Option<String>,
        /// What to do.
        #[command(subcommand)]
        verb: AgentVerb,
    },
    /// Ask the agents how they stand; exit status 1 if one is not ready
    Health(HealthArguments),
    /// Check the configuration, the directory and every file they name
    Check(CheckArguments),
    /// Make what a first start needs: configuration, directory, first account, certificates; what is there stays as it is
    Setup(SetupArguments),
    /// Certificates that agents on different hosts show each other
    #[command(subcommand)]
    Pki(PkiVerb),
    /// Read the stored mail of an account
    #[command(subcommand)]
    Mailbox(MailboxVerb),
    /// Come here from another mail server
    #[command(subcommand)]
    Migrate(MigrateVerb),
    /// Try another's queue or agent against the contract (proto/README.md), rule by rule; exit status 1 if one does not hold
    #[command(subcommand)]
    Conformance(ConformanceVerb),
    /// Print completions of this command for a shell
    Completions {
        /// Which one
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of all programs into a folder, for who packages them
    #[command(hide = true)]
    Man {
        /// It must be there
        folder: PathBuf,
    },
}

/// `postroad run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Make a configuration, accounts and a certificate, listen on loopback only, and carry a first mail
    #[arg(long)]
    pub demo: bool,
    /// Where the demo keeps everything [default: ~/.local/share/postroad-demo]
    #[arg(long, requires = "demo", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The demo's ports are N+25, N+587, N+465 and N+24
    #[arg(long, requires = "demo", value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u16).range(0..=64_948))]
    pub port_base: u16,
    /// Let the demo send mail for other domains to the world
    #[arg(long, requires = "demo")]
    pub relay: bool,
    /// End the demo once its first mail is delivered
    #[arg(long, requires = "demo")]
    pub exit_after_first_mail: bool,
}

/// `postroad send`.
#[derive(Debug, Args)]
pub struct SendArguments {
    /// The text; "-" reads standard input
    #[arg(value_name = "TEXT")]
    pub text: Option<String>,
    /// The account it is sent from, with the password the demo made [default: alice]
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// Who shall get it; may be repeated [default: bob]
    #[arg(long, value_name = "ADDRESS")]
    pub to: Vec<String>,
    /// The subject
    #[arg(long, default_value = "Hello from Postroad")]
    pub subject: String,
    /// A whole mail, header and all, instead of a text
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub file: Option<PathBuf>,
}

/// `postroad check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Only what these agents use; all four if none is named
    #[arg(value_name = "AGENT", value_parser = crate::health::AGENTS)]
    pub agents: Vec<String>,
    /// Show every value in force and where it was written
    #[arg(long)]
    pub print: bool,
}

/// `postroad health`.
#[derive(Debug, Args)]
pub struct HealthArguments {
    /// The agents of this host; all four if none is named
    #[arg(value_name = "AGENT", value_parser = crate::health::AGENTS)]
    pub agents: Vec<String>,
}

/// `postroad queue …`.
#[derive(Debug, Subcommand)]
pub enum QueueVerb {
    /// List mails, oldest first
    List(ListArguments),
    /// Show a mail: where each recipient stands, and what happened so far
    Show {
        /// The mail: its id or the beginning of it, 8 characters or more
        id: String,
        /// Write the content to a file instead, as it would leave: with what agents add to its header; "-" or none prints it
        #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
        content: Option<PathBuf>,
    },
    /// The same as `postroad trace`
    Trace(TraceArguments),
    /// Show what waits for each destination, or for each site
    Stats {
        /// Most lines to show; those with the most mail come first
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// By the mail hosts behind the destinations, as far as they are known
        #[arg(long)]
        by_site: bool,
    },
    /// Show what tenants, accounts and recipient domains have in the queue, against their quotas
    Usage(UsageArguments),
    /// Show whom agents refuse for a time, since too much of them failed
    Bans(CountersArguments),
    /// Lift bans
    Unban(UnbanArguments),
    /// Show what all copies of an agent count together: failed log-ins, recipients that accounts have written to
    Counters(CountersArguments),
    /// Let counters begin anew
    ClearCounter {
        /// As `counters --json` shows it: a kind, a slash, and of whom, such as sent/alice@example.org
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<Key>,
    },
    /// Try delayed mails now
    Retry(ChangeArguments),
    /// Standing rules that hold mail as it comes
    #[command(subcommand)]
    Rule(RuleVerb),
    /// Keep mails back until they are released
    Hold(ChangeArguments),
    /// Let held mails go
    Release(ChangeArguments),
    /// Give mails up; their senders get a report with the reason
    Fail(DestroyArguments),
    /// Give mails up as if their time were over; their senders get a report
    Expire(DestroyArguments),
    /// Remove mails without telling their senders
    Drop(DestroyArguments),
    /// Send mails another way, from now on
    Reroute {
        /// Which way
        #[arg(long)]
        class: ClassArgument,
        /// The host to hand them to, with its port; LMTP needs one, or a socket of the host of the mta: unix:/path
        #[arg(long, value_name = "HOST:PORT", required_if_eq("class", "lmtp"))]
        next_hop: Option<NextHop>,
        /// Which mails.
        #[command(flatten)]
        change: ChangeArguments,
    },
    /// Send a retired mail again, as a new mail with an id of its own, if its content is kept
    Resend(ResendArguments),
    /// Forget retired mails for good, now: no octet of sender, recipients, header or content stays in the queue's folder
    Purge(DestroyArguments),
    /// Say which of the mails that are due go first
    Priority {
        /// -9 to 9; the greatest goes first, ordinary mail has 0
        #[arg(value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i8).range(-9..=9))]
        priority: i8,
        /// Which mails.
        #[command(flatten)]
        change: ChangeArguments,
    },
    /// Read all of the queue's files and compare them; exit status 1 if something is wrong
    Verify(FolderArguments),
    /// Put the index of a queue that does not run aside; its next start builds another from the journal
    Rebuild(FolderArguments),
    /// Let a queue that does not run write the newest format; releases that do not know it cannot go on with it then
    UpgradeFormat {
        /// Which queue.
        #[command(flatten)]
        folder: FolderArguments,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Copy the queue as it is now into a new folder; mail goes on meanwhile
    Backup {
        /// Where: a new folder or an empty one
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Make a queue of a backup: checks all of it first; the mail is held at the next start
    Restore(RestoreArguments),
    /// Write the mail of a queue that does not run into a new folder, as an mbox and a line of JSON for each mail
    Export(ExportArguments),
    /// Take the mail of an export into the queue as it stood; what the queue knows already is not taken twice
    Import(ImportArguments),
}

/// The folder of a queue that does not run.
#[derive(Debug, Args)]
pub struct FolderArguments {
    /// Work on the files of the configured queue while it does not run
    #[arg(long)]
    pub offline: bool,
    /// Work on the files in this folder, whose queue does not run
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `postroad queue restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The backup
    #[arg(value_name = "DIR")]
    pub from: PathBuf,
    /// Where: a new folder or an empty one, for queued.folder
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// Do not hold the mail at the next start, though some of it may have been delivered after the backup
    #[arg(long)]
    pub release: bool,
}

/// `postroad queue export`.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Only these: ids or their beginnings, 8 characters or more
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Only what fits; without it, all.
    #[command(flatten)]
    pub parts: FilterArguments,
    /// The folder of the queue; without it, that of the configuration
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where: a new folder or an empty one
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
}

/// `postroad queue import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The export
    #[arg(value_name = "FOLDER")]
    pub from: PathBuf,
    /// The folder is a queue of Postfix (/var/spool/postfix or a copy), or has files that `postcat -q` printed, one for each mail
    #[arg(long)]
    pub postfix: bool,
    /// The time zone of the times that `postcat` printed [default: that of this host]
    #[arg(long, value_name = "NAME", requires = "postfix")]
    pub zone: Option<String>,
    /// Hold all that is still to be sent until it is released, not only what was held before
    #[arg(long)]
    pub hold: bool,
    /// Change nothing, only say how many mails it would be
    #[arg(long)]
    pub dry_run: bool,
}

/// `postroad queue rule …`.
#[derive(Debug, Subcommand)]
pub enum RuleVerb {
    /// Add a rule, or change the one of that name
    Put(Box<RuleArguments>),
    /// Show the rules, and how many mails each holds now
    List,
    /// Remove a rule; what it holds stays held, unless --release is given
    Remove {
        /// Its name
        name: String,
        /// Release what it holds
        #[arg(long)]
        release: bool,
        /// Change nothing, only say how many mails would be released
        #[arg(long, requires = "release")]
        dry_run: bool,
    },
}

/// `postroad queue rule put`.
#[derive(Debug, Args)]
pub struct RuleArguments {
    /// What it is called: letters, digits, dots, hyphens, underscores
    pub name: String,
    /// Every mail
    #[arg(long)]
    pub all: bool,
    /// Which mail.
    #[command(flatten)]
    pub parts: FilterArguments,
    /// Why, for the record
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    /// Hold what is in the queue already, too
    #[arg(long)]
    pub also_present: bool,
    /// Change nothing, only say how many mails in the queue it would hold
    #[arg(long)]
    pub dry_run: bool,
}

/// `postroad agent …`.
#[derive(Debug, Subcommand)]
pub enum AgentVerb {
    /// Show the agents that are connected, what they hold and what they have done
    List,
    /// Give an agent no more mail until it connects again, and let it finish what it holds
    Drain {
        /// Its name, as `agent list` shows it; NAME/HOST is one of several copies
        name: String,
    },
}

/// What every change of mails takes.
#[derive(Debug, Args)]
pub struct ChangeArguments {
    /// Which mails.
    #[command(flatten)]
    pub which: SelectionArguments,
    /// Change nothing, only say how many mails it would be
    #[arg(long)]
    pub dry_run: bool,
    /// Why: for the log, the timeline, and the sender if the mail fails
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
}

/// What a change takes after which mails are gone.
#[derive(Debug, Args)]
pub struct DestroyArguments {
    /// What every change takes.
    #[command(flatten)]
    pub change: ChangeArguments,
    /// Do not ask before more than one mail is gone
    #[arg(long)]
    pub yes: bool,
}

/// `postroad queue resend`.
#[derive(Debug, Args)]
pub struct ResendArguments {
    /// The mail: its id or the beginning of it, 8 characters or more
    #[arg(value_name = "ID")]
    pub id: String,
    /// To this address only; may be repeated. Without it the mail goes to all who were to get it the first time, also to
    /// those who got it. Those who are named are shown in the Resent-To of the mail
    #[arg(long, value_name = "ADDRESS")]
    pub to: Vec<Mailbox>,
    /// This way instead of the one the queue would choose
    #[arg(long)]
    pub class: Option<ClassArgument>,
    /// The host to hand it to, with its port; LMTP needs one, or a socket of the host of the mta: unix:/path
    #[arg(
        long,
        value_name = "HOST:PORT",
        requires = "class",
        required_if_eq("class", "lmtp")
    )]
    pub next_hop: Option<NextHop>,
    /// Change nothing, only say whether it can be done, and to whom it would go
    #[arg(long)]
    pub dry_run: bool,
    /// Why: for the log and the timelines of both mails
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
}

/// `postroad trace`.
#[derive(Debug, Args)]
pub struct TraceArguments {
    /// The mail: its id or, while it is in the queue, the beginning of it; a Message-ID; or the address of a recipient.
    /// None, with --follow: every mail
    #[arg(
        value_name = "ID|MESSAGE-ID|RECIPIENT",
        required_unless_present = "follow"
    )]
    pub what: Option<String>,
    /// Go on telling what happens, a line for each event, until interrupted
    #[arg(long)]
    pub follow: bool,
    /// Only events of this kind; may be repeated
    #[arg(long, value_name = "KIND", value_parser = event_kind())]
    pub kind: Vec<EventKind>,
    /// With a Message-ID or recipient: how many mails, the newest
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub limit: u32,
}

/// `postroad queue list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Which mails.
    #[command(flatten)]
    pub which: FilterArguments,
    /// Begin with the newest
    #[arg(long)]
    pub newest_first: bool,
    /// Go on behind this mail
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// Most mails to list
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,
}

fn event_kind() -> impl TypedValueParser<Value = EventKind> {
    let words = EventKind::ALL.map(EventKind::as_str);
    // It lets no other word through.
    PossibleValuesParser::new(words).map(|word| {
        let known = EventKind::ALL.into_iter();
        let mut known = known.filter(|kind| kind.as_str() == word);
        known.next().unwrap_or(EventKind::Accepted)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }
}
