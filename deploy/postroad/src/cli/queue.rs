//! What can be typed behind `postroad queue`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use postroad_address::Mailbox;
use postroad_counters::Key;
use postroad_daemon::Interval;
use postroad_envelope::NextHop;

use super::TraceArguments;
use crate::queue::ClassArgument;
use crate::queue::counters::{CountersArguments, UnbanArguments};
use crate::queue::filter::{FilterArguments, SelectionArguments};
use crate::queue::sites::SitesArguments;
use crate::queue::usage::UsageArguments;

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
    /// Show what the mail hosts behind destinations take, and which of them are left alone for now
    Sites(SitesArguments),
    /// Try a site that is left alone for now, or is down, at once
    Lift {
        /// The site, or one of its recipient domains, as `sites` shows it
        #[arg(value_name = "SITE|DOMAIN")]
        name: String,
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
    /// Try mails now that are delayed, or that wait for a site that is left alone or down
    Retry(RetryArguments),
    /// Standing rules that hold mail as it comes
    #[command(subcommand)]
    Rule(RuleVerb),
    /// Recipients to whom mail is not tried, since a host said that there is no such mailbox
    #[command(subcommand)]
    Suppression(SuppressionVerb),
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

/// `postroad queue suppression …`.
#[derive(Debug, Subcommand)]
pub enum SuppressionVerb {
    /// Show whom mail is not tried to, since when and why
    List,
    /// Fail mail to this address at once, from now on
    Add {
        /// The recipient
        address: Mailbox,
        /// Whose mail; other tenants' is tried
        #[arg(long, default_value = "default")]
        tenant: String,
        /// Only mail of this account
        #[arg(long)]
        account: Option<String>,
        /// Why, for the report to senders
        #[arg(long, default_value = "entered by an operator")]
        reason: String,
        /// How long, such as 90d; until it is released, if it is not given
        #[arg(long = "for", value_name = "TIME")]
        time: Option<Interval>,
    },
    /// Try mail to this address again
    Release {
        /// The recipient
        address: Mailbox,
        /// Only mail of this tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Only what is for this account alone
        #[arg(long)]
        account: Option<String>,
    },
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

/// `postroad queue retry`.
#[derive(Debug, Args)]
pub struct RetryArguments {
    /// To any destination of this site; the site, or one of its recipient domains, as `sites` shows it
    #[arg(long, value_name = "SITE|DOMAIN")]
    pub site: Option<String>,
    /// What every change takes.
    #[command(flatten)]
    pub change: ChangeArguments,
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
