//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use postroad_address::Mailbox;

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
    /// Accounts of the directory
    #[command(subcommand)]
    Account(AccountVerb),
    /// Check the configuration, the directory and every file they name
    Check(CheckArguments),
    /// Read the stored mail of an account
    #[command(subcommand)]
    Mailbox(MailboxVerb),
}

/// `postroad account …`.
#[derive(Debug, Subcommand)]
pub enum AccountVerb {
    /// Add an account to the directory file; its domain must be there
    Add {
        /// Its address, which is also the name to log in with
        address: Mailbox,
        /// Make a password and print it, instead of asking for one
        #[arg(long)]
        generate: bool,
    },
    /// Show the accounts
    List,
    /// Turn a password into the hash for `password_hash`; asks, or reads standard input
    Hash,
}

/// `postroad check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Show every value in force and where it was written
    #[arg(long)]
    pub print: bool,
}

/// `postroad mailbox …`.
#[derive(Debug, Subcommand)]
pub enum MailboxVerb {
    /// List the mails of an account, oldest first
    List {
        /// An address, or the local part of one in the first domain
        account: String,
    },
    /// Show a mail
    Show {
        /// An address, or the local part of one in the first domain
        account: String,
        /// The mail: its id or the beginning of it, 8 characters or more; the newest if left out
        id: Option<String>,
        /// Print the octets of the file as they are
        #[arg(long)]
        raw: bool,
    },
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
