//! Plays the other side of the contract (`proto/README.md`) and tells which of its rules hold.
//!
//! ```text
//! queue::run(target)   as the agents of a queue         ┐
//!                                                       ├─► Finding: passed, broken (what came instead), not tried (what is missing)
//! agent::run(target)   as the queue of an mda, mta, msa ┘
//! ```
//!
//! Each rule names the sentence of the contract that it tries; a test finds every sentence there. Nothing is known of the
//! other side but the contract: messages go over gRPC as a stranger's would. What is tried is a queue for tests, without
//! mail of others and without workers, or an agent that was told that its queue is where this one is played.
#![forbid(unsafe_code)]

pub mod agent;
mod finding;
mod played;
pub mod queue;
mod raw;
mod rules;
mod smtp;

use std::sync::Arc;

use futures::future::BoxFuture;

pub use finding::{Finding, Problem, Rule, Verdict};

/// What is done from outside to what is tried, such as a command of a shell.
pub type Deed = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::{
        agent::{Role, Target},
        *,
    };

    fn of_each() -> [Vec<Rule>; 4] {
        let of = |role| {
            let endpoint = "unix:/queue.sock".parse().unwrap();
            agent::rules(&Target::new(role, endpoint, "alice@example.org"))
        };
        let [mda, mta, msa] = [Role::Mda, Role::Mta, Role::Msa].map(of);
        [queue::RULES.to_vec(), mda, mta, msa]
    }

    #[test]
    fn each_rule_is_a_sentence_of_the_contract() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let contract = words(include_str!("../../../proto/README.md"));
        for rule in of_each().concat() {
            let sentence = words(rule.sentence);
            assert!(contract.contains(&sentence), "{}: {sentence}", rule.id);
        }
    }

    #[test]
    fn each_rule_has_an_id_of_its_own() {
        for rules in of_each() {
            let mut ids: Vec<&str> = rules.iter().map(|rule| rule.id).collect();
            ids.sort_unstable();
            let all = ids.len();
            ids.dedup();
            assert_eq!(ids.len(), all);
        }
    }
}
