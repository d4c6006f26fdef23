//! Memory that passwords are hashed in.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use argon2::Block;

/// In blocks of 1 KiB. Allocators take what is larger than 32 MiB from the kernel and give it back when it is freed (glibc's at once, mimalloc a second
/// later); glibc leaves what is smaller to the arena of whatever thread came by, until each of them holds the memory of a hash or two. What is not touched takes no room.
const OWN_MAPPING: usize = 33 * 1024;

/// Lends memory to hashes that run at one time. What one is done with serves the next; when none is at work, all of it is freed.
#[derive(Clone, Default)]
pub struct HashMemory(Arc<Mutex<Lent>>);

#[derive(Default)]
struct Lent {
    at_work: usize,
    idle: Vec<Vec<Block>>,
}

impl HashMemory {
    /// Memory for one hash, for as long as this lives.
    pub fn lend(&self) -> Workplace {
        let mut lent = self.lock();
        lent.at_work += 1;
        let blocks = lent.idle.pop().unwrap_or_default();
        Workplace {
            of: self.clone(),
            blocks,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for HashMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashMemory(…)")
    }
}

/// Memory for one hash.
pub struct Workplace {
    of: HashMemory,
    blocks: Vec<Block>,
}

impl Workplace {
    /// So many blocks; what is in them is of no account.
    pub fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.blocks.capacity() < count {
            self.blocks = Vec::with_capacity(count.max(OWN_MAPPING));
        }
        if self.blocks.len() < count {
            self.blocks.resize(count, Block::new());
        }
        &mut self.blocks[..count]
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let mut lent = self.of.lock();
        lent.at_work -= 1;
        let unused = if lent.at_work == 0 {
            mem::take(&mut lent.idle)
        } else {
            lent.idle.push(mem::take(&mut self.blocks));
            Vec::new()
        };
        drop(lent);
        // Giving so much back takes a while: nobody waits for the lock meanwhile.
        drop(unused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_while_others_work_and_freed_after_the_last() {
        let memory = HashMemory::default();
        let (mut one, other) = (memory.lend(), memory.lend());
        let first = one.blocks(64).as_ptr();
        drop(one);
        assert_eq!(memory.lock().idle.len(), 1);

        let mut again = memory.lend();
        assert_eq!(again.blocks(32).len(), 32);
        assert_eq!(again.blocks(64).as_ptr(), first);
        drop((again, other));
        let lent = memory.lock();
        assert_eq!((lent.at_work, lent.idle.len()), (0, 0));
    }
}
