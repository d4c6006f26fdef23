//! A client that is not Rust logs in by access tokens of an issuer that is not Rust: its keys by HTTPS, its signatures by OpenSSL.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Agent, free_port, stack};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(180);
const ISSUER: &str = "https://id.demo.test/realms/mail";
const SENDER: &str = "alice@demo.test";
const RECIPIENT: &str = "bob@demo.test";

#[tokio::test]
async fn smtplib_logs_in_by_tokens_and_not_by_others() -> Result<()> {
    let mut stack = stack!().prepare()?;
    let keys_port = free_port()?;
    let folder = stack.folder().to_owned();
    let at = folder.display();
    stack.configure(
        "50-issuer",
        &format!(
            "[msa.auth]\ndelay = \"1ms\"\nmax_delay = \"2ms\"\n\
             [[msa.auth.oauth]]\nissuer = \"{ISSUER}\"\naudience = [\"mail.demo.test\"]\nscopes = [\"mail.send\"]\n\
             jwks_url = \"https://localhost:{keys_port}/keys\"\nca_file = \"{at}/ca.pem\"\n"
        ),
    )?;
    let orders = json!({
        "issuer": ISSUER,
        "account": SENDER,
        "to": RECIPIENT,
        "ca_file": stack.ca_file(),
        "cert_file": folder.join("server.pem"),
        "key_file": folder.join("server.key"),
        "keys_port": keys_port,
        "port": stack.ports.submissions().port(),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/tokens.py");
    let python = std::env::var("POSTROAD_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut child = Command::new(python)
        .arg(script)
        .arg(orders.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut line = String::new();
    timeout(PATIENCE, said.read_line(&mut line)).await??;
    ensure!(line == "serving\n", "{line}");
    stack.start_all().await?;
    stack
        .wait_for_log(Agent::Msa, &["keys_fetched", ISSUER])
        .await?;
    let mut go = child.stdin.take().context("no stdin")?;
    go.write_all(b"go\n").await?;
    let mut text = String::new();
    timeout(PATIENCE, said.read_to_string(&mut text)).await??;
    let codes: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let codes = codes.as_object().context("no object")?;
    ensure!(codes.len() == 13, "{codes:?}");
    for (name, codes) in codes {
        let expected = match name.as_str() {
            "RS256" | "PS256" => json!([235, 235]),
            _ => json!([535, 535]),
        };
        ensure!(*codes == expected, "{name}: {codes}");
    }
    stack.wait_for_mails(RECIPIENT, 4).await?;
    let log = stack.log(Agent::Msa);
    ensure!(log.matches("token_refused").count() == 22 - 2, "{log}");
    ensure!(!log.contains("eyJ"), "a token is in the log");
    stack.end().await
}
