//! Logging in by each mechanism that takes a password, with the directory in a file and asked of the queue: who knows the password
//! gets in, and whoever does not hears the same whether there is such an account or not.

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_sasl::{ClientExchange, Credentials, Evidence, Mechanism, Password};
use postroad_tests::{Agent, Client, PASSWORD, Stack, mail, stack};

const ALICE: &str = "alice@demo.test";
const SETTINGS: &str = "[msa.auth]\ndelay = \"1ms\"\nmax_delay = \"1ms\"\nmax_failures = 100\nban_after = 0\n\
    mechanisms = [\"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\", \"SCRAM-SHA-1\", \"CRAM-MD5\", \"PLAIN\", \"LOGIN\"]\n";
const BY_PASSWORD: [Mechanism; 5] = [
    Mechanism::ScramSha256,
    Mechanism::ScramSha1,
    Mechanism::CramMd5,
    Mechanism::Plain,
    Mechanism::Login,
];

/// A client under TLS, and what it is offered for AUTH.
async fn client(stack: &Stack) -> Result<(Client, String)> {
    let (client, _) = Client::connect(stack.ports.submission()).await?;
    let mut client = client.starttls(&stack.ca_file()).await?;
    let hello = client.command("EHLO client.test").await?;
    let offered = hello
        .lines()
        .find_map(|line| line.get(4..)?.strip_prefix("AUTH "));
    let offered = offered.context("no AUTH")?.to_owned();
    Ok((client, offered))
}

/// The last reply to a log-in, and what was said before with chance taken out.
async fn log_in(
    client: &mut Client,
    mechanism: Mechanism,
    name: &str,
    password: &str,
) -> Result<(String, Vec<String>)> {
    let credentials = Credentials {
        mechanism,
        authzid: None,
        authcid: name.to_owned(),
        evidence: Evidence::Password(Password::new(password)),
    };
    let nonce: [u8; 18] = rand::random();
    let (mut exchange, initial) = ClientExchange::start(credentials, &nonce)?;
    let initial = initial
        .map(|text| format!(" {}", *text))
        .unwrap_or_default();
    let mut reply = client
        .command(&format!("AUTH {mechanism}{initial}"))
        .await?;
    let mut before = Vec::new();
    while let Some(challenge) = reply.strip_prefix("334 ") {
        let decoded = BASE64_STANDARD.decode(challenge)?;
        // Of SCRAM, what follows the nonce and the salt: how much of it there is tells enough.
        before.push(format!("334 of {} octets", decoded.len()));
        let answer = exchange.respond(challenge)?;
        reply = client.command(&answer).await?;
    }
    if reply.starts_with("235") {
        ensure!(exchange.may_end(), "the server did not prove itself");
    }
    Ok((reply, before))
}

async fn tries(stack: &Stack) -> Result<()> {
    let (_, offered) = client(stack).await?;
    ensure!(
        offered == "SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN",
        "{offered}"
    );
    for mechanism in BY_PASSWORD {
        for name in [ALICE, "Alice@DEMO.test"] {
            let (mut client, _) = client(stack).await?;
            let (reply, _) = log_in(&mut client, mechanism, name, PASSWORD).await?;
            ensure!(
                reply.starts_with("235 2.7.0"),
                "{mechanism} {name}: {reply}"
            );
            client
                .deliver(ALICE, &["bob@demo.test"], &mail("a mail", "a\r\n"))
                .await?;
        }
        // Known, unknown, known without such keys, disabled: all is the same to whoever guesses.
        let (mut client, _) = client(stack).await?;
        let mut heard = Vec::new();
        for (name, password) in [
            (ALICE, "wrong"),
            ("nobodyy@demo.test", "wrong"),
            ("bare1@demo.test", "wrong"),
            ("gone1@demo.test", PASSWORD),
        ] {
            heard.push(log_in(&mut client, mechanism, name, password).await?);
        }
        if let Some(other) = heard.iter().find(|one| **one != heard[0]) {
            bail!("{mechanism}: {other:?}, not {:?}", heard[0]);
        }
        ensure!(heard[0].0.starts_with("535 5.7.8"), "{heard:?}");
    }
    Ok(())
}

#[tokio::test]
async fn whoever_knows_the_password_proves_it_by_any_mechanism() -> Result<()> {
    let mut stack = stack!().settings(SETTINGS).start().await?;
    let file = stack.directory_file();
    let of_alice =
        |text: &str| text.replacen("[[account]]", &format!("[[account]]\n{}", keys()), 1);
    let before = std::fs::read_to_string(&file)?;
    let alice = before.find("[[account]]").context("an account")?;
    ensure!(before[alice..].contains(ALICE), "alice is not the first");
    let hash = before[alice..]
        .lines()
        .find(|line| line.starts_with("password_hash"))
        .context("a hash")?;
    let others = format!(
        "[[account]]\naddress = \"bare1@demo.test\"\n{hash}\n\
         [[account]]\naddress = \"gone1@demo.test\"\n{hash}\n{}disabled = true\n",
        keys()
    );
    std::fs::write(&file, of_alice(&before) + &others)?;
    for agent in [Agent::Queued, Agent::Msa] {
        stack.restart(agent).await?;
    }
    tries(&stack).await?;
    stack.set_variable(Agent::Msa, "POSTROAD__COMMON__ACCOUNTS__FROM", "queue");
    stack.set_variable(Agent::Msa, "POSTROAD__COMMON__DIRECTORY", "/nonexistent");
    stack.restart(Agent::Msa).await?;
    tries(&stack).await?;
    stack.end().await
}

/// Those of the password that all accounts have here.
fn keys() -> String {
    use postroad_sasl::{CramSecret, SCRAM_ITERATIONS, ScramHash, ScramKeys};
    let scram = |hash| ScramKeys::derive(hash, PASSWORD, &[7; 16], SCRAM_ITERATIONS).unwrap();
    format!(
        "scram_sha_256 = \"{}\"\nscram_sha_1 = \"{}\"\nrecoverable_secret = \"{}\"\n",
        scram(ScramHash::Sha256),
        scram(ScramHash::Sha1),
        *CramSecret::new(PASSWORD.as_bytes()).to_text()
    )
}
