//! Hosts, lines between them, and load.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use postroad_envelope::QueueId;
use postroad_queue_client::{QueueAdmin as _, RemoteAdmin};
use postroad_rpc::Endpoint;
use postroad_tests::{
    Agent, Host, Link, Peer, Stack, Weather,
    load::{Door, Load, Manner, Temper, Verdict, Way, judge},
    mails_below,
    setup::postroad,
    stack, wait_for,
};

use crate::{
    arrivals::Arrivals,
    network::{self, Harm, ROUTER},
};

/// Each of another store, and where that keeps its mail.
const LOCAL: [(&str, &str); 2] = [("bob@demo.test", "mail"), ("dave@demo.test", "mail-b")];
const OF_B: &str = "[[account]]\naddress = \"dave@demo.test\"\nstore = \"b\"\n";
const FOREIGN: &str = "friend@far.test";
const QUEUE_PORT: u16 = 7700;
const SUBMISSIONS: u16 = 465;
const SMTP: u16 = 25;
/// The world, and where hosts find it: it is behind a line.
const WORLD_PORTS: [u16; 2] = [2500, 2600];
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
const HOSTS: [(&str, Agent); 8] = [
    ("queue1", Agent::Queued),
    ("queue2", Agent::Queued),
    ("msa1", Agent::Msa),
    ("msa2", Agent::Msa),
    ("mta1", Agent::Mta),
    ("mta2", Agent::Mta),
    ("mda1", Agent::Mda),
    ("mda2", Agent::Mda),
];

/// Of the two sites there are in one run, which have nothing in common but the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    One,
    Two,
}

impl Queues {
    fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    fn namespace(self, host: &str) -> String {
        format!("{host}-{}", self.number())
    }

    /// With the numbers they have in addresses and ports.
    fn hosts(self) -> impl Iterator<Item = (u8, &'static str, Agent)> {
        let there = move |name: &str| self == Self::Two || name != "queue2";
        (1..)
            .zip(HOSTS)
            .filter(move |(_, (name, _))| there(name))
            .map(move |(number, (name, agent))| (self.number() * 20 + number, name, agent))
    }

    fn queues(self) -> impl Iterator<Item = (u8, &'static str)> {
        let queues = self.hosts().filter(|(_, _, agent)| *agent == Agent::Queued);
        queues.map(|(number, name, _)| (number, name))
    }
}

/// Where the line of a host to a queue begins, by their numbers.
fn line(host: u8, queue: u8) -> SocketAddr {
    (ROUTER, 10_000 + u16::from(host) * 100 + u16::from(queue)).into()
}

pub struct Site {
    /// Files only: none of its own processes run.
    stack: Stack,
    queues: Queues,
    hosts: BTreeMap<&'static str, Host>,
    /// Of each host to each queue.
    lines: BTreeMap<(&'static str, &'static str), Link>,
    world_line: Link,
    pub load: Load,
    world: Peer,
    pub arrivals: Arrivals,
}

/// The address of each host, and the file of its namespace.
type Places = BTreeMap<&'static str, (IpAddr, PathBuf)>;

impl Site {
    pub async fn open(queues: Queues, times: Times) -> Result<Self> {
        let zone = format!("far.test MX 10 mx.far.test\nmx.far.test A {ROUTER}\n");
        let stack = stack!().directory(OF_B).zone(&zone).prepare()?;
        let mut places = Places::new();
        for (number, name, _) in queues.hosts() {
            let namespace = queues.namespace(name);
            places.insert(name, network::host(&namespace, number).await?);
        }
        certificates(&stack, queues, &places)?;
        let (mut hosts, mut lines) = (BTreeMap::new(), BTreeMap::new());
        for (number, name, agent) in queues.hosts() {
            for (queue_number, queue) in queues.queues().filter(|_| agent != Agent::Queued) {
                let to = SocketAddr::new(places[queue].0, QUEUE_PORT);
                let link = Link::tcp(line(number, queue_number), to, Weather::Clear)?;
                lines.insert((name, queue), link);
            }
            let (address, namespace) = &places[name];
            let config = config(&stack, queues, (number, name, agent), *address, times);
            hosts.insert(name, stack.host(name, agent, namespace, &config)?);
        }
        let world = WORLD_PORTS.map(|port| (ROUTER, port + u16::from(queues.number())).into());
        let [abroad, found] = world;
        let world = Peer::up(abroad).await?;
        let world_line = Link::tcp(found, abroad, Weather::Clear)?;
        for (_, name, _) in queues.hosts() {
            let host = hosts.get_mut(name).context("a host")?;
            host.start()?;
            host.ready().await?;
        }
        Ok(Self {
            load: Load::start(&doors(&stack, &places), MANNER),
            stack,
            queues,
            hosts,
            lines,
            world_line,
            world,
            arrivals: Arrivals::default(),
        })
    }

    /// Looks what has arrived.
    pub fn look(&mut self) -> Result<()> {
        let root = self.stack.folder();
        let maildir = |(account, store): (&str, &str)| {
            let (name, domain) = account.split_once('@').context("an address")?;
            let maildir = postroad_maildir::maildir_path(&root.join(store), domain, name)?;
            anyhow::Ok((account.to_owned(), maildir))
        };
        let maildirs = LOCAL.map(maildir).into_iter().collect::<Result<Vec<_>>>()?;
        self.arrivals.look(&maildirs, &self.world)
    }

    /// The weather of the lines that begin or end at a host. Of no host: the line to the world.
    pub fn turn(&self, host: Option<&str>, weather: Weather) {
        let Some(host) = host else {
            return self.world_line.change(weather);
        };
        let of_host = self
            .lines
            .iter()
            .filter(|((one, other), _)| *one == host || *other == host);
        of_host.for_each(|(_, line)| line.change(weather));
    }

    /// What happens to the packets of a host.
    pub async fn harm(&self, host: &str, harm: Option<Harm>) -> Result<()> {
        let namespace = self.queues.namespace(host);
        match harm {
            Some(harm) => network::harm(&namespace, harm).await,
            None => network::heal(&namespace).await,
        }
    }

    pub fn host(&mut self, name: &str) -> Result<&mut Host> {
        self.hosts.get_mut(name).context("a host")
    }

    fn admins(&self) -> Result<Vec<RemoteAdmin>> {
        let sockets = self
            .queues
            .queues()
            .map(|(_, name)| self.stack.folder().join(name));
        let admin = |folder: PathBuf| {
            let socket = Endpoint::Unix(folder.join("run/queue-admin.sock"));
            Ok(RemoteAdmin::connect(&socket, None, "journey")?)
        };
        sockets.map(admin).collect()
    }

    /// What the queues know of a mail, and of who works for them: for the person who reads why it has not arrived.
    pub async fn story(&self, queue_id: QueueId) -> Result<String> {
        let mut story = String::new();
        for admin in self.admins()? {
            for event in admin.trace(queue_id).await.unwrap_or_default() {
                story += &format!("{} {} {}\n", event.at, event.agent, event.text);
            }
            for agent in admin.agents().await? {
                story += &format!("{} has {} leases\n", agent.name, agent.leases);
            }
        }
        Ok(story)
    }

    pub fn show_tails(&mut self) {
        for host in self.hosts.values_mut() {
            host.show_tail();
        }
    }

    /// The end of all, and what became of all mail.
    pub async fn close(mut self) -> Result<Verdict> {
        let sent = self.load.finish().await?;
        for admin in self.admins()? {
            wait_for("empty queue", async || {
                let stats = admin.stats(1).await.ok()?;
                (stats.total == 0).then_some(())
            })
            .await?;
        }
        let filed = LOCAL.map(|(account, store)| {
            let root = self.stack.folder().join(store);
            Ok((account.to_owned(), mails_below(&root, account)?))
        });
        let filed = filed.into_iter().collect::<Result<BTreeMap<_, _>>>()?;
        println!("{} mails were accepted", sent.len());
        let verdict = judge(&sent, &filed, &self.world.kept());
        let verdict = verdict.inspect_err(|_| self.hosts.values_mut().for_each(Host::show_tail))?;
        let hosts: Vec<_> = self.queues.hosts().collect();
        for (_, name, _) in hosts.into_iter().rev() {
            self.host(name)?.stop().await?;
        }
        self.stack.end().await?;
        Ok(verdict)
    }
}

fn doors(stack: &Stack, places: &Places) -> [Arc<Door>; 2] {
    let copies = |names: [&str; 2], port| names.map(|name| SocketAddr::new(places[name].0, port));
    let people = Way::Submissions {
        name: "mx.demo.test".to_owned(),
        ca_file: stack.ca_file(),
    };
    let local = LOCAL.map(|(account, _)| account);
    let to = [local[0], FOREIGN, local[1]];
    [
        Door::new(people, &copies(["msa1", "msa2"], SUBMISSIONS), &to),
        Door::new(Way::World, &copies(["mta1", "mta2"], SMTP), &local),
    ]
}

/// Each agent's, for its address; the queue is also found behind the lines.
fn certificates(stack: &Stack, queues: Queues, places: &Places) -> Result<()> {
    let pki = stack.folder().join("pki").display().to_string();
    let (network, router) = ("10.77.0.0/16", ROUTER.to_string());
    postroad(&["pki", "init", "--pki-dir", &pki, "--permit", network])?;
    for (_, name, agent) in queues.hosts() {
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
    queues: Queues,
    (number, name, agent): (u8, &str, Agent),
    address: IpAddr,
    times: Times,
) -> String {
    let root = stack.folder();
    let path = |path: &str| root.join(path).display().to_string();
    let (folder, pki) = (path(name), path(&format!("pki/{name}")));
    let meets = if agent == Agent::Queued {
        let directory = stack.directory_file();
        format!("directory = {directory:?}\nqueue = \"unix:{folder}/run/queue.sock\"")
    } else {
        let nodes: Vec<String> = queues
            .queues()
            .map(|(queue, _)| format!("\"tcp:{}\"", line(number, queue)))
            .collect();
        let nodes = match &nodes[..] {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        format!("queue = {nodes}\naccounts.from = \"queue\"")
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
    common + &own(root, queues, (name, agent), address, times)
}

fn own(
    root: &Path,
    queues: Queues,
    (name, agent): (&str, Agent),
    address: IpAddr,
    times: Times,
) -> String {
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
retry.first = "1s"
retry.max = "5s"
disk.reserve_percent = 0
disk.reserve = "1MiB"
{grace}"#
            )
        }
        Agent::Msa => format!(
            "[msa]\nsubmission = []\nsubmissions = [\"{address}:{SUBMISSIONS}\"]\n[[msa.certificates]]\n{shown}"
        ),
        Agent::Mta => format!(
            "[mta.inbound]\nlisteners.smtp = \"{address}:{SMTP}\"\n[[mta.inbound.certificates]]\n{shown}\
             [mta.outbound]\nport = {}\nallow_networks = [\"10.77.0.0/16\"]\n",
            WORLD_PORTS[1] + u16::from(queues.number())
        ),
        _ => {
            let (store, root) = match name {
                "mda1" => ("default", path(LOCAL[0].1)),
                _ => ("b", path(LOCAL[1].1)),
            };
            format!("[mda]\nstore = \"{store}\"\nmail_root = \"{root}\"\n")
        }
    }
}
