//! `postroad setup` makes what four separate processes need: over mutual TLS, each with a certificate of its own, they
//! carry a mail from submission to mailbox. Running it again changes nothing.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Result, ensure};
use postroad_tests::{
    Agent, mail_of,
    setup::{FIRST, clear, login, place, set_up},
    stack,
};

#[tokio::test]
async fn a_mail_goes_through_what_setup_made() -> Result<()> {
    let mut stack = stack!().prepare()?;
    clear(&stack)?;
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
    let mut client = login(&stack).await?;
    let sent = mail_of(FIRST, "from nothing", "Hello\r\n");
    client.deliver(FIRST, &[FIRST], &sent).await?;
    stack
        .wait_for_mail_with(FIRST, "Subject: from nothing\n")
        .await?;
    for agent in [Agent::Msa, Agent::Mta, Agent::Mda] {
        let log = stack.log(agent);
        let connected = log.contains("queue_connected") && !log.contains("TLS handshake");
        ensure!(connected, "{agent}: {log}");
    }
    stack.end().await
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
