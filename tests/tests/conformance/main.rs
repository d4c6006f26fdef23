//! `postroad conformance`: our own queue and agents pass, and those that are wrong in known ways fail by the rules they break
//! and by no others.

#![allow(clippy::print_stdout, reason = "the report of a test")]

mod agents;
mod edge;
mod others;
mod queue;
mod stranger;

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use futures::future::BoxFuture;
use postroad_conformance::{Deed, Finding, Verdict};
use postroad_tests::Stack;
use tokio::sync::Mutex;

/// The rules that do not hold.
fn broken(findings: &[Finding]) -> BTreeSet<&'static str> {
    let mut broken = BTreeSet::new();
    for finding in findings {
        if let Verdict::Failed(why) = &finding.verdict {
            println!("{}: {why}", finding.rule.id);
            broken.insert(finding.rule.id);
        }
    }
    broken
}

/// All hold, but for those that are not to be tried.
fn must_pass(findings: &[Finding], untried: &[&str]) -> Result<()> {
    for finding in findings {
        let id = finding.rule.id;
        let is_fine = match &finding.verdict {
            Verdict::Passed => !untried.contains(&id),
            Verdict::NotTried(_) => untried.contains(&id),
            Verdict::Failed(_) => false,
        };
        ensure!(is_fine, "{id}: {:?}", finding.verdict);
    }
    Ok(())
}

/// A deed at one of the stack's processes.
fn deed<F>(stack: &Arc<Mutex<Stack>>, what: F) -> Deed
where
    F: for<'a> Fn(&'a mut Stack) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static,
{
    let (stack, what) = (Arc::clone(stack), Arc::new(what));
    Arc::new(move || {
        let (stack, what) = (Arc::clone(&stack), Arc::clone(&what));
        Box::pin(async move {
            let mut stack = stack.lock().await;
            what(&mut stack).await.map_err(|error| error.to_string())
        })
    })
}

async fn stopped(stack: Arc<Mutex<Stack>>) -> Result<()> {
    let stack = Arc::into_inner(stack).context("somebody still has the stack")?;
    stack.into_inner().end().await
}
