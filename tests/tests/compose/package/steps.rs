//! What an administrator does, and what must hold.

use anyhow::{Context as _, Result, ensure};
use postroad_tests::mail_of;
use serde_json::Value;
use tokio::runtime::Handle;

use super::host::{AGENTS, ALICE, BOB, HOSTNAME, Host};
use crate::{
    docker::looking,
    load::{Load, judge},
};

/// Nobody's: what is for it waits, since the host's name server does not answer.
const FAR: &str = "friend@elsewhere.test";
/// What `systemd-analyze security` may say at most, of ten; the less the better.
const EXPOSURE: f32 = 2.0;

pub async fn installing_asks_for_setup(on: &Host) -> Result<()> {
    let told = on.install(0).await?;
    for words in [
        "postroad setup --one-host",
        "systemctl start postroad.target",
    ] {
        ensure!(told.contains(words), "{words:?} is not in {told}");
    }
    for agent in AGENTS {
        let user = format!("postroad-{agent}");
        ensure!(on.run(&["id", "-gn", &user]).await? == "postroad");
        let unit = format!("{user}.service");
        ensure!(on.run(&["systemctl", "is-enabled", &unit]).await? == "enabled");
        // Without accounts none has anything to do, and none has failed.
        ensure!(on.property(agent, "ActiveState").await? == "inactive");
        on.run(&["test", "-s", &format!("/usr/share/man/man1/{user}.1.gz")])
            .await?;
    }
    for file in [
        "/usr/share/man/man1/postroad-queue-list.1.gz",
        "/usr/share/bash-completion/completions/postroad",
        "/usr/share/zsh/vendor-completions/_postroad",
        "/usr/share/fish/vendor_completions.d/postroad.fish",
        "/usr/share/doc/postroad/systemd.md",
        "/usr/share/doc/postroad/copyright",
    ] {
        on.run(&["test", "-s", file]).await?;
    }
    Ok(())
}

pub async fn units_are_sound_and_confined(on: &Host) -> Result<()> {
    let mut verify = vec!["systemd-analyze", "verify", "--man=no", "postroad.target"];
    let units = AGENTS.map(|agent| format!("postroad-{agent}.service"));
    verify.extend(units.iter().map(String::as_str));
    let verify = format!("{} 2>&1; true", verify.join(" "));
    let complaints = on.run(&["sh", "-c", &verify]).await?;
    let ours = complaints.lines().filter(|line| line.contains("postroad"));
    let ours: Vec<&str> = ours.collect();
    ensure!(ours.is_empty(), "{ours:?}");
    for unit in &units {
        let words = ["systemd-analyze", "security", "--no-pager", unit];
        let told = on.run(&words).await?;
        let line = told
            .lines()
            .find(|line| line.contains("Overall exposure level"));
        let line = line.with_context(|| told.clone())?;
        let level = line
            .split(": ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let level: f32 = level.context("no level")?.parse()?;
        println!("{unit}: exposure {level} of 10");
        ensure!(level <= EXPOSURE, "{line}");
    }
    Ok(())
}

pub async fn setup_and_one_start_carry_a_mail(on: &Host) -> Result<()> {
    let mut setup = vec!["postroad", "setup", "--one-host"];
    setup.extend([
        "--hostname",
        HOSTNAME,
        "--domain",
        "example.test",
        "--account",
        "alice",
    ]);
    let told = on.run(&setup).await?;
    ensure!(told.contains("v=spf1"), "{told}");
    let again = on.run(&setup).await?;
    ensure!(again.contains("nothing was changed"), "{again}");
    on.run(&["postroad", "account", "add", BOB, "--generate"])
        .await?;
    on.run(&["systemctl", "start", "postroad.target"]).await?;
    on.ready().await?;
    on.run(&["postroad", "check"]).await?;

    let mut client = on.submitter().await?.login().await?;
    let content = mail_of(ALICE, "by the package", "It works.\r\n");
    client.deliver(ALICE, &[ALICE, FAR], &content).await?;
    looking("the mail in its mailbox", async || {
        let list = ["postroad", "mailbox", "list", ALICE];
        let listed = on.run(&list).await.ok()?;
        listed.contains("by the package").then_some(())
    })
    .await?;
    let journal = ["journalctl", "--no-pager", "--unit=postroad-mda.service"];
    let journal = on.run(&journal).await?;
    ensure!(journal.contains("delivered"), "{journal}");
    Ok(())
}

pub async fn each_agent_has_a_user_and_few_powers(on: &Host) -> Result<()> {
    for agent in AGENTS {
        let process = on.property(agent, "MainPID").await?;
        let status = on.run(&["cat", &format!("/proc/{process}/status")]).await?;
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.split_whitespace().next().unwrap_or("").to_owned())
        };
        let user = format!("postroad-{agent}");
        let uid = on.run(&["id", "-u", &user]).await?;
        ensure!(value("Uid:") == Some(uid), "{agent}: {status}");
        // CAP_NET_BIND_SERVICE is the bit 10.
        let powers = if agent == "queued" { 0 } else { 1 << 10 };
        for set in ["CapEff:", "CapBnd:", "CapAmb:"] {
            ensure!(
                value(set) == Some(format!("{powers:016x}")),
                "{agent}: {status}"
            );
        }
        ensure!(
            value("NoNewPrivs:").as_deref() == Some("1"),
            "{agent}: {status}"
        );
    }
    // Whose the secrets are, and that an agent sees no more than its own.
    for (path, mode) in [
        ("/etc/postroad", "750 root postroad"),
        (
            "/etc/postroad/directory.toml",
            "600 postroad-queued postroad",
        ),
        ("/etc/postroad/first-account.password", "600 root postroad"),
        ("/etc/postroad/pki/server/key.pem", "640 root postroad"),
        ("/var/lib/postroad/queue", "700 postroad-queued postroad"),
        ("/var/lib/postroad/mail", "700 postroad-mda postroad"),
        ("/run/postroad", "1770 root postroad"),
        ("/run/postroad/queue", "750 postroad-queued postroad"),
        (
            "/run/postroad/queue/agents.sock",
            "660 postroad-queued postroad",
        ),
    ] {
        let found = on.run(&["stat", "--format=%a %U %G", path]).await?;
        ensure!(found == mode, "{path}: {found}, not {mode}");
    }
    let order =
        "setpriv --reuid=postroad-msa --regid=postroad --clear-groups postroad queue list 2>&1";
    let refused = on.run(&["sh", "-c", &format!("{order}; true")]).await?;
    ensure!(
        refused.contains("does not let us administer it"),
        "an MSA administers: {refused}"
    );
    Ok(())
}

pub async fn a_bad_configuration_is_not_tried_again(on: &Host) -> Result<()> {
    let file = "/etc/postroad/conf.d/wrong.toml";
    on.write(file, b"[msa]\nsize_limits = \"1MiB\"\n").await?;
    let restarted = on.run(&["systemctl", "restart", "postroad-msa"]).await;
    ensure!(restarted.is_err(), "it started");
    ensure!(on.property("msa", "ExecMainStatus").await? == "78");
    ensure!(on.property("msa", "ActiveState").await? == "failed");
    // By its severity, as the journal knows it.
    let warnings = [
        "journalctl",
        "--no-pager",
        "--priority=warning",
        "--unit=postroad-*",
    ];
    let warnings = on.run(&warnings).await?;
    let is_told = warnings.contains("did you mean `size_limit`?");
    ensure!(is_told && !warnings.contains(" INFO "), "{warnings}");
    on.run(&["rm", file]).await?;
    on.run(&["systemctl", "start", "postroad-msa"]).await?;
    on.ready().await
}

pub async fn what_ends_early_or_hangs_is_started_again(on: &Host) -> Result<()> {
    let before = on.property("queued", "MainPID").await?;
    on.run(&["systemctl", "kill", "--signal=KILL", "postroad-queued"])
        .await?;
    anew(on, "queued", &before).await?;
    // As soon as the watch shall notice it here.
    let folder = "/run/systemd/system/postroad-mta.service.d";
    on.run(&["mkdir", "-p", folder]).await?;
    on.write(
        &format!("{folder}/watch.conf"),
        b"[Service]\nWatchdogSec=2s\n",
    )
    .await?;
    on.run(&["systemctl", "daemon-reload"]).await?;
    on.run(&["systemctl", "restart", "postroad-mta"]).await?;
    let before = on.property("mta", "MainPID").await?;
    on.run(&["kill", "-STOP", &before]).await?;
    anew(on, "mta", &before).await?;
    on.run(&["rm", "-r", folder]).await?;
    on.run(&["systemctl", "daemon-reload"]).await?;
    on.ready().await
}

/// Waits for another process of an agent.
async fn anew(on: &Host, agent: &str, before: &str) -> Result<()> {
    looking("another process", async || {
        let process = on.property(agent, "MainPID").await.ok()?;
        let state = on.property(agent, "ActiveState").await.ok()?;
        (process != before && process != "0" && state == "active").then_some(())
    })
    .await
}

pub async fn an_upgrade_loses_nothing(on: &Host) -> Result<()> {
    let waiting = waiting(on).await?;
    ensure!(waiting.len() == 1, "{waiting:?}");
    let submitter = on.submitter().await?;
    let load = Load::start("package", &[submitter], &[ALICE, BOB], &Handle::current());
    load.goes_on(20).await?;
    let mut before = Vec::new();
    for agent in AGENTS {
        before.push(on.property(agent, "MainPID").await?);
    }
    on.install(1).await?;
    for (agent, before) in AGENTS.iter().zip(&before) {
        anew(on, agent, before).await?;
    }
    on.ready().await?;
    load.goes_on(20).await?;
    let sent = load.stop().await?;
    looking("nothing but the mail for elsewhere", async || {
        (self::waiting(on).await.ok()? == waiting).then_some(())
    })
    .await?;
    let filed = on.filed(&[ALICE, BOB]).await?;
    judge(&sent, &filed, FAR, &[])?;
    println!("{} mails acknowledged around the upgrade", sent.len());
    Ok(())
}

/// The ids of what is queued.
async fn waiting(on: &Host) -> Result<Vec<String>> {
    let listed = on.run(&["postroad", "queue", "list", "--json"]).await?;
    let listed: Value = serde_json::from_str(&listed)?;
    let mails = listed["mails"].as_array().context("no mails")?;
    let ids = mails.iter().filter_map(|mail| mail["queue_id"].as_str());
    Ok(ids.map(ToOwned::to_owned).collect())
}

pub async fn mail_outlives_the_package(on: &Host) -> Result<()> {
    let waiting = waiting(on).await?;
    let filed = on.filed(&[ALICE]).await?[ALICE].len();
    on.run(&["dpkg", "--remove", "postroad"]).await?;
    for agent in AGENTS {
        ensure!(on.property(agent, "MainPID").await? == "0", "{agent} runs");
    }
    on.run(&["test", "-e", "/etc/postroad/directory.toml"])
        .await?;
    on.install(1).await?;
    on.ready().await?;
    ensure!(
        self::waiting(on).await? == waiting,
        "the mail that waited is gone"
    );
    let told = on.run(&["sh", "-c", "dpkg --purge postroad 2>&1"]).await?;
    ensure!(
        told.contains("The mail stays in /var/lib/postroad"),
        "{told}"
    );
    ensure!(on.run(&["test", "-e", "/etc/postroad"]).await.is_err());
    ensure!(on.filed(&[ALICE]).await?[ALICE].len() == filed);
    Ok(())
}
