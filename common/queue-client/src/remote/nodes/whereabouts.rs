//! Which node has which mail, as far as it was seen here.

use std::collections::{HashMap, VecDeque};

use postroad_envelope::QueueId;

/// Mails remembered, at most: those under way here, and more. One that was forgotten is asked for at all nodes.
const MOST: usize = 16_384;

/// Remembers the latest.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    nodes: HashMap<QueueId, usize>,
    oldest_first: VecDeque<QueueId>,
}

impl Whereabouts {
    pub(super) fn saw(&mut self, mail: QueueId, node: usize) {
        if self.nodes.insert(mail, node).is_some() {
            return;
        }
        self.oldest_first.push_back(mail);
        while self.oldest_first.len() > MOST
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.nodes.remove(&oldest);
        }
    }

    pub(super) fn of(&self, mail: QueueId) -> Option<usize> {
        self.nodes.get(&mail).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroad_envelope::Timestamp;

    #[test]
    fn the_latest_are_known_and_the_oldest_are_forgotten() {
        let id = |at: usize| {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&at.to_be_bytes());
            QueueId::mint(Timestamp::from(std::time::UNIX_EPOCH), random)
        };
        let mut whereabouts = Whereabouts::default();
        for at in 0..=MOST {
            whereabouts.saw(id(at), at % 2);
        }
        assert_eq!(whereabouts.of(id(0)), None);
        assert_eq!(whereabouts.of(id(1)), Some(1));
        assert_eq!(whereabouts.of(id(MOST)), Some(0));
        whereabouts.saw(id(1), 0);
        assert_eq!(whereabouts.of(id(1)), Some(0));
        assert_eq!(whereabouts.oldest_first.len(), MOST);
    }
}
