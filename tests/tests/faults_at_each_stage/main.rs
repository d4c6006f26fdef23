//! Whatever goes wrong at whatever stage of a conversation, a mail ends delivered or bounced, as RFC 5321 says, and is never
//! lost: each stage × each fault, by the agents themselves against hosts that follow scripts, all at once in one stack.
//!
//! The table in `deploy/guide/relay.md` is what was seen (`UPDATE_GENERATED=1 cargo test -p postroad-tests --test
//! faults_at_each_stage` writes it). What must hold of every cell is checked here, whatever the table says.

mod cases;
mod page;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use postroad_rehearsal::{Keep, Options, Place, Script, Taken, Watched};
use postroad_tests::{Agent, PATIENCE, Stack, mail, stack, wait_for};
use serde_json::Value;

use cases::{CASES, Case, Loss, Permanence, cases};

/// Time-outs of minutes as seconds, still long for a machine that builds something else meanwhile.
const SETTINGS: &str = r#"
[mta.outbound]
concurrency = 200

[mta.outbound.timeouts]
connect = "3s"
tls = "3s"
greeting = "3s"
command = "3s"
data = "3s"
block = "3s"
end = "3s"
quit = "1s"
conversation = "20s"
"#;
/// More than a host reads before it does what the script says of content.
const LARGE: usize = 300 << 10;

/// What became of the mail of a case.
struct Seen {
    /// Outcome and status of each attempt.
    attempts: Vec<(String, String)>,
    taken: Vec<Arc<Taken>>,
    bounced: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_delivered_or_bounced_whatever_goes_wrong_when() -> Result<()> {
    let cases = cases();
    ensure!(cases.len() <= CASES, "{} cases", cases.len());
    let certificates = tempfile::tempdir()?;
    let authority = certificates.path().join("ca/ca.pem");
    let zone: String = cases.iter().map(Case::zone).collect();
    let hosts: String = cases.iter().map(|case| case.entry(&authority)).collect();
    let stack = stack!().settings(SETTINGS).settings(&hosts).zone(&zone);
    let mut stack = stack.prepare()?;
    let options = Options {
        keep: Keep::InMemory,
        certificates: Some(certificates.path().to_owned()),
        talk: true,
    };
    let port = stack.ports.world;
    let peers = cases.iter().map(|case| {
        let place = Place::Tcp((case.address(), port).into());
        let options = options.clone();
        async move {
            Watched::start_with(Script::parse(&case.script())?, place, options)
                .await
                .with_context(|| case.name())
        }
    });
    let mut peers: Vec<Watched> = try_join_all(peers).await?;
    stack.start_all().await?;

    let mut alice = stack.login("alice@demo.test").await?;
    for case in &cases {
        let body = "0123456789\r\n".repeat(if case.is_large() { LARGE / 12 } else { 1 });
        let content = mail(&case.name(), &body);
        alice
            .deliver("alice@demo.test", &[&case.recipient()], &content)
            .await?;
    }
    // A door that was shut opens once somebody has stood before it.
    for (case, peer) in cases.iter().zip(&mut peers) {
        if case.door().is_some() {
            first_attempt(&stack, case).await?;
            let place = peer.place().clone();
            let closed = std::mem::replace(
                peer,
                Watched::start(Script::default(), Place::default()).await?,
            );
            drop(closed);
            *peer = wait_for("the port of a door that was shut", async || {
                let script = Script::parse(&case.good_script()).ok()?;
                Watched::start_with(script, place.clone(), options.clone())
                    .await
                    .ok()
            })
            .await?;
        }
    }
    stack.wait_for_empty_queue().await?;

    let seen = look(&stack, &cases, &peers).await?;
    let (mut cells, mut wrong) = (BTreeMap::new(), Vec::new());
    for (case, seen) in cases.iter().zip(&seen) {
        if let Err(problem) = judge(case, seen) {
            let (name, attempts, copies) = (case.name(), &seen.attempts, seen.taken.len());
            wrong.push(format!(
                "{name}: {problem}; attempts {attempts:?}, copies {copies}"
            ));
        }
        cells.insert((case.row, case.column), told(case, seen));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    page::compare(&cells)?;
    stack.end().await
}

/// Waits until a host was tried in vain.
async fn first_attempt(stack: &Stack, case: &Case) -> Result<()> {
    let to = format!("\"rcpt_to\":\"{}\"", case.recipient());
    let to = [to.as_str(), "\"outcome\":\"delayed\""];
    stack.wait_for_log(Agent::Mta, &to).await?;
    Ok(())
}

async fn look(stack: &Stack, cases: &[Case], peers: &[Watched]) -> Result<Vec<Seen>> {
    let log = stack.log(Agent::Mta);
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<Value> = lines
        .filter(|line| line["event"] == "attempt" && line["outcome"].is_string())
        .collect();
    // Each report was settled before the queue was empty.
    let inbox = stack.delivered("alice@demo.test")?;
    let mut all = Vec::new();
    for (case, peer) in cases.iter().zip(peers) {
        let to = case.recipient();
        let of_case = lines.iter().filter(|line| {
            line["rcpt_to"]
                .as_str()
                .is_some_and(|text| text.contains(&to))
        });
        let attempts: Vec<(String, String)> = of_case
            .map(|line| {
                let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                (text("outcome"), text("enhanced"))
            })
            .collect();
        // The host counts before it answers; its events may still be on their way here.
        let count = usize::try_from(peer.totals().taken)?;
        let taken = peer
            .wait_for_mails(count, PATIENCE)
            .await
            .context("events of mails")?;
        let bounced = inbox
            .iter()
            .any(|mail| mail.contains(&to) && mail.contains("Action: failed"));
        all.push(Seen {
            attempts,
            taken,
            bounced,
        });
    }
    Ok(all)
}

/// Never lost; told of only if nobody has it; twice only where the host took it and its answer was lost (RFC 1047).
fn judge(case: &Case, seen: &Seen) -> Result<()> {
    let copies = seen.taken.len();
    ensure!(copies > 0 || seen.bounced, "the mail is lost");
    ensure!(
        copies == 0 || !seen.bounced,
        "the mail is with the recipient, and yet was bounced"
    );
    match case.loses_the_last_reply() {
        Loss::OfReply => ensure!(copies == 2, "{copies} copies"),
        Loss::None => ensure!(copies <= 1, "{copies} copies"),
    }
    let whole = |mail: &Arc<Taken>| mail.content.ends_with(b"0123456789\r\n");
    ensure!(seen.taken.iter().all(whole), "half a mail was taken");
    if case.is_verified() {
        ensure!(
            seen.taken.iter().all(|mail| mail.tls),
            "it went in plain text"
        );
    }
    let (first, _) = seen.attempts.first().context("no attempt is told")?;
    match case.permanence() {
        Permanence::ForGood => ensure!(
            seen.bounced && seen.attempts.len() == 1,
            "5xx is not for good"
        ),
        Permanence::MayPass => ensure!(!seen.bounced, "bounced for what may pass"),
        Permanence::Either => {}
    }
    let (last, _) = seen.attempts.last().context("no attempt is told")?;
    let end = if seen.bounced { "failed" } else { "relayed" };
    ensure!(last == end, "the last attempt was {last} after {first}");
    Ok(())
}

/// What the table says. No status: whether a reset comes before the system has the connection, say, is for it to tell.
fn told(case: &Case, seen: &Seen) -> String {
    let first = seen.attempts.first();
    let told = match (first.map(|(outcome, _)| outcome.as_str()), seen.taken.len()) {
        (Some("failed"), _) => "bounced",
        (Some("delayed"), 2..) => "delayed, delivered twice",
        (Some("delayed"), _) => "delayed",
        _ if case.is_about_tls() && seen.taken.iter().all(|mail| !mail.tls) => {
            "delivered in plain text"
        }
        _ => "delivered",
    };
    told.to_owned()
}
