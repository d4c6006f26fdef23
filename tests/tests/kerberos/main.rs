//! Clients that are not Rust log in by tickets of a KDC that is not Rust: MIT's, on loopback, in a folder of its own.
//!
//! Built with the feature `gssapi` alone, by the step `kerberos` of `cargo ci`, whose `.ci/run` installs what it needs.
#![forbid(unsafe_code)]

mod realm;

use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_tests::{Agent, Client, PASSWORD, Stack, mail, stack};
use tokio::process::Command;

use self::realm::{Kdc, Tickets};

const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";
const SETTINGS: &str = "[msa.auth]\nmechanisms = [\"GSSAPI\", \"PLAIN\"]\n\
    delay = \"1ms\"\nmax_delay = \"1ms\"\nmax_failures = 100\nban_after = 0\n\
    [msa.auth.gssapi]\nhostname = \"localhost\"\nrealms = { \"DEMO.TEST\" = \"demo.test\" }\n";
/// RFC 4752 §3.3: no layer.
const NO_LAYER: [u8; 4] = [1, 0, 0, 0];

async fn start(kdc: &Kdc) -> Result<Stack> {
    let mut stack = stack!().settings(SETTINGS).prepare()?;
    for (name, value) in kdc.environment_of_service() {
        stack.set_variable(Agent::Msa, name, value);
    }
    stack.start_all().await?;
    Ok(stack)
}

#[tokio::test]
async fn curl_and_msmtp_send_with_a_ticket() -> Result<()> {
    let kdc = Kdc::start().await?;
    let stack = start(&kdc).await?;
    let tickets = kdc.tickets("alice@DEMO.TEST").await?;
    let file = stack.folder().join("mail.eml");
    std::fs::write(&file, mail("by a ticket", "a\r\n"))?;
    let (port, ca) = (stack.ports.submissions().port(), stack.ca_file());
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--verbose",
        "--login-options",
        "AUTH=GSSAPI",
    ])
    .args([
        "--user",
        "alice@DEMO.TEST:",
        "--mail-from",
        ALICE,
        "--mail-rcpt",
        BOB,
    ])
    .arg("--cacert")
    .arg(&ca)
    .arg("--upload-file")
    .arg(&file)
    .arg(format!("smtps://localhost:{port}/client.test"));
    ended_well(curl, &kdc, &tickets).await?;
    stack.wait_for_mails(BOB, 1).await?;
    let mut msmtp = Command::new("msmtp");
    msmtp
        .args([
            "--host=localhost",
            "--domain=client.test",
            "--set-from-header=off",
        ])
        .args(["--debug", "--tls=on", "--tls-starttls=off", "--auth=gssapi"])
        .arg(format!("--port={port}"))
        .arg(format!("--tls-trust-file={}", ca.display()))
        .args([
            &format!("--user={ALICE}"),
            &format!("--from={ALICE}"),
            "--",
            BOB,
        ])
        .stdin(std::fs::File::open(&file)?);
    ended_well(msmtp, &kdc, &tickets).await?;
    stack.wait_for_mails(BOB, 2).await?;
    let log = stack.log(Agent::Msa);
    ensure!(
        log.matches("\"mechanism\":\"GSSAPI\"").count() == 2,
        "{log}"
    );
    stack.end().await
}

async fn ended_well(mut command: Command, kdc: &Kdc, tickets: &Tickets) -> Result<()> {
    let output = command
        .envs(kdc.environment_of_client(tickets))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{command:?} (the Debian packages curl and msmtp)"))?;
    let told = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&told)
    );
    Ok(())
}

/// A client under TLS that has said EHLO.
async fn client(stack: &Stack) -> Result<Client> {
    let (client, _) = Client::connect(stack.ports.submission()).await?;
    let mut client = client.starttls(&stack.ca_file()).await?;
    let hello = client.command("EHLO client.test").await?;
    ensure!(hello.contains("AUTH GSSAPI PLAIN"), "{hello}");
    Ok(client)
}

/// How a log-in by a ticket goes on, once the context stands.
enum Choice<'a> {
    /// Protected as it ought to be: the layer, and whom to act as.
    Wrapped([u8; 4], &'a str),
    /// As it stands.
    Bare(&'a [u8]),
}

/// The last reply to a log-in by a ticket for this service.
async fn log_in(
    client: &mut Client,
    (kdc, tickets): (&Kdc, &Tickets),
    service: &str,
    choice: Choice<'_>,
) -> Result<String> {
    let mut ours = kdc.client_of(tickets, service)?;
    let token = ours.step("").await?;
    let reply = client.command(&format!("AUTH GSSAPI {token}")).await?;
    let Some(mutual) = reply.strip_prefix("334 ") else {
        return Ok(reply);
    };
    ensure!(
        ours.step(mutual).await?.is_empty(),
        "the context does not stand"
    );
    let offer = client.expect("", "334 ").await?;
    let offer = ours
        .unwrap(offer.strip_prefix("334 ").context("no offer")?)
        .await?;
    ensure!(offer == NO_LAYER, "{offer:?}");
    let answer = match choice {
        Choice::Wrapped(layer, authzid) => {
            ours.wrap(&[&layer[..], authzid.as_bytes()].concat())
                .await?
        }
        Choice::Bare(octets) => BASE64_STANDARD.encode(octets),
    };
    client.command(&answer).await
}

#[tokio::test]
async fn only_a_ticket_of_ones_own_lets_in() -> Result<()> {
    let kdc = Kdc::start().await?;
    let stack = start(&kdc).await?;
    let alice = kdc.tickets("alice@DEMO.TEST").await?;
    let smtp = "smtp@localhost";
    // Whom a client wants to act as is itself, under each name it may know itself by.
    for authzid in ["", "alice", "alice@DEMO.TEST", ALICE] {
        let mut client = client(&stack).await?;
        let choice = Choice::Wrapped(NO_LAYER, authzid);
        let reply = log_in(&mut client, (&kdc, &alice), smtp, choice).await?;
        ensure!(reply.starts_with("235 2.7.0"), "{authzid}: {reply}");
        client
            .deliver(ALICE, &[BOB], &mail("by a ticket", "a\r\n"))
            .await?;
    }
    let mut at_door = client(&stack).await?;
    for (choice, code) in [
        (Choice::Wrapped(NO_LAYER, BOB), "535 5.7.8"),
        (Choice::Wrapped(NO_LAYER, "bob"), "535 5.7.8"),
        (Choice::Wrapped([2, 0, 16, 0], ""), "501 5.5.2"),
        (Choice::Wrapped([4, 0, 16, 0], "alice"), "501 5.5.2"),
        // Whoever is between, and could not protect it.
        (Choice::Bare(&NO_LAYER), "535 5.7.8"),
        (Choice::Bare(b""), "535 5.7.8"),
    ] {
        let reply = log_in(&mut at_door, (&kdc, &alice), smtp, choice).await?;
        ensure!(reply.starts_with(code), "{reply}, not {code}");
    }
    // The keytab has a key for that service too; mail is not what its ticket was got for.
    let choice = Choice::Wrapped(NO_LAYER, "");
    let reply = log_in(&mut at_door, (&kdc, &alice), "host@localhost", choice).await?;
    ensure!(reply.starts_with("535 5.7.8"), "{reply}");
    for (principal, reason) in [
        (
            "alice@ELSEWHERE.TEST",
            "its realm is not in msa.auth.gssapi.realms",
        ),
        ("alice/admin@DEMO.TEST", "not in msa.auth.gssapi.accounts"),
        // Of the realm, without an account.
        ("mallory@DEMO.TEST", ""),
    ] {
        let tickets = kdc.tickets(principal).await?;
        let choice = Choice::Wrapped(NO_LAYER, "");
        let reply = log_in(&mut at_door, (&kdc, &tickets), smtp, choice).await?;
        ensure!(
            reply == "535 5.7.8 name or password is wrong",
            "{principal}: {reply}"
        );
        if !reason.is_empty() {
            stack
                .wait_for_log(Agent::Msa, &["ticket_refused", principal, reason])
                .await?;
        }
    }
    // All of that cost the client nothing but its tries: it has a password too.
    at_door.login(ALICE, PASSWORD).await?;
    stack.wait_for_mails(BOB, 4).await?;
    stack.end().await
}

#[tokio::test]
async fn what_is_no_ticket_or_was_used_before_lets_nobody_in() -> Result<()> {
    let kdc = Kdc::start().await?;
    let stack = start(&kdc).await?;
    let alice = kdc.tickets("alice@DEMO.TEST").await?;
    let mut client = client(&stack).await?;
    let token = kdc.client_of(&alice, "smtp@localhost")?.step("").await?;
    // Begun, and given up.
    client
        .expect(&format!("AUTH GSSAPI {token}"), "334 ")
        .await?;
    client.expect("*", "501 5.7.0").await?;
    // Whoever saw it go by cannot begin with it again.
    client
        .expect(&format!("AUTH GSSAPI {token}"), "535 5.7.8")
        .await?;
    let mut changed = BASE64_STANDARD.decode(&token)?;
    *changed.last_mut().context("empty")? ^= 1;
    let half = &changed[..changed.len() / 2];
    for garbage in [
        b"garbage".as_slice(),
        &[0x60, 0x82, 0xff, 0xff],
        &[0; 6000],
        &changed,
        half,
    ] {
        let line = BASE64_STANDARD.encode(garbage);
        client.expect("AUTH GSSAPI", "334").await?;
        client.expect(&line, "535 5.7.8").await?;
    }
    for (line, code) in [("*", "501 5.7.0"), ("=?=", "501 5.5.2"), ("", "501 5.5.2")] {
        client.expect("AUTH GSSAPI", "334").await?;
        client.expect(line, code).await?;
    }
    client
        .expect("MAIL FROM:<alice@demo.test>", "530 5.7.0")
        .await?;
    stack.end().await
}

#[tokio::test]
async fn without_a_key_of_the_service_it_does_not_start() -> Result<()> {
    let kdc = Kdc::start().await?;
    let mut stack = stack!().settings(SETTINGS).prepare()?;
    for (name, value) in kdc.environment_of_service() {
        let value = match name {
            "KRB5_KTNAME" => stack.folder().join("none.keytab").into(),
            _ => value,
        };
        stack.set_variable(Agent::Msa, name, value);
    }
    stack.start(Agent::Msa)?;
    let status = stack.status(Agent::Msa).await?;
    let log = stack.log(Agent::Msa);
    for word in [
        "conf.d/00.toml:7",
        "there is no key of smtp@localhost",
        "none.keytab",
        "KRB5_KTNAME=FILE",
    ] {
        if !log.contains(word) {
            bail!("{word:?} is not in {log}");
        }
    }
    ensure!(status == 78, "{status}: {log}");
    stack.end().await
}
