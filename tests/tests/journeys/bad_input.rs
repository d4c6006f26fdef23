//! What clients do wrong gets the right reply, and neither loses nor doubles anybody's mail.

use anyhow::{Result, ensure};
use postroad_tests::{Client, Stack, mail, stack};

const SIZE_LIMIT: usize = 64 << 10;

#[tokio::test]
async fn nonsense_is_refused_and_later_mail_arrives() -> Result<()> {
    let settings = format!("[mta.inbound]\nsize_limit = \"{SIZE_LIMIT}B\"\n");
    let stack = stack!().settings(&settings).start().await?;
    bad_line_ends(&stack).await?;
    bad_lines(&stack).await?;
    out_of_order(&stack).await?;
    oversize(&stack).await?;
    half_a_mail(&stack).await?;

    let mut world = stack.world_client().await?;
    world
        .deliver(
            "friend@world.test",
            &["bob@demo.test"],
            &mail("good", "a\r\n"),
        )
        .await?;
    let mails = stack.wait_for_mails("bob@demo.test", 1).await?;
    stack.wait_for_empty_queue().await?;
    ensure!(
        mails.len() == 1 && stack.delivered("bob@demo.test")?.len() == 1,
        "{mails:?}"
    );
    stack.end().await
}

/// RFC 5321 §2.3.8: lines end with CRLF and nothing else, or mail could be smuggled.
async fn bad_line_ends(stack: &Stack) -> Result<()> {
    let mut world = stack.world_client().await?;
    says(&mut world, b"NOOP\n", "500 5.5.2").await?;
    says(&mut world, b"NO\0OP\r\n", "500 5.5.2").await?;
    for content in [
        &b"Subject: smuggler\r\n\r\na\n.\r\nMAIL FROM:<forged@world.test>\r\n.\r\n"[..],
        b"Subject: bare CR\r\n\r\na\rb\r\n.\r\n",
        b"Subject: NUL\r\n\r\na\0b\r\n.\r\n",
    ] {
        begin_data(&mut world).await?;
        says(&mut world, content, "550 5.6.0").await?;
    }
    world.expect("NOOP", "250").await?;
    Ok(())
}

async fn bad_lines(stack: &Stack) -> Result<()> {
    let mut world = stack.world_client().await?;
    let long = format!("NOOP {}", "a".repeat(20_000));
    world.expect(&long, "500 5.5.").await?;
    world.expect("XYZZY", "500 5.5.1").await?;
    world.expect("MAIL FROM:alice", "501").await?;
    world
        .expect("MAIL FROM:<a@world.test> XYZZY=1", "555")
        .await?;
    world.expect("NOOP", "250").await?;
    Ok(())
}

async fn out_of_order(stack: &Stack) -> Result<()> {
    let (mut world, _) = Client::connect(stack.ports.smtp()).await?;
    world
        .expect("MAIL FROM:<a@world.test>", "503 5.5.1")
        .await?;
    world.expect("EHLO mx.world.test", "250").await?;
    world.expect("RCPT TO:<bob@demo.test>", "503 5.5.1").await?;
    world.expect("DATA", "503 5.5.1").await?;
    world.expect("MAIL FROM:<a@world.test>", "250").await?;
    world
        .expect("MAIL FROM:<a@world.test>", "503 5.5.1")
        .await?;
    world.expect("DATA", "503 5.5.1").await?;
    Ok(())
}

/// RFC 1870 §6: announced or not.
async fn oversize(stack: &Stack) -> Result<()> {
    let mut world = stack.world_client().await?;
    let announced = format!("MAIL FROM:<a@world.test> SIZE={}", SIZE_LIMIT + 1);
    world.expect(&announced, "552 5.3.4").await?;
    begin_data(&mut world).await?;
    let mut content = mail("oversize", &"a line of text\r\n".repeat(SIZE_LIMIT / 10));
    content.extend_from_slice(b".\r\n");
    says(&mut world, &content, "552 5.3.4").await?;
    world.expect("NOOP", "250").await?;
    Ok(())
}

/// RFC 5321 §4.1.1.4: without the final dot there is no mail.
async fn half_a_mail(stack: &Stack) -> Result<()> {
    for end in ["", ".", ".\r"] {
        let mut world = stack.world_client().await?;
        begin_data(&mut world).await?;
        world
            .write(format!("Subject: half\r\n\r\nthe rest is mis\r\n{end}").as_bytes())
            .await?;
        drop(world);
    }
    Ok(())
}

/// Local parts that would lead elsewhere if they were taken for file names.
#[tokio::test]
async fn odd_local_parts_stay_in_their_own_mailbox() -> Result<()> {
    let umlauts = "\u{fc}".repeat(32);
    let accounts = [
        "\"..\"".to_owned(),
        "a/b".to_owned(),
        "\"../../x\"".to_owned(),
        umlauts,
    ];
    let addresses = accounts
        .each_ref()
        .map(|local| format!("{local}@demo.test"));
    let stack = stack!().accounts(addresses.clone()).start().await?;
    let (mut world, _) = Client::connect(stack.ports.smtp()).await?;
    world.expect("EHLO mx.world.test", "250").await?;
    world
        .expect("MAIL FROM:<friend@world.test> SMTPUTF8", "250")
        .await?;
    // Unquoted it is no local part at all (RFC 5321 §4.1.2).
    world.expect("RCPT TO:<..@demo.test>", "501 5.1.3").await?;
    world
        .expect("RCPT TO:<../bob@demo.test>", "501 5.1.3")
        .await?;
    for address in &addresses {
        world.expect(&format!("RCPT TO:<{address}>"), "250").await?;
    }
    world.expect("DATA", "354").await?;
    let mut content = mail("odd", "a\r\n");
    content.extend_from_slice(b".\r\n");
    says(&mut world, &content, "250").await?;

    for address in &addresses {
        stack.wait_for_mails(&address.replace('"', ""), 1).await?;
    }
    let root = stack.folder().join("mail");
    let folders: Vec<String> = names(&root.join("demo.test"))?;
    ensure!(folders.len() == accounts.len(), "{folders:?}");
    for folder in &folders {
        ensure!(!folder.starts_with('.') && folder.is_ascii(), "{folders:?}");
        ensure!(names(&root.join("demo.test").join(folder).join("Maildir/new"))?.len() == 1);
    }
    stack.end().await
}

fn names(folder: &std::path::Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

async fn begin_data(client: &mut Client) -> Result<()> {
    client
        .expect("MAIL FROM:<friend@world.test>", "250")
        .await?;
    client.expect("RCPT TO:<bob@demo.test>", "250").await?;
    client.expect("DATA", "354").await?;
    Ok(())
}

async fn says(client: &mut Client, octets: &[u8], prefix: &str) -> Result<()> {
    client.write(octets).await?;
    let reply = client.reply().await?;
    ensure!(
        reply.starts_with(prefix),
        "{:?} was answered {reply:?}",
        String::from_utf8_lossy(&octets[..octets.len().min(60)])
    );
    Ok(())
}
