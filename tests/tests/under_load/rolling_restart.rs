//! Every agent is restarted, one copy after the other, while mail comes in: no transaction that has begun fails, what was accepted is
//! delivered once, and no mail waits for a worker that has gone.
//!
//! `POSTROAD_TEST_FORMER` names the program `agents` of another version: then the stack begins with it, and in turns each restart is the
//! upgrade to this version, and the way back.

#![allow(clippy::print_stdout, reason = "the report of a test")]

use std::{
    collections::BTreeMap,
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use postroad_queue_client::QueueAdmin as _;
use postroad_tests::{
    Agent, Link, Peer, Second, Stack, Weather, free_port,
    load::{Door, Load, Manner, Sent, Temper, Way, judge},
    stack, wait_for,
};

const LOCAL: [&str; 2] = ["bob@demo.test", "carol@demo.test"];
const FOREIGN: &str = "friend@world.test";
const CLIENTS: usize = 3;
const PACE: Duration = Duration::from_millis(15);
const ROUNDS: usize = 2;
/// Mails accepted between two steps.
const MORE: usize = 10;
/// Longer than the test: a lease that is not handed back would be missed.
const LEASES: &str = "[queued.lease]\nduration = \"1h\"\nstream_grace = \"1h\"\n";
/// From here to the world and back: so there are always mails on their way.
const WAY: Weather = Weather::Far {
    there: Duration::from_millis(40),
    back: Duration::from_millis(40),
};

/// Two copies each of msa and mta, and the world.
struct Site {
    stack: Stack,
    second_msa: Option<Second>,
    second_mta: Option<Second>,
    settings: [String; 2],
    submission: Arc<Door>,
    inbound: Arc<Door>,
    peer: Peer,
    _way: Link,
}

impl Site {
    async fn open() -> Result<Self> {
        let mut stack = stack!().settings(LEASES).prepare()?;
        if let Some(former) = former() {
            stack.set_binary(Path::new(&former));
        }
        stack.start_all().await?;
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (submissions, smtp) = (local(free_port()?), local(free_port()?));
        let settings = [
            format!("[msa]\nsubmission = []\nsubmissions = [\"{submissions}\"]\n"),
            format!("[mta.inbound]\nlisteners.smtp = \"{smtp}\"\n"),
        ];
        let second_msa = stack.second(Agent::Msa, &settings[0]).await?;
        let second_mta = stack.second(Agent::Mta, &settings[1]).await?;
        let abroad = local(free_port()?);
        let peer = Peer::up(abroad).await?;
        let way = Link::tcp(stack.peer_address(1), abroad, WAY)?;
        let people = Way::Submissions {
            name: "localhost".to_owned(),
            ca_file: stack.ca_file(),
        };
        let copies = [stack.ports.submissions(), submissions];
        let submission = Door::new(people, &copies, &[LOCAL[0], FOREIGN, LOCAL[1]]);
        let inbound = Door::new(Way::World, &[stack.ports.smtp(), smtp], &LOCAL);
        Ok(Self {
            stack,
            second_msa: Some(second_msa),
            second_mta: Some(second_mta),
            settings,
            submission,
            inbound,
            peer,
            _way: way,
        })
    }

    fn load(&self, temper: Temper) -> Load {
        let doors = [&self.submission, &self.inbound].map(Arc::clone);
        let manner = Manner {
            clients: CLIENTS,
            pace: PACE,
            temper,
        };
        Load::start(&doors, manner)
    }

    /// One copy of an agent after the other is stopped in the midst of its work, and comes back when others have taken over.
    async fn roll(&mut self, load: &mut Load) -> Result<()> {
        for copy in [0, 1] {
            self.await_work(Agent::Msa, copy).await?;
            self.restart(Agent::Msa, copy, load).await?;
            self.await_work(Agent::Mta, copy).await?;
            self.restart(Agent::Mta, copy, load).await?;
        }
        self.await_work(Agent::Mda, 0).await?;
        self.restart(Agent::Mda, 0, load).await
    }

    async fn await_work(&self, agent: Agent, copy: usize) -> Result<()> {
        let worker = ["mx.demo.test", "second.demo.test"].map(|host| format!("{agent}@{host}"));
        let admin = self.stack.admin()?;
        let what = format!("work of {agent} {copy}");
        wait_for(&what, async || {
            let transactions = match agent {
                Agent::Msa => self.submission.busy(copy) > 0,
                Agent::Mta => self.inbound.busy(copy) > 0,
                _ => true,
            };
            // The MDA is faster than one can look.
            let leases = agent != Agent::Mta
                || admin
                    .agents()
                    .await
                    .ok()?
                    .iter()
                    .any(|known| known.name == worker[copy] && known.leases > 0);
            (transactions && leases).then_some(())
        })
        .await
    }

    async fn restart(&mut self, agent: Agent, copy: usize, load: &mut Load) -> Result<()> {
        match agent {
            Agent::Msa => self.submission.stops(copy),
            Agent::Mta => self.inbound.stops(copy),
            _ => {}
        }
        let second = match agent {
            _ if copy == 0 => None,
            Agent::Msa => Some((&mut self.second_msa, &self.settings[0])),
            _ => Some((&mut self.second_mta, &self.settings[1])),
        };
        match second {
            None => {
                let status = self.stack.terminate(agent).await?;
                ensure!(status == 0, "{agent} ended with {status}");
                load.goes_on(MORE).await?;
                self.stack.bring_up(&[agent]).await?;
            }
            Some((second, settings)) => {
                second.take().context("no second copy")?.end().await?;
                load.goes_on(MORE).await?;
                *second = Some(self.stack.second(agent, settings).await?);
            }
        }
        load.goes_on(MORE).await
    }

    /// All is delivered, and once; also to the peer if nobody died.
    async fn close(self, sent: &[Sent]) -> Result<()> {
        self.stack.wait_for_empty_queue().await?;
        let filed = LOCAL.map(|account| Ok((account.to_owned(), self.stack.delivered(account)?)));
        let filed = filed.into_iter().collect::<Result<BTreeMap<_, _>>>()?;
        let verdict = judge(sent, &filed, &self.peer.kept())?;
        println!("{} mails accepted: {verdict:?}", sent.len());
        ensure!(verdict.relayed_again == 0, "relayed twice: {verdict:?}");
        for second in [self.second_msa, self.second_mta].into_iter().flatten() {
            second.end().await?;
        }
        self.stack.end().await
    }
}

/// Of all processes there were.
fn logs(stack: &Stack) -> Result<Vec<String>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(stack.folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(fs::read_to_string(path)?);
        }
    }
    ensure!(
        logs.len() > Agent::SEPARATE.len(),
        "only {} logs",
        logs.len()
    );
    Ok(logs)
}

fn former() -> Option<std::ffi::OsString> {
    env::var_os("POSTROAD_TEST_FORMER")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_transaction_fails_while_one_copy_after_the_other_is_restarted() -> Result<()> {
    let mut site = Site::open().await?;
    let mut load = site.load(Temper::Strict);
    load.goes_on(MORE).await?;
    for round in 0..ROUNDS {
        match former() {
            Some(former) if round % 2 == 1 => site.stack.set_binary(Path::new(&former)),
            _ => site
                .stack
                .set_binary(Path::new(env!("CARGO_BIN_EXE_agents"))),
        }
        site.roll(&mut load).await?;
    }
    let (finished, turned_away) = (load.finished(), load.turned_away());
    println!(
        "{finished} transactions ended at a copy that was stopping; {turned_away} clients turned away"
    );
    ensure!(
        finished > 0,
        "no copy was stopped in the midst of a transaction"
    );
    ensure!(turned_away > 0, "nobody noticed");
    let sent = load.stop().await?;
    site.stack.wait_for_empty_queue().await?;
    let attempts = site.peer.attempts();
    let relayed = sent.iter().filter(|mail| mail.to == FOREIGN).count();
    ensure!(
        attempts == relayed,
        "{attempts} attempts for {relayed} mails"
    );
    for log in logs(&site.stack)? {
        // A lease that ended by its deadline, or an attempt that was counted and did not end.
        for word in ["lease_expired", "\"attempt\":2", "\"event\":\"fault\""] {
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(word)).collect();
            ensure!(lines.is_empty(), "{lines:#?}");
        }
    }
    site.close(&sent).await
}

/// There is one queue, so its restart is felt: who submits meanwhile waits or is told to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_queue_puts_mail_off_and_loses_none() -> Result<()> {
    let mut site = Site::open().await?;
    let mut load = site.load(Temper::Patient);
    for _ in 0..ROUNDS {
        load.goes_on(MORE).await?;
        let status = site.stack.terminate(Agent::Queued).await?;
        ensure!(status == 0, "the queue ended with {status}");
        site.stack.bring_up(&[Agent::Queued]).await?;
    }
    load.goes_on(MORE).await?;
    println!("{} mails were put off", load.put_off());
    let sent = load.stop().await?;
    site.close(&sent).await
}
