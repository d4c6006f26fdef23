//! Rules of an agent that takes mail of our own users.

use super::{handing_over, stage::Stage};
use crate::{
    Problem,
    rules::{Outcome, rules},
};

rules![Stage;
    "submit.account": "mail of an account: `account` is set, and `origin.account` is the same or absent" => handing_over::role,
    "submit.admit": "so that a client hears 452 before it sends ten megabytes" => admits_the_account,
    "submit.counts": "Nobody should wait long for an answer: an agent that gets none soon counts by itself." => counts,
];

/// The account is named when room is asked for, since quotas are of accounts.
async fn admits_the_account(stage: &mut Stage) -> Outcome {
    stage.queue.desk.reset();
    let account = stage.target.account.clone();
    let mut client = stage.client().await?;
    let content = b"Subject: asked for\r\n\r\nhello\r\n";
    let reply = client.send(&account, &[&account], content).await?;
    if !reply.starts_with("250") {
        return Problem::broken(format!("the client heard {reply:?}"));
    }
    let admitted = stage.queue.desk.state().admitted.clone();
    let asked = admitted.first().and_then(|asked| asked.account.clone());
    match asked.is_some_and(|asked| asked.eq_ignore_ascii_case(&account)) {
        true => Ok(()),
        false => Problem::broken("Admit names no account, or another"),
    }
}

/// The queue counts in silence, and mail goes on.
async fn counts(stage: &mut Stage) -> Outcome {
    stage.queue.desk.reset();
    stage
        .queue
        .desk
        .change(|state| state.counts_in_silence = true);
    let account = stage.target.account.clone();
    let mut client = stage.client().await?;
    let content = b"Subject: counted by itself\r\n\r\nhello\r\n";
    let reply = client.send(&account, &[&account], content).await;
    let counts = stage.queue.desk.state().counts;
    stage.queue.desk.reset();
    match (reply?.starts_with("250"), counts) {
        (true, 0) => Err(Problem::NotTried(
            "it counts nothing at the queue".to_owned(),
        )),
        (true, _) => Ok(()),
        (false, _) => Problem::broken("no mail is taken while nothing is counted"),
    }
}
