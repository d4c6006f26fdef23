//! Agents by somebody else: honest ones pass, liars fail where they lie.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use postroad_conformance::{
    Finding,
    agent::{self, Role, Target},
};
use postroad_rpc::{Endpoint, dial};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    broken,
    edge::{self, Edge},
    must_pass,
    stranger::{self, Stranger},
};

const ACCOUNT: &str = "alice@example.net";
/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same where some answers never come.
const SHORT_PATIENCE: Duration = Duration::from_secs(8);

fn must_fail(findings: &[Finding], wanted: &[&str]) -> Result<()> {
    let (broken, wanted) = (
        broken(findings),
        BTreeSet::from_iter(wanted.iter().copied()),
    );
    let too_many: Vec<_> = broken.difference(&wanted).collect();
    let missing: Vec<_> = wanted.difference(&broken).collect();
    ensure!(
        broken == wanted,
        "too many: {too_many:?}; missing: {missing:?}"
    );
    Ok(())
}

/// They wait more than they work, so all at once.
#[tokio::test(flavor = "multi_thread")]
async fn honest_ones_pass_and_liars_fail_where_they_lie() -> Result<()> {
    let (honest, lying, edge, lying_edge, early) = tokio::join!(
        an_honest_stranger_passes(),
        a_lying_stranger_fails_where_it_lies(),
        an_honest_edge_passes(),
        a_lying_edge_fails_where_it_lies(),
        an_edge_that_says_yes_too_early_is_found_out(),
    );
    honest.context("an honest stranger")?;
    lying.context("a lying stranger")?;
    edge.context("an honest edge")?;
    lying_edge.context("a lying edge")?;
    early.context("an edge that says yes too early")
}

/// What is found of a delivery agent that tells these lies.
async fn stranger(lies: &[stranger::Lie], patience: Duration) -> Result<Vec<Finding>> {
    let folder = TempDir::new()?;
    let (queue, mailbox) = (folder.path().join("queue.sock"), folder.path().join("mail"));
    fs::create_dir_all(mailbox.join("new"))?;
    let endpoint = Endpoint::Unix(queue);
    let agent = Stranger::new(dial(&endpoint, None)?, mailbox.clone(), ACCOUNT, lies);
    let stop = agent.stop.clone();
    let target = Target {
        mailbox: Some(mailbox),
        patience,
        stop: Some(Arc::new(move || {
            stop.cancel();
            Box::pin(async { Ok(()) })
        })),
        ..Target::new(Role::Mda, endpoint, ACCOUNT)
    };
    let working = tokio::spawn(Arc::new(agent).run());
    let findings = agent::run(&target, |_| {}).await?;
    working.abort();
    Ok(findings)
}

async fn an_honest_stranger_passes() -> Result<()> {
    let findings = stranger(&[], PATIENCE).await?;
    must_pass(&findings, &["deliver.restart", "deliver.elsewhere"])
}

async fn a_lying_stranger_fails_where_it_lies() -> Result<()> {
    use stranger::Lie::*;
    let lies = [
        ShortNumbers,
        CreditsAgain,
        HoldsNothing,
        FilesTwice,
        WrongStatus,
        TakesAnySize,
        EditsNothing,
        ComesAtOnce,
        TakesAnyClass,
        NeverExtends,
        NeverSaysDrained,
    ];
    let findings = stranger(&lies, SHORT_PATIENCE).await?;
    let wanted = [
        "settle.reference",
        "work.credits",
        "drain.no_credits",
        "resume.held",
        "resume.result",
        "resume.epoch",
        "deliver.once",
        "settle.status",
        "work.broken_read",
        "work.short_read",
        "deliver.edits",
        "deliver.order",
        "reconnect.pauses",
        "work.class",
        "extend.in_time",
        "drain.drained",
    ];
    must_fail(&findings, &wanted)
}

/// What is found of an edge that tells these lies.
async fn edge(lies: &[edge::Lie]) -> Result<Vec<Finding>> {
    let folder = TempDir::new()?;
    let endpoint = Endpoint::Unix(folder.path().join("queue.sock"));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = Target {
        smtp: Some(listener.local_addr()?),
        is_inbound_only: true,
        patience: PATIENCE,
        ..Target::new(Role::Mta, endpoint.clone(), ACCOUNT)
    };
    let edge = Edge {
        queue: dial(&endpoint, None)?,
        lies: lies.to_vec(),
    };
    let working = tokio::spawn(edge.run(listener));
    let findings = agent::run(&target, |_| {}).await?;
    working.abort();
    Ok(findings)
}

async fn an_honest_edge_passes() -> Result<()> {
    must_pass(&edge(&[]).await?, &[])
}

async fn a_lying_edge_fails_where_it_lies() -> Result<()> {
    use edge::Lie::*;
    let lies = [
        NewIdEachTime,
        IdOfNoTime,
        LargeChunks,
        KeepsDots,
        NeverAsks,
        RefusesForGood,
        NamesAnAccount,
    ];
    let wanted = [
        "over.unknown_outcome",
        "over.id",
        "over.form",
        "over.content",
        "over.admit",
        "over.not_admitted",
        "over.invalid",
        "over.not_allowed",
        "inbound.no_account",
    ];
    must_fail(&edge(&lies).await?, &wanted)
}

async fn an_edge_that_says_yes_too_early_is_found_out() -> Result<()> {
    use edge::Lie::*;
    let wanted = [
        "over.cut",
        "over.accepted",
        "over.unknown_outcome",
        "over.unavailable",
        "over.full",
        "over.refused",
        "over.id_taken",
        "over.invalid",
        "over.not_allowed",
    ];
    must_fail(&edge(&[SaysYesAtOnce, EndsWhatWasCut]).await?, &wanted)
}
