//! The queue goes away and comes back: clients are told 451 4.3.0, what had its 250 arrives once, and every agent
//! connects again.

use anyhow::{Result, ensure};
use postroad_tests::{Agent, mail, stack};

const ROUNDS: usize = 3;
const MAILS: usize = 20;

#[tokio::test]
async fn mail_that_had_its_250_arrives_once() -> Result<()> {
    let mut stack = stack!().start().await?;
    let mut client = stack.login("alice@demo.test").await?;
    for round in 0..ROUNDS {
        for number in 0..MAILS {
            let content = mail(&format!("mail {round}-{number}"), "a\r\n");
            client
                .deliver("alice@demo.test", &["bob@demo.test"], &content)
                .await?;
        }
        ensure!(
            stack.terminate(Agent::Queued).await? == 0,
            "the queue ended badly"
        );
        let refused = mail(&format!("refused {round}"), "a\r\n");
        let reply = client
            .attempt("alice@demo.test", &["bob@demo.test"], &refused)
            .await?;
        ensure!(reply.starts_with("451 4.3.0"), "{reply}");

        stack.bring_up(&[Agent::Queued]).await?;
        let again = mail(&format!("again {round}"), "a\r\n");
        let reply = stack
            .submit_while("451 4.3.0", "bob@demo.test", &again)
            .await?;
        ensure!(reply.starts_with("250"), "{reply}");
        // The connection that was refused goes on as if nothing had been.
        client.expect("RSET", "250").await?;
    }

    let expected = ROUNDS * (MAILS + 1);
    let mails = stack.wait_for_mails("bob@demo.test", expected).await?;
    ensure!(
        mails.len() == expected,
        "{} mails instead of {expected}",
        mails.len()
    );
    for round in 0..ROUNDS {
        for number in 0..MAILS {
            let subject = format!("Subject: mail {round}-{number}\n");
            let copies = mails.iter().filter(|mail| mail.contains(&subject)).count();
            ensure!(copies == 1, "{copies} copies of {subject}");
        }
    }
    stack.end().await
}
