use super::Queue;
use crate::{QueueError, Renewal};

/// The index made anew of what it holds, so that nothing is left of what was removed from it.
impl Queue {
    /// Octets of the index on the disk.
    pub fn index_len(&self) -> Result<u64, QueueError> {
        self.index.file_len()
    }

    /// See [`Renewal`]; only one at a time.
    pub fn begin_renewal(&self) -> Result<Renewal, QueueError> {
        self.index.begin_renewal()
    }

    /// Copies some entries; tells whether that was all.
    pub fn renew_some(&self, renewal: &mut Renewal) -> Result<bool, QueueError> {
        self.index.renew_some(renewal)
    }

    /// The copy takes the place of the index. No checkpoint may be made meanwhile.
    pub fn end_renewal(&self, renewal: Renewal) -> Result<(), QueueError> {
        self.index.end_renewal(renewal)
    }

    /// The index stays as it is.
    pub fn give_up_renewal(&self, renewal: Renewal) {
        self.index.give_up_renewal(renewal);
    }
}
