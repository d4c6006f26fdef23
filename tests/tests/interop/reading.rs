//! Dovecot opens the Maildir as it is, and what its users do with their mail is respected.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_maildir::{Begin, DeliveryId, Store, Target};
use postroad_tests::{Agent, Stack, free_port, mail, stack, unwired};
use serde_json::{Value, json};

use crate::{
    clients::python_json,
    foreign::{self, Dovecot},
    world::World,
};

const ACCOUNT: &str = "bob@demo.test";
/// Seconds in the name of a file.
const ARRIVED: u64 = 1_795_392_000;

pub async fn dovecot_shows_what_was_filed(world: &World) -> Result<()> {
    let mut stack = stack!().start().await?;
    let root = stack.folder().join("mail");
    let mut client = stack.login("alice@demo.test").await?;
    for content in [&world.samples.awkward.content, &world.samples.empty.content] {
        client
            .deliver("alice@demo.test", &[ACCOUNT], content)
            .await?;
    }
    let filed = stack.wait_for_mails(ACCOUNT, 2).await?;
    hand_over(&stack)?;
    let dovecot = Dovecot::start(
        &world.place("dovecot"),
        &root,
        &[ACCOUNT],
        ([127, 0, 0, 1], free_port()?).into(),
    )
    .await?;

    let shown = fetch(&dovecot).await?;
    for mail in &filed {
        let seen = shown
            .iter()
            .any(|(_, content)| unwired(content) == mail.content);
        ensure!(
            seen,
            "Dovecot shows something else than {:.600}",
            mail.text()
        );
    }
    ensure!(
        shown.len() == 2 && shown.iter().all(|(flags, _)| flags == &json!(["\\Recent"])),
        "{shown:?}"
    );

    imap(&dovecot, json!({ "do": "flag", "subject": "awkward" })).await?;
    let flagged = stack
        .delivered(ACCOUNT)?
        .iter()
        .any(|mail| mail.name.ends_with(":2,FS"));
    ensure!(flagged, "{:?}", stack.delivered(ACCOUNT)?);

    delivered_before_a_crash(&mut stack, &dovecot, &root).await?;
    drop(dovecot);
    stack.end().await
}

/// The delivery agent dies between the delivery and the word to the queue. The reader meets the mails first; then
/// the queue gives them out again.
async fn delivered_before_a_crash(stack: &mut Stack, dovecot: &Dovecot, root: &Path) -> Result<()> {
    stack.terminate(Agent::Mda).await?;
    let mut client = stack.login("alice@demo.test").await?;
    for subject in ["flagged", "moved"] {
        let sent = mail(subject, "a\r\n");
        let reply = client.send("alice@demo.test", &[ACCOUNT], &sent).await?;
        let id = reply
            .strip_prefix("250 2.0.0 ")
            .and_then(|rest| rest.split(' ').next());
        deliver(root, id.with_context(|| reply.clone())?, &unwired(&sent))?;
    }
    hand_over(stack)?;
    imap(dovecot, json!({ "do": "flag", "subject": "flagged" })).await?;
    imap(dovecot, json!({ "do": "move", "subject": "moved" })).await?;

    stack.bring_up(&[Agent::Mda]).await?;
    stack.wait_for_empty_queue().await?;
    hand_over(stack)?;
    let shown = fetch(dovecot).await?;
    let count = |subject: &str| {
        let subject = format!("Subject: {subject}\r\n");
        shown
            .iter()
            .filter(|(_, content)| String::from_utf8_lossy(content).contains(&subject))
            .count()
    };
    ensure!(
        count("flagged") == 1 && count("moved") == 0 && shown.len() == 3,
        "{shown:?}"
    );
    let archive = stack.maildir(ACCOUNT)?.join(".Archive");
    let archived =
        ["new", "cur"].map(|leaf| fs::read_dir(archive.join(leaf)).map_or(0, Iterator::count));
    ensure!(
        archived.iter().sum::<usize>() == 1,
        "{archived:?} mails in the archive"
    );
    Ok(())
}

/// What the delivery agent does, up to the instant before its word to the queue.
fn deliver(root: &Path, id: &str, content: &[u8]) -> Result<()> {
    let (store, _) = Store::open(root, "mx.demo.test")?;
    let target = Target::new("demo.test", "bob", None)?;
    let Begin::Write(mut delivery) = store.begin(&target, DeliveryId::new(id, 0)?, ARRIVED)? else {
        bail!("{id} was delivered already");
    };
    delivery.write(content)?;
    delivery.commit()?;
    Ok(())
}

/// Dovecot serves no mail of root, who runs the tests.
fn hand_over(stack: &Stack) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(stack.folder(), open)?;
    Ok(foreign::hand_over(
        &stack.folder().join("mail"),
        foreign::user(foreign::OWNER)?,
    )?)
}

/// Flags and content of each mail.
async fn fetch(dovecot: &Dovecot) -> Result<Vec<(Value, Vec<u8>)>> {
    let mails = imap(dovecot, json!({ "do": "fetch" })).await?;
    let mails = mails.as_array().context("a list")?.iter();
    mails
        .map(|mail| {
            let content = mail["content"].as_str().context("content")?;
            Ok((mail["flags"].clone(), BASE64_STANDARD.decode(content)?))
        })
        .collect()
}

async fn imap(dovecot: &Dovecot, mut orders: Value) -> Result<Value> {
    orders["port"] = dovecot.imap.port().into();
    orders["account"] = ACCOUNT.into();
    orders["password"] = foreign::IMAP_PASSWORD.into();
    python_json("imap.py", &orders).await
}
