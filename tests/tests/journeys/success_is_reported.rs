//! Senders who want to hear of success (RFC 3461), and hosts that say what they bear (RFC 9422).

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Peer, Report, Stack, mail, stack, wait_for};

const TEAM: &str =
    "[[alias]]\naddress = \"team@demo.test\"\nto = [\"bob@demo.test\", \"carol@demo.test\"]\n";

/// A mail of alice's to somebody of whose success she wants to hear.
async fn ask(stack: &Stack, recipient: &str) -> Result<()> {
    let mut client = stack.login("alice@demo.test").await?;
    client
        .expect("MAIL FROM:<alice@demo.test> RET=HDRS ENVID=QQ+2B1", "250")
        .await?;
    let rcpt = format!("RCPT TO:<{recipient}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first@demo.test");
    client.expect(&rcpt, "250").await?;
    client.expect("DATA", "354").await?;
    client.write(&mail("did it arrive?", "a\r\n")).await?;
    client.write(b".\r\n").await?;
    let reply = client.reply().await?;
    ensure!(reply.starts_with("250"), "{reply}");
    Ok(())
}

/// What alice is told, once all is done: one report with this action on this address.
async fn told(stack: &Stack, action: &str, about: &str) -> Result<Report> {
    stack.wait_for_empty_queue().await?;
    let mut found = stack.wait_for_mails("alice@demo.test", 1).await?;
    ensure!(found.len() == 1, "{} reports", found.len());
    let report = Report::parse(&found.remove(0).content)?;
    ensure!(report.recipients.len() == 1, "{report:#?}");
    let fields = report.about(about)?;
    ensure!(fields["action"] == action, "{report:#?}");
    ensure!(
        fields["original-recipient"] == "rfc822; first@demo.test",
        "{report:#?}"
    );
    ensure!(report.mail["original-envelope-id"] == "QQ+1", "{report:#?}");
    ensure!(report.returned_type == "text/rfc822-headers", "{report:#?}");
    Ok(report)
}

#[tokio::test]
async fn mail_given_to_a_host_that_does_not_report_is_reported_as_relayed() -> Result<()> {
    let stack = stack!().start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    ask(&stack, "friend@world.test").await?;
    let report = told(&stack, "relayed", "friend@world.test").await?;
    let fields = report.about("friend@world.test")?;
    ensure!(fields["remote-mta"] == "dns; mx1.world.test", "{report:#?}");
    ensure!(fields["status"].starts_with("2."), "{report:#?}");
    let plain = "RCPT TO:<friend@world.test>";
    ensure!(
        peer.heard().iter().any(|line| line == plain),
        "{:?}",
        peer.heard()
    );
    stack.end().await
}

#[tokio::test]
async fn a_host_that_reports_is_told_what_to_report() -> Result<()> {
    let stack = stack!().start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.offer("DSN");
    ask(&stack, "friend@world.test").await?;
    wait_for("relayed mail", async || peer.kept().pop()).await?;
    stack.wait_for_empty_queue().await?;
    ensure!(
        stack.delivered("alice@demo.test")?.is_empty(),
        "both report"
    );
    let heard = peer.heard();
    for expected in [
        "MAIL FROM:<alice@demo.test> RET=HDRS ENVID=QQ+2B1",
        "RCPT TO:<friend@world.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first@demo.test",
    ] {
        ensure!(heard.iter().any(|line| line == expected), "{heard:?}");
    }
    stack.end().await
}

/// The queue is killed while the mail is with the host; the report is made once all the same.
#[tokio::test]
async fn the_report_survives_a_queue_that_is_killed() -> Result<()> {
    let mut stack = stack!().start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    let mut stalled = peer.stall_next("friend@world.test");
    ask(&stack, "friend@world.test").await?;
    stalled.reached().await?;
    stack.kill_nine(Agent::Queued).await?;
    stack.bring_up(&[Agent::Queued]).await?;
    stalled.answer("250 2.1.5 welcome");
    told(&stack, "relayed", "friend@world.test").await?;
    ensure!(peer.kept().len() == 1, "{} copies", peer.kept().len());
    stack.kill_nine(Agent::Queued).await?;
    stack.bring_up(&[Agent::Queued]).await?;
    told(&stack, "relayed", "friend@world.test").await?;
    stack.end().await
}

#[tokio::test]
async fn mail_filed_here_is_reported_as_delivered() -> Result<()> {
    let stack = stack!().start().await?;
    ask(&stack, "bob@demo.test").await?;
    told(&stack, "delivered", "bob@demo.test").await?;
    stack.end().await
}

/// RFC 3461 §5.2.7.3: nobody learns who is behind the address, nor how many.
#[tokio::test]
async fn an_address_of_several_is_reported_as_expanded() -> Result<()> {
    let stack = stack!().directory(TEAM).start().await?;
    ask(&stack, "team@demo.test").await?;
    for member in ["bob@demo.test", "carol@demo.test"] {
        stack.wait_for_mails(member, 1).await?;
    }
    let report = told(&stack, "expanded", "team@demo.test").await?;
    ensure!(!report.text.contains("bob"), "{}", report.text);
    stack.end().await
}

#[tokio::test]
async fn a_host_gets_no_more_recipients_at_once_than_it_bears() -> Result<()> {
    let stack = stack!().start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.offer("LIMITS RCPTMAX=2 MAILMAX=1");
    let mut client = stack.login("alice@demo.test").await?;
    let all = ["a@world.test", "b@world.test", "c@world.test"];
    client
        .deliver("alice@demo.test", &all, &mail("to three", "a\r\n"))
        .await?;
    stack.wait_for_empty_queue().await?;
    let mut kept: Vec<Vec<String>> = peer.kept().into_iter().map(|kept| kept.to).collect();
    kept.sort();
    ensure!(kept == [vec![all[0], all[1]], vec![all[2]]], "{kept:?}");
    let delivered = stack.delivered("alice@demo.test")?;
    ensure!(delivered.is_empty(), "nobody failed");
    stack.end().await
}
