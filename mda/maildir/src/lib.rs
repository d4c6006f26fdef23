//! Maildir++ delivery, exactly once.
//!
//! ```text
//! Store::open ── lock, read the ledger, finish what it names
//! Store::begin(target, id) ─► Begin::Already(Delivered)      the id was decided before
//!                          └► Begin::Write(Delivery) ─write…─► commit() ─► Delivered
//!                                                    └ drop = nothing happened
//! (the caller settles with the queue, durably)
//! Store::commit_all(deliveries): the same for several, which wait for the disk together
//! Store::forget(id) ─► Store::tidy(), for many: new/ is synced, and the ledger forgets
//! ```
//!
//! `commit` syncs the tmp file and its folder, records the delivery in the ledger (**the one instant of
//! commit**), and renames tmp → new. Until new is synced the entry stays, and a power cut that undoes the rename is mended by it. When the same id comes again, after a crash or a
//! lost settlement, the ledger decides: an entry whose tmp file still exists is renamed now; one whose
//! tmp file is gone was delivered, whatever a reader did with the mail since. `README.md` has the state table.
//!
//! All calls block on the disk; call them from blocking threads. A [`Store`] is cheap to clone and shared by
//! all of them: those that wait at the same time are synced together (`syncs.rs`), deliveries of one id wait for each other. A second process is refused.
//!
//! A mailbox moves to another store by [`export`], [`import`] and [`remove`], beside all this and without the ledger.
//!
//! What can fail: [`MaildirError`]. Nothing in it loses or doubles a mail: without a ledger entry the tmp file
//! is removed, with one it is kept and finished by the next attempt.
#![forbid(unsafe_code)]

mod delivery;
mod disk;
mod error;
mod folder;
mod ledger;
mod lines;
mod list;
mod mailbox;
mod path;
mod settled;
mod store;
mod syncs;
mod transfer;

pub use delivery::{Begin, Delivered, Delivery};
pub use error::MaildirError;
pub use ledger::Damage;
pub use list::{Entry, list, read};
pub use path::{DeliveryId, Target, maildir_path};
pub use store::{Recovery, Store};
pub use syncs::{FileSystem, SyncCounts, SyncOptions};
pub use transfer::{Exported, Imported, Progress, Removed, TransferError, export, import, remove};
