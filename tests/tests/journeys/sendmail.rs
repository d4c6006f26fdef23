//! `postroad sendmail`: programs of this host send as they always did, and only as who they are.

use std::{
    ffi::OsString,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{
    Agent, Peer, Report, Stack, is_same_mail, mail, setup::postroad, stack, unwired, wait_for,
};
use std::io::Write as _;
use tokio::task::spawn_blocking;

const MAIL: &str = "To: Bob <bob@demo.test>, carol\nBcc: alice@demo.test\nSubject: report\n\nall is well\n.\nnot this\n";

/// Everybody is alice here, but for the user nobody, who is the program of bob's.
fn settings(own: u32) -> String {
    let name = postroad_net::user_name(own).unwrap_or_default();
    format!(
        "[sendmail]\nsize_limit = \"1MiB\"\naccounts = {{ {name} = \"alice@demo.test\", nobody = \"bob@demo.test\" }}\n\
         [[queued.listen.unix_roles]]\nuid = {NOBODY}\nroles = [\"msa\"]\naccounts = [\"bob@demo.test\"]\n"
    )
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_agents");
const NOBODY: u32 = 65_534;

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

async fn up() -> Result<Stack> {
    stack!().settings(&settings(own_uid())).start().await
}

/// Runs it with this input, and perhaps as somebody else.
async fn run(
    stack: &Stack,
    user: Option<u32>,
    words: &[&str],
    input: impl Into<Vec<u8>>,
) -> Result<Output> {
    let words = [&["sendmail"], words].concat();
    verb(stack, user, &words, input).await
}

/// Another verb.
async fn verb(
    stack: &Stack,
    user: Option<u32>,
    words: &[&str],
    input: impl Into<Vec<u8>>,
) -> Result<Output> {
    let mut command = Command::new(PROGRAM);
    command.arg0("postroad-verb");
    command.arg("--config").arg(stack.config_file());
    command.args(words.iter().map(OsString::from));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(uid) = user {
        command.uid(uid).gid(uid);
    }
    let input = input.into();
    spawn_blocking(move || {
        let mut child = command.spawn()?;
        // A program that has read enough closes its end.
        let _ = child
            .stdin
            .take()
            .context("standard input")?
            .write_all(&input);
        Ok(child.wait_with_output()?)
    })
    .await?
}

fn ended(output: &Output, status: i32, words: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(status) && said.contains(words),
        "{output:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_rests_is_taken_back_by_whose_it_is_and_by_nobody_else() -> Result<()> {
    let stack = up().await?;
    let words = ["-v", "--hold-for", "1h", "bob@demo.test"];
    let mut ids = Vec::new();
    for _ in 0..2 {
        let sent = run(&stack, None, &words, "Subject: regretted\n\nx\n").await?;
        ended(&sent, 0, "")?;
        let said = String::from_utf8(sent.stdout)?;
        let (id, rest) = said.split_once(' ').context("an id")?;
        ensure!(rest.starts_with("queued, rests until 2"), "{said}");
        ids.push(id.to_owned());
    }
    let withdraw = async |user, words: &[&str]| {
        let words = [&["withdraw"], words].concat();
        verb(&stack, user, &words, "").await
    };
    let id = ids[0].as_str();
    // The program of bob's may ask for what is bob's alone. Only root can be somebody else.
    if own_uid() == 0 {
        let_in(&stack)?;
        ended(&withdraw(Some(NOBODY), &[id]).await?, 3, "bob@demo.test")?;
        let others = ["--account", "alice@demo.test", id];
        let refused = withdraw(Some(NOBODY), &others).await?;
        ended(&refused, 1, "may take back nothing of alice@demo.test")?;
    }
    let back = withdraw(None, &[id, &ids[1]]).await?;
    ended(&back, 0, "")?;
    let said = String::from_utf8(back.stdout)?;
    ensure!(said.matches("taken back").count() == 2, "{said}");
    ended(&withdraw(None, &[id]).await?, 3, "alice@demo.test")?;
    stack
        .wait_for_log(Agent::Queued, &["\"withdrawn\"", id])
        .await?;

    // One that is delivered goes on; and From is held to the account here, too.
    let sent = run(
        &stack,
        None,
        &["-v", "bob@demo.test"],
        "Subject: sent\n\nx\n",
    )
    .await?;
    stack
        .wait_for_mail_with("bob@demo.test", "Subject: sent")
        .await?;
    let said = String::from_utf8(sent.stdout)?;
    let id = said.split(' ').next().unwrap_or_default();
    let late = withdraw(None, &[id]).await?;
    ensure!([Some(1), Some(3)].contains(&late.status.code()), "{late:?}");
    let forged = "From: Bob <bob@demo.test>\nSubject: forged\n\nx\n";
    let refused = run(&stack, None, &["bob@demo.test"], forged).await?;
    ended(
        &refused,
        77,
        "alice@demo.test may not send as bob@demo.test, which is in the field From",
    )?;
    stack.end().await
}

/// As cron sends: the account of root is another one, and From says root.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_may_be_from_the_user_who_calls_and_from_no_other_user() -> Result<()> {
    let stack = up().await?;
    let user = postroad_net::user_name(own_uid()).context("a user with a name")?;
    for from in [
        format!("{user} (Cron Daemon)"),
        format!("\"(Cron Daemon)\" <{user}@demo.test>"),
    ] {
        let mail = format!("From: {from}\nTo: bob\nSubject: {from}\n\nx\n");
        let sent = run(
            &stack,
            None,
            &["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "bob"],
            mail,
        );
        ended(&sent.await?, 0, "").context(from.clone())?;
        let filed = stack
            .wait_for_mail_with("bob@demo.test", &format!("Subject: {from}"))
            .await?;
        ensure!(
            filed.text().contains("Return-Path: <alice@demo.test>"),
            "{}",
            filed.text()
        );
    }
    for other in ["daemon", "daemon@demo.test", "bob"] {
        let mail = format!("From: {other}\nSubject: x\n\nx\n");
        let refused = run(&stack, None, &["bob"], mail).await?;
        ended(&refused, 77, "alice@demo.test may not send as").context(other)?;
    }
    stack.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_goes_to_those_of_its_header_and_is_completed() -> Result<()> {
    let stack = up().await?;
    ended(
        &run(&stack, None, &["-t", "-F", "The Cron"], MAIL).await?,
        0,
        "",
    )?;
    for account in ["alice@demo.test", "bob@demo.test", "carol@demo.test"] {
        let mail = &stack.wait_for_mails(account, 1).await?[0];
        let text = mail.text();
        ensure!(text.contains("Return-Path: <alice@demo.test>\n"), "{text}");
        ensure!(
            text.contains("From: \"The Cron\" <alice@demo.test>\n"),
            "{text}"
        );
        ensure!(
            text.contains("\nDate: ") && text.contains("\nMessage-ID: "),
            "{text}"
        );
        ensure!(
            text.contains("(local)") && text.contains("with ESMTPA"),
            "{text}"
        );
        ensure!(!text.contains("Bcc"), "{text}");
        ensure!(text.ends_with("\n\nall is well\n"), "{text}");
    }
    // Dots are text with -i; what is no header is none; octets are kept.
    let words = [
        "-i",
        "-f",
        "alice@demo.test",
        "bob@demo.test,carol@demo.test",
    ];
    ended(&run(&stack, None, &words, "grüße\n.\nende\n").await?, 0, "")?;
    let mail = stack.wait_for_mail_with("bob@demo.test", "grüße").await?;
    ensure!(
        mail.text().ends_with("\n\ngrüße\n.\nende\n"),
        "{}",
        mail.text()
    );
    stack.wait_for_mails("carol@demo.test", 2).await?;
    stack.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_ends_as_callers_know_it_and_reaches_nobody() -> Result<()> {
    let stack = up().await?;
    let mail = "Subject: x\n\nhello\n";
    let cases: [(&[&str], &str, i32, &str); 9] = [
        (&[], mail, 64, "nobody to send to"),
        (&["-Z"], mail, 64, "no flag -Z"),
        (&["-bd"], mail, 64, "postroad-mta"),
        (&["a b@c@d"], mail, 65, "a b@c@d"),
        (&["-t"], "To: nobody at all\n\nx\n", 65, "nobody at all"),
        (&["bob@demo.test"], "a: \0\n\n", 65, "NUL"),
        (
            &["bob@demo.test", "nemo@demo.test", "nix@demo.test"],
            mail,
            67,
            "<nix@demo.test>: 550",
        ),
        (
            &["-f", "stranger@elsewhere.test", "bob@demo.test"],
            mail,
            77,
            "may not send as",
        ),
        (&["-N", "perhaps", "bob@demo.test"], mail, 64, "-N perhaps"),
    ];
    for (words, input, status, said) in cases {
        ended(&run(&stack, None, words, input).await?, status, said)
            .with_context(|| format!("{words:?}"))?;
    }
    let large = vec![b'x'; 2 << 20];
    ended(
        &run(&stack, None, &["bob@demo.test"], large).await?,
        69,
        "sendmail.size_limit",
    )?;
    ended(&run(&stack, None, &["-bi"], "").await?, 0, "")?;
    ensure!(stack.delivered("bob@demo.test")?.is_empty());
    stack.wait_for_empty_queue().await?;
    stack.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_queue_is_away_a_program_hears_to_try_again() -> Result<()> {
    let mut stack = up().await?;
    stack.terminate(Agent::Queued).await?;
    let words = ["-t"];
    ended(
        &run(&stack, None, &words, MAIL).await?,
        75,
        "nothing was sent",
    )?;
    stack.start(Agent::Queued)?;
    stack.ready(Agent::Queued).await?;
    ended(&run(&stack, None, &words, MAIL).await?, 0, "")?;
    stack.wait_for_mails("bob@demo.test", 1).await?;
    stack.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_mail_goes_whole_waits_for_its_host_and_bounces_to_the_account() -> Result<()> {
    let larger = "[sendmail]\nsize_limit = \"8MiB\"\n";
    let builder = stack!().settings(&settings(own_uid())).settings(larger);
    let stack = builder.start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.answer("*", "451 4.7.1 greylisted");
    let sent = mail("large", &"Grüße .\r\n.dot\r\n".repeat(350_000));
    ended(
        &run(&stack, None, &["-i", "friend@world.test"], sent.clone()).await?,
        0,
        "",
    )?;
    wait_for("second attempt", async || {
        (peer.attempts() >= 2).then_some(())
    })
    .await?;
    peer.welcome_all();
    let kept = wait_for("relayed mail", async || peer.kept().pop()).await?;
    ensure!(kept.from == "alice@demo.test" && is_same_mail(&sent, &unwired(&kept.content)));
    let config = stack.config_file().display().to_string();
    let trace = ["--config", &config, "trace", "friend@world.test"].map(str::to_owned);
    let shown = spawn_blocking(move || postroad(&trace.each_ref().map(String::as_str))).await??;
    for word in ["greylisted", "mx1.world.test"] {
        ensure!(shown.contains(word), "{word}: {shown}");
    }

    peer.answer("gone@world.test", "550 5.1.1 no such user here");
    let short = "Subject: to one who is gone\n\nx\n";
    ended(
        &run(&stack, None, &["gone@world.test"], short).await?,
        0,
        "",
    )?;
    let found = stack.wait_for_mails("alice@demo.test", 1).await?.remove(0);
    let report = Report::parse(&found.content)?;
    ensure!(report.text.contains("no such user here"), "{report:#?}");
    ensure!(
        report.returned.contains("Subject: to one who is gone"),
        "{report:#?}"
    );
    stack.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_on_standard_input_and_output() -> Result<()> {
    let stack = up().await?;
    let said = "EHLO here\r\nMAIL FROM:<alice@demo.test>\r\nRCPT TO:<nemo@demo.test>\r\nRCPT TO:<bob@demo.test>\r\nDATA\r\n";
    let rest = "Subject: by hand\r\n\r\nhello\r\n.\r\nQUIT\r\n";
    // DATA is the last of its group (RFC 2920 §3.1), so the content waits for the reply.
    let mut child = tokio::process::Command::new(PROGRAM)
        .arg0("postroad-verb")
        .arg("--config")
        .arg(stack.config_file())
        .args(["sendmail", "-bs"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
    let mut input = child.stdin.take().context("standard input")?;
    let mut lines =
        tokio::io::BufReader::new(child.stdout.take().context("standard output")?).lines();
    input.write_all(said.as_bytes()).await?;
    let mut heard = Vec::new();
    while let Some(line) = lines.next_line().await? {
        let done = line.starts_with("354");
        heard.push(line);
        if done {
            break;
        }
    }
    input.write_all(rest.as_bytes()).await?;
    while let Some(line) = lines.next_line().await? {
        heard.push(line);
    }
    ensure!(child.wait().await?.success());
    let code = |code: &str| heard.iter().filter(|line| line.starts_with(code)).count();
    ensure!(
        code("220 ") == 1 && code("550 5.1.1") == 1 && code("354 ") == 1 && code("221 ") == 1,
        "{heard:?}"
    );
    stack.wait_for_mail_with("bob@demo.test", "by hand").await?;
    stack.end().await
}

/// Only root can be somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_this_host_is_its_account_and_nobody_else() -> Result<()> {
    if own_uid() != 0 {
        ensure!(std::env::var("CI").is_err(), "needs root");
        return Ok(());
    }
    let stack = up().await?;
    let_in(&stack)?;
    let words = ["-f", "bob@demo.test", "carol@demo.test"];
    ended(
        &run(&stack, Some(NOBODY), &words, "Subject: as bob\n\nx\n").await?,
        0,
        "",
    )?;
    let mail = stack
        .wait_for_mail_with("carol@demo.test", "as bob")
        .await?;
    ensure!(
        mail.text().contains("Return-Path: <bob@demo.test>"),
        "{}",
        mail.text()
    );
    ensure!(
        mail.text().contains("from nobody (local)"),
        "{}",
        mail.text()
    );
    let as_alice = ["-f", "alice@demo.test", "carol@demo.test"];
    ended(
        &run(&stack, Some(NOBODY), &as_alice, "Subject: x\n\nx\n").await?,
        77,
        "may not send as alice@demo.test",
    )?;
    // Another user is nobody's.
    ended(
        &run(&stack, Some(65_533), &words, "Subject: x\n\nx\n").await?,
        77,
        "queued.listen.unix_roles",
    )?;
    wait_for("a line of the refusal", async || {
        stack
            .log(Agent::Queued)
            .contains("\"rejected\"")
            .then_some(())
    })
    .await?;
    ensure!(stack.delivered("carol@demo.test")?.len() == 1);
    stack.end().await
}

/// Whom the system lets to the socket, and to the configuration.
fn let_in(stack: &Stack) -> Result<()> {
    for (path, mode) in [
        ("", 0o755),
        ("run", 0o755),
        ("run/queue.sock", 0o666),
        ("conf.d", 0o755),
    ] {
        open(&stack.folder().join(path), mode)?;
    }
    Ok(())
}

fn open(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
