//! Reads what a Postfix leaves: its configuration, its maps, its queue; and says it in our words.
//!
//! **Purpose.** `postroad migrate postfix` makes a configuration of ours of a folder like `/etc/postfix`, and tells of every
//! parameter what became of it. `postroad queue import --postfix` takes along the mail that waits.
//!
//! **Flow.** [`migrate`] reads main.cf ([`main_cf`]), master.cf ([`master_cf`]) and the maps they name ([`tables`]) by a function that
//! the caller gives; builds the parts of the new configuration; and gives each parameter where it stands one of three
//! [`Verdict`](report::Verdict)s. Nothing is dropped in silence: what is in none of the lists of [`knowledge`] and is used nowhere is
//! not translated.
//! [`mail`] reads one mail of the queue, from its file or from what `postcat` prints.
//!
//! **What can fail.** A folder without main.cf ([`MigrateError`]). All else is told in the report: maps that are not there, values
//! that mean nothing here. Of a mail: [`MailFault`](mail::MailFault), for that mail alone.
//!
//! No sockets, no clock, no files here: what is read comes from a function.
#![forbid(unsafe_code)]

mod defaults;
pub mod files;
pub mod knowledge;
mod lines;
pub mod mail;
pub mod main_cf;
pub mod master_cf;
mod output;
pub mod report;
pub mod tables;
mod translate;

pub use files::Layout;
pub use tables::Files;
pub use translate::{MigrateError, Migration, SecretFile, migrate};
