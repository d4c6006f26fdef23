//! Rules that are tried one after the other.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::{Finding, Problem, Rule, Verdict};

pub type Outcome = Result<(), Problem>;
/// How a rule is tried with what is there to try it.
pub type Try<S> = for<'a> fn(&'a mut S) -> BoxFuture<'a, Outcome>;

/// Rules, and how each is tried.
pub struct Set<S: 'static> {
    pub rules: &'static [Rule],
    pub tries: &'static [Try<S>],
}

/// What rules are tried with.
pub trait Stage: Send {
    /// How long an answer may take.
    fn patience(&self) -> Duration;
    /// After a rule that did not hold: what it left is not to be found by the next. Whether that works is said there.
    fn clear(&mut self) -> BoxFuture<'_, ()>;
}

/// `rules![Stage; id: "sentence" => function]`: the constants `RULES` and `TRIES`.
macro_rules! rules {
    ($stage:ty; $($id:literal: $sentence:literal => $try:path),* $(,)?) => {
        /// The rules, in the order in which they are tried.
        pub const RULES: &[$crate::Rule] = &[$($crate::Rule { id: $id, sentence: $sentence }),*];
        pub(crate) const TRIES: &[$crate::rules::Try<$stage>] = &[$(|stage| Box::pin($try(stage))),*];
    };
}
pub(crate) use rules;

/// Tries all of them, and tells of each as it is done.
pub async fn run<S: Stage>(
    sets: &[Set<S>],
    stage: &mut S,
    tell: &mut (dyn FnMut(&Finding) + Send),
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (rule, attempt) in sets.iter().flat_map(|set| set.rules.iter().zip(set.tries)) {
        // Many answers may be waited for in one rule.
        let limit = stage.patience() * 4;
        let outcome = match timeout(limit, attempt(stage)).await {
            Ok(outcome) => outcome,
            Err(_) => Problem::broken(format!("no end within {} s", limit.as_secs())),
        };
        if matches!(outcome, Err(Problem::Broken(_))) {
            let _ = timeout(stage.patience(), stage.clear()).await;
        }
        let finding = Finding {
            rule: *rule,
            verdict: Verdict::from(outcome),
        };
        tell(&finding);
        findings.push(finding);
    }
    findings
}
