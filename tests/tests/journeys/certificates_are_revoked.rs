//! `postroad pki revoke` under four running processes: the agent is cut off at once and does not come back until it has another
//! certificate, the others notice nothing, and a list that cannot be read changes nothing.

use std::fs;

use anyhow::{Result, ensure};
use postroad_tests::{
    Agent, Client, Stack, mail_of,
    setup::{FIRST, clear, login, place, postroad, set_up},
    stack, wait_for,
};

#[tokio::test]
async fn a_revoked_agent_is_cut_off_and_another_certificate_brings_it_back() -> Result<()> {
    let mut stack = stack!().prepare()?;
    clear(&stack)?;
    set_up(stack.folder())?;
    place(&mut stack)?;
    let pki = stack.folder().join("pki");
    let list = pki.join("revoked");
    fs::write(&list, "")?;
    stack.configure("revoked", &format!("[common.tls]\nrevoked = {list:?}\n"))?;
    stack.start_all().await?;
    let mut client = login(&stack).await?;
    carried(&stack, &mut client, "before").await?;

    fs::write(&list, "# nobody\nmsa\n")?;
    let bad = ["reload_failed", "revoked: line 2: "];
    stack.wait_for_log(Agent::Queued, &bad).await?;
    carried(&stack, &mut client, "all the same").await?;
    fs::write(&list, "")?;
    stack
        .wait_for_log(Agent::Queued, &["revocations_reloaded", "count=0"])
        .await?;

    let folder = pki.display().to_string();
    let told = postroad(&["pki", "revoke", "msa", "--pki-dir", &folder])?;
    ensure!(told.contains("(msa, until "), "{told}");
    let before = [Agent::Mta, Agent::Mda].map(|agent| losses(&stack, agent));
    for words in [
        ["WARN", "connection_closed", "name=msa", "was revoked"],
        ["WARN", "connection_refused", "CN=msa", "is revoked"],
    ] {
        stack.wait_for_log(Agent::Queued, &words).await?;
    }
    let lost = stack.wait_for_log(Agent::Msa, &["WARN", "queue_lost"]);
    ensure!(!lost.await?.contains("revoked"), "the peer was told why");
    let sent = mail_of(FIRST, "refused", "Hello\r\n");
    let reply = client.attempt(FIRST, &[FIRST], &sent).await?;
    ensure!(reply.starts_with("451 4.3.0"), "{reply}");
    let after = [Agent::Mta, Agent::Mda].map(|agent| losses(&stack, agent));
    ensure!(before == after, "others were cut off, too");

    postroad(&["pki", "issue", "msa", "--replace", "--pki-dir", &folder])?;
    client.expect("RSET", "250").await?;
    wait_for("another certificate", async || {
        let reply = client.attempt(FIRST, &[FIRST], &sent).await.ok()?;
        if !reply.starts_with("250") {
            client.expect("RSET", "250").await.ok()?;
            return None;
        }
        Some(())
    })
    .await?;
    stack
        .wait_for_mail_with(FIRST, "Subject: refused\n")
        .await?;
    // It has come again every few seconds.
    let log = stack.log(Agent::Queued);
    let refusals = log.lines().filter(|line| line.contains("CN=msa"));
    ensure!(refusals.count() == 1, "told again and again: {log}");
    stack.end().await
}

fn losses(stack: &Stack, agent: Agent) -> usize {
    stack.log(agent).matches("queue_lost").count()
}

async fn carried(stack: &Stack, client: &mut Client, subject: &str) -> Result<()> {
    let sent = mail_of(FIRST, subject, "Hello\r\n");
    client.deliver(FIRST, &[FIRST], &sent).await?;
    stack
        .wait_for_mail_with(FIRST, &format!("Subject: {subject}\n"))
        .await?;
    Ok(())
}
