//! Programs without a mail server: what is on a Debian host and calls sendmail, as a user who is one account.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Mail, Stack, stack};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::world::World;

/// The samples that users start from.
const SAMPLE: &str = include_str!("../../../deploy/config/swap/application/postroad.toml");
const USER: &str = "www-data";

/// `mailx` and `mutt` of user www-data send as alice, whatever they find to send.
pub async fn mailx_and_mutt_send_as_their_account(_: &World) -> Result<()> {
    let stack = stack!().settings(&settings()?).start().await?;
    let program = link(&stack)?;
    let mailrc = stack.folder().join("mailrc");
    fs::write(&mailrc, format!("set sendmail={}\n", program.display()))?;
    let mailx = ["-s", "by mailx", "bob@demo.test", "carol@demo.test"];
    let variables = [("MAILRC", mailrc.as_path())];
    run("mailx", &mailx, &variables, "Grüße\n.\nand more\n").await?;
    for account in ["bob@demo.test", "carol@demo.test"] {
        let mail = stack.wait_for_mail_with(account, "by mailx").await?;
        is_of_alice(&mail)?;
        ensure!(
            mail.text().contains("Grüße\n.\nand more\n"),
            "{}",
            mail.text()
        );
    }

    let attached = stack.folder().join("attached.bin");
    fs::write(
        &attached,
        (0..=255).cycle().take(3_000_000).collect::<Vec<u8>>(),
    )?;
    fs::set_permissions(&attached, fs::Permissions::from_mode(0o644))?;
    let (sendmail, attached) = (
        format!("set sendmail=\"{} -oem -oi\"", program.display()),
        attached.display().to_string(),
    );
    let mutt = [
        "-n",
        "-F",
        "/dev/null",
        "-e",
        &sendmail,
        "-e",
        "set copy=no",
        // It says www-data@HOST otherwise, which is not the account's.
        "-e",
        "set from=alice@demo.test",
        "-s",
        "by mutt: Läuft",
        "-a",
        &attached,
        "--",
        "bob@demo.test",
    ];
    run("mutt", &mutt, &[("HOME", stack.folder())], "see the file\n").await?;
    let mail = stack.wait_for_mail_with("bob@demo.test", "by mutt").await?;
    is_of_alice(&mail)?;
    ensure!(
        mail.content.len() > 4_000_000,
        "{} octets",
        mail.content.len()
    );
    stack.end().await
}

fn is_of_alice(mail: &Mail) -> Result<()> {
    let text = String::from_utf8_lossy(&mail.content);
    let head: String = text.chars().take(3000).collect();
    ensure!(head.contains("Return-Path: <alice@demo.test>"), "{head}");
    ensure!(head.contains(&format!("from {USER} (local)")), "{head}");
    ensure!(
        head.contains("\nMessage-ID: ") || head.contains("\nMessage-Id: "),
        "{head}"
    );
    Ok(())
}

/// The sample, on a host where everything else is root's.
fn settings() -> Result<String> {
    let mut text = SAMPLE.replace("example.org", "demo.test");
    for agent in ["msa", "mta", "mda"] {
        let user = format!("user = \"postroad-{agent}\"");
        ensure!(text.contains(&user), "the sample has no {user}");
        text = text.replace(&user, "user = \"root\"");
    }
    let admin = "  { user = \"root\", roles = [\"admin\"] },\n]";
    Ok(text.replacen("\n]", &format!("\n{admin}"), 1))
}

/// A script in place of `/usr/sbin/sendmail`, for this configuration, that everybody may run.
fn link(stack: &Stack) -> Result<std::path::PathBuf> {
    let folder = stack.folder();
    let (verb, script) = (folder.join("postroad-verb"), folder.join("sendmail"));
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_agents"), &verb)?;
    let line = format!(
        "#!/bin/sh\nexec {} --config {} sendmail \"$@\"\n",
        verb.display(),
        stack.config_file().display()
    );
    fs::write(&script, line)?;
    for (path, mode) in [
        ("", 0o755),
        ("conf.d", 0o755),
        ("run", 0o755),
        ("run/queue.sock", 0o666),
        ("sendmail", 0o755),
    ] {
        fs::set_permissions(folder.join(path), fs::Permissions::from_mode(mode))?;
    }
    Ok(script)
}

async fn run(
    program: &str,
    words: &[&str],
    variables: &[(&str, &Path)],
    input: &str,
) -> Result<()> {
    let user = postroad_net::user_id(USER).map_err(anyhow::Error::msg)?;
    let mut command = Command::new(program);
    command
        .args(words)
        .envs(variables.iter().copied())
        .uid(user)
        .gid(user);
    command
        .current_dir("/")
        .env("LANG", "C.UTF-8")
        .env("USER", USER);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "{program}: {output:?}");
    Ok(())
}
