//! A mail may say what it likes: copies of the queue's own records in its body are content and nothing else, also when the
//! index is made from the journal alone.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Agent, envelope, is_same_mail, mail, stack, submit};

const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";
/// Where the first record of a segment begins, and to what its records are aligned.
const FIRST_RECORD: usize = 128;
const ALIGNMENT: usize = 8;

/// The records of the first segment as they lie on the disk.
fn records(segment: &[u8]) -> Result<&[u8]> {
    let used = segment.get(FIRST_RECORD..segment.len() - FIRST_RECORD);
    let used = used.context("a segment with two headers")?;
    let end = used.iter().rposition(|octet| *octet != 0);
    Ok(&used[..=end.context("records")?])
}

#[tokio::test]
async fn a_copy_of_real_records_in_a_body_changes_nothing_but_that_mail() -> Result<()> {
    let mut stack = stack!().prepare()?;
    stack
        .bring_up(&[Agent::Queued, Agent::Msa, Agent::Mda])
        .await?;
    let mut client = stack.login(ALICE).await?;
    client
        .deliver(ALICE, &[BOB], &mail("ended", "a\r\n"))
        .await?;
    stack.wait_for_mails(BOB, 1).await?;
    stack.wait_for_empty_queue().await?;
    stack.terminate(Agent::Mda).await?;
    client
        .deliver(ALICE, &[BOB], &mail("waits", "a\r\n"))
        .await?;

    // The mail that ended, its lease and its end, the mail that waits, and all else there is.
    let segment = fs::read(stack.folder().join("state/queue/segments/0000000001.seg"))?;
    let records = records(&segment)?;
    ensure!(
        records
            .windows(14)
            .any(|octets| octets == b"Subject: ended")
    );
    let mut content = mail("forged", "");
    for shift in 0..ALIGNMENT {
        content.extend_from_slice(&b"        "[..shift]);
        content.extend_from_slice(records);
    }
    content.extend_from_slice(b"\r\n");
    client
        .expect(&format!("MAIL FROM:<{ALICE}> BODY=8BITMIME"), "250")
        .await?;
    client.expect(&format!("RCPT TO:<{BOB}>"), "250").await?;
    client
        .write(format!("BDAT {} LAST\r\n", content.len()).as_bytes())
        .await?;
    client.write(&content).await?;
    // No record is without a NUL, and no such mail comes in by SMTP; an agent may bring it all the same.
    let reply = client.reply().await?;
    ensure!(reply.starts_with("550 5.6.0"), "{reply}");
    submit(&stack.queue()?, &envelope(&[BOB])?, &content).await?;

    stack.kill_nine(Agent::Queued).await?;
    fs::remove_dir_all(stack.folder().join("state/queue/index"))?;
    stack.bring_up(&[Agent::Queued, Agent::Mda]).await?;
    let mails = stack.wait_for_mails(BOB, 3).await?;
    stack.wait_for_empty_queue().await?;
    ensure!(mails.len() == 3 && stack.delivered(BOB)?.len() == 3);
    for subject in ["ended", "waits", "forged"] {
        let subject = format!("Subject: {subject}\n");
        let fits = |mail: &&postroad_tests::Mail| {
            let text = mail.text();
            let header = text.split("\n\n").next().unwrap_or_default();
            format!("{header}\n").contains(&subject)
        };
        ensure!(mails.iter().filter(fits).count() == 1, "{subject}");
    }
    let whole = mails
        .iter()
        .any(|mail| is_same_mail(&content, &mail.content));
    ensure!(whole, "the mail was changed on its way");
    let log = stack.log(Agent::Queued);
    ensure!(!log.contains("corruption"), "{log}");
    let reports = stack.delivered(ALICE)?;
    ensure!(reports.is_empty(), "nobody was to be told: {reports:?}");
    stack.end().await
}
