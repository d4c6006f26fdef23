//! Every process tells over HTTP whether it lives, whether it does its work, and what it counts; whether the agents share a
//! process or not.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::{Context as _, Result, ensure};
use postroad_metrics::METRICS;
use postroad_tests::{
    Agent, Client, MetricsPage, Peer, Stack, free_port, http_get, mail, stack, wait_for,
};

const NAMES: [&str; 4] = ["queued", "msa", "mta", "mda"];

/// Where each agent tells, in the order of [`NAMES`].
fn addresses() -> Result<[SocketAddr; 4]> {
    let address = || anyhow::Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
    Ok([address()?, address()?, address()?, address()?])
}

fn settings(addresses: &[SocketAddr; 4]) -> String {
    let sections = NAMES.iter().zip(addresses);
    sections
        .map(|(name, address)| format!("[{name}.http]\nlisten = \"{address}\"\n"))
        .collect()
}

#[tokio::test]
async fn each_process_tells_what_it_does() -> Result<()> {
    let addresses = addresses()?;
    let stack = stack!().settings(&settings(&addresses)).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    some_of_everything(&stack, &peer).await?;

    let [queued, msa, mta, mda] = addresses;
    wait_for("settled mail", async || {
        let page = MetricsPage::of(queued).await.ok()?;
        let settled = |outcome| page.value("postroad_queue_settled_total", &[("outcome", outcome)]);
        (settled("delivered").ok()? >= 3.0 && settled("relayed").ok()? >= 1.0).then_some(())
    })
    .await?;
    has(
        msa,
        &[
            (
                "postroad_mails_accepted_total",
                &[("listener", "submission")],
                3.0,
            ),
            ("postroad_recipients_accepted_total", &[], 3.0),
            (
                "postroad_mail_size_bytes_count",
                &[("listener", "submission")],
                3.0,
            ),
            (
                "postroad_accept_seconds_count",
                &[("listener", "submission")],
                3.0,
            ),
            ("postroad_tls_sessions_total", &[("version", "TLS1.3")], 2.0),
            ("postroad_logins_total", &[("result", "succeeded")], 1.0),
            ("postroad_logins_total", &[("result", "failed")], 1.0),
            (
                "postroad_connections_open",
                &[("listener", "submission")],
                1.0,
            ),
            ("postroad_check_ready", &[("check", "queue")], 1.0),
        ],
    )
    .await?;
    for (agent, told) in [(msa, true), (mta, true), (mda, false)] {
        let page = MetricsPage::of(agent).await?;
        let listeners = [("certificate", "listeners")];
        let left = page.value("postroad_certificate_expires_seconds", &listeners);
        ensure!(left.is_ok_and(|seconds| seconds > 86_400.0) == told);
    }
    has(
        mta,
        &[
            (
                "postroad_mails_accepted_total",
                &[("listener", "smtp")],
                1.0,
            ),
            (
                "postroad_refusals_total",
                &[
                    ("stage", "recipient"),
                    ("severity", "permanent"),
                    ("reason", "address"),
                ],
                1.0,
            ),
            (
                "postroad_attempts_total",
                &[("route", "relay"), ("outcome", "relayed"), ("tls", "none")],
                1.0,
            ),
            ("postroad_attempt_seconds_count", &[("route", "relay")], 2.0),
            (
                "postroad_outbound_connections_total",
                &[("result", "connected")],
                1.0,
            ),
            ("postroad_outbound_connections_reused_total", &[], 1.0),
            (
                "postroad_outbound_protected_total",
                &[("level", "plain")],
                1.0,
            ),
            ("postroad_worker_leases", &[], 0.0),
        ],
    )
    .await?;
    has(
        mda,
        &[
            (
                "postroad_attempts_total",
                &[("route", "local"), ("outcome", "delivered")],
                3.0,
            ),
            ("postroad_worker_leases", &[], 0.0),
        ],
    )
    .await?;
    has(
        queued,
        &[
            (
                "postroad_queue_mails_total",
                &[("source", "submitted")],
                4.0,
            ),
            ("postroad_queue_mails_total", &[("source", "report")], 1.0),
            ("postroad_queue_reports_total", &[("kind", "failed")], 1.0),
            (
                "postroad_queue_settled_total",
                &[("outcome", "bounced")],
                1.0,
            ),
            ("postroad_queue_jobs", &[], 0.0),
            ("postroad_queue_workers", &[("route", "local")], 1.0),
            ("postroad_queue_workers", &[("route", "lmtp")], 1.0),
            ("postroad_queue_accepting", &[], 1.0),
            ("postroad_queue_caught_up", &[], 1.0),
            ("postroad_queue_submissions_open", &[], 0.0),
            ("postroad_queue_committed_total", &[("kind", "mail")], 4.0),
        ],
    )
    .await?;
    each_metric_is_told_where_the_list_says(&addresses).await?;
    stack.end().await
}

/// Local mail, relayed mail, a bounce with its report, a wrong password, a refused recipient.
async fn some_of_everything(stack: &Stack, peer: &Peer) -> Result<()> {
    peer.answer("gone@world.test", "550 5.1.1 no such user");
    let mut stranger = stack.world_client().await?;
    stranger
        .expect("MAIL FROM:<friend@world.test>", "250")
        .await?;
    stranger
        .expect("RCPT TO:<nobody@demo.test>", "550 5.1.1")
        .await?;
    stranger.expect("RSET", "250").await?;
    let sent = mail("from the world", "a\r\n");
    stranger
        .deliver("friend@world.test", &["bob@demo.test"], &sent)
        .await?;

    let (guess, _) = Client::connect(stack.ports.submission()).await?;
    let mut guess = guess.starttls(&stack.ca_file()).await?;
    ensure!(
        guess.login("alice@demo.test", "wrong").await.is_err(),
        "it is right"
    );
    drop(guess);
    let mut alice = stack.login("alice@demo.test").await?;
    let mut send = async |to| {
        alice
            .deliver("alice@demo.test", &[to], &mail("hello", "a\r\n"))
            .await
    };
    send("bob@demo.test").await?;
    send("friend@world.test").await?;
    stack.wait_for_mails("bob@demo.test", 2).await?;
    wait_for("relayed mail", async || peer.kept().pop()).await?;
    // The report comes back to her.
    send("gone@world.test").await?;
    stack.wait_for_mails("alice@demo.test", 1).await?;
    // One connection stays open until the numbers are read.
    std::mem::forget(alice);
    Ok(())
}

type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

async fn has(address: SocketAddr, expected: &[Expected<'_>]) -> Result<()> {
    let page = MetricsPage::of(address).await?;
    for (name, labels, value) in expected {
        let found = page.value(name, labels)?;
        ensure!(found == *value, "{name}{labels:?} is {found}, not {value}");
    }
    Ok(())
}

/// No more and no less, and never an address.
async fn each_metric_is_told_where_the_list_says(addresses: &[SocketAddr; 4]) -> Result<()> {
    for (agent, address) in NAMES.iter().zip(addresses) {
        let page = MetricsPage::of(*address).await?;
        let told: BTreeSet<&str> = page.kinds.keys().map(String::as_str).collect();
        let listed = METRICS
            .iter()
            .filter(|metric| metric.agents.contains(agent));
        let listed: BTreeSet<&str> = listed.map(|metric| metric.name).collect();
        ensure!(
            told == listed,
            "{agent}: {:?}",
            told.symmetric_difference(&listed)
        );
        for ((series, labels), value) in &page.series {
            let name = page.family(series).context("no family")?;
            let metric = METRICS
                .iter()
                .find(|metric| metric.name == name)
                .context("not listed")?;
            ensure!(labels["agent"] == *agent, "{series}{labels:?}");
            ensure!(
                value.is_finite() && *value >= 0.0,
                "{series}{labels:?} {value}"
            );
            let mut expected: BTreeSet<&str> =
                metric.labels.iter().map(|label| label.name).collect();
            expected.insert("agent");
            expected.extend(series.ends_with("_bucket").then_some("le"));
            let found: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
            ensure!(found == expected, "{series}{labels:?}");
            let leak = labels
                .values()
                .find(|value| value.contains(['@', ':']) || value.contains(".test"));
            ensure!(leak.is_none(), "{series}{labels:?}");
        }
        for (path, expected) in [("/healthz", 200), ("/readyz", 200), ("/", 404)] {
            let (status, body) = http_get(*address, path).await?;
            ensure!(status == expected, "{agent}{path}: {status} {body}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn who_leans_on_the_queue_is_not_ready_without_it() -> Result<()> {
    let addresses = addresses()?;
    let mut stack = stack!().settings(&settings(&addresses)).start().await?;
    let [queued, others @ ..] = addresses;
    stack.terminate(Agent::Queued).await?;
    for address in others {
        let told = wait_for("503", async || {
            let (status, body) = http_get(address, "/readyz").await.ok()?;
            (status == 503).then_some(body)
        });
        let told = told.await?;
        ensure!(
            told.contains("not ready queue: the queue is away"),
            "{told}"
        );
        // What it does by itself still works, and it lives.
        ensure!(
            told.lines().any(|line| line.starts_with("ready ")),
            "{told}"
        );
        ensure!(http_get(address, "/healthz").await?.0 == 200);
        has(address, &[("postroad_ready", &[], 0.0)]).await?;
    }
    ensure!(http_get(queued, "/healthz").await.is_err(), "it has ended");

    stack.start(Agent::Queued)?;
    for address in addresses {
        wait_for("200", async || {
            let (status, _) = http_get(address, "/readyz").await.ok()?;
            (status == 200).then_some(())
        })
        .await?;
        has(address, &[("postroad_ready", &[], 1.0)]).await?;
    }
    stack.end().await
}

#[tokio::test]
async fn all_in_one_process_may_share_an_address() -> Result<()> {
    let [one, other, ..] = addresses()?;
    let stack = stack!()
        .settings(&settings(&[one, one, one, other]))
        .all_in_one(true)
        .start()
        .await?;
    let mut alice = stack.login("alice@demo.test").await?;
    alice
        .deliver("alice@demo.test", &["bob@demo.test"], &mail("one", "a\r\n"))
        .await?;
    stack.wait_for_mails("bob@demo.test", 1).await?;
    let (status, ready) = http_get(one, "/readyz").await?;
    ensure!(status == 200, "{ready}");
    for line in [
        "ready queued queue\n",
        "ready msa listeners\n",
        "ready mta mta\n",
        "ready msa queue\n",
        "ready mta queue\n",
    ] {
        ensure!(ready.contains(line), "{ready}");
    }
    has(
        one,
        &[
            ("postroad_mails_accepted_total", &[("agent", "msa")], 1.0),
            ("postroad_mails_accepted_total", &[("agent", "mta")], 0.0),
            ("postroad_queue_mails_total", &[("agent", "queued")], 1.0),
            ("postroad_build_info", &[("agent", "postroad")], 1.0),
        ],
    )
    .await?;
    wait_for("counted delivery", async || {
        let page = MetricsPage::of(other).await.ok()?;
        let delivered = page.value("postroad_attempts_total", &[("outcome", "delivered")]);
        (delivered.ok()? == 1.0).then_some(())
    })
    .await?;
    stack.end().await
}
