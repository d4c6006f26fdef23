//! A queue of two nodes: mail goes on while one of them is away, what it holds comes back with it, and nothing arrives twice; operators
//! see both as one.

#![allow(clippy::print_stdout, reason = "the report of a test")]

use std::{collections::BTreeMap, ffi::OsString, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use postroad_daemon::{health_socket, query_health};
use postroad_queue_client::{ListQuery, QueueAdmin as _, RemoteAdmin};
use postroad_rpc::Endpoint;
use postroad_tests::{
    Agent, Peer, Second, Stack,
    load::{Door, Load, Manner, Sent, Temper, Way, judge},
    stack, wait_for,
};

const LOCAL: [&str; 2] = ["bob@demo.test", "carol@demo.test"];
const FOREIGN: &str = "friend@world.test";
/// Mails accepted between two steps.
const MORE: usize = 20;

/// Four processes, a second queue, and the world.
struct Site {
    stack: Stack,
    second: Second,
    peer: Peer,
}

impl Site {
    async fn open() -> Result<Self> {
        let mut stack = stack!().prepare()?;
        let list = list(&stack);
        stack.configure("queues", &format!("[common]\n{list}"))?;
        let ops = format!(
            "[common]\nhostname = \"ops.demo.test\"\nrun_dir = {:?}\n{list}",
            stack.folder().join("ops")
        );
        fs::write(stack.folder().join("ops.toml"), ops)?;
        stack.start_all().await?;
        let state = stack.folder().join("second-state");
        let settings = format!("state_dir = {state:?}\n{list}");
        let second = stack.second(Agent::Queued, &settings).await?;
        let peer = Peer::up(stack.peer_address(1)).await?;
        let site = Self {
            stack,
            second,
            peer,
        };
        for admin in site.admins()? {
            wait_for("workers at each node", async || {
                (admin.agents().await.ok()?.len() == 2).then_some(())
            })
            .await?;
        }
        site.hears("both nodes", |reason| reason.is_none()).await?;
        Ok(site)
    }

    /// Waits until all agents are ready and say this of the queue.
    async fn hears(&self, what: &str, fits: impl Fn(Option<&str>) -> bool) -> Result<()> {
        let run = self.stack.folder().join("run");
        for agent in ["msa", "mta", "mda"] {
            let socket = health_socket(&run, agent);
            wait_for(&format!("word of {what}"), async || {
                let health = query_health(&socket).await.ok()?;
                let reason = health.checks.get("queue")?.reason.as_deref();
                (health.ready && fits(reason)).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    fn load(&self) -> Load {
        let people = Way::Submissions {
            name: "localhost".to_owned(),
            ca_file: self.stack.ca_file(),
        };
        let (submissions, smtp) = (self.stack.ports.submissions(), self.stack.ports.smtp());
        let submission = Door::new(people, &[submissions], &[LOCAL[0], FOREIGN, LOCAL[1]]);
        let inbound = Door::new(Way::World, &[smtp], &LOCAL);
        let manner = Manner {
            clients: 3,
            pace: Duration::from_millis(5),
            temper: Temper::Patient,
        };
        Load::start(&[submission, inbound], manner)
    }

    fn admins(&self) -> Result<[RemoteAdmin; 2]> {
        let [first, second] = sockets(&self.stack);
        let admin = |socket: PathBuf| {
            let socket = socket.with_file_name("queue-admin.sock");
            RemoteAdmin::connect(&Endpoint::Unix(socket), None, "journey")
        };
        Ok([admin(first)?, admin(second)?])
    }

    /// How many mails each node was given.
    fn submitted(&self) -> [usize; 2] {
        let logs = [self.stack.log(Agent::Queued), self.second.log()];
        logs.map(|log| log.matches("\"event\":\"submitted\"").count())
    }

    /// What an operator types on a host that is none of these: the status, what was printed, and what was said.
    async fn typed(&self, words: &[&str]) -> Result<(u8, String, String)> {
        let ops = self.stack.folder().join("ops.toml");
        let all = ["postroad".as_ref(), "--config".as_ref(), ops.as_os_str()];
        let all = all.into_iter().map(OsString::from);
        let all: Vec<OsString> = all.chain(words.iter().map(OsString::from)).collect();
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let typed = tokio::task::spawn_blocking(move || {
            let status = postroad::execute(all, &mut out, &mut talk);
            (status, out, talk)
        });
        let (status, out, talk) = typed.await?;
        let (out, talk) = (String::from_utf8(out)?, String::from_utf8(talk)?);
        println!("{words:?}: {status}\n{out}{talk}");
        Ok((status, out, talk))
    }

    /// All is delivered, and once.
    async fn close(self, sent: &[Sent]) -> Result<()> {
        for admin in self.admins()? {
            wait_for("an empty node", async || {
                let page = admin.list(ListQuery::default()).await.ok()?;
                page.mails.is_empty().then_some(())
            })
            .await?;
        }
        let filed = LOCAL.map(|account| Ok((account.to_owned(), self.stack.delivered(account)?)));
        let filed = filed.into_iter().collect::<Result<BTreeMap<_, _>>>()?;
        let verdict = judge(sent, &filed, &self.peer.kept())?;
        println!("{} mails accepted: {verdict:?}", sent.len());
        self.second.end().await?;
        self.stack.end().await
    }
}

fn sockets(stack: &Stack) -> [PathBuf; 2] {
    ["run", "second/run"].map(|run| stack.folder().join(run).join("queue.sock"))
}

fn list(stack: &Stack) -> String {
    let addresses = sockets(stack).map(|socket| format!("unix:{}", socket.display()));
    format!("queue = {addresses:?}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_on_while_a_node_is_away_and_its_own_comes_back_with_it() -> Result<()> {
    let mut site = Site::open().await?;
    let mut load = site.load();
    load.goes_on(MORE).await?;
    wait_for("mail at both nodes", async || {
        let [first, second] = site.submitted();
        (first > 0 && second > 0).then_some(())
    })
    .await?;

    site.stack.kill_nine(Agent::Queued).await?;
    let [_, before] = site.submitted();
    load.goes_on(MORE).await?;
    let [_, after] = site.submitted();
    ensure!(after > before, "the other node was given nothing");
    let name = sockets(&site.stack)[0].display().to_string();
    let tells = |reason: Option<&str>| reason.is_some_and(|reason| reason.contains(&name));
    site.hears("the node that is away", tells).await?;
    let (status, out, talk) = site.typed(&["agent", "list"]).await?;
    ensure!(status == 1 && out.contains("NODE"), "{status}: {out}");
    ensure!(talk.contains(&format!("node {name}: ")), "{talk}");

    site.stack.bring_up(&[Agent::Queued]).await?;
    load.goes_on(MORE).await?;
    println!("{} mails were put off", load.put_off());
    let sent = load.stop().await?;
    site.close(&sent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_address_both_nodes_as_one() -> Result<()> {
    let site = Site::open().await?;
    let rule = ["queue", "rule", "put", "all", "--all"];
    let (status, _, talk) = site.typed(&rule).await?;
    ensure!(status == 0, "{talk}");
    let mut load = site.load();
    load.goes_on(MORE).await?;
    let sent = load.stop().await?;
    let nodes = sockets(&site.stack).map(|socket| socket.display().to_string());

    let (status, out, talk) = site.typed(&["queue", "list", "--json"]).await?;
    ensure!(status == 0, "{talk}");
    let listed: serde_json::Value = serde_json::from_str(&out)?;
    let mails = listed["mails"].as_array().context("a list")?;
    ensure!(
        mails.len() >= sent.len(),
        "{} of {}",
        mails.len(),
        sent.len()
    );
    let ids: Vec<&str> = mails
        .iter()
        .filter_map(|mail| mail["queue_id"].as_str())
        .collect();
    ensure!(ids.is_sorted(), "{ids:?}");
    for node in &nodes {
        let its: Vec<&serde_json::Value> =
            mails.iter().filter(|mail| mail["node"] == **node).collect();
        ensure!(!its.is_empty(), "nothing at {node}");
        let id = its[0]["queue_id"].as_str().context("an id")?;
        let (status, out, _) = site.typed(&["queue", "show", id, "--json"]).await?;
        let shown: serde_json::Value = serde_json::from_str(&out)?;
        ensure!(status == 0 && shown["node"] == **node, "{out}");
        let (status, out, _) = site.typed(&["queue", "show", id, "--content"]).await?;
        ensure!(status == 0 && out.contains("Subject: token"), "{out}");
        let (_, out, _) = site
            .typed(&["queue", "list", "--node", node, "--json"])
            .await?;
        let alone: serde_json::Value = serde_json::from_str(&out)?;
        let alone = alone["mails"].as_array().context("a list")?.len();
        ensure!(alone == its.len(), "{alone} of {}", its.len());
        let (status, _, talk) = site.typed(&["queue", "release", id]).await?;
        ensure!(
            status == 0 && talk.contains(&format!("{node}: 1 mail")),
            "{talk}"
        );
    }
    let (status, out, _) = site.typed(&["queue", "stats"]).await?;
    ensure!(
        status == 0 && nodes.iter().all(|node| out.contains(node)),
        "{out}"
    );
    let (status, _, talk) = site.typed(&["queue", "backup", "/nonexistent"]).await?;
    ensure!(status == 2 && talk.contains("--node"), "{talk}");
    let (status, out, _) = site.typed(&["queue", "verify"]).await?;
    ensure!(
        status == 0 && out.matches("all is well").count() == 2,
        "{out}"
    );

    let removal = ["queue", "rule", "remove", "all", "--release"];
    let (status, _, talk) = site.typed(&removal).await?;
    ensure!(status == 0, "{talk}");
    let traced = sent[0].queue_id().context("an id")?.to_string();
    let (status, out, _) = site.typed(&["trace", &traced]).await?;
    ensure!(status == 0 && out.contains("accepted"), "{out}");
    site.close(&sent).await
}
