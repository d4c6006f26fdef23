//! Mail for other domains finds their mail hosts as RFC 5321 §5.1 says.

use anyhow::{Result, ensure};
use postroad_tests::{Client, Peer, Report, Stack, mail, stack, wait_for};

const ZONE: &str = "\
fallback.test      MX   10 mx1.world.test
fallback.test      MX   20 mx2.world.test
plain.test         A    127.0.1.3
nomail.test        MX   0 .
ours.test          MX   10 mx.demo.test
forbidden.test     A    192.168.0.1
";

#[tokio::test]
async fn mail_hosts_are_found_tried_in_order_and_told_from_dead_ends() -> Result<()> {
    let stack = stack!().zone(ZONE).start().await?;
    let mut client = stack.login("alice@demo.test").await?;
    the_next_host_is_tried(&stack, &mut client).await?;
    without_mx_the_address_is_taken(&stack, &mut client).await?;
    bounces(&stack, &mut client, "nomail.test", &["5.1.10", "5.7.27"]).await?;
    bounces(&stack, &mut client, "nowhere.test", &["5.1.2", "5.4.4"]).await?;
    bounces(
        &stack,
        &mut client,
        "forbidden.test",
        &["5.7.1", "5.4.4", "5.1.2"],
    )
    .await?;
    stack.end().await
}

/// RFC 5321 §5.1 and §6.3: mail that would come back to us at once is a loop.
#[tokio::test]
async fn a_foreign_domain_whose_mail_host_is_this_host_bounces() -> Result<()> {
    let mut stack = stack!().zone(ZONE).prepare()?;
    let ours = stack.ports.smtp().port();
    stack.configure("50-port", &format!("[mta.outbound]\nport = {ours}\n"))?;
    stack.start_all().await?;
    let mut client = stack.login("alice@demo.test").await?;
    bounces(&stack, &mut client, "ours.test", &["5.4.6"]).await?;
    stack.end().await
}

async fn the_next_host_is_tried(stack: &Stack, client: &mut Client) -> Result<()> {
    let second = Peer::up(stack.peer_address(2)).await?;
    client
        .deliver(
            "alice@demo.test",
            &["a@fallback.test"],
            &mail("fallback", "a\r\n"),
        )
        .await?;
    wait_for("mail at the second host", async || second.kept().pop()).await?;

    let first = Peer::up(stack.peer_address(1)).await?;
    client
        .deliver(
            "alice@demo.test",
            &["b@fallback.test"],
            &mail("first", "a\r\n"),
        )
        .await?;
    wait_for("mail at the first host", async || first.kept().pop()).await?;
    ensure!(second.kept().len() == 1, "the second host was preferred");
    Ok(())
}

async fn without_mx_the_address_is_taken(stack: &Stack, client: &mut Client) -> Result<()> {
    let plain = Peer::up(stack.peer_address(3)).await?;
    client
        .deliver(
            "alice@demo.test",
            &["a@plain.test"],
            &mail("no MX", "a\r\n"),
        )
        .await?;
    let kept = wait_for("mail at the address", async || plain.kept().pop()).await?;
    ensure!(kept.to == ["a@plain.test"]);
    Ok(())
}

async fn bounces(
    stack: &Stack,
    client: &mut Client,
    domain: &str,
    statuses: &[&str],
) -> Result<()> {
    let (recipient, subject) = (format!("a@{domain}"), format!("to {domain}"));
    client
        .deliver("alice@demo.test", &[&recipient], &mail(&subject, "a\r\n"))
        .await?;
    let found = stack
        .wait_for_mail_with("alice@demo.test", &subject)
        .await?;
    let report = Report::parse(&found.content)?;
    let about = report.about(&recipient)?;
    ensure!(
        about["action"] == "failed" && statuses.contains(&about["status"].as_str()),
        "{about:#?}"
    );
    Ok(())
}
