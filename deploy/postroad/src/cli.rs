//! What can be typed.

mod mailboxes;
mod queue;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use postroad_envelope::EventKind;

pub use mailboxes::{AccountVerb, AppPasswordVerb, MailboxVerb, PasswordOptions};
pub use queue::*;

use crate::conformance::ConformanceVerb;
use crate::explain::ExplainArguments;
use crate::migrate::MigrateVerb;
use crate::pki::PkiVerb;
use crate::rehearse::RehearseVerb;
use crate::sendmail::withdraw::WithdrawArguments;
use crate::setup::SetupArguments;
use crate::tlsrpt::TlsrptArguments;

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
    /// Send a mail of a program of this host, as sendmail(8) does: -t -i -f -F -oi -bs -bp -N -R -V -v, also --hold-for TIME and --hold-until TIME; exit statuses of sysexits
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
    /// Take back mail that rests or was not tried yet, as the account of this user (msa.undo, sendmail --hold-for)
    Withdraw(WithdrawArguments),
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
    /// Tell what would become of a mail and why, with nothing sent; exit status 1 if it would be refused, or no host could be tried
    Explain(Box<ExplainArguments>),
    /// Make what a first start needs: configuration, directory, first account, certificates; what is there stays as it is
    Setup(SetupArguments),
    /// Show how TLS went with the mail hosts of the world, as this host's MTA counted it for reports (RFC 8460)
    Tlsrpt(TlsrptArguments),
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
    /// Try sending without the world: a mail host of this machine with any fault you write down
    #[command(subcommand)]
    Rehearse(RehearseVerb),
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
