//! Nobody needs to start before anybody else: what lacks the queue says so and tries again.

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Client, mail, stack, wait_for};

#[tokio::test]
async fn the_queue_may_come_last() -> Result<()> {
    let mut stack = stack!().prepare()?;
    for agent in [Agent::Mda, Agent::Msa, Agent::Mta] {
        stack.start(agent)?;
    }
    for port in [stack.ports.submission(), stack.ports.smtp()] {
        wait_for("listener", async || Client::connect(port).await.ok()).await?;
    }
    // Several looks later that is still one line.
    for agent in [Agent::Mda, Agent::Msa, Agent::Mta] {
        stack.wait_for_log(agent, &["queue_lost"]).await?;
    }

    let mut client = stack.login("alice@demo.test").await?;
    let reply = client
        .attempt(
            "alice@demo.test",
            &["bob@demo.test"],
            &mail("early", "a\r\n"),
        )
        .await?;
    ensure!(reply.starts_with("451 4.3.0"), "{reply}");

    stack.start(Agent::Queued)?;
    for agent in Agent::SEPARATE {
        stack.ready(agent).await?;
    }
    for agent in [Agent::Mda, Agent::Msa, Agent::Mta] {
        let there = ["queue_connected", "address"];
        stack.wait_for_log(agent, &there).await?;
        let log = stack.log(agent);
        let warned = log
            .lines()
            .filter(|line| line.contains("\"WARN\"") && line.contains("queue"));
        ensure!(warned.count() == 1, "{agent}: {log}");
    }
    // The connection that was refused goes on as if nothing had been.
    client.expect("RSET", "250").await?;
    client
        .deliver(
            "alice@demo.test",
            &["bob@demo.test"],
            &mail("late", "a\r\n"),
        )
        .await?;
    stack
        .wait_for_mail_with("bob@demo.test", "Subject: late\n")
        .await?;
    ensure!(
        stack.delivered("bob@demo.test")?.len() == 1,
        "the refused mail came nevertheless"
    );
    stack.end().await
}

#[tokio::test]
async fn delivery_may_come_after_the_mail() -> Result<()> {
    let mut stack = stack!().prepare()?;
    for agent in [Agent::Msa, Agent::Queued] {
        stack.start(agent)?;
    }
    for agent in [Agent::Msa, Agent::Queued] {
        stack.ready(agent).await?;
    }
    let mut client = stack.login("alice@demo.test").await?;
    client
        .deliver(
            "alice@demo.test",
            &["bob@demo.test"],
            &mail("waits", "a\r\n"),
        )
        .await?;
    ensure!(
        stack.delivered("bob@demo.test")?.is_empty(),
        "nobody is there to deliver"
    );
    stack.start(Agent::Mda)?;
    stack.wait_for_mails("bob@demo.test", 1).await?;
    stack.end().await
}
