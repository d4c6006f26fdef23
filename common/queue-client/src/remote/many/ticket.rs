//! Whether a mail has left for the queue: what decides if another one may have it.

use std::sync::atomic::{AtomicU8, Ordering};

/// Of one mail. Either it is handed to the connection or its owner withdraws it, never both.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU8);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    /// True if the mail may go to the connection now. From then on the queue may have it; it may be sent again.
    pub(super) fn take(&self) -> bool {
        self.change(TAKEN) != WITHDRAWN
    }

    /// True if the mail has not left, and from now on will not.
    pub(super) fn withdraw(&self) -> bool {
        self.change(WITHDRAWN) != TAKEN
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::Acquire) == WITHDRAWN
    }

    /// What it is now.
    fn change(&self, to: u8) -> u8 {
        let changed = self
            .0
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire);
        changed.map_or_else(|is| is, |_| to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_leaves_or_is_withdrawn_and_whichever_comes_first_counts() {
        let left = Ticket::default();
        assert!(left.take());
        assert!(!left.withdraw() && !left.is_withdrawn());
        assert!(left.take(), "sent again on the next stream");

        let withdrawn = Ticket::default();
        assert!(withdrawn.withdraw() && withdrawn.is_withdrawn());
        assert!(!withdrawn.take());
        assert!(withdrawn.withdraw());
    }
}
