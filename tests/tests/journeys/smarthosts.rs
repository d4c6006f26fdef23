//! The sample configurations of `deploy/config/smarthost`, each against a host that speaks as the real one does: it refuses the first log-in, the
//! mail waits and a person is told, and goes out by the next.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use postroad_rehearsal::{Keep, Options, Place, Script, Watched};
use postroad_tests::{Agent, PATIENCE, mail, stack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Samples with the host and port that they name, and whether they log in by a token.
const SAMPLES: [(&str, &str, u16, bool); 7] = [
    ("gmail", "smtp.gmail.com", 587, false),
    ("gmail-465", "smtp.gmail.com", 465, false),
    ("gmail-oauth", "smtp.gmail.com", 587, true),
    ("ses", "email-smtp.eu-west-1.amazonaws.com", 587, false),
    ("sendgrid", "smtp.sendgrid.net", 587, false),
    ("mailgun", "smtp.mailgun.org", 587, false),
    ("microsoft365", "smtp.office365.com", 587, true),
];

const SETTINGS: &str = "[mta.outbound]\nauth_pause = \"100ms\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn each_sample_sends_by_its_smarthost() -> Result<()> {
    for (name, host, port, by_token) in SAMPLES {
        sends(name, host, port, by_token).await.context(name)?;
    }
    let folder = root().join("deploy/config/smarthost");
    let count = fs::read_dir(folder)?.count();
    ensure!(count == SAMPLES.len(), "a sample is not tried");
    Ok(())
}

async fn sends(name: &str, host: &str, port: u16, by_token: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for secret in ["smarthost.password", "oauth.secret", "oauth.refresh"] {
        let path = folder.path().join(secret);
        fs::write(&path, "app-password\n")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    let issuer = TcpListener::bind("127.0.0.1:0").await?;
    let token_url = format!("token_url = \"http://{}/token\"", issuer.local_addr()?);
    let issuer = tokio::spawn(give_tokens(issuer));
    let authority = folder.path().join("ca/ca.pem");

    let zone = format!("{host} A 127.0.1.9\n");
    let stack = stack!().settings(SETTINGS).zone(&zone);
    let mut stack = stack.prepare()?;
    let place = (std::net::Ipv4Addr::new(127, 0, 1, 9), stack.ports.world);
    let sample = fs::read_to_string(root().join(format!("deploy/config/smarthost/{name}.toml")))?;
    let implicit = if port == 465 {
        "\nimplicit_tls = true"
    } else {
        ""
    };
    let verified = format!("tls = \"verify\"\nca_file = {authority:?}{implicit}");
    let lines = sample
        .lines()
        .map(|line| match line.starts_with("token_url") {
            true => token_url.as_str(),
            false => line,
        });
    let sample = lines.collect::<Vec<_>>().join("\n");
    let sample = sample
        .replace(
            &format!("{host}:{port}"),
            &format!("{host}:{}", stack.ports.world),
        )
        .replace("tls = \"verify\"", &verified)
        .replace("/etc/postroad", &folder.path().display().to_string());
    stack.configure("99-smarthost", &sample)?;
    let script =
        fs::read_to_string(root().join(format!("tests/tests/journeys/smarthosts/{name}.txt")))?;
    let options = Options {
        keep: Keep::InMemory,
        certificates: Some(folder.path().to_owned()),
        talk: true,
    };
    let place = Place::Tcp(place.into());
    let peer = Watched::start_with(Script::parse(&script)?, place, options).await?;
    stack.start_all().await?;

    let mut alice = stack.login("alice@demo.test").await?;
    let to = ["friend@far.test"];
    alice
        .deliver("alice@demo.test", &to, &mail(name, "hello\r\n"))
        .await?;
    let taken = peer.wait_for_mails(1, PATIENCE).await.context("the mail")?;
    ensure!(taken[0].tls && taken[0].login.is_some(), "{:?}", taken[0]);
    stack.wait_for_empty_queue().await?;
    let told = stack
        .wait_for_log(Agent::Mta, &["host_unusable", "\"level\":\"ERROR\""])
        .await?;
    ensure!(
        told.contains("log-in") || told.contains("password") || told.contains("login"),
        "{told}"
    );
    for secret in ["app-password", "access-token"] {
        ensure!(
            !stack.log(Agent::Mta).contains(secret),
            "a secret is logged"
        );
    }
    ensure!(peer.taken().len() == 1 && stack.delivered("alice@demo.test")?.is_empty());
    if by_token {
        issuer.abort();
    }
    stack.end().await
}

/// A token endpoint: each answer has another token.
async fn give_tokens(listener: TcpListener) -> Result<()> {
    for number in 1.. {
        let (mut stream, _) = listener.accept().await?;
        let mut asked = Vec::new();
        while !asked.windows(11).any(|part| part == b"grant_type=") {
            ensure!(stream.read_buf(&mut asked).await? > 0, "it hung up");
        }
        let body = format!(
            "{{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":\"access-token-{number}\"}}"
        );
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
