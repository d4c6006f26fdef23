//! Which domains, accounts and aliases are ours, and the verifiers of their secrets.
//!
//! The directory is one file, `directory.toml`:
//!
//! ```toml
//! subaddress_delimiter = "+"            # bob+lists@ is bob@; "" for none
//! decoy_key = "…"                       # 32 octets of chance in base64: what nobody can be told from accounts by
//!
//! [[domain]]
//! name = "example.org"                  # the first domain is the primary one: <postmaster> goes there
//! postmaster = "alice@example.org"      # gets the mail of postmaster@ and abuse@
//! catch_all = "alice@example.org"       # optional: gets what nobody else gets
//! tenant = "default"
//! store = "default"                     # of its accounts that name none
//!
//! [[account]]
//! address = "alice@example.org"         # also the name to log in with
//! password_hash = "$argon2id$v=19$…"    # or password_hash_file = "alice.hash"
//! aliases = ["al@example.org"]
//! may_send_as = ["sales@example.org"]
//! store = "default"                     # whose delivery agent has the mailbox: `mda.store` there
//! disabled = false
//!
//! [[account.app_passwords]]             # each for one program or device, made by `postroad account app-password add`
//! prefix = "k3v9x2mq"
//! verifier = "APP$…$…"
//! name = "printer"
//! scopes = ["submission"]               # also imap, pop3; without it: all
//! networks = ["192.0.2.0/24"]           # without it: everywhere
//! expires = "2027-01-01T00:00:00Z"      # without it: never
//!
//! [[alias]]
//! address = "team@example.org"
//! to = ["alice@example.org", "carol@elsewhere.example"]
//! ```
//!
//! [`Directory`] is an immutable snapshot: [`Directory::resolve`] says where mail for an address goes,
//! [`Directory::verify`] checks a password (slow on purpose; async callers go through [`AuthGate`]),
//! [`Directory::may_send_as`] who may use which sender. [`DirectoryHandle`] holds the current snapshot and replaces it
//! when the file changes, and tells those who [`subscribe`](DirectoryHandle::subscribe); a bad file is refused and the old snapshot stays. Local parts compare folded (case and NFC),
//! domains by A-label.
//!
//! What can fail: the file ([`DirectoryError`], each [`Problem`] with file, line and remedy). What is odd but leaves a
//! working directory is told by [`Directory::check`].
#![forbid(unsafe_code)]

mod app_password;
mod change;
mod check;
mod decoy;
mod edit;
mod error;
mod file;
mod gate;
mod handle;
mod hashing;
mod keys;
mod known;
mod load;
mod password;
mod resolve;
mod sender;
mod snapshot;
mod steps;

pub use app_password::{
    AppPassword, AppVerifier, KeptAppPassword, Purpose, Scope, app_prefix, letters,
};
pub use change::Changes;
pub use decoy::DecoyKey;
pub use edit::{
    NewDomain, Secrets, add_account, add_app_password, add_domain, move_account,
    remove_app_password, set_password,
};
pub use error::{DirectoryError, Problem};
pub use gate::{AuthGate, AuthVerdict, Shown, Work};
pub use handle::{DirectoryHandle, Reload};
pub use keys::Keys;
pub use password::{Password, hash_password};
pub use resolve::{Expanded, Resolution, Resolved};
pub use sender::SenderVerdict;
pub use snapshot::{Account, Alias, Directory, LocalDomain};
pub use steps::{Step, What};

/// Most addresses one address may expand to.
pub const MAX_EXPANSION: usize = 1000;
/// Most aliases on the way from an address to an account.
pub const MAX_ALIAS_DEPTH: usize = 10;
