//! A queue of several nodes.
//!
//! ```text
//! submission ─► the node with the least to do; another one only if this one provably got no whole mail
//! worker     ─► a stream of leases from each node (see `worker`)
//! read, events, redirected mail ─► the node that has the mail
//! count      ─► the node that is home to the key
//! ```
//!
//! Nodes know nothing of each other, and a mail is at one of them. So what matters here is never to give a mail to a second node
//! that the first may have: what has left on a connection stays with its node, and with it the answer.

mod choice;
mod submission;
mod via;
mod whereabouts;

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::join_all;
use postroad_counters::{Count, Counted};
use postroad_daemon::{Check, CommonConfig};
use postroad_envelope::{Envelope, Event, QueueId};
use postroad_metrics::{Metrics, list};
use postroad_rpc::{Node, TlsFiles, nodes};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::{
    choice::{Choice, Heard},
    submission::NodesSubmission,
    via::Via,
    whereabouts::Whereabouts,
};
use super::{RemoteQueue, Wanted, presence};
use crate::{
    AdmitRequest, ContentStream, QueueError, QueueNode, QueueService, Submission, Withdrawn,
    WorkChannel, WorkHello,
};

/// How long one node may take to answer, or to begin to take a mail, before the next is asked.
const NODE_PATIENCE: Duration = Duration::from_secs(2);

/// The queue as `common.queue` names it: one node, or several that agents use as one.
pub struct QueueNodes {
    inner: Arc<Inner>,
}

struct Inner {
    nodes: Vec<OneNode>,
    choice: Mutex<Choice>,
    whereabouts: Mutex<Whereabouts>,
}

struct OneNode {
    name: String,
    queue: RemoteQueue,
    /// It gets no new mail.
    is_retiring: bool,
}

impl QueueNodes {
    /// Prepares the connections; fails only on certificates that cannot be read. Must be called in a tokio runtime.
    pub fn connect(nodes: Vec<Node>, tls: Option<&TlsFiles>) -> Result<Self, postroad_rpc::Error> {
        let connected = nodes.into_iter().map(|node| {
            let queue = RemoteQueue::connect(&node.endpoint, tls)?;
            Ok(OneNode {
                name: node.name,
                queue,
                is_retiring: node.is_retiring,
            })
        });
        let nodes = connected.collect::<Result<Vec<_>, postroad_rpc::Error>>()?;
        Ok(Self {
            inner: Arc::new(Inner {
                choice: Mutex::new(Choice::new(nodes.len())),
                whereabouts: Mutex::default(),
                nodes,
            }),
        })
    }

    /// The queue that `[common]` names.
    pub fn configured(common: &CommonConfig) -> Result<Self, postroad_rpc::Error> {
        Self::connect(nodes(common)?, common.tls.as_ref())
    }

    /// Keeps a check until `stop`: ready while at least one node answers. Tells when each goes and when it is back.
    pub fn keep_check(
        &self,
        check: Check,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        let standing = Arc::new(Mutex::new(vec![None; inner.nodes.len()]));
        let check = Arc::new(check);
        let kept: Vec<_> = (0..inner.nodes.len())
            .zip(&inner.nodes)
            .map(|(at, node)| {
                let up = metrics.gauge(&list::QUEUE_NODE_UP, &[&node.name]);
                let (inner, standing) = (Arc::clone(&inner), Arc::clone(&standing));
                let check = Arc::clone(&check);
                presence::keep(node.queue.pool.clone(), move |answer| {
                    up.set(u64::from(answer.is_ok()));
                    inner.heard(at, answer.as_ref().map_or(Heard::Away, |()| Heard::Present));
                    let mut standing = standing.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(node) = standing.get_mut(at) {
                        *node = Some(answer.clone());
                    }
                    let names = inner.nodes.iter().map(|node| node.name.as_str());
                    tell(&check, names.zip(&*standing));
                })
            })
            .collect();
        async move {
            tokio::select! {
                _ = join_all(kept) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// See [`RemoteQueue::count_certificate`].
    pub fn count_certificate(&self, metrics: &Metrics) {
        if let Some(node) = self.inner.nodes.first() {
            node.queue.count_certificate(metrics);
        }
    }

    /// See [`RemoteQueue::watch_certificates`]. All nodes are shown the same certificate.
    pub async fn watch_certificates(&self, shutdown: CancellationToken) {
        match self.inner.nodes.first() {
            Some(node) => node.queue.watch_certificates(shutdown).await,
            None => shutdown.cancelled().await,
        }
    }
}

/// Ready while one node answers; says which do not.
fn tell<'a>(check: &Check, nodes: impl Iterator<Item = (&'a str, &'a Option<Result<(), String>>)>) {
    let (mut away, mut answering, mut count) = (String::new(), 0, 0);
    for (name, answer) in nodes {
        count += 1;
        match answer {
            Some(Ok(())) => answering += 1,
            Some(Err(why)) => {
                let and = if away.is_empty() { "" } else { "; " };
                // Writing to a String cannot fail.
                let _ = write!(away, "{and}{name}: {why}");
            }
            None => {}
        }
    }
    match (answering, away.is_empty(), count) {
        (0, true, _) => {}
        (0, false, 1) => {
            let why = away.split_once(": ").map_or("", |(_, why)| why);
            check.not_ready(format!("the queue is away: {why}"));
        }
        (0, false, _) => check.not_ready(format!("the queue is away: {away}")),
        (_, true, _) => check.ready(),
        (_, false, _) => check.ready_but(format!("a node of the queue is away: {away}")),
    }
}

impl Inner {
    /// The only one.
    fn only(&self) -> Option<&RemoteQueue> {
        match self.nodes.as_slice() {
            [only] => Some(&only.queue),
            _ => None,
        }
    }

    /// The nodes in the order in which they are tried now.
    fn order(&self) -> Vec<(usize, &OneNode)> {
        let order = self.choice().order(Instant::now());
        let nodes = order
            .into_iter()
            .filter_map(|at| Some((at, self.nodes.get(at)?)));
        nodes.collect()
    }

    /// Those of them that take new mail.
    fn takers(&self) -> impl Iterator<Item = (usize, &OneNode)> {
        let order = self.order().into_iter();
        order.filter(|(_, node)| !node.is_retiring)
    }

    fn heard(&self, node: usize, heard: Heard) {
        self.choice().heard(node, heard, Instant::now());
    }

    /// The node that has the mail, if it was seen here.
    fn holder(&self, mail: QueueId) -> Option<(usize, &OneNode)> {
        let at = self.whereabouts().of(mail)?;
        Some((at, self.nodes.get(at)?))
    }

    fn choice(&self) -> MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn whereabouts(&self) -> MutexGuard<'_, Whereabouts> {
        let whereabouts = self.whereabouts.lock();
        whereabouts.unwrap_or_else(PoisonError::into_inner)
    }

    /// The content from the node that has it. That there is none is believed only if every node says so: one that is away may
    /// have it.
    async fn find(
        &self,
        mail: QueueId,
        wanted: Wanted,
    ) -> Result<(usize, ContentStream), QueueError> {
        let mut failure = QueueError::NotFound;
        let known = self.holder(mail);
        if let Some((at, node)) = known {
            match node.queue.content(mail, wanted).await {
                Ok(content) => return Ok((at, content)),
                Err(QueueError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        for (at, node) in self.order() {
            if known.is_some_and(|(known, _)| known == at) {
                continue;
            }
            let content = node.queue.content(mail, wanted);
            match timeout(NODE_PATIENCE, content).await {
                Ok(Ok(content)) => {
                    self.whereabouts().saw(mail, at);
                    return Ok((at, content));
                }
                Ok(Err(QueueError::NotFound)) => {}
                Ok(Err(error)) => failure = at_node(error, &node.name),
                Err(_) => failure = no_answer(&node.name),
            }
        }
        Err(failure)
    }

    /// Events of mails that no node is known for go to whoever takes them: `postroad trace` finds them at any.
    async fn record(&self, mut events: Vec<Event>) -> Result<(), QueueError> {
        let mut result = Ok(());
        for (at, node) in self.order() {
            let (its, others): (Vec<_>, Vec<_>) = {
                let whereabouts = self.whereabouts();
                let is_its =
                    |event: &Event| whereabouts.of(event.queue_id).is_none_or(|node| node == at);
                events.into_iter().partition(is_its)
            };
            events = others;
            if !its.is_empty()
                && let Err(error) = node.queue.record(its).await
            {
                result = Err(at_node(error, &node.name));
            }
        }
        result
    }
}

/// The same, with the node's name where there is a text for people.
fn at_node(error: QueueError, node: &str) -> QueueError {
    match error {
        QueueError::Unavailable(why) => QueueError::Unavailable(format!("{node}: {why}")),
        QueueError::Full(why) => QueueError::Full(format!("{node}: {why}")),
        QueueError::NotAllowed(why) => QueueError::NotAllowed(format!("{node}: {why}")),
        other => other,
    }
}

fn no_answer(node: &str) -> QueueError {
    QueueError::Unavailable(format!("{node}: no answer in time"))
}

#[async_trait]
impl QueueService for QueueNodes {
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError> {
        if let Some(only) = self.inner.only() {
            return only.admit(request).await;
        }
        let mut failure = QueueError::Unavailable("there is no node".to_owned());
        for (at, node) in self.inner.takers() {
            let answer = timeout(NODE_PATIENCE, node.queue.admit(request.clone())).await;
            let error = match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => at_node(error, &node.name),
                Err(_) => no_answer(&node.name),
            };
            match &error {
                QueueError::Full(_) => self.inner.heard(at, Heard::Full),
                QueueError::Unavailable(_) => self.inner.heard(at, Heard::NoAnswer),
                QueueError::NotAllowed(_) => {}
                // An answer about this mail, not about the node.
                _ => return Err(error),
            }
            // That one has no room says more to the client than that another is away.
            if !matches!(failure, QueueError::Full(_)) {
                failure = error;
            }
        }
        Err(failure)
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        match self.inner.only() {
            Some(only) => only.submit(envelope).await,
            None => Ok(Box::new(NodesSubmission::new(&self.inner, envelope))),
        }
    }

    async fn submit_beside(
        &self,
        mail: QueueId,
        envelope: Envelope,
    ) -> Result<Box<dyn Submission>, QueueError> {
        if let Some(only) = self.inner.only() {
            return only.submit(envelope).await;
        }
        let at = match self.inner.holder(mail) {
            Some((at, _)) => at,
            None => self.inner.find(mail, Wanted::part(0, 1)).await?.0,
        };
        match self.inner.nodes.get(at) {
            Some(node) => node.queue.submit(envelope).await,
            None => Err(QueueError::NotFound),
        }
    }

    /// There is none over several nodes: a worker has one to each of [`QueueService::nodes`].
    async fn work(&self, hello: WorkHello) -> Result<WorkChannel, QueueError> {
        match self.inner.only() {
            Some(only) => only.work(hello).await,
            None => Err(QueueError::Unsupported(
                "leases are taken from each node".to_owned(),
            )),
        }
    }

    async fn read(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        let found = self.inner.find(queue_id, Wanted::from(offset)).await;
        found.map(|(_, content)| content)
    }

    async fn read_part(
        &self,
        queue_id: QueueId,
        offset: u64,
        length: u64,
    ) -> Result<ContentStream, QueueError> {
        let wanted = Wanted::part(offset, length);
        let found = self.inner.find(queue_id, wanted).await;
        found.map(|(_, content)| content)
    }

    async fn read_any(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        let wanted = Wanted::from(offset).also_retired();
        let found = self.inner.find(queue_id, wanted).await;
        found.map(|(_, content)| content)
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), QueueError> {
        match self.inner.only() {
            Some(only) => only.record(events).await,
            None => self.inner.record(events).await,
        }
    }

    /// A key lives at one node, which all agents choose alike. While that is away it lives at another, from nothing.
    async fn count(&self, count: Count) -> Result<Counted, QueueError> {
        if let Some(only) = self.inner.only() {
            return only.count(count).await;
        }
        let nodes = self.inner.nodes.iter();
        let names = nodes.map(|node| (!node.is_retiring).then_some(node.name.as_str()));
        let at = self.inner.choice().home(names, &count.key.to_string());
        let Some(node) = at.and_then(|at| self.inner.nodes.get(at)) else {
            return Err(QueueError::Unavailable("there is no node".to_owned()));
        };
        let counted = node.queue.count(count).await;
        counted.map_err(|error| at_node(error, &node.name))
    }

    /// That there is none is believed only if every node says so.
    async fn withdraw(&self, queue_id: QueueId, account: &str) -> Result<Withdrawn, QueueError> {
        if let Some(only) = self.inner.only() {
            return only.withdraw(queue_id, account).await;
        }
        let mut failure = None;
        for (_, node) in self.inner.order() {
            let asked = node.queue.withdraw(queue_id, account);
            match timeout(NODE_PATIENCE, asked).await {
                Ok(Ok(Withdrawn::Unknown)) => {}
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => failure = Some(at_node(error, &node.name)),
                Err(_) => failure = Some(no_answer(&node.name)),
            }
        }
        failure.map_or(Ok(Withdrawn::Unknown), Err)
    }

    fn nodes(&self) -> Vec<QueueNode> {
        if self.inner.only().is_some() {
            return Vec::new();
        }
        let nodes = (0..).zip(&self.inner.nodes).map(|(at, node)| QueueNode {
            name: node.name.clone(),
            queue: Arc::new(Via::new(&self.inner, at)),
        });
        nodes.collect()
    }
}
