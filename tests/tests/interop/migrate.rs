//! From a running Postfix to us: its configuration read by itself, and the mail that waits in its queue.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Client, unwired};
use serde_json::Value;

use crate::{needs::search_path, world::World};

const SENDER: &str = "migrate.sender@demo.test";
const FIRST: &str = "migrate.one@demo.test";
const SECOND: &str = "migrate.two@demo.test";
const HELD: &str = "migrate.held@demo.test";
const UTF8: &str = "migrate.utf8@demo.test";
/// Which the Postfix has itself, so that it is done with it.
const DONE: &str = "friend@migrating.test";

/// The samples of tests/postfix are what a Postfix takes.
pub async fn postfix_takes_the_samples(_: &World) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("postfix");
    for sample in fs::read_dir(folder)? {
        let sample = sample?.path();
        for what in ["-n", "-M"] {
            let told = postconf(&[what.as_ref(), "-c".as_ref(), sample.as_os_str()])?;
            ensure!(
                !told.is_empty(),
                "{}: postconf {what} tells nothing",
                sample.display()
            );
        }
    }
    Ok(())
}

/// Whatever this Postfix knows is known, were it set to what is built in.
pub async fn every_parameter_of_postfix_is_known(world: &World) -> Result<()> {
    let folder = world.place("all-parameters");
    fs::create_dir(&folder)?;
    let defaults = postconf(&["-d".as_ref()])?;
    ensure!(defaults.lines().count() > 800, "{defaults:.400}");
    fs::write(folder.join("main.cf"), &defaults)?;
    let (_, told) = postroad(&[
        "--json".into(),
        "migrate".into(),
        "postfix".into(),
        folder.into(),
    ])
    .await?;
    let told: Value = serde_json::from_str(&told)?;
    let parameters = told["parameters"].as_array().context("parameters")?;
    let unknown: Vec<&Value> = parameters
        .iter()
        .filter(|one| one["told"].to_string().contains("it is not known here"))
        .map(|one| &one["name"])
        .collect();
    ensure!(
        unknown.is_empty(),
        "{} are not known: {unknown:?}",
        unknown.len()
    );
    Ok(())
}

fn postconf(arguments: &[&std::ffi::OsStr]) -> Result<String> {
    let done = Command::new("postconf")
        .args(arguments)
        .env("PATH", search_path())
        .output()?;
    ensure!(done.status.success(), "{arguments:?}: {done:?}");
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Deferred and held mails, one of whose recipients is done; by what postcat prints, and again by the files themselves.
pub async fn the_queue_of_postfix(world: &World) -> Result<()> {
    let mut postfix = world.migrating_postfix()?;
    postfix.go().await?;
    let (mut client, _) = Client::connect(postfix.addresses[0]).await?;
    client.expect("EHLO client.test", "250").await?;
    let awkward = &world.samples.awkward.content;
    let options = "BODY=8BITMIME RET=HDRS ENVID=moved+2B1";
    let first = send(
        &mut client,
        options,
        &[
            DONE,
            &format!("{FIRST}> NOTIFY=SUCCESS ORCPT=rfc822;was+2Bone@old.test"),
            &format!("{SECOND}> NOTIFY=NEVER"),
        ],
        awkward,
    )
    .await?;
    let held = send(&mut client, "", &[HELD], &world.samples.plain.content).await?;
    let utf8 =
        "Subject: gr\u{fc}\u{df}e\r\nFrom: j\u{fc}rgen@demo.test\r\n\r\n\u{20ac}\r\n".as_bytes();
    let third = send(&mut client, "SMTPUTF8 BODY=8BITMIME", &[UTF8], utf8).await?;
    for id in [&first, &held, &third] {
        postfix.logged(&[id, "status=deferred"]).await?;
    }
    postfix.logged(&[&first, DONE, "status=sent"]).await?;
    postfix.run("postsuper", &["-h", &held])?;
    postfix.stop()?;

    let printed = world.place("postcat");
    fs::create_dir(&printed)?;
    let mut contents = Vec::new();
    for id in [&first, &held, &third] {
        fs::write(printed.join(id), postfix.run("postcat", &["-q", id])?)?;
        contents.push(postfix.run("postcat", &["-bhq", id])?);
    }
    let told = import(world, &printed).await?;
    ensure!(
        told["imported"] == 3 && told["refused_count"] == 0,
        "{told}"
    );
    let again = import(world, &postfix.place().join("queue")).await?;
    ensure!(again["imported"] == 0 && again["known"] == 3, "{again}");

    let wanted = [(FIRST, 0), (SECOND, 0), (UTF8, 2)];
    for (account, at) in wanted {
        arrives(world, account, &contents[at]).await?;
    }
    let report = world
        .stack
        .wait_for_mail_with(SENDER, "was+one@old.test")
        .await?;
    ensure!(
        report.contains("moved+1") && report.contains("Action: delivered"),
        "{}",
        report.text()
    );
    ensure!(
        world.stack.delivered(HELD)?.is_empty(),
        "a mail on hold was delivered"
    );
    let shown = queue(
        world,
        &[
            "list".into(),
            "--sender".into(),
            SENDER.into(),
            "--state".into(),
            "held".into(),
        ],
    )
    .await?;
    ensure!(shown.to_string().contains("held by Postfix"), "{shown}");
    queue(world, &["release".into(), "--sender".into(), SENDER.into()]).await?;
    arrives(world, HELD, &contents[1]).await
}

/// One mail, which ends octet by octet as Postfix had it; before that stands what we add.
async fn arrives(world: &World, account: &str, content: &[u8]) -> Result<()> {
    let mails = world.stack.wait_for_mails(account, 1).await?;
    ensure!(mails.len() == 1, "{account} has {} mails", mails.len());
    let filed = unwired(&mails[0].content);
    ensure!(
        filed.ends_with(content),
        "{account} got something else: {:.800}",
        mails[0].text()
    );
    Ok(())
}

/// The id that Postfix gives it.
async fn send(client: &mut Client, options: &str, to: &[&str], content: &[u8]) -> Result<String> {
    client
        .expect(&format!("MAIL FROM:<{SENDER}> {options}"), "250")
        .await?;
    for to in to {
        let to = if to.contains('>') {
            (*to).to_owned()
        } else {
            format!("{to}>")
        };
        client.expect(&format!("RCPT TO:<{to}"), "250").await?;
    }
    client.expect("DATA", "354").await?;
    let mut dotted = Vec::new();
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        dotted.extend(line.starts_with(b".").then_some(b'.'));
        dotted.extend_from_slice(line);
    }
    dotted.extend_from_slice(b".\r\n");
    client.write(&dotted).await?;
    let reply = client.reply().await?;
    let id = reply
        .rsplit(' ')
        .next()
        .context("a reply")?
        .trim()
        .to_owned();
    ensure!(reply.starts_with("250 "), "{reply}");
    Ok(id)
}

async fn import(world: &World, folder: &Path) -> Result<Value> {
    let folder: PathBuf = folder.to_owned();
    queue(
        world,
        &[
            "import".into(),
            "--postfix".into(),
            "--zone".into(),
            "UTC".into(),
            folder.into(),
        ],
    )
    .await
}

async fn queue(world: &World, words: &[OsString]) -> Result<Value> {
    let config = world.stack.config_file();
    let mut all: Vec<OsString> = vec![
        "--json".into(),
        "--config".into(),
        config.into(),
        "queue".into(),
    ];
    all.extend(words.iter().cloned());
    let (status, told) = postroad(&all).await?;
    ensure!(status == 0, "{words:?}: {status}: {told}");
    Ok(serde_json::from_str(&told)?)
}

async fn postroad(words: &[OsString]) -> Result<(u8, String)> {
    let all: Vec<OsString> = std::iter::once("postroad".into())
        .chain(words.iter().cloned())
        .collect();
    let typed = tokio::task::spawn_blocking(move || {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let status = postroad::execute(all, &mut out, &mut talk);
        (status, out, talk)
    });
    let (status, out, talk) = typed.await?;
    ensure!(status < 2, "{}", String::from_utf8_lossy(&talk));
    Ok((status, String::from_utf8(out)?))
}
