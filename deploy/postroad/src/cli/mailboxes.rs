use std::path::PathBuf;

use clap::Subcommand;
use postroad_address::Mailbox;
use postroad_envelope::StoreName;

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
        /// The store that is to have its mailbox; without it that of its domain
        #[arg(long, value_name = "NAME")]
        store: Option<StoreName>,
    },
    /// Make an account one of another store: its new mail goes there. What it has already is moved by `postroad mailbox
    /// export`, `import` and `remove`
    Move {
        /// Its address
        address: Mailbox,
        /// The store that has its mailbox from now on: what `mda.store` is on that host
        #[arg(long, value_name = "NAME")]
        to_store: StoreName,
    },
    /// Show the accounts
    List,
    /// Write the accounts as Dovecot's passwd-file has them, each with the hash of its password: to standard output, or to a file
    Export {
        /// The file; it is replaced whole, with mode 640 and the owner it had
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Turn a password into the hash for `password_hash`; asks, or reads standard input
    Hash,
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
    /// Write all of a mailbox to standard output, for `postroad mailbox import` in another store. Changes nothing; may be
    /// repeated at any time
    Export {
        /// An address, or the local part of one in the first domain
        account: String,
    },
    /// Take a mailbox from standard input, and write a receipt to standard output: which mails are safe here. May be interrupted
    /// and repeated at any time; a mail that came before does not come again
    Import {
        /// An address, or the local part of one in the first domain
        account: String,
    },
    /// Remove from a mailbox what another store has, and nothing else. Exit status 1 if mails are left, such as those that came
    /// meanwhile: then export, import and remove once more
    Remove {
        /// An address, or the local part of one in the first domain
        account: String,
        /// The receipt that `postroad mailbox import` wrote there; - for standard input
        #[arg(long, value_name = "FILE")]
        as_imported: PathBuf,
    },
}
