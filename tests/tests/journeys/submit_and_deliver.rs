//! Mail that is submitted over STARTTLS or implicit TLS lies in the Maildir byte for byte, apart from added header
//! fields and line ends - whether the agents share a process or not.

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Client, Stack, is_same_mail, mail, stack};

#[tokio::test]
async fn four_processes_carry_every_kind_of_mail() -> Result<()> {
    carries_every_kind_of_mail(false).await
}

#[tokio::test]
async fn one_process_carries_every_kind_of_mail() -> Result<()> {
    carries_every_kind_of_mail(true).await
}

async fn carries_every_kind_of_mail(all_in_one: bool) -> Result<()> {
    let crowd: Vec<String> = (0..200).map(|n| format!("member{n}@demo.test")).collect();
    let stack = stack!()
        .all_in_one(all_in_one)
        .accounts(crowd.clone())
        .start()
        .await?;
    let mut starttls = stack.login("alice@demo.test").await?;
    let mut implicit = stack.login_tls("alice@demo.test").await?;

    arrives(&stack, &mut starttls, "plain", "Hello\r\n").await?;
    arrives(
        &stack,
        &mut implicit,
        "dots",
        ".\r\n..\r\n.leading\r\nend.\r\n",
    )
    .await?;
    arrives(
        &stack,
        &mut starttls,
        "8-bit",
        "Gr\u{fc}\u{df}e aus K\u{f6}ln \u{1f4ee}\r\n",
    )
    .await?;
    arrives(&stack, &mut implicit, "empty body", "").await?;
    arrives(
        &stack,
        &mut starttls,
        "attachment of 25 MiB",
        &attachment(25 << 20),
    )
    .await?;
    two_hundred_recipients(&stack, &mut implicit, &crowd).await?;
    missing_fields_are_added(&stack, &mut starttls).await?;
    stack.end().await
}

async fn arrives(stack: &Stack, client: &mut Client, subject: &str, body: &str) -> Result<()> {
    let sent = mail(subject, body);
    client
        .deliver("alice@demo.test", &["bob@demo.test"], &sent)
        .await
        .context(subject.to_owned())?;
    let found = stack
        .wait_for_mail_with("bob@demo.test", &format!("Subject: {subject}\n"))
        .await?;
    ensure!(
        is_same_mail(&sent, &found.content),
        "{subject} was changed: {:.2000}",
        found.text()
    );
    ensure!(
        found.text().starts_with("Return-Path: <alice@demo.test>\n"),
        "{:.500}",
        found.text()
    );
    ensure!(
        found.text().contains("Delivered-To: bob@demo.test\n"),
        "{:.500}",
        found.text()
    );
    Ok(())
}

/// Base64 of so many octets, in lines of 76 characters.
fn attachment(size: usize) -> String {
    let line = "Lorem+ipsum/dolor+sit+amet+consectetur+adipiscing+elit+sed+do+eiusmod+tempor\r\n";
    line.repeat(size.div_ceil(57))
}

async fn two_hundred_recipients(
    stack: &Stack,
    client: &mut Client,
    crowd: &[String],
) -> Result<()> {
    let sent = mail("for two hundred", "Dear all,\r\n");
    let recipients: Vec<&str> = crowd.iter().map(String::as_str).collect();
    client
        .deliver("alice@demo.test", &recipients, &sent)
        .await?;
    for member in crowd {
        let [found] = &stack.wait_for_mails(member, 1).await?[..] else {
            anyhow::bail!("{member} got it more than once")
        };
        ensure!(
            is_same_mail(&sent, &found.content),
            "{member} got {}",
            found.text()
        );
        // RFC 5321 §7.2: the other recipients are nobody's business.
        ensure!(!found.contains(" for <"), "{member} got {}", found.text());
    }
    Ok(())
}

/// RFC 6409 §8.
async fn missing_fields_are_added(stack: &Stack, client: &mut Client) -> Result<()> {
    let sent = b"From: alice@demo.test\r\nSubject: bare\r\n\r\nHello\r\n";
    client
        .deliver("alice@demo.test", &["bob@demo.test"], sent)
        .await?;
    let found = stack
        .wait_for_mail_with("bob@demo.test", "Subject: bare\n")
        .await?
        .text();
    for (field, count) in [
        ("\nDate: ", 1),
        ("\nMessage-ID: <", 1),
        ("\nReceived: from client.test (", 1),
    ] {
        ensure!(
            found.matches(field).count() == count,
            "{count} times {field:?} in {found}"
        );
    }
    let received = found
        .split("\nReceived: ")
        .nth(1)
        .unwrap_or_default()
        .replace("\n\t", " ")
        .replace("\n ", " ");
    let received = received.lines().next().unwrap_or_default();
    for part in [
        "[127.0.0.1]",
        "TLS",
        " by mx.demo.test (Postroad) with ESMTPSA id ",
        " for <bob@demo.test>;",
    ] {
        ensure!(received.contains(part), "{part:?} is not in {received}");
    }
    Ok(())
}
