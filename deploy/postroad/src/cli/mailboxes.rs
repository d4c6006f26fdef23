use std::path::PathBuf;

use clap::{Args, Subcommand};
use postroad_address::Mailbox;
use postroad_directory::Scope;
use postroad_envelope::StoreName;

/// Whence a password comes, and what is kept of it beside its hash.
#[derive(Debug, Args)]
pub struct PasswordOptions {
    /// Make a password and print it, instead of asking for one
    #[arg(long)]
    pub generate: bool,
    /// Keep no keys of SCRAM-SHA-256: the account can log in by PLAIN and LOGIN alone
    #[arg(long)]
    pub no_scram: bool,
    /// Keep keys of SCRAM-SHA-1 too, for old programs
    #[arg(long)]
    pub scram_sha_1: bool,
    /// Keep the password itself, for CRAM-MD5: whoever reads the directory file can log in
    #[arg(long)]
    pub cram_md5: bool,
}

/// `postroad account …`.
#[derive(Debug, Subcommand)]
pub enum AccountVerb {
    /// Add an account to the directory file; its domain must be there
    Add {
        /// Its address, which is also the name to log in with
        address: Mailbox,
        /// How it gets its password
        #[command(flatten)]
        password: PasswordOptions,
        /// The store that is to have its mailbox; without it that of its domain
        #[arg(long, value_name = "NAME")]
        store: Option<StoreName>,
    },
    /// Give an account another password; what it had is not good any more
    Password {
        /// Its address
        address: Mailbox,
        /// How it gets its password
        #[command(flatten)]
        password: PasswordOptions,
    },
    /// Passwords that are made here, each for one program or device of an account
    #[command(subcommand)]
    AppPassword(AppPasswordVerb),
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

/// `postroad account app-password …`.
#[derive(Debug, Subcommand)]
pub enum AppPasswordVerb {
    /// Make one and show it, once: nobody can read it later
    Add {
        /// The account
        address: Mailbox,
        /// What it is for, to tell it from the others: a program or a device
        #[arg(long)]
        name: String,
        /// Good for this protocol alone: submission, imap, pop3; may be given several times. Without it: for all
        #[arg(long, value_name = "PROTOCOL")]
        scope: Vec<Scope>,
        /// Good from this network alone, such as 192.0.2.0/24; may be given several times. Without it: from everywhere
        #[arg(long, value_name = "NETWORK")]
        network: Vec<ipnet::IpNet>,
        /// Good until then: a time such as 2027-01-01T00:00:00Z, or from now on, such as 90d. Without it: until it is removed
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Show those of an account, or of all: never the passwords
    List {
        /// The account
        address: Option<Mailbox>,
    },
    /// Take one away; it opens nothing any more
    Remove {
        /// The account
        address: Mailbox,
        /// Its first letters as `list` shows them, or the whole password
        prefix: String,
    },
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
