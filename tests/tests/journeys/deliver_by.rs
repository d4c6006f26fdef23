//! Mail that its sender gave a time (RFC 2852).

use anyhow::{Result, ensure};
use postroad_tests::{Peer, Report, Stack, mail, stack, wait_for};

/// Short times, or the tests would take them.
const SHORT: &str = "[msa]\ndeliver_by.least = \"1s\"\n";
/// A host that offers something else is asked again what it offers.
const ANEW: &str = "[mta.outbound.reuse]\nmails = 1\n";

/// A mail of alice's with this BY.
async fn send(stack: &Stack, by: &str, rcpt: &str) -> Result<()> {
    let mut client = stack.login("alice@demo.test").await?;
    let from = format!("MAIL FROM:<alice@demo.test> BY={by}");
    client.expect(&from, "250").await?;
    client.expect(&format!("RCPT TO:{rcpt}"), "250").await?;
    client.expect("DATA", "354").await?;
    client.write(&mail("is it there?", "a\r\n")).await?;
    client.write(b".\r\n").await?;
    let reply = client.reply().await?;
    ensure!(reply.starts_with("250"), "{reply}");
    Ok(())
}

/// The report that alice gets as her mail of this number, with this action and status.
async fn told(stack: &Stack, count: usize, action: &str, status: &str) -> Result<Report> {
    let mut found = stack.wait_for_mails("alice@demo.test", count).await?;
    let reports = found.drain(..).map(|mail| Report::parse(&mail.content));
    let reports = reports.collect::<Result<Vec<_>>>()?;
    let about = |report: &Report| {
        let fields = report.about("friend@world.test").ok()?;
        let fits = fields["action"] == action && fields["status"].starts_with(status);
        fits.then_some(())
    };
    let at = reports.iter().position(|report| about(report).is_some());
    let mut reports = reports;
    let Some(at) = at else {
        anyhow::bail!("no {action} {status} in {reports:#?}");
    };
    let report = reports.swap_remove(at);
    ensure!(report.mail.contains_key("deliver-by-date"), "{report:#?}");
    ensure!(report.mail.contains_key("arrival-date"), "{report:#?}");
    Ok(report)
}

fn heard(peer: &Peer, word: &str) -> Vec<String> {
    let all = peer.heard().into_iter();
    all.filter(|line| line.starts_with(word)).collect()
}

/// RFC 2852 §4.1.3.
#[tokio::test]
async fn mail_that_is_late_is_told_of_or_returned() -> Result<()> {
    let stack = stack!().settings(SHORT).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.offer("DELIVERBY");
    peer.answer("*", "450 4.2.1 mailbox is busy");
    send(&stack, "2;R", "<friend@world.test>").await?;
    let report = told(&stack, 1, "failed", "5.4.7").await?;
    ensure!(report.text.contains("time allowed"), "{}", report.text);
    stack.wait_for_empty_queue().await?;
    let attempts = peer.attempts();

    send(&stack, "2;N", "<friend@world.test>").await?;
    let report = told(&stack, 2, "delayed", "4.4.7").await?;
    let fields = report.about("friend@world.test")?;
    ensure!(fields.contains_key("will-retry-until"), "{report:#?}");
    ensure!(peer.attempts() > attempts);
    peer.welcome_all();
    wait_for("the late mail", async || peer.kept().pop()).await?;
    stack.wait_for_empty_queue().await?;
    let last = heard(&peer, "MAIL").pop().unwrap_or_default();
    ensure!(last.contains(" BY=-") && last.ends_with(";N"), "{last}");
    ensure!(stack.delivered("alice@demo.test")?.len() == 2);
    stack.end().await
}

/// RFC 2852 §4.1.4.1 and the trace of §4.1.4.
#[tokio::test]
async fn what_is_to_be_returned_goes_to_hosts_that_keep_the_time() -> Result<()> {
    let stack = stack!().settings(SHORT).settings(ANEW).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    send(&stack, "600;R", "<friend@world.test>").await?;
    let report = told(&stack, 1, "failed", "5.3.3").await?;
    ensure!(report.text.contains("without asking"), "{}", report.text);
    ensure!(heard(&peer, "MAIL").is_empty(), "{:?}", peer.heard());

    peer.offer("DELIVERBY 30");
    send(&stack, "20;R", "<friend@world.test>").await?;
    told(&stack, 2, "failed", "5.4.7").await?;
    ensure!(heard(&peer, "MAIL").is_empty(), "{:?}", peer.heard());

    send(&stack, "600;RT", "<friend@world.test>").await?;
    let report = told(&stack, 3, "relayed", "2.").await?;
    ensure!(report.text.contains("told of that time"), "{}", report.text);
    let said = heard(&peer, "MAIL").pop().unwrap_or_default();
    let by = said
        .split(" BY=")
        .nth(1)
        .and_then(|by| by.strip_suffix(";RT"));
    let left: u64 = by.unwrap_or_default().parse()?;
    ensure!((570..=600).contains(&left), "{said}");
    stack.end().await
}

/// RFC 2852 §4.1.4.2.
#[tokio::test]
async fn mail_goes_on_to_hosts_that_know_of_no_time_and_its_sender_hears_of_it() -> Result<()> {
    let stack = stack!().settings(SHORT).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.offer("DSN");
    send(&stack, "600;N", "<friend@world.test>").await?;
    let report = told(&stack, 1, "relayed", "2.").await?;
    ensure!(report.text.contains("may take longer"), "{}", report.text);
    let said = heard(&peer, "RCPT").pop().unwrap_or_default();
    ensure!(said.ends_with(" NOTIFY=FAILURE,DELAY"), "{said}");
    let said = heard(&peer, "MAIL").pop().unwrap_or_default();
    ensure!(!said.contains("BY="), "{said}");

    send(&stack, "600;NT", "<friend@world.test> NOTIFY=NEVER").await?;
    wait_for("the second mail", async || peer.kept_after(1).pop()).await?;
    stack.wait_for_empty_queue().await?;
    ensure!(stack.delivered("alice@demo.test")?.len() == 1, "NEVER");
    stack.end().await
}

#[tokio::test]
async fn mail_to_our_own_mailboxes_is_there_in_time() -> Result<()> {
    let stack = stack!().settings(SHORT).start().await?;
    send(&stack, "600;RT", "<bob@demo.test>").await?;
    stack.wait_for_mails("bob@demo.test", 1).await?;
    stack.wait_for_empty_queue().await?;
    ensure!(stack.delivered("alice@demo.test")?.is_empty());
    stack.end().await
}
