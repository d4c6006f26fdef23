//! Hosts, lines between them, and load.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use postroad_tests::{
    Agent, Host, Link, Peer, Stack, Weather,
    load::{Door, Load, Manner, Temper, Verdict, Way, judge},
    setup::postroad,
    stack,
};

use crate::{
    arrivals::Arrivals,
    network::{self, ROUTER},
};

const LOCAL: [&str; 2] = ["bob@demo.test", "carol@demo.test"];
const FOREIGN: &str = "friend@far.test";
const QUEUE_PORT: u16 = 7700;
const SUBMISSIONS: u16 = 465;
const SMTP: u16 = 25;
/// Where hosts find the world; it is behind a line.
const WORLD_PORT: u16 = 2525;
const MANNER: Manner = Manner {
    clients: 2,
    pace: Duration::from_millis(40),
    temper: Temper::Tough(Duration::from_secs(10)),
};

/// How long agents wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As nobody would set them, for a test that many wait for.
    Short,
    /// As they come, but for retries.
    Real,
}

/// Each host by its name, in the order in which they are started, and its agent.
const HOSTS: [(&str, Agent); 6] = [
    ("queue1", Agent::Queued),
    ("msa1", Agent::Msa),
    ("msa2", Agent::Msa),
    ("mta1", Agent::Mta),
    ("mta2", Agent::Mta),
    ("mda1", Agent::Mda),
];

pub struct Site {
    /// Files only: none of its own processes run.
    stack: Stack,
    pub hosts: BTreeMap<&'static str, Host>,
    /// Of each host to the queue.
    pub lines: BTreeMap<&'static str, Link>,
    pub world_line: Link,
    pub load: Load,
    world: Peer,
    maildirs: Vec<(String, PathBuf)>,
    pub arrivals: Arrivals,
}

impl Site {
    pub async fn open(times: Times) -> Result<Self> {
        network::open().await?;
        let zone = format!("far.test MX 10 mx.far.test\nmx.far.test A {ROUTER}\n");
        let stack = stack!().zone(&zone).prepare()?;
        let mut places = BTreeMap::new();
        for (number, (name, _)) in (1..).zip(HOSTS) {
            places.insert(name, network::host(name, number).await?);
        }
        certificates(&stack, &places)?;
        fs::create_dir(stack.folder().join("run"))?;
        let (mut hosts, mut lines) = (BTreeMap::new(), BTreeMap::new());
        let queue = SocketAddr::new(places["queue1"].0, QUEUE_PORT);
        for (number, (name, agent)) in (1..).zip(HOSTS) {
            let (address, namespace) = &places[name];
            let line = SocketAddr::from((ROUTER, QUEUE_PORT + number));
            if agent != Agent::Queued {
                lines.insert(name, Link::tcp(line, queue, Weather::Clear)?);
            }
            let config = config(&stack, name, agent, *address, line, times);
            hosts.insert(name, stack.host(name, agent, namespace, &config)?);
        }
        let abroad = SocketAddr::from((ROUTER, 25));
        let world = Peer::up(abroad).await?;
        let world_line = Link::tcp((ROUTER, WORLD_PORT).into(), abroad, Weather::Clear)?;
        for (name, _) in HOSTS {
            let host = hosts.get_mut(name).context("a host")?;
            host.start()?;
            host.ready().await?;
        }
        let load = Load::start(&doors(&stack, &places), MANNER);
        let maildir = |account: &str| Ok((account.to_owned(), stack.maildir(account)?));
        let maildirs = LOCAL.map(maildir).into_iter().collect::<Result<_>>()?;
        Ok(Self {
            stack,
            hosts,
            lines,
            world_line,
            load,
            world,
            maildirs,
            arrivals: Arrivals::default(),
        })
    }

    /// Looks what has arrived.
    pub fn look(&mut self) -> Result<()> {
        self.arrivals.look(&self.maildirs, &self.world)
    }

    /// The weather of the lines of a host: of the queue they are all. Of no host: the line to the world.
    pub fn turn(&self, host: Option<&str>, weather: Weather) {
        match host {
            None => self.world_line.change(weather),
            Some("queue1") => self.lines.values().for_each(|line| line.change(weather)),
            Some(name) => {
                if let Some(line) = self.lines.get(name) {
                    line.change(weather);
                }
            }
        }
    }

    pub fn host(&mut self, name: &str) -> Result<&mut Host> {
        self.hosts.get_mut(name).context("a host")
    }

    pub fn show_tails(&mut self) {
        for host in self.hosts.values_mut() {
            host.show_tail();
        }
    }

    /// The end of all, and what became of all mail.
    pub async fn close(mut self) -> Result<Verdict> {
        let sent = self.load.stop().await?;
        self.stack.wait_for_empty_queue().await?;
        let filed = LOCAL.map(|account| Ok((account.to_owned(), self.stack.delivered(account)?)));
        let filed = filed.into_iter().collect::<Result<BTreeMap<_, _>>>()?;
        println!("{} mails were accepted", sent.len());
        let verdict = judge(&sent, &filed, &self.world.kept());
        let verdict = verdict.inspect_err(|_| self.hosts.values_mut().for_each(Host::show_tail))?;
        for (name, _) in HOSTS.into_iter().rev() {
            self.hosts.get_mut(name).context("a host")?.stop().await?;
        }
        self.stack.end().await?;
        Ok(verdict)
    }
}

fn doors(stack: &Stack, places: &BTreeMap<&str, (IpAddr, PathBuf)>) -> [Arc<Door>; 2] {
    let copies = |names: [&str; 2], port| names.map(|name| SocketAddr::new(places[name].0, port));
    let people = Way::Submissions {
        name: "mx.demo.test".to_owned(),
        ca_file: stack.ca_file(),
    };
    let to = [LOCAL[0], FOREIGN, LOCAL[1]];
    [
        Door::new(people, &copies(["msa1", "msa2"], SUBMISSIONS), &to),
        Door::new(Way::World, &copies(["mta1", "mta2"], SMTP), &LOCAL),
    ]
}

/// Each agent's, for its address; the queue is also found behind the lines.
fn certificates(stack: &Stack, places: &BTreeMap<&str, (IpAddr, PathBuf)>) -> Result<()> {
    let pki = stack.folder().join("pki").display().to_string();
    let (network, router) = ("10.77.0.0/16", ROUTER.to_string());
    postroad(&["pki", "init", "--pki-dir", &pki, "--permit", network])?;
    for (name, agent) in HOSTS {
        let (role, address) = (agent.to_string(), places[name].0.to_string());
        let mut words = vec!["pki", "issue", &role, "--pki-dir", &pki, "--to", name];
        words.extend(["--name", &address]);
        if agent == Agent::Queued {
            words.extend(["--name", &router]);
        }
        postroad(&words)?;
    }
    Ok(())
}

fn config(
    stack: &Stack,
    name: &str,
    agent: Agent,
    address: IpAddr,
    line: SocketAddr,
    times: Times,
) -> String {
    let root = stack.folder();
    let path = |path: &str| root.join(path).display().to_string();
    let (folder, pki) = (path(name), path(&format!("pki/{name}")));
    let meets = if agent == Agent::Queued {
        format!("directory = {:?}", stack.directory_file())
    } else {
        format!("queue = \"tcp:{line}\"\naccounts.from = \"queue\"")
    };
    let zone = path("zone");
    let common = format!(
        r#"[common]
hostname = "{name}.journey.test"
domain = "demo.test"
state_dir = "{folder}/state"
run_dir = "{folder}/run"
shutdown_grace = "10s"
allow_root = true
{meets}
tls.ca_file = "{pki}/agents-ca.pem"
tls.cert_file = "{pki}/agent.pem"
tls.key_file = "{pki}/agent.key"
log.format = "json"
dns.zone = "{zone}"
"#
    );
    common + &own(root, agent, address, times)
}

fn own(root: &Path, agent: Agent, address: IpAddr, times: Times) -> String {
    let path = |path: &str| root.join(path).display().to_string();
    let shown = format!(
        "cert_file = \"{}\"\nkey_file = \"{}\"\n",
        path("server.pem"),
        path("server.key")
    );
    match agent {
        Agent::Queued => {
            let grace = match times {
                Times::Real => "",
                Times::Short => "lease.stream_grace = \"2s\"\nlease.resume_grace = \"2s\"\n",
            };
            format!(
                r#"[queued]
listen.tcp = "tcp:{address}:{QUEUE_PORT}"
listen.agents = "unix:{agents}"
listen.admin = "unix:{admin}"
retry.first = "1s"
retry.max = "5s"
disk.reserve_percent = 0
disk.reserve = "1MiB"
{grace}"#,
                agents = path("run/queue.sock"),
                admin = path("run/queue-admin.sock")
            )
        }
        Agent::Msa => format!(
            "[msa]\nsubmission = []\nsubmissions = [\"{address}:{SUBMISSIONS}\"]\n[[msa.certificates]]\n{shown}"
        ),
        Agent::Mta => format!(
            "[mta.inbound]\nlisteners.smtp = \"{address}:{SMTP}\"\n[[mta.inbound.certificates]]\n{shown}\
             [mta.outbound]\nport = {WORLD_PORT}\nallow_networks = [\"10.77.0.0/16\"]\n"
        ),
        _ => format!("[mda]\nmail_root = \"{}\"\n", path("mail")),
    }
}
