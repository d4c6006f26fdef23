//! Our own agents, each with a queue that is played for it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use postroad_conformance::agent::{self, Role, Target};
use postroad_rpc::Endpoint;
use postroad_tests::{
    Agent, Client, PASSWORD, Stack,
    setup::{FIRST, clear, place, postroad, set_up},
    stack, wait_for,
};
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{deed, must_pass, stopped};

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn target(role: Role, stack: &Stack) -> Target {
    let queue = Endpoint::Unix(stack.folder().join("run/queue.sock"));
    Target {
        patience: PATIENCE,
        ..Target::new(role, queue, "alice@demo.test")
    }
}

/// An agent that has no queue yet.
fn without_queue(agent: Agent, builder: postroad_tests::Builder) -> Result<Stack> {
    let mut stack = builder.prepare()?;
    std::fs::create_dir_all(stack.folder().join("run"))?;
    stack.start(agent)?;
    Ok(stack)
}

/// They wait more than they work, so all at once.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_agents_pass() -> Result<()> {
    let (mda, mta, msa) = tokio::join!(our_own_mda(), our_own_mta(), our_own_msa());
    mda.context("mda")?;
    mta.context("mta")?;
    msa.context("msa")
}

async fn our_own_mda() -> Result<()> {
    let moved = "[[account]]\naddress = \"moved@demo.test\"\nstore = \"b\"\n";
    let stack = without_queue(Agent::Mda, stack!().directory(moved))?;
    let mut target = target(Role::Mda, &stack);
    target.mailbox = Some(stack.maildir("alice@demo.test")?);
    target.moved = Some("moved@demo.test".to_owned());
    let stack = Arc::new(Mutex::new(stack));
    target.restart = Some(deed(&stack, |stack| {
        Box::pin(async {
            stack.kill_nine(Agent::Mda).await?;
            stack.start(Agent::Mda)
        })
    }));
    target.stop = Some(deed(&stack, |stack| {
        Box::pin(async { stack.ask_to_stop(Agent::Mda) })
    }));
    let findings = agent::run(&target, |_| {}).await?;
    must_pass(&findings, &[])?;
    drop(target);
    stopped(stack).await
}

async fn our_own_mta() -> Result<()> {
    let stack = without_queue(Agent::Mta, stack!())?;
    wait_for("listener", async || {
        Client::connect(stack.ports.smtp()).await.ok()
    })
    .await?;
    let mut target = target(Role::Mta, &stack);
    target.smtp = Some(stack.ports.smtp());
    let stack = Arc::new(Mutex::new(stack));
    target.stop = Some(deed(&stack, |stack| {
        Box::pin(async { stack.ask_to_stop(Agent::Mta) })
    }));
    let findings = agent::run(&target, |_| {}).await?;
    must_pass(&findings, &[])?;
    drop(target);
    stopped(stack).await
}

async fn our_own_msa() -> Result<()> {
    let limits = "[msa.sending]\nrecipients_per_day = 100000\n";
    let stack = without_queue(Agent::Msa, stack!().settings(limits))?;
    wait_for("listener", async || {
        Client::connect(stack.ports.submission()).await.ok()
    })
    .await?;
    let mut target = target(Role::Msa, &stack);
    target.smtp = Some(stack.ports.submission());
    target.password = Some(PASSWORD.to_owned());
    let findings = agent::run(&target, |_| {}).await?;
    must_pass(&findings, &[])?;
    stack.end().await
}

/// Over TCP an agent has a certificate of its own, and the queue that is played one of a queue's.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_mda_passes_over_tls_by_the_command() -> Result<()> {
    let mut stack = stack!().prepare()?;
    clear(&stack)?;
    set_up(stack.folder())?;
    let port = place(&mut stack)?;
    let tls = stack.folder().join("pki/queued").display().to_string();
    let line = [
        "conformance".to_owned(),
        "mda".to_owned(),
        format!("tcp:localhost:{port}"),
        format!("--account={FIRST}"),
        format!("--tls={tls}"),
        "--patience=60".to_owned(),
    ];
    stack.start(Agent::Mda)?;
    let told = spawn_blocking(move || postroad(&line.each_ref().map(String::as_str))).await??;
    // What is filed, the other store, the restart and the stop.
    ensure!(told.ends_with(" passed, 0 failed, 6 not tried\n"), "{told}");
    stack.end().await
}
