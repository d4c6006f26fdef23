//! The schedule: who is due, who holds it, what happened.
//!
//! Three layers, the lower ones without a clock, randomness or threads:
//!
//! 1. [`record`]: what lies in the journal, versioned messages that keep what they do not know.
//! 2. [`Schedule`]: who is due and who holds it, in memory. [`RetrySchedule`] says when again.
//! 3. the index (sled): where each mail lies and what state each job is in; derived, may be deleted.
//!
//! [`Queue`] joins them. A change is **prepared** (it gives the records to append and keeps others off its job),
//! then committed by the journal, then **applied**; the commit in between is the caller's, and so is the clock:
//!
//! ```text
//! prepare_insert / prepare_settle / … → Prepared ── journal.append_group(records) ◆ ── apply(prepared, locations)
//! ```
//!
//! Changes are to be appended in the order in which they were prepared; whoever prepares on the thread that commits
//! has that for nothing. Inserts are free of this: until it is applied nobody else knows of the mail. If the commit
//! fails the process ends, since its disk is not to be trusted; [`Queue::abandon`] is for changes never offered.
//!
//! What can fail is told by [`QueueError`]; a worker that comes too late gets [`StaleLease`]. All methods may block on
//! the disk; call them on threads for that.
#![forbid(unsafe_code)]

mod check;
mod error;
mod index;
mod job;
mod ledger;
mod queue;
pub mod record;
mod retry;
#[cfg(test)]
mod samples;
mod schedule;
mod usage;

pub use check::{Checked, IndexFound, StoredIndex, unmet};
pub use error::{QueueError, StaleLease};
pub use index::{CheckCursor, CheckRules, FinishedMail, LeavingMail, MailPlace, Renewal, Suspect};
pub use job::{
    Deadline, Digest, JobKey, JobState, MAX_JOB_RECIPIENTS, Progress, RecipientState, Revision,
    TakenOver, Trace, said,
};
pub use ledger::{Jobs, Known, KnownEnd, KnownJob, Ledger, Part};
pub use queue::{
    Admission, Applied, DOUBLE_BOUNCE, Debt, DestinationStats, HoldRule, Instruction, JobCounts,
    JobSummary, Leased, Listing, LiveInSegment, MailSummary, Newcomers, OpenReport, Options, Page,
    Prepared, Queue, Reception, Settled, Standing, Stats, Suppressions, UsageOf, Withdrawal,
};
pub use record::{Content, MailRecord, RetiredContent, RetiredMail};
pub use retry::{RetrySchedule, SpecialRetry, Tried};
pub use schedule::{
    Fairness, Fence, Gate, Holder, JobFacts, Kinship, Lease, LeaseTimes, Open, Phase, Scan,
    Scanned, Schedule, SenderPrint, Term, Ticked, Wait, Waiting, Waits,
};
pub use usage::{Amount, Claim, OverQuota, Quota, Quotas, Scope, Usage};
