//! `postroad withdraw`: takes back mail that was not tried yet, for the account of the user who calls.

use std::path::Path;

use clap::Args;
use postroad_address::Mailbox;
use postroad_envelope::QueueId;
use postroad_queue_client::{QueueError, QueueNodes, QueueService as _, Withdrawn};
use serde_json::{Value, json};

use super::Site;
use crate::fault::Fault;
use crate::terminal::Terminal;

/// Which mails.
#[derive(Debug, Args)]
pub struct WithdrawArguments {
    /// Queue ids, as the 250 of a mail program or `sendmail -v` tells them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<QueueId>,
    /// Whose mails they are [default: the account of this user, as for sendmail]
    #[arg(long, value_name = "ADDRESS")]
    account: Option<Mailbox>,
}

/// Carries out the verb.
pub fn carry_out(
    arguments: &WithdrawArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let site = Site::open(config).map_err(|error| Fault::not_done(error.why))?;
    let account = arguments.account.as_ref().unwrap_or(&site.account);
    let account = account.to_string();
    let answers = crate::runtime()?.block_on(async {
        let queue = QueueNodes::configured(&site.common).map_err(Fault::not_done)?;
        let mut answers = Vec::new();
        for &id in &arguments.ids {
            let answer = queue.withdraw(id, &account).await;
            answers.push((id, answer.map_err(|error| refused(&error, &account))?));
        }
        Ok::<_, Fault>(answers)
    })?;
    tell(&answers, terminal);
    let is = |wanted| answers.iter().any(|(_, answer)| *answer == wanted);
    match (is(Withdrawn::TooLate), is(Withdrawn::Unknown)) {
        (true, _) => Err(Fault::Told),
        (false, true) => Err(Fault::NoMatch(format!(
            "not all of these are mails of {account} in the queue"
        ))),
        (false, false) => Ok(()),
    }
}

fn refused(error: &QueueError, account: &str) -> Fault {
    match error {
        QueueError::NotAllowed(_) => Fault::NotDone(format!(
            "this user may take back nothing of {account}; an operator may allow it in queued.listen.unix_roles"
        )),
        error => Fault::not_done(error),
    }
}

fn tell(answers: &[(QueueId, Withdrawn)], terminal: &mut Terminal<'_>) {
    if terminal.wants_json() {
        let mails: Vec<Value> = answers
            .iter()
            .map(|(id, answer)| json!({ "queue_id": id.to_string(), "result": word(*answer) }))
            .collect();
        terminal.object(json!({ "mails": mails }));
        return;
    }
    for (id, answer) in answers {
        let said = match answer {
            Withdrawn::Done => "taken back; nothing of it was sent, and nobody is told",
            Withdrawn::TooLate => {
                "too late; some of it was tried or is being tried, and it goes on"
            }
            Withdrawn::Unknown => "not there, or it has ended",
        };
        terminal.line(format_args!("{id}  {said}"));
    }
}

fn word(answer: Withdrawn) -> &'static str {
    match answer {
        Withdrawn::Done => "withdrawn",
        Withdrawn::TooLate => "too_late",
        Withdrawn::Unknown => "unknown",
    }
}
