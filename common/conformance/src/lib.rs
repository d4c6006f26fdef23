//! Plays the other side of the contract (`proto/README.md`) and tells which of its rules hold.
//!
//! ```text
//! queue::RULES ─► run(target, rule) ─► Finding: passed, broken (what came instead), not tried (what is missing)
//! ```
//!
//! Each rule names the sentence of the contract that it tries; a test finds every sentence there. Nothing is known of the
//! other side but the contract: messages go over gRPC as a stranger's would. What is tried is a queue for tests, without
//! mail of others and without workers.
#![forbid(unsafe_code)]

mod finding;
pub mod queue;

pub use finding::{Finding, Problem, Rule, Verdict};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_a_sentence_of_the_contract() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let contract = words(include_str!("../../../proto/README.md"));
        for rule in queue::RULES {
            let sentence = words(rule.sentence);
            assert!(contract.contains(&sentence), "{}: {sentence}", rule.id);
        }
    }

    #[test]
    fn each_rule_has_an_id_of_its_own() {
        let mut ids: Vec<&str> = queue::RULES.iter().map(|rule| rule.id).collect();
        ids.sort_unstable();
        let all = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}
