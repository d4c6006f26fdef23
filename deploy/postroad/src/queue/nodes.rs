//! The queue as operators address it: one, or several nodes as one.
//!
//! Each node is asked, and what they say is put together ([`merge`]). One that does not answer is told of on standard error, what
//! the others say is shown all the same, and the exit status is 1: the answer is not whole.

mod answers;
mod merge;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use answers::sum_of;
use futures::future::{BoxFuture, join_all};
use postroad_daemon::CommonConfig;
use postroad_envelope::QueueId;
use postroad_queue_client::{Changed, QueueAdmin as _, QueueError, RemoteAdmin};
use postroad_rpc::{Endpoint, Node, nodes};

use super::{change::count, person};
use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::Terminal;

/// The operators' side of a queue.
pub struct Admin {
    nodes: Vec<OneNode>,
    /// Which node has which mail.
    seen: Mutex<HashMap<QueueId, usize>>,
    /// Nodes that did not do what the others did.
    failed: Mutex<BTreeMap<usize, QueueError>>,
    /// What was changed where.
    changed: Mutex<BTreeMap<usize, Changed>>,
}

struct OneNode {
    name: String,
    address: Endpoint,
    /// Where agents find it: contents are read there.
    agents: Endpoint,
    admin: RemoteAdmin,
}

/// Where a node is for operators, and for agents.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    name: String,
    admin: Endpoint,
    agents: Endpoint,
}

impl Admin {
    /// The queue of an installation, or one node of it. Must be called in a runtime.
    pub fn open(home: &Home, only: Option<&str>) -> Result<Self, Fault> {
        let queued: postroad_queued::Config = home.file.section("queued")?;
        let places = named(places(&queued, &home.common)?, only)?;
        let nodes = places.into_iter().map(|place| {
            let tls = home.common.tls.as_ref();
            let admin = RemoteAdmin::connect(&place.admin, tls, person());
            Ok(OneNode {
                name: place.name,
                address: place.admin,
                agents: place.agents,
                admin: admin.map_err(Fault::not_done)?,
            })
        });
        Ok(Self {
            nodes: nodes.collect::<Result<_, Fault>>()?,
            seen: Mutex::default(),
            failed: Mutex::default(),
            changed: Mutex::default(),
        })
    }

    /// Whether there is more than one node: then what is told names them.
    pub fn is_several(&self) -> bool {
        self.nodes.len() > 1
    }

    /// The node that has a mail, if there are several and that is known.
    pub fn node_of(&self, mail: QueueId) -> Option<&str> {
        let at = *lock(&self.seen).get(&mail)?;
        let node = self.nodes.get(at)?;
        self.is_several().then_some(node.name.as_str())
    }

    /// The only node there is, for what is done to one queue.
    pub fn only(&self) -> Result<&RemoteAdmin, Fault> {
        match self.nodes.as_slice() {
            [only] => Ok(&only.admin),
            nodes => {
                let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                Err(Fault::Usage(format!(
                    "this is done to one node: name it with --node, which is one of {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// All nodes with their names.
    pub fn each(&self) -> impl Iterator<Item = (&str, &RemoteAdmin)> {
        let nodes = self.nodes.iter();
        nodes.map(|node| (node.name.as_str(), &node.admin))
    }

    /// What every node that answers says, by its name. Fails only if none says anything.
    pub async fn of_each<'a, T>(
        &'a self,
        ask: impl Fn(&'a RemoteAdmin) -> BoxFuture<'a, Result<T, QueueError>>,
    ) -> Result<Vec<(&'a str, T)>, QueueError> {
        let answers = self.ask_all(ask).await?.into_iter();
        let named = answers.filter_map(|(at, answer)| {
            let node = self.nodes.get(at)?;
            Some((node.name.as_str(), answer))
        });
        Ok(named.collect())
    }

    /// Where the content of a mail is read.
    pub async fn agents_of(&self, mail: QueueId) -> Result<Endpoint, Fault> {
        let at = self.locate(mail).await?;
        let node = self.nodes.get(at).ok_or(QueueError::NotFound)?;
        Ok(node.agents.clone())
    }

    /// After a verb: tells what was changed where and which nodes did not answer. What was not found may be there.
    pub fn end(&self, result: Result<(), Fault>, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        let result = result.map_err(|fault| fault.at(&self.addresses()));
        if !self.is_several() {
            return result;
        }
        terminal.clear_progress();
        let changed = lock(&self.changed);
        let is_any = changed.values().any(|changed| changed.mails > 0);
        for (at, changed) in changed.iter().filter(|_| is_any) {
            if let Some(node) = self.nodes.get(*at).filter(|_| !terminal.wants_json()) {
                terminal.say(format_args!("{}: {}", node.name, count(changed.mails)));
            }
        }
        let failed = lock(&self.failed);
        for (at, error) in &*failed {
            if let Some(node) = self.nodes.get(*at) {
                terminal.say(format_args!("node {}: {error}", node.name));
            }
        }
        match result {
            Ok(()) if !failed.is_empty() => Err(Fault::Told),
            Err(Fault::NoMatch(text)) if !failed.is_empty() => Err(Fault::NotDone(format!(
                "{text}, as far as the nodes that answered know"
            ))),
            result => result,
        }
    }

    fn addresses(&self) -> String {
        let addresses = self.nodes.iter().map(|node| node.address.to_string());
        addresses.collect::<Vec<_>>().join(", ")
    }

    /// Asks all at once. That a node has nothing of what is asked for is no failure, unless none has.
    async fn ask_all<'a, T>(
        &'a self,
        ask: impl Fn(&'a RemoteAdmin) -> BoxFuture<'a, Result<T, QueueError>>,
    ) -> Result<Vec<(usize, T)>, QueueError> {
        let asked = self.nodes.iter().map(|node| ask(&node.admin));
        let answers = join_all(asked).await;
        let (mut said, mut failure) = (Vec::new(), QueueError::NotFound);
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(answer) => said.push((at, answer)),
                Err(QueueError::NotFound) => {}
                Err(error) => {
                    failure = error.clone();
                    lock(&self.failed).insert(at, error);
                }
            }
        }
        match said.is_empty() {
            true => Err(failure),
            false => Ok(said),
        }
    }

    /// The node that has a mail.
    async fn locate(&self, mail: QueueId) -> Result<usize, QueueError> {
        let known = lock(&self.seen).get(&mail).copied();
        let at = match (known, self.nodes.len()) {
            (Some(at), _) => at,
            (None, 1) => 0,
            (None, _) => {
                let found = self.ask_all(|admin| admin.show(mail)).await?;
                self.only_one(found.iter().map(|(at, _)| *at), mail)?
            }
        };
        self.saw(mail, at);
        Ok(at)
    }

    /// A mail that came to be at two nodes is not chosen between.
    fn only_one(
        &self,
        mut found: impl Iterator<Item = usize>,
        mail: QueueId,
    ) -> Result<usize, QueueError> {
        let first = found.next().ok_or(QueueError::NotFound)?;
        match found.next() {
            None => Ok(first),
            Some(_) => Err(QueueError::Conflict(format!(
                "{mail} is at more than one node: name one with --node"
            ))),
        }
    }

    fn saw(&self, mail: QueueId, at: usize) {
        lock(&self.seen).insert(mail, at);
    }

    fn count(&self, at: usize, more: Changed) {
        let mut changed = lock(&self.changed);
        let sum = changed.entry(at).or_default();
        sum.mails = sum.mails.saturating_add(more.mails);
        sum.busy = sum.busy.saturating_add(more.busy);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queue of this host if there is one; else the nodes that `common.queue` names, over TCP where our certificate must be
/// an administrator's.
fn places(queued: &postroad_queued::Config, common: &CommonConfig) -> Result<Vec<Place>, Fault> {
    let admin = queued.admin_endpoint(common);
    let is_there = match &admin {
        Endpoint::Unix(path) => path.exists(),
        Endpoint::Tcp { .. } => true,
    };
    let listed = nodes(common).map_err(Fault::not_done)?;
    let is_elsewhere = match listed.as_slice() {
        [only] => matches!(only.endpoint, Endpoint::Tcp { .. }),
        _ => true,
    };
    if queued.listen.admin.is_some() || is_there || !is_elsewhere {
        let agents = match listed.as_slice() {
            [only] => only.endpoint.clone(),
            _ => queued.agents_endpoint(common),
        };
        let name = common.hostname.to_string();
        return Ok(vec![Place {
            name,
            admin,
            agents,
        }]);
    }
    Ok(listed.into_iter().map(place).collect())
}

fn place(node: Node) -> Place {
    let admin = match &node.endpoint {
        // Over TCP one address serves everybody by role; a socket for operators is beside that for agents.
        Endpoint::Unix(path) => Endpoint::Unix(path.with_file_name("queue-admin.sock")),
        tcp @ Endpoint::Tcp { .. } => tcp.clone(),
    };
    Place {
        name: node.name,
        admin,
        agents: node.endpoint,
    }
}

fn named(mut places: Vec<Place>, only: Option<&str>) -> Result<Vec<Place>, Fault> {
    let Some(only) = only else {
        return Ok(places);
    };
    let names: Vec<String> = places.iter().map(|place| place.name.clone()).collect();
    places.retain(|place| place.name == only);
    match places.is_empty() {
        false => Ok(places),
        true => Err(Fault::Usage(format!(
            "there is no node {only}; there is {}",
            names.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use postroad_daemon::QueueAddresses;

    use super::*;

    fn told(queued: &postroad_queued::Config, common: &CommonConfig) -> Vec<String> {
        let places = places(queued, common).unwrap();
        places.iter().map(|place| place.admin.to_string()).collect()
    }

    #[test]
    fn operators_reach_the_queue_of_this_host_else_that_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = "tcp:queue.example.net:7700";
        let mut common = CommonConfig {
            run_dir: folder.path().to_owned(),
            queue: elsewhere.into(),
            ..CommonConfig::default()
        };
        let mut queued = postroad_queued::Config::default();
        assert_eq!(told(&queued, &common), [elsewhere]);
        let socket = folder.path().join("queue-admin.sock");
        let here = format!("unix:{}", socket.display());
        std::fs::write(&socket, "").unwrap();
        assert_eq!(told(&queued, &common), [&*here]);
        std::fs::remove_file(&socket).unwrap();
        common.queue = "unix:/nowhere/queue.sock".into();
        assert_eq!(told(&queued, &common), [&*here]);
        let named = "unix:/named/admin.sock";
        queued.listen.admin = Some(named.parse().unwrap());
        common.queue = elsewhere.into();
        assert_eq!(told(&queued, &common), [named]);
        common.queue = "queue.example.net".into();
        queued.listen.admin = None;
        assert!(places(&queued, &common).is_err());
    }

    #[test]
    fn of_several_all_are_reached_or_the_one_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let listed = ["tcp:q1.example.net:7700", "unix:/b/queue.sock"];
        let listed = QueueAddresses::several(listed.map(str::to_owned).to_vec()).unwrap();
        let common = CommonConfig {
            run_dir: folder.path().to_owned(),
            queue: listed,
            ..CommonConfig::default()
        };
        let queued = postroad_queued::Config::default();
        let all = places(&queued, &common).unwrap();
        assert_eq!(
            told(&queued, &common),
            ["tcp:q1.example.net:7700", "unix:/b/queue-admin.sock"]
        );
        let one = named(all.clone(), Some("q1.example.net")).unwrap();
        assert_eq!(one, all[..1]);
        let none = named(all, Some("q3")).unwrap_err().to_string();
        assert_eq!(
            none,
            "there is no node q3; there is q1.example.net, /b/queue.sock"
        );
        std::fs::write(folder.path().join("queue-admin.sock"), "").unwrap();
        assert_eq!(
            told(&queued, &common).len(),
            1,
            "on a node's own host that one"
        );
    }
}
