//! A process that cannot work as configured says where the fault is, and with which status it ends.

use std::{fs, net::TcpListener};

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Stack, mail, stack, wait_for};

const CONFIG: i32 = 78;
const TRY_AGAIN: i32 = 75;

#[tokio::test]
async fn a_fault_of_the_configuration_is_78_with_file_line_and_remedy() -> Result<()> {
    let mut stack = stack!().prepare()?;
    for (agent, section) in [
        (Agent::Queued, "queued"),
        (Agent::Msa, "msa"),
        (Agent::Mta, "mta.inbound"),
        (Agent::Mda, "mda"),
    ] {
        let file = "conf.d/99-fault.toml";
        stack.configure("99-fault", &format!("\n[{section}]\nzise_limit = 3\n"))?;
        ends(
            &mut stack,
            agent,
            CONFIG,
            &[&format!("{file}:3"), "unknown key `zise_limit`"],
        )
        .await?;
        stack.configure("99-fault", &format!("[{section}\n"))?;
        ends(&mut stack, agent, CONFIG, &[&format!("{file}:1")]).await?;
        stack.configure("99-fault", "")?;
    }
    stack.configure("99-fault", "[msa]\nsize_limt = \"1MiB\"\n")?;
    ends(
        &mut stack,
        Agent::Msa,
        CONFIG,
        &["did you mean `size_limit`?"],
    )
    .await?;
    // Whoever believed everybody would write what anybody says into log and timeline.
    stack.configure(
        "99-fault",
        "[mta.inbound]\nxforward_networks = [\"0.0.0.0/0\"]\n",
    )?;
    let words = ["99-fault.toml:2", "mta.inbound.xforward_networks"];
    ends(&mut stack, Agent::Mta, CONFIG, &words).await?;
    stack.end().await
}

#[tokio::test]
async fn a_directory_that_does_not_parse_is_78_with_file_and_line() -> Result<()> {
    let mut stack = stack!().prepare()?;
    fs::write(
        stack.directory_file(),
        "[[domain]]\nname = \"demo.test\"\npostmastr = \"a@demo.test\"\n",
    )?;
    for agent in [Agent::Msa, Agent::Mta, Agent::Mda] {
        ends(
            &mut stack,
            agent,
            CONFIG,
            &["directory.toml:3", "did you mean \\\"postmaster\\\"?"],
        )
        .await?;
    }
    stack.end().await
}

#[tokio::test]
async fn a_busy_port_is_75_and_named() -> Result<()> {
    let mut stack = stack!().prepare()?;
    for (agent, address) in [
        (Agent::Msa, stack.ports.submission()),
        (Agent::Mta, stack.ports.smtp()),
        (Agent::Mda, stack.ports.lmtp()),
    ] {
        let _holder = TcpListener::bind(address)?;
        ends(&mut stack, agent, TRY_AGAIN, &[&address.to_string()]).await?;
    }
    stack.end().await
}

/// A running stack keeps what it knows when the file goes bad, says so, and takes the repaired file.
#[tokio::test]
async fn a_directory_that_goes_bad_changes_nothing_until_it_is_repaired() -> Result<()> {
    let stack = stack!().start().await?;
    let good = fs::read_to_string(stack.directory_file())?;
    fs::write(stack.directory_file(), "[[domain")?;
    wait_for("reload_failed in the log of the MTA", async || {
        stack
            .log(Agent::Mta)
            .contains("reload_failed")
            .then_some(())
    })
    .await?;
    let mut world = stack.world_client().await?;
    world
        .deliver(
            "friend@world.test",
            &["bob@demo.test"],
            &mail("old file", "a\r\n"),
        )
        .await?;
    stack.wait_for_mails("bob@demo.test", 1).await?;

    let added = "\n[[alias]]\naddress = \"new@demo.test\"\nto = [\"bob@demo.test\"]\n";
    fs::write(stack.directory_file(), good + added)?;
    wait_for("the new alias", async || {
        let mut world = stack.world_client().await.ok()?;
        let content = mail("alias", "a\r\n");
        let reply = world
            .attempt("friend@world.test", &["new@demo.test"], &content)
            .await
            .ok()?;
        reply.starts_with("250").then_some(())
    })
    .await?;
    stack.wait_for_mails("bob@demo.test", 2).await?;
    stack.end().await
}

async fn ends(stack: &mut Stack, agent: Agent, status: i32, words: &[&str]) -> Result<()> {
    stack.start(agent)?;
    let ended = stack.status(agent).await?;
    let log = stack.log(agent);
    ensure!(
        ended == status,
        "{agent} ended with {ended} instead of {status}: {log}"
    );
    for word in words {
        ensure!(log.contains(word), "{agent}: {word:?} is not in {log}");
    }
    Ok(())
}
