//! msa, mta and mda have no directory file: the queue tells of accounts, and what they were told goes on while it is away.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_directory::hash_password;
use postroad_tests::{
    Agent, Client, Stack, mail, mail_of,
    setup::{FIRST, clear, login, place, set_up_with},
    stack, wait_for,
};

const FROM_QUEUE: &str = "[common.accounts]\nfrom = \"queue\"\n[msa.auth]\ndelay = \"1ms\"\n";
const EDGES: [Agent; 3] = [Agent::Msa, Agent::Mta, Agent::Mda];

/// Everybody but the queue looks for the file where there is none.
fn hide_the_file(stack: &mut Stack) {
    for agent in EDGES {
        stack.set_variable(
            agent,
            "POSTROAD__COMMON__DIRECTORY",
            "/nonexistent/directory.toml",
        );
    }
}

/// The reply to a log-in over a connection of its own.
async fn auth(stack: &Stack, account: &str, password: &str) -> Result<String> {
    let (client, _) = Client::connect(stack.ports.submission()).await?;
    let mut client = client.starttls(&stack.ca_file()).await?;
    let secret = BASE64_STANDARD.encode(format!("\0{account}\0{password}"));
    client.command(&format!("AUTH PLAIN {secret}")).await
}

/// The reply of port 25 to a recipient.
async fn rcpt(stack: &Stack, recipient: &str) -> Result<String> {
    let mut client = stack.world_client().await?;
    client
        .expect("MAIL FROM:<friend@world.test>", "250")
        .await?;
    client.command(&format!("RCPT TO:<{recipient}>")).await
}

fn starts(reply: &str, with: &str) -> Result<()> {
    ensure!(reply.starts_with(with), "{reply:?}, not {with}");
    Ok(())
}

/// Puts another directory into the place of the one there is, at once.
fn change(stack: &Stack, change: impl FnOnce(String) -> String) -> Result<()> {
    let (file, new) = (stack.directory_file(), stack.folder().join("directory.new"));
    fs::copy(&file, &new)?;
    fs::write(&new, change(fs::read_to_string(&file)?))?;
    Ok(fs::rename(new, file)?)
}

#[tokio::test]
async fn mail_and_log_ins_go_on_as_far_as_they_can_without_the_queue() -> Result<()> {
    let mut stack = stack!()
        .settings(FROM_QUEUE)
        .directory("[[alias]]\naddress = \"team@demo.test\"\nto = [\"alice@demo.test\", \"bob@demo.test\"]\n")
        .prepare()?;
    hide_the_file(&mut stack);
    // The queue first: who comes before it says that it is away.
    stack.bring_up(&Agent::SEPARATE).await?;

    let mut alice = stack.login("alice@demo.test").await?;
    let to = ["bob+lists@demo.test", "x@world.test"];
    alice
        .deliver("alice@demo.test", &to[..1], &mail("inside", "a\r\n"))
        .await?;
    stack
        .wait_for_mail_with("bob@demo.test", "Subject: inside\n")
        .await?;
    starts(
        &alice.command("MAIL FROM:<bob@demo.test>").await?,
        "550 5.7.1",
    )?;
    let mut world = stack.world_client().await?;
    world
        .deliver(
            "friend@world.test",
            &["team@demo.test"],
            &mail("outside", "a\r\n"),
        )
        .await?;
    for account in ["alice@demo.test", "bob@demo.test"] {
        stack
            .wait_for_mail_with(account, "Subject: outside\n")
            .await?;
    }
    starts(&rcpt(&stack, "nobody@demo.test").await?, "550 5.1.1")?;
    starts(&rcpt(&stack, "x@elsewhere.test").await?, "550 5.7.1")?;
    starts(&auth(&stack, "alice@demo.test", "wrong").await?, "535")?;
    for agent in EDGES {
        stack.wait_for_log(agent, &["accounts_from_queue"]).await?;
        ensure!(
            !stack.log(agent).contains("directory_loaded"),
            "{agent} read a file"
        );
    }
    let given = stack
        .wait_for_log(Agent::Queued, &["verifier_given", "alice@demo.test"])
        .await?;
    ensure!(!stack.log(Agent::Queued).contains("argon2id"), "{given}");

    stack.terminate(Agent::Queued).await?;
    for agent in [Agent::Msa, Agent::Mta] {
        stack.wait_for_log(agent, &["accounts_lost"]).await?;
    }
    // Known to the edge: refused for good, or only where the queue is needed.
    starts(&rcpt(&stack, "team@demo.test").await?, "250")?;
    let mut world = stack.world_client().await?;
    let late = mail("late", "a\r\n");
    starts(
        &world
            .attempt("friend@world.test", &["team@demo.test"], &late)
            .await?,
        "451 4.3.0",
    )?;
    starts(&rcpt(&stack, "nobody@demo.test").await?, "550 5.1.1")?;
    starts(&rcpt(&stack, "y@elsewhere.test").await?, "550 5.7.1")?;
    starts(&rcpt(&stack, "carol@demo.test").await?, "451 4.3.0")?;
    starts(&rcpt(&stack, "never@demo.test").await?, "451 4.3.0")?;
    starts(
        &auth(&stack, "Alice@demo.test", "correct horse").await?,
        "235",
    )?;
    starts(&auth(&stack, "alice@demo.test", "wrong").await?, "535")?;
    starts(
        &auth(&stack, "bob@demo.test", "correct horse").await?,
        "454 4.7.0",
    )?;
    starts(
        &auth(&stack, "never@demo.test", "correct horse").await?,
        "454 4.7.0",
    )?;

    stack.bring_up(&[Agent::Queued]).await?;
    for agent in [Agent::Msa, Agent::Mta] {
        stack.wait_for_log(agent, &["accounts_found"]).await?;
        let lost = stack.log(agent).matches("\"accounts_lost\"").count();
        ensure!(lost == 1, "{agent} said so {lost} times");
    }
    starts(&rcpt(&stack, "never@demo.test").await?, "550 5.1.1")?;
    starts(
        &auth(&stack, "bob@demo.test", "correct horse").await?,
        "235",
    )?;
    world.expect("RSET", "250").await?;
    world
        .deliver("friend@world.test", &["team@demo.test"], &late)
        .await?;
    for account in ["alice@demo.test", "bob@demo.test"] {
        stack.wait_for_mail_with(account, "Subject: late\n").await?;
    }
    stack.end().await
}

#[tokio::test]
async fn what_changes_in_the_file_of_the_queue_holds_everywhere_soon() -> Result<()> {
    let mut stack = stack!().settings(FROM_QUEUE).prepare()?;
    hide_the_file(&mut stack);
    // The queue first: who comes before it says that it is away.
    stack.bring_up(&Agent::SEPARATE).await?;
    let mut alice = stack.login("alice@demo.test").await?;
    alice.expect("MAIL FROM:<alice@demo.test>", "250").await?;
    alice.expect("RSET", "250").await?;
    starts(
        &auth(&stack, "bob@demo.test", "correct horse").await?,
        "235",
    )?;
    starts(&rcpt(&stack, "alice@demo.test").await?, "250")?;
    starts(&rcpt(&stack, "new@demo.test").await?, "550 5.1.1")?;

    // Bob's password alone.
    let hash = hash_password(b"another", *b"salt for testing")?;
    change(&stack, |text| {
        let bob = text.find("'bob@demo.test'").unwrap_or_default();
        let (before, after) = text.split_at(bob);
        let (_, rest) = after.split_once("\npassword_hash").unwrap_or_default();
        let (_, rest) = rest.split_once('\n').unwrap_or_default();
        format!("{before}'bob@demo.test'\npassword_hash = \"{hash}\"\n{rest}")
    })?;
    let changed = Instant::now();
    wait_for("refusal of the old password", async || {
        let reply = auth(&stack, "bob@demo.test", "correct horse").await.ok()?;
        reply.starts_with("535").then_some(())
    })
    .await?;
    // Half a second until the file is looked at, and the way; the rest is for a busy machine. Answers hold for ten minutes.
    ensure!(changed.elapsed().as_secs() < 10, "{:?}", changed.elapsed());
    starts(&auth(&stack, "bob@demo.test", "another").await?, "235")?;
    starts(
        &auth(&stack, "alice@demo.test", "correct horse").await?,
        "235",
    )?;

    // Alice is disabled and somebody is new.
    change(&stack, |text| {
        let text = text.replace("'alice@demo.test'", "'alice@demo.test'\ndisabled = true");
        text + "[[account]]\naddress = \"new@demo.test\"\n"
    })?;
    wait_for("refusal of the disabled", async || {
        let reply = rcpt(&stack, "alice@demo.test").await.ok()?;
        reply.starts_with("550 5.2.1").then_some(())
    })
    .await?;
    wait_for("end of the log-ins of the disabled", async || {
        let reply = auth(&stack, "alice@demo.test", "correct horse")
            .await
            .ok()?;
        reply.starts_with("535").then_some(())
    })
    .await?;
    starts(
        &alice.command("MAIL FROM:<alice@demo.test>").await?,
        "550 5.7.1",
    )?;
    starts(&rcpt(&stack, "new@demo.test").await?, "250")?;
    let mut world = stack.world_client().await?;
    world
        .deliver(
            "friend@world.test",
            &["new@demo.test"],
            &mail("welcome", "a\r\n"),
        )
        .await?;
    stack
        .wait_for_mail_with("new@demo.test", "Subject: welcome\n")
        .await?;
    stack.end().await
}

#[tokio::test]
async fn over_mutual_tls_it_is_the_same() -> Result<()> {
    let mut stack = stack!().prepare()?;
    clear(&stack)?;
    let accounts = stack.folder().join("accounts");
    let more = ["--accounts-dir", &accounts.display().to_string()];
    set_up_with(stack.folder(), &more)?;
    place(&mut stack)?;
    let password = "first-account.password";
    fs::rename(accounts.join(password), stack.folder().join(password))?;
    // All but the queue find nothing there, as on hosts of their own.
    hide_the_file(&mut stack);
    // The queue first: who comes before it says that it is away.
    stack.bring_up(&Agent::SEPARATE).await?;
    let mut client = login(&stack).await?;
    client
        .deliver(FIRST, &[FIRST], &mail_of(FIRST, "far", "a\r\n"))
        .await?;
    stack.wait_for_mail_with(FIRST, "Subject: far\n").await?;
    let mut world = stack.world_client().await?;
    world
        .deliver("friend@world.test", &[FIRST], &mail("near", "a\r\n"))
        .await?;
    stack.wait_for_mail_with(FIRST, "Subject: near\n").await?;

    stack.terminate(Agent::Queued).await?;
    stack.wait_for_log(Agent::Msa, &["accounts_lost"]).await?;
    login(&stack).await.context("while the queue is away")?;
    starts(&rcpt(&stack, FIRST).await?, "250")?;
    starts(&rcpt(&stack, "never@setup.test").await?, "451 4.3.0")?;
    stack.bring_up(&[Agent::Queued]).await?;
    stack.wait_for_log(Agent::Mta, &["accounts_found"]).await?;
    starts(&rcpt(&stack, "never@setup.test").await?, "550 5.1.1")?;
    stack.end().await
}
