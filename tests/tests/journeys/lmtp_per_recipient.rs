//! Another transfer agent hands mail to the MDA by LMTP and hears about each recipient (RFC 2033 §4.2).

use anyhow::{Result, ensure};
use postroad_tests::{Client, is_same_mail, mail, stack};

#[tokio::test]
async fn each_recipient_has_a_reply_of_its_own() -> Result<()> {
    let stack = stack!().start().await?;
    let (mut lmtp, _) = Client::connect(stack.ports.lmtp()).await?;
    lmtp.expect("EHLO mta.test", "5").await?;
    lmtp.expect("LHLO mta.test", "250").await?;
    lmtp.expect("MAIL FROM:<friend@world.test>", "250").await?;
    lmtp.expect("RCPT TO:<bob@demo.test>", "250").await?;
    lmtp.expect("RCPT TO:<nobody@demo.test>", "550 5.1.1")
        .await?;
    lmtp.expect("RCPT TO:<friend@world.test>", "550").await?;
    lmtp.expect("RCPT TO:<carol@demo.test>", "250").await?;
    lmtp.expect("DATA", "354").await?;
    let sent = mail("by LMTP", "a\r\n");
    lmtp.write(&sent).await?;
    lmtp.write(b".\r\n").await?;
    for recipient in ["bob", "carol"] {
        let reply = lmtp.reply().await?;
        ensure!(reply.starts_with("250 2."), "{recipient}: {reply}");
    }
    // Two replies and no more: the next one belongs to the next command.
    lmtp.expect("RSET", "250").await?;
    for account in ["bob@demo.test", "carol@demo.test"] {
        let found = stack.wait_for_mails(account, 1).await?.remove(0);
        ensure!(is_same_mail(&sent, &found.content), "{}", found.text());
        ensure!(found.contains("LMTP"), "RFC 3848: {}", found.text());
    }

    lmtp.expect("MAIL FROM:<friend@world.test>", "250").await?;
    lmtp.expect("RCPT TO:<nobody@demo.test>", "550 5.1.1")
        .await?;
    lmtp.expect("DATA", "503").await?;
    lmtp.expect("RSET", "250").await?;
    stack.end().await
}
