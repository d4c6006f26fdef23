//! Which node a mail is offered to, from how the nodes stand. No sockets and no clock.

use std::time::{Duration, Instant};

/// A node that did not answer a call is asked last for so long, until it is probed.
const DOUBT: Duration = Duration::from_secs(1);
/// One that had no room is asked after those that may have some, for so long.
const FULL: Duration = Duration::from_secs(5);

/// How the nodes stand.
#[derive(Debug)]
pub(super) struct Choice {
    nodes: Vec<Standing>,
    /// Whose turn it is among equals.
    turn: usize,
}

#[derive(Debug, Default)]
struct Standing {
    /// The last probe had no answer.
    away: bool,
    doubted_until: Option<Instant>,
    full_until: Option<Instant>,
    /// Mails that are on their way to it.
    under_way: usize,
}

/// What was heard of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A probe was answered.
    Present,
    /// A probe was not answered.
    Away,
    /// It did what it was asked.
    Done,
    /// It could not be asked.
    NoAnswer,
    /// It has no room.
    Full,
}

impl Choice {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            nodes: (0..nodes).map(|_| Standing::default()).collect(),
            turn: 0,
        }
    }

    /// The nodes in the order in which a new mail tries them: those that answer, then those that were full, then those that
    /// are away; among equals the one with the least under way, else whose turn it is.
    pub(super) fn order(&mut self, now: Instant) -> Vec<usize> {
        let (count, turn) = (self.nodes.len(), self.turn);
        self.turn = (turn + 1) % count.max(1);
        let mut order: Vec<usize> = (0..count).map(|at| (turn + at) % count).collect();
        // Stable: those that are equal stay in turn.
        order.sort_by_key(|&node| {
            let standing = self.nodes.get(node);
            standing.map(|standing| (standing.rank(now), standing.under_way))
        });
        order
    }

    /// The node at which a key is counted: the same for all who know the same nodes (rendezvous hashing). If a node goes, only
    /// its keys move, and they come back with it. One without a name is home to nothing.
    pub(super) fn home<'a>(
        &self,
        names: impl Iterator<Item = Option<&'a str>>,
        key: &str,
    ) -> Option<usize> {
        let nodes = self.nodes.iter().zip(names).enumerate();
        let weighed = nodes.filter_map(|(at, (node, name))| {
            let weight = weight(name?, key);
            Some(((!node.away, weight), at))
        });
        weighed.max().map(|(_, at)| at)
    }

    pub(super) fn heard(&mut self, node: usize, heard: Heard, now: Instant) {
        let Some(node) = self.nodes.get_mut(node) else {
            return;
        };
        match heard {
            Heard::Present => (node.away, node.doubted_until) = (false, None),
            Heard::Away => node.away = true,
            Heard::Done => (node.doubted_until, node.full_until) = (None, None),
            Heard::NoAnswer => node.doubted_until = Some(now + DOUBT),
            Heard::Full => node.full_until = Some(now + FULL),
        }
    }

    /// A mail goes to the node now.
    pub(super) fn begin(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.under_way += 1;
        }
    }

    /// What began is over.
    pub(super) fn end(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.under_way = node.under_way.saturating_sub(1);
        }
    }
}

impl Standing {
    fn rank(&self, now: Instant) -> u8 {
        let lasts = |until: Option<Instant>| until.is_some_and(|until| now < until);
        match () {
            () if self.away || lasts(self.doubted_until) => 2,
            () if lasts(self.full_until) => 1,
            () => 0,
        }
    }
}

/// The same in every process and release.
fn weight(node: &str, key: &str) -> u64 {
    let named = crc32c::crc32c(node.as_bytes());
    let sum = crc32c::crc32c_append(named, key.as_bytes());
    // The mixing of splitmix64: the sum alone would order any two nodes by one bit of the key.
    let mut mixed = (u64::from(sum) << 32 | u64::from(named)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_are_taken_in_turn_and_the_least_busy_first() {
        let now = Instant::now();
        let mut choice = Choice::new(3);
        let firsts: Vec<usize> = (0..4).map(|_| choice.order(now)[0]).collect();
        assert_eq!(firsts, [0, 1, 2, 0]);
        choice.begin(1);
        choice.begin(1);
        choice.begin(2);
        assert_eq!(choice.order(now), [0, 2, 1]);
        choice.end(1);
        choice.end(1);
        assert_eq!(choice.order(now), [0, 1, 2]);
    }

    #[test]
    fn one_that_is_away_comes_last_until_it_is_back() {
        let now = Instant::now();
        let mut choice = Choice::new(2);
        choice.heard(0, Heard::Away, now);
        assert_eq!([choice.order(now), choice.order(now)], [[1, 0], [1, 0]]);
        choice.heard(1, Heard::Away, now);
        assert_eq!(choice.order(now).len(), 2, "if all are away all are tried");
        choice.heard(0, Heard::Present, now);
        assert_eq!([choice.order(now), choice.order(now)], [[0, 1], [0, 1]]);
    }

    #[test]
    fn what_a_call_met_counts_for_a_while() {
        let now = Instant::now();
        let mut choice = Choice::new(3);
        choice.heard(0, Heard::NoAnswer, now);
        choice.heard(1, Heard::Full, now);
        assert_eq!(choice.order(now), [2, 1, 0]);
        assert_eq!(choice.order(now + DOUBT), [2, 0, 1]);
        assert_eq!(choice.order(now + FULL), [2, 0, 1], "whose turn it is");
        choice.heard(0, Heard::NoAnswer, now + FULL);
        choice.heard(0, Heard::Present, now + FULL);
        assert_eq!(choice.order(now + FULL), [0, 1, 2]);
        choice.heard(0, Heard::Full, now + FULL);
        choice.heard(0, Heard::Done, now + FULL);
        assert_eq!(choice.order(now + FULL), [1, 2, 0]);
    }
    #[test]
    fn each_key_has_one_home_and_only_those_of_a_node_that_goes_move() {
        const KEYS: usize = 300;
        let names = ["q1.example.net", "q2.example.net", "q3.example.net"];
        let keys: Vec<String> = (0..KEYS).map(|at| format!("sent/{at}@demo.test")).collect();
        let homes = |choice: &Choice| -> Vec<usize> {
            let homes = keys
                .iter()
                .map(|key| choice.home(names.map(Some).into_iter(), key));
            homes.map(Option::unwrap).collect()
        };
        let mut choice = Choice::new(3);
        let before = homes(&choice);
        for node in 0..3 {
            let its = before.iter().filter(|home| **home == node).count();
            assert!(its > KEYS / 6, "node {node} is home to {its} of {KEYS}");
        }
        choice.heard(1, Heard::Away, Instant::now());
        for (before, now) in before.iter().zip(homes(&choice)) {
            assert!(now != 1 && (*before == 1 || *before == now));
        }
        choice.heard(1, Heard::Present, Instant::now());
        assert_eq!(homes(&choice), before);
    }
}
