//! Two copies of the msa count together: log-ins that fail at one and the other are a ban at both, and an account has one
//! limit for both. What is counted of it outlives the queue, and each copy goes on by itself while that is away.

use std::{fs, net::SocketAddr};

use anyhow::{Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_counters::{Ban, Key};
use postroad_queue_client::{CountersQuery, QueueAdmin as _};
use postroad_tests::{
    Agent, Client, PASSWORD, Second, Stack, free_port, mail, mail_of, stack, wait_for,
};

const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";
const BANNED: &str = "421 4.7.0 too many failed log-ins from 127.0.0.1, try again in ";
/// Four are a ban, for as long as a test may take; a busy machine is no queue that is away.
const BANS: &str = "[msa]\ncounters_timeout = \"30s\"\n[msa.auth]\ndelay = \"1ms\"\nmax_delay = \"1ms\"\nmax_failures = 100\n\
                    ban_after = 4\nban_window = \"1h\"\nban_for = \"1h\"\nban_except = []\n";
const SENDING: &str = "[msa]\ncounters_timeout = \"30s\"\n[msa.sending]\nrecipients_per_hour = 100\nrecipients_per_day = 5\n";

/// A second copy with these settings too, and where it listens.
async fn second(stack: &mut Stack, settings: &str) -> Result<(Second, SocketAddr)> {
    let address: SocketAddr = ([127, 0, 0, 1], free_port()?).into();
    let ports = format!("[msa]\nsubmission = [\"{address}\"]\nsubmissions = []");
    let settings = settings.replacen("[msa]", &ports, 1);
    Ok((stack.second(Agent::Msa, &settings).await?, address))
}

async fn greeting(copy: SocketAddr) -> Result<String> {
    Ok(Client::connect(copy).await?.1)
}

/// The reply to a log-in over a connection of its own; the greeting, if that refuses.
async fn auth(stack: &Stack, copy: SocketAddr, password: &str) -> Result<String> {
    auth_as(ALICE, stack, copy, password).await
}

async fn auth_as(name: &str, stack: &Stack, copy: SocketAddr, password: &str) -> Result<String> {
    let (client, greeting) = Client::connect(copy).await?;
    if !greeting.starts_with("220") {
        return Ok(greeting);
    }
    let mut client = client.starttls(&stack.ca_file()).await?;
    let secret = BASE64_STANDARD.encode(format!("\0{name}\0{password}"));
    client.command(&format!("AUTH PLAIN {secret}")).await
}

async fn fails(stack: &Stack, copy: SocketAddr) -> Result<()> {
    starts(&auth(stack, copy, "wrong").await?, "535 5.7.8")
}

fn starts(reply: &str, with: &str) -> Result<()> {
    ensure!(reply.starts_with(with), "{reply:?}, not {with}");
    Ok(())
}

async fn bans(stack: &Stack) -> Result<Vec<Ban>> {
    let query = CountersQuery {
        bans: true,
        ..CountersQuery::default()
    };
    Ok(stack.admin()?.counters(query).await?.bans)
}

async fn clear(stack: &Stack, key: &str) -> Result<()> {
    let key: Key = key.parse()?;
    ensure!(stack.admin()?.clear_counters(vec![key], "").await? == 1);
    Ok(())
}

#[tokio::test]
async fn failures_at_two_copies_are_a_ban_at_both_until_it_ends() -> Result<()> {
    let mut stack = stack!().settings(BANS).start().await?;
    let (other, elsewhere) = second(&mut stack, BANS).await?;
    let here = stack.ports.submission();
    for copy in [here, elsewhere, here, elsewhere] {
        fails(&stack, copy).await?;
    }
    stack
        .wait_for_log(Agent::Queued, &["\"banned\"", "auth_failed/127.0.0.1/32"])
        .await?;
    for copy in [here, elsewhere] {
        starts(&greeting(copy).await?, BANNED)?;
    }
    // With TLS from the first octet it is the first thing that can be read.
    let (_, said) = Client::connect_tls(stack.ports.submissions(), &stack.ca_file()).await?;
    starts(&said, BANNED)?;
    // A restart of the queue, in peace, keeps it; an operator lifts it.
    stack.restart(Agent::Queued).await?;
    let kept = wait_for("the ban", async || bans(&stack).await.ok()).await?;
    ensure!(kept.len() == 1 && kept[0].value == 4, "{kept:?}");
    clear(&stack, "auth_failed/127.0.0.1").await?;
    for copy in [here, elsewhere] {
        let right = wait_for("a log-in", async || {
            let reply = auth(&stack, copy, PASSWORD).await.ok()?;
            // A copy that has not met the queue again goes by what it knows.
            (!reply.starts_with("421")).then_some(reply)
        });
        starts(&right.await?, "235")?;
    }

    // A short one ends by itself.
    stack.configure("short", "[msa.auth]\nban_for = \"1s\"\n")?;
    starts_reload(&stack.reload(Agent::Msa).await?)?;
    for _ in 0..4 {
        fails(&stack, here).await?;
    }
    stack
        .wait_for_log(Agent::Queued, &["\"banned\"", "auth_failed/127.0.0.1/32"])
        .await?;
    for copy in [here, elsewhere] {
        let free = wait_for("the end of the ban", async || {
            let reply = auth(&stack, copy, PASSWORD).await.ok()?;
            (!reply.starts_with(BANNED)).then_some(reply)
        });
        starts(&free.await?, "235")?;
    }
    ensure!(bans(&stack).await?.is_empty(), "it still lasts");
    other.end().await?;
    stack.end().await
}

#[tokio::test]
async fn a_name_that_is_guessed_is_refused_everywhere_but_where_its_owner_is_at_home() -> Result<()>
{
    let settings = BANS.replace("ban_after = 4", "ban_after = 0\nname_ban_after = 3");
    let mut stack = stack!().settings(&settings).start().await?;
    let (other, elsewhere) = second(&mut stack, &settings).await?;
    let here = stack.ports.submission();
    starts(&auth(&stack, here, PASSWORD).await?, "235")?;
    let home: Key = format!("home/{ALICE}/127.0.0.1/32").parse()?;
    wait_for("a home", async || {
        let query = CountersQuery {
            limit: 10,
            ..CountersQuery::default()
        };
        let counters = stack.admin().ok()?.counters(query).await.ok()?.counters;
        counters
            .iter()
            .any(|counter| counter.key == home)
            .then_some(())
    })
    .await?;

    let none = "nobody@demo.test";
    for name in [ALICE, BOB, none] {
        for copy in [here, elsewhere, here] {
            starts(&auth_as(name, &stack, copy, "wrong").await?, "535 5.7.8")?;
        }
    }
    // Whether there is such an account cannot be told from the reply, nor whether the password is right.
    let mut told = Vec::new();
    for (name, password) in [(BOB, PASSWORD), (BOB, "wrong"), (none, "wrong")] {
        let reply = auth_as(name, &stack, elsewhere, password).await?;
        starts(&reply, "454 4.7.0 too many failed log-ins by this name")?;
        told.push(reply);
    }
    ensure!(told.iter().all(|reply| *reply == told[0]), "{told:?}");
    for copy in [here, elsewhere] {
        starts(&auth(&stack, copy, PASSWORD).await?, "235")?;
    }
    clear(&stack, &format!("guessed/{BOB}")).await?;
    starts(&auth_as(BOB, &stack, here, PASSWORD).await?, "235")?;
    other.end().await?;
    stack.end().await
}

fn starts_reload(line: &str) -> Result<()> {
    ensure!(line.contains("msa.auth.ban_for"), "{line}");
    Ok(())
}

#[tokio::test]
async fn a_copy_counts_by_itself_while_the_queue_is_away() -> Result<()> {
    let mut stack = stack!().settings(BANS).start().await?;
    let (other, elsewhere) = second(&mut stack, BANS).await?;
    let here = stack.ports.submission();
    for copy in [here, elsewhere] {
        fails(&stack, copy).await?;
    }
    stack.kill_nine(Agent::Queued).await?;
    // Log-ins go on, and what this copy counted before is not forgotten.
    starts(&auth(&stack, here, PASSWORD).await?, "235")?;
    for _ in 0..3 {
        fails(&stack, here).await?;
    }
    starts(&greeting(here).await?, BANNED)?;
    starts(&auth(&stack, elsewhere, PASSWORD).await?, "235")?;
    stack
        .wait_for_log(Agent::Msa, &["\"banned\"", "auth_failed/127.0.0.1/32"])
        .await?;
    stack.bring_up(&[Agent::Queued]).await?;
    // What the queue knows holds again: it was killed, and forgot failures that were no ban.
    let free = wait_for("the queue", async || {
        let reply = auth(&stack, here, PASSWORD).await.ok()?;
        (!reply.starts_with(BANNED)).then_some(reply)
    });
    starts(&free.await?, "235")?;
    stack.wait_for_log(Agent::Msa, &["counters_found"]).await?;
    let lost = stack.log(Agent::Msa).matches("counters_lost").count();
    ensure!(lost == 1, "it said so {lost} times");
    other.end().await?;
    stack.end().await
}

#[tokio::test]
async fn an_account_has_one_limit_at_two_copies_and_over_restarts() -> Result<()> {
    let mut stack = stack!().settings(SENDING).start().await?;
    let (other, elsewhere) = second(&mut stack, SENDING).await?;
    let here = stack.ports.submission();
    let to = ["bob@demo.test", "carol@demo.test", "alice+x@demo.test"];
    starts(&send(&stack, here, &to[..2]).await?, "250")?;
    starts(&send(&stack, elsewhere, &to[..2]).await?, "250")?;
    let says = "450 4.7.1 alice@demo.test has written to 4 of 5 recipients in a day, and this mail has 2; try again in ";
    for copy in [here, elsewhere] {
        starts(&send(&stack, copy, &to[..2]).await?, says)?;
    }
    // Others are not concerned.
    let mut bob = stack.login("bob@demo.test").await?;
    let content = mail_of("bob@demo.test", "of bob", "a\r\n");
    bob.deliver("bob@demo.test", &to, &content).await?;
    starts(&send(&stack, here, &to[..1]).await?, "250")?;

    stack.restart(Agent::Queued).await?;
    let full = "450 4.7.1 alice@demo.test has written to 5 of 5";
    starts(
        &once_the_queue_answers(&stack, elsewhere, &to[..1]).await?,
        full,
    )?;

    // An operator lets it begin anew. What was written of it outlives a kill.
    clear(&stack, "sent/alice@demo.test").await?;
    starts(&once_the_queue_answers(&stack, here, &to).await?, "250")?;
    let file = stack.folder().join("state/queue/COUNTERS");
    wait_for("the counters on the disk", async || {
        let text = fs::read_to_string(&file).ok()?;
        let mut lines = text
            .lines()
            .filter(|line| line.ends_with("sent/alice@demo.test"));
        lines.next()?.contains(":3\t").then_some(())
    })
    .await?;
    stack.kill_nine(Agent::Queued).await?;
    stack.bring_up(&[Agent::Queued]).await?;
    let kept = "450 4.7.1 alice@demo.test has written to 3 of 5";
    starts(&once_the_queue_answers(&stack, elsewhere, &to).await?, kept)?;
    let many = [
        "a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test", "f@x.test",
    ];
    let never = "550 5.7.1 alice@demo.test may write to 5 recipients in a day, and this mail has 6";
    starts(&send(&stack, here, &many).await?, never)?;
    other.end().await?;
    stack.end().await
}

/// The reply to a mail of alice.
async fn send(stack: &Stack, copy: SocketAddr, to: &[&str]) -> Result<String> {
    let (client, _) = Client::connect(copy).await?;
    let mut client = client.starttls(&stack.ca_file()).await?;
    client.login(ALICE, PASSWORD).await?;
    client.attempt(ALICE, to, &mail("a mail", "a\r\n")).await
}

/// An agent takes a moment to see that its queue is back.
async fn once_the_queue_answers(stack: &Stack, copy: SocketAddr, to: &[&str]) -> Result<String> {
    wait_for("an answer of the queue", async || {
        let reply = send(stack, copy, to).await.ok()?;
        (!reply.starts_with("451")).then_some(reply)
    })
    .await
}
