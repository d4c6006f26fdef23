//! `postroad setup` makes what four separate processes need: over mutual TLS, each with a certificate of its own, they
//! carry a mail from submission to mailbox. Running it again changes nothing.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Agent, Client, Stack, free_port, mail, stack};

const HOST: &str = "mail.setup.test";
const ALICE: &str = "alice@setup.test";

#[tokio::test]
async fn a_mail_goes_through_what_setup_made() -> Result<()> {
    let mut stack = stack!().prepare()?;
    for file in ["postroad.toml", "directory.toml"] {
        fs::remove_file(stack.folder().join(file))?;
    }
    let told = set_up(stack.folder())?;
    for words in [
        "setup.test.",
        "10 mail.setup.test.",
        "v=spf1",
        "_dmarc.",
        "PTR",
    ] {
        ensure!(told.contains(words), "{words:?} is not in {told}");
    }
    let before = files(stack.folder())?;
    let password = fs::read_to_string(stack.folder().join("first-account.password"))?;
    ensure!(!told.contains(password.trim()), "the password was printed");
    let told = set_up(stack.folder())?;
    ensure!(told.contains("nothing was changed"), "{told}");
    ensure!(
        files(stack.folder())? == before,
        "the second run changed files"
    );

    place(&mut stack)?;
    stack.start_all().await?;
    let (client, greeting) = Client::connect(stack.ports.submission()).await?;
    ensure!(greeting.contains(HOST), "{greeting}");
    let ca_file = stack.folder().join("pki/server/ca.pem");
    let mut client = client.starttls_as(HOST, &ca_file).await?;
    client.login(ALICE, password.trim()).await?;
    let sent = mail("from nothing", "Hello\r\n");
    client.deliver(ALICE, &[ALICE], &sent).await?;
    let maildir = stack.folder().join("mail/setup.test/alice/Maildir");
    stack
        .wait_for_mail_with(ALICE, "Subject: from nothing\n")
        .await
        .with_context(|| maildir.display().to_string())?;
    for agent in [Agent::Msa, Agent::Mta, Agent::Mda] {
        let connected = !stack.log(agent).contains("cannot connect: TLS");
        ensure!(connected, "{agent}: {}", stack.log(agent));
    }
    stack.end().await
}

/// What it printed.
fn set_up(folder: &Path) -> Result<String> {
    let pki = folder.join("pki");
    let arguments: [OsString; 14] = [
        "postroad".into(),
        "setup".into(),
        "--hostname".into(),
        HOST.into(),
        "--domain".into(),
        "setup.test".into(),
        "--account".into(),
        "alice".into(),
        "--config-dir".into(),
        folder.into(),
        "--pki-dir".into(),
        pki.clone().into(),
        "--server-cert-dir".into(),
        pki.join("server").into(),
    ];
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let status = postroad::execute(arguments, &mut out, &mut talk);
    let talk = String::from_utf8(talk)?;
    ensure!(status == 0, "setup ended with {status}: {talk}");
    Ok(String::from_utf8(out)?)
}

/// Every file that setup made, with its content.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for name in ["postroad.toml", "directory.toml", "first-account.password"] {
        found.insert(name.to_owned(), fs::read(folder.join(name))?);
    }
    for holder in fs::read_dir(folder.join("pki"))? {
        for file in fs::read_dir(holder?.path())? {
            let path = file?.path();
            found.insert(path.display().to_string(), fs::read(&path)?);
        }
    }
    ensure!(found.len() == 3 + 2 + 4 * 3 + 3, "{:?}", found.keys());
    Ok(found)
}

/// What differs on this machine from a container of each agent: ports and paths.
fn place(stack: &mut Stack) -> Result<()> {
    let folder = stack.folder().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    let queue = free_port()?;
    let ports = stack.ports;
    let variables = [
        ("COMMON__STATE_DIR", path("state")),
        ("COMMON__RUN_DIR", path("run")),
        ("COMMON__QUEUE", format!("tcp:localhost:{queue}")),
        ("COMMON__ALLOW_ROOT", "true".to_owned()),
        ("COMMON__DNS__ZONE", path("zone")),
        ("QUEUED__LISTEN__TCP", format!("tcp:[::]:{queue}")),
        ("QUEUED__DISK__RESERVE_PERCENT", "0".to_owned()),
        ("MSA__SUBMISSION", format!("[\"{}\"]", ports.submission())),
        ("MSA__SUBMISSIONS", format!("[\"{}\"]", ports.submissions())),
        (
            "MTA__INBOUND__LISTENERS",
            format!("{{ smtp = \"{}\" }}", ports.smtp()),
        ),
        ("MDA__MAIL_ROOT", path("mail")),
    ];
    for agent in Agent::SEPARATE {
        for (name, value) in &variables {
            stack.set_variable(agent, &format!("POSTROAD__{name}"), value);
        }
        for (name, file) in [
            ("CA_FILE", "agents-ca.pem"),
            ("CERT_FILE", "agent.pem"),
            ("KEY_FILE", "agent.key"),
        ] {
            let value = path(&format!("pki/{agent}/{file}"));
            stack.set_variable(agent, &format!("POSTROAD__COMMON__TLS__{name}"), value);
        }
    }
    Ok(())
}
