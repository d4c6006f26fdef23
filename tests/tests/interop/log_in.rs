//! Mail programs prove their password by each mechanism that they have, as accounts with keys do.

use std::{ffi::OsString, path::Path};

use anyhow::{Context as _, Result, ensure};
use postroad_sasl::{CramSecret, SCRAM_ITERATIONS, ScramHash, ScramKeys};
use postroad_tests::{Agent, PASSWORD, Stack, stack};
use serde_json::json;

use crate::{
    clients::{Ended, run, script},
    needs::python,
    world::World,
};

const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";
const SETTINGS: &str = "[msa.auth]\ndelay = \"1ms\"\nmax_delay = \"1ms\"\nban_after = 0\n\
    mechanisms = [\"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\", \"SCRAM-SHA-1\", \"CRAM-MD5\", \"PLAIN\", \"LOGIN\"]\n";

pub async fn by_each_mechanism_of_a_program(world: &World) -> Result<()> {
    let stack = start().await?;
    let file = &world.samples.plain.file;
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"] {
        for (password, right) in [(PASSWORD, true), ("wrong", false)] {
            let ended = msmtp(&stack, mechanism, password, file).await?;
            ensure!(ended.well == right, "{mechanism}: {:.3000}", ended.said);
            told(&stack, mechanism, right).await?;
        }
    }
    for mechanism in ["CRAM-MD5", "LOGIN"] {
        for (password, right) in [(PASSWORD, true), ("wrong", false)] {
            let ended = swaks(&stack, mechanism, password).await?;
            ensure!(ended.well == right, "{mechanism}: {:.3000}", ended.said);
        }
    }
    // It takes the first of its own list that is offered, which begins with CRAM-MD5.
    let ended = smtplib(&stack, file).await?;
    ensure!(ended.well, "{:.3000}", ended.said);
    stack.wait_for_mails(BOB, 5 + 2 + 1).await?;
    stack.end().await
}

/// What the log says of a log-in.
async fn told(stack: &Stack, mechanism: &str, right: bool) -> Result<()> {
    let event = match right {
        true => "\"event\":\"auth_succeeded\"",
        false => "\"event\":\"auth_failed\"",
    };
    let mechanism = format!("\"mechanism\":\"{mechanism}\"");
    let words = [event, &mechanism, ALICE];
    stack.wait_for_log(Agent::Msa, &words).await.map(drop)
}

/// One whose first account has keys and a secret of its password.
async fn start() -> Result<Stack> {
    let mut stack = stack!().settings(SETTINGS).start().await?;
    let file = stack.directory_file();
    let before = std::fs::read_to_string(&file)?;
    let alice = before.find("[[account]]").context("an account")?;
    ensure!(before[alice..].contains(ALICE), "alice is not the first");
    let scram = |hash| ScramKeys::derive(hash, PASSWORD, &[7; 16], SCRAM_ITERATIONS);
    let keys = format!(
        "[[account]]\nscram_sha_256 = \"{}\"\nscram_sha_1 = \"{}\"\nrecoverable_secret = \"{}\"",
        scram(ScramHash::Sha256)?,
        scram(ScramHash::Sha1)?,
        *CramSecret::new(PASSWORD.as_bytes()).to_text()
    );
    std::fs::write(&file, before.replacen("[[account]]", &keys, 1))?;
    for agent in [Agent::Queued, Agent::Msa] {
        stack.restart(agent).await?;
    }
    Ok(stack)
}

async fn msmtp(stack: &Stack, mechanism: &str, password: &str, file: &Path) -> Result<Ended> {
    let mut call = words("--host=localhost --domain=client.test --set-from-header=off --debug");
    call.extend(words("--tls=on --tls-starttls=off"));
    call.extend([
        format!("--port={}", stack.ports.submissions().port()).into(),
        format!("--tls-trust-file={}", stack.ca_file().display()).into(),
        format!("--auth={}", mechanism.to_ascii_lowercase()).into(),
        format!("--user={ALICE}").into(),
        format!("--passwordeval=echo '{password}'").into(),
        format!("--from={ALICE}").into(),
        "--".into(),
        BOB.into(),
    ]);
    run("msmtp", call, Some(file)).await
}

async fn swaks(stack: &Stack, mechanism: &str, password: &str) -> Result<Ended> {
    let mut call = words("--server localhost --protocol ESMTP --helo client.test --tls-on-connect");
    call.extend([
        "--port".into(),
        stack.ports.submissions().port().to_string().into(),
    ]);
    call.extend([
        "--tls-verify".into(),
        "--tls-ca-path".into(),
        stack.ca_file().into(),
    ]);
    call.extend(words(&format!(
        "--from {ALICE} --to {BOB} --auth {mechanism} --auth-user {ALICE}"
    )));
    call.extend(["--auth-password".into(), password.into()]);
    run("swaks", call, None).await
}

async fn smtplib(stack: &Stack, file: &Path) -> Result<Ended> {
    let orders = json!({
        "port": stack.ports.submissions().port(),
        "ca_file": stack.ca_file(),
        "tls": "implicit",
        "account": ALICE,
        "password": PASSWORD,
        "from": ALICE,
        "to": [BOB],
        "file": file,
    });
    run(
        python(),
        vec![script("submit.py").into(), orders.to_string().into()],
        None,
    )
    .await
}

fn words(text: &str) -> Vec<OsString> {
    text.split(' ').map(OsString::from).collect()
}
