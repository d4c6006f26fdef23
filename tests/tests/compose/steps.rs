//! The steps of the journey.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Client, Mail, is_same_mail, mail_of, mails_below};
use tokio::{process::Command, runtime::Handle};

use crate::{
    docker::{docker, looking, outcome_of},
    elsewhere::{self, FRIEND},
    journey::{AGENTS, ALICE, BOB, HOST, Journey},
    load::{Load, Sent, judge},
};

/// `docker-compose up` alone: setup ends, the queue is there before the others, all are ready.
pub async fn one_command_brings_all_up(on: &Journey) -> Result<()> {
    on.compose.run(&["up", "-d", "--no-build"]).await?;
    for agent in AGENTS {
        on.compose.healthy(agent).await?;
        let said = on
            .compose
            .exec(agent, &["postroad", "health", agent])
            .await?;
        ensure!(said.contains("ready"), "{said}");
        on.compose
            .exec(agent, &["postroad", "check", agent])
            .await?;
    }
    let setup = on
        .compose
        .inspect("setup", "{{.State.Status}} {{.State.ExitCode}}")
        .await?;
    ensure!(setup == "exited 0", "setup {setup}");
    let told = on.compose.run(&["logs", "--no-color", "setup"]).await?;
    for record in ["MX", "v=spf1", "_dmarc"] {
        ensure!(
            told.contains(record),
            "no {record} in what setup told:\n{told}"
        );
    }
    Ok(())
}

pub async fn a_mail_submitted_on_587_is_filed(on: &Journey) -> Result<()> {
    let submitter = on.submitter().await?;
    let told = on.compose.run(&["logs", "--no-color"]).await?;
    ensure!(
        !told.contains(&submitter.password),
        "the password of the first account is in a log"
    );
    let content = mail_of(ALICE, "the first", "It works.\r\n");
    let mut client = submitter.login().await?;
    client.deliver(ALICE, &[ALICE], &content).await?;
    let shown = looking("the first mail", async || {
        on.compose
            .exec("mda", &["postroad", "mailbox", "show", ALICE, "--raw"])
            .await
            .ok()
    })
    .await?;
    ensure!(
        is_same_mail(&content, format!("{shown}\n").as_bytes()),
        "{shown}"
    );
    ensure!(shown.contains(" with ESMTPSA\n"), "{shown}");
    Ok(())
}

/// Whoever takes over an agent that the world talks to finds no hash and no password.
pub async fn only_the_queue_sees_who_has_an_account(on: &Journey) -> Result<()> {
    for agent in AGENTS {
        let folders = on
            .compose
            .inspect(agent, "{{range .Mounts}}{{.Destination}} {{end}}");
        let sees = folders.await?.contains("/etc/postroad-accounts");
        ensure!(
            sees == (agent == "queued"),
            "{agent} sees the accounts: {sees}"
        );
        let folder = on.compose.copy(agent, "/etc/postroad").await?;
        let files = fs::read_dir(folder.path().join("copy"))?;
        let files: Vec<_> = files
            .map(|file| Ok(file?.file_name()))
            .collect::<Result<_>>()?;
        ensure!(files == ["postroad.toml"], "{agent}: {files:?}");
    }
    Ok(())
}

/// Nothing that exists is made anew: no container, no key, no password.
pub async fn a_second_start_changes_nothing(on: &Journey) -> Result<()> {
    let before = picture(on).await?;
    on.compose.run(&["up", "-d", "--no-build"]).await?;
    for agent in AGENTS {
        on.compose.healthy(agent).await?;
    }
    let after = picture(on).await?;
    for (what, was) in &before {
        ensure!(after.get(what) == Some(was), "{what} was changed");
    }
    ensure!(before.len() == after.len(), "files were added");
    Ok(())
}

/// Each file of configuration and keys, and the container of each agent.
async fn picture(on: &Journey) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut picture = BTreeMap::new();
    for agent in AGENTS {
        let container = on.compose.container(agent).await?;
        picture.insert(format!("container of {agent}"), container.into_bytes());
    }
    for path in ["/etc/postroad", "/etc/postroad-accounts", "/pki"] {
        let folder = on.compose.copy("setup", path).await?;
        let mut folders = vec![folder.path().join("copy")];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next)? {
                let entry = entry?.path();
                if entry.is_dir() {
                    folders.push(entry);
                } else {
                    let name = entry.strip_prefix(folder.path())?.display().to_string();
                    picture.insert(format!("{path} {name}"), fs::read(&entry)?);
                }
            }
        }
    }
    ensure!(picture.len() > 15, "{:?}", picture.keys());
    Ok(picture)
}

pub async fn containers_have_no_more_power_than_they_need(on: &Journey) -> Result<()> {
    let template = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} \
                    {{.HostConfig.Privileged}} {{.HostConfig.RestartPolicy.Name}} {{gt .HostConfig.Memory 0}}";
    let wanted = "10001:10001 true [ALL] [no-new-privileges:true] false unless-stopped true";
    for agent in AGENTS {
        let found = on.compose.inspect(agent, template).await?;
        ensure!(found == wanted, "{agent}: {found}");
    }
    // Who publishes what.
    let template = "{{range $port, $to := .HostConfig.PortBindings}}{{$port}} {{end}}";
    for (agent, ports) in [
        ("queued", ""),
        ("msa", "465/tcp 587/tcp"),
        ("mta", "25/tcp"),
        ("mda", ""),
    ] {
        let found = on.compose.inspect(agent, template).await?;
        ensure!(found.trim() == ports, "{agent} publishes {found}");
    }
    // Each has its own key and no other's.
    for agent in AGENTS {
        let template = "{{range .Mounts}}{{.Name}} {{end}}";
        let mounts = on.compose.inspect(agent, template).await?;
        let keys: Vec<&str> = mounts
            .split_whitespace()
            .filter(|name| name.contains("_pki-"))
            .collect();
        let own = format!("{}_pki-{agent}", on.compose.project);
        ensure!(keys == [own.as_str()], "{agent}: {keys:?}");
    }
    Ok(())
}

/// From the network of metrics, where a stranger may be, nobody gets to the port of the queue.
pub async fn only_agents_reach_the_queue(on: &Journey) -> Result<()> {
    for network in ["metrics", "world"] {
        let network_name = on.compose.network(network);
        let template = format!(
            "{{{{with index .NetworkSettings.Networks {network_name:?}}}}}{{{{.IPAddress}}}}{{{{end}}}}"
        );
        let address = on.compose.inspect("queued", &template).await?;
        let target = match address.is_empty() {
            true => "queue".to_owned(),
            false => address,
        };
        ensure!(
            !reaches(&network_name, &target).await?,
            "from {network} {target}:7700 is reached"
        );
    }
    let inside = on.compose.network("queue");
    ensure!(
        reaches(&inside, "queue").await?,
        "the look itself does not work"
    );
    metrics_are_told(on).await
}

/// Every process tells them in the network of metrics.
async fn metrics_are_told(on: &Journey) -> Result<()> {
    let network = format!("--network={}", on.compose.network("metrics"));
    for (agent, port) in AGENTS.iter().zip(9700..) {
        let ask = format!(
            "exec 3<>/dev/tcp/{agent}/{port}; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
        );
        let call = [
            "run",
            "--rm",
            &network,
            elsewhere::TAG,
            "timeout",
            "10",
            "bash",
            "-c",
            &ask,
        ];
        let told = docker(&call).await?;
        ensure!(told.contains("postroad_ready 1"), "{agent}: {told}");
    }
    Ok(())
}

/// Whether a container in this network alone can connect.
async fn reaches(network: &str, host: &str) -> Result<bool> {
    let script = format!("exec 3<>/dev/tcp/{host}/7700");
    let mut command = Command::new("docker");
    command.args([
        "run",
        "--rm",
        &format!("--network={network}"),
        elsewhere::TAG,
    ]);
    command.args(["timeout", "5", "bash", "-c", &script]);
    let patience = std::time::Duration::from_secs(60);
    Ok(outcome_of(&mut command, b"", patience)
        .await?
        .status
        .success())
}

/// Mail hosts are found through the engine's name server.
pub async fn mail_goes_to_postfix_and_comes_from_it(on: &Journey) -> Result<()> {
    let submitter = on.submitter().await?;
    let there = mail_of(ALICE, "there", ".a line\r\n\r\n..two\r\n");
    submitter
        .login()
        .await?
        .deliver(ALICE, &[FRIEND], &there)
        .await?;
    let arrived = looking("mail at Postfix", async || {
        let mails = on.elsewhere.mails().await.ok()?;
        mails.into_iter().find(|mail| is_same_mail(&there, mail))
    })
    .await?;
    let arrived = String::from_utf8_lossy(&arrived);
    ensure!(
        arrived.contains(&format!("Return-Path: <{ALICE}>")),
        "{arrived:.800}"
    );
    let asked = on.elsewhere.questions().await?;
    ensure!(asked.contains("query[MX] elsewhere.test"), "{asked}");

    let back = mail_of(ALICE, "back", "and back\r\n");
    on.elsewhere.send(ALICE, &back).await?;
    on.elsewhere
        .logged(&[&format!("to=<{ALICE}>"), "status=sent (250 2.0.0 "])
        .await?;
    on.elsewhere
        .logged(&["TLS connection established", HOST])
        .await?;
    looking("mail from Postfix", async || {
        let (_folder, root) = on.mail().await.ok()?;
        let mails = mails_below(&root, ALICE).ok()?;
        mails
            .iter()
            .find(|mail| is_same_mail(&back, &mail.content))
            .map(|_| ())
    })
    .await?;

    // RFC 5321 §3.6.2: nobody is relayed for who is not ours.
    let port_25 = SocketAddr::new(Journey::submission().ip(), 25);
    let (mut stranger, _) = Client::connect(port_25).await?;
    stranger.expect("EHLO stranger.test", "250").await?;
    stranger
        .expect("MAIL FROM:<a@stranger.test>", "250")
        .await?;
    stranger.expect(&format!("RCPT TO:<{FRIEND}>"), "5").await?;
    Ok(())
}

/// Under load: restarts, kills, networks that go away, volumes that fill up.
pub async fn nothing_is_lost_whatever_breaks(on: &Journey) -> Result<()> {
    on.compose
        .run(&[
            "run",
            "--rm",
            "-T",
            "setup",
            "postroad",
            "account",
            "add",
            BOB,
            "--generate",
        ])
        .await?;
    let submitter = on.submitter().await?;
    looking("the second account", async || {
        let mut client = submitter.login().await.ok()?;
        client
            .deliver(ALICE, &[BOB], &mail_of(ALICE, "hello", ""))
            .await
            .ok()
    })
    .await?;

    let here = Handle::current();
    let load = Load::start("one", &[submitter], &[ALICE, BOB, FRIEND], &here);
    load.goes_on(30).await?;
    for agent in AGENTS {
        on.compose.run(&["restart", agent]).await?;
        on.compose.healthy(agent).await?;
        load.goes_on(20).await?;
    }
    queue_is_killed(on, &load).await?;
    delivery_crashes(on, &load).await?;
    networks_go_away(on, &load).await?;
    volumes_fill_up(on, &load).await?;
    load.goes_on(30).await?;
    let refused = load.refused();
    let sent = load.stop().await?;
    println!("{refused} mails were refused while the disk was full");
    nothing_is_lost(on, &sent).await
}

/// Waits until the queue is empty, then calls the judge.
pub async fn nothing_is_lost(on: &Journey, sent: &BTreeMap<String, Sent>) -> Result<()> {
    looking("empty queue", async || {
        is_empty(on).await.ok()?.then_some(())
    })
    .await?;

    let (_folder, root) = on.mail().await?;
    let mut filed: BTreeMap<String, Vec<Mail>> = BTreeMap::new();
    for account in [ALICE, BOB] {
        filed.insert(account.to_owned(), mails_below(&root, account)?);
    }
    let relayed = on.elsewhere.mails().await?;
    judge(sent, &filed, FRIEND, &relayed)?;
    println!(
        "{} mails acknowledged, {} filed, {} relayed",
        sent.len(),
        filed.values().map(Vec::len).sum::<usize>(),
        relayed.len()
    );
    Ok(())
}

async fn is_empty(on: &Journey) -> Result<bool> {
    let listed = on
        .compose
        .exec("queued", &["postroad", "--json", "queue", "list"])
        .await?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let mails = listed["mails"].as_array().context("no list of mails")?;
    Ok(mails.is_empty())
}

/// `docker kill`, three times in mid-load.
async fn queue_is_killed(on: &Journey, load: &Load) -> Result<()> {
    for _ in 0..3 {
        let container = on.compose.container("queued").await?;
        docker(&["kill", &container]).await?;
        docker(&["start", &container]).await?;
        on.compose.healthy("queued").await?;
        load.goes_on(20).await?;
    }
    Ok(())
}

/// A process that dies by itself is started again by the engine.
async fn delivery_crashes(on: &Journey, load: &Load) -> Result<()> {
    let before = on.compose.inspect("mda", "{{.State.Pid}}").await?;
    let pid: i32 = before.parse()?;
    let pid = rustix::process::Pid::from_raw(pid).context("no process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    looking("another process", async || {
        let now = on.compose.inspect("mda", "{{.State.Pid}}").await.ok()?;
        (now != before && now != "0").then_some(())
    })
    .await?;
    on.compose.healthy("mda").await?;
    load.goes_on(20).await
}

/// The way to the foreign mail server, then that of each agent to the queue.
async fn networks_go_away(on: &Journey, load: &Load) -> Result<()> {
    let mta = on.compose.container("mta").await?;
    docker(&["network", "disconnect", elsewhere::NETWORK, &mta]).await?;
    load.goes_on(30).await?;
    let alias = format!("--alias={HOST}");
    docker(&["network", "connect", &alias, elsewhere::NETWORK, &mta]).await?;

    let queue = on.compose.network("queue");
    for agent in ["mta", "mda"] {
        let container = on.compose.container(agent).await?;
        docker(&["network", "disconnect", &queue, &container]).await?;
        load.goes_on(30).await?;
        docker(&["network", "connect", &queue, &container]).await?;
        load.goes_on(20).await?;
    }
    let msa = on.compose.container("msa").await?;
    docker(&["network", "disconnect", &queue, &msa]).await?;
    let told = looking("451 without a queue", async || {
        let mut client = on.submitter().await.ok()?.login().await.ok()?;
        let reply = client
            .attempt(ALICE, &[ALICE], &mail_of(ALICE, "no queue", ""))
            .await;
        reply.ok().filter(|reply| reply.starts_with("451"))
    });
    told.await?;
    docker(&["network", "connect", &queue, &msa]).await?;
    for agent in AGENTS {
        on.compose.healthy(agent).await?;
    }
    load.goes_on(20).await
}

/// First the volume of the mailboxes, whose mail then waits in the queue; then that of the queue, which refuses new mail.
async fn volumes_fill_up(on: &Journey, load: &Load) -> Result<()> {
    fill(on, "/mail/ballast").await?;
    looking("delayed mail", async || {
        let listed = on
            .compose
            .exec("queued", &["postroad", "queue", "list", "--limit", "1000"])
            .await
            .ok()?;
        listed.contains("delayed").then_some(())
    })
    .await?;
    empty(on, "/mail/ballast").await?;
    looking("delivery", async || {
        is_empty(on).await.is_ok().then_some(())
    })
    .await?;

    fill(on, "/queue/ballast").await?;
    let before = load.refused();
    looking("452 of a full queue", async || {
        (load.refused() > before + 5).then_some(())
    })
    .await?;
    // Full or not, a start must work.
    on.compose.run(&["restart", "queued"]).await?;
    empty(on, "/queue/ballast").await?;
    on.compose.healthy("queued").await?;
    load.goes_on(30).await
}

/// Leaves no octet free.
async fn fill(on: &Journey, path: &str) -> Result<()> {
    let script = format!("dd if=/dev/zero of={path} bs=64k 2>&1 | grep -q 'No space left'");
    on.compose.exec("keeper", &["sh", "-c", &script]).await?;
    Ok(())
}

async fn empty(on: &Journey, path: &str) -> Result<()> {
    on.compose.exec("keeper", &["rm", path]).await?;
    Ok(())
}

/// Told to stop, every agent ends with 0 within its time.
pub async fn all_end_in_good_order(on: &Journey) -> Result<()> {
    on.copies.run(&["stop"]).await?;
    let template = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}";
    for agent in AGENTS {
        for container in on.copies.containers(agent).await? {
            let state = docker(&["inspect", "--format", template, &container]).await?;
            ensure!(state == "exited 0 false", "{agent}: {state}");
        }
    }
    Ok(())
}
