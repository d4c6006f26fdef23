//! Everything around the agent that is tried.

use std::{collections::BTreeMap, time::Duration};

use futures::future::BoxFuture;
use postroad_proto::queue::v1::{
    Action, Fence, JobKey, Lease, LeaseRef, Outcome as Became, Route, RouteClass, Settlement,
    work_down::Resumed,
};
use postroad_rpc::Error;
use tokio::{sync::watch, time::timeout};

use super::{Role, Target, mails::Mail};
use crate::{
    Problem,
    played::{Content, Played, Session},
    rules::{self, Outcome},
    smtp::{Client, Host, Script},
};

/// How long a lease lasts, unless a rule is about that.
const DURATION: Duration = Duration::from_secs(300);

/// The played queue, the agent's stream, and who sends and takes mail.
pub struct Stage {
    pub target: Target,
    pub queue: Played,
    session: Option<Session>,
    pub host: Option<Host>,
    /// What nothing else has: the next fence and address.
    counter: u64,
    epoch: u64,
    /// No worker came, so that none needs to be waited for again.
    is_idle: bool,
}

impl Stage {
    /// Begins to serve.
    pub async fn set(target: Target) -> Result<Self, Error> {
        let mut queue = Played::at(target.endpoint.clone(), target.tls.clone());
        queue.go_up().await?;
        let host = match target.role {
            // Without one the rules that need it say so.
            Role::Mta => Host::start(target.host).await.ok(),
            Role::Mda | Role::Msa => None,
        };
        Ok(Self {
            target,
            queue,
            session: None,
            host,
            counter: 0,
            epoch: 7,
            is_idle: false,
        })
    }

    /// Ends it.
    pub async fn strike(mut self) {
        self.session = None;
        self.queue.go_down().await;
    }

    /// The worker's stream: the one that is open, or the next that comes, of which nothing goes on.
    pub async fn session(&mut self) -> Result<&mut Session, Problem> {
        if self.session.is_none() {
            let session = self.arrival().await?;
            self.welcome(session, |_| None).await?;
        }
        self.session
            .as_mut()
            .ok_or_else(|| Problem::Broken("there is no stream".to_owned()))
    }

    /// The next worker that calls, not yet welcomed.
    pub async fn arrival(&mut self) -> Result<Session, Problem> {
        if self.is_idle {
            return Err(Problem::NotTried("no worker came".to_owned()));
        }
        let patience = self.target.patience;
        match timeout(patience, self.queue.arriving.recv()).await {
            Ok(Some(arrival)) => Session::meet(arrival, patience).await,
            Ok(None) | Err(_) => {
                self.is_idle = true;
                Problem::broken(format!(
                    "nobody called Work at {} within {} s",
                    self.target.endpoint,
                    patience.as_secs()
                ))
            }
        }
    }

    /// Welcomes it; `renamed` says which of what it holds goes on, and under which name.
    pub async fn welcome(
        &mut self,
        session: Session,
        renamed: impl Fn(&LeaseRef) -> Option<LeaseRef>,
    ) -> Result<(), Problem> {
        let held = session.hello.held.iter();
        let resumed = held.map(|old| Resumed {
            old: Some(old.clone()),
            new: renamed(old),
        });
        session.welcome(self.epoch, resumed.collect()).await?;
        self.session = Some(session);
        Ok(())
    }

    /// The worker's stream breaks.
    pub async fn break_off(&mut self) {
        if let Some(session) = self.session.take() {
            session.break_off().await;
        }
    }

    /// The stream as it is, for who breaks it himself.
    pub fn take_session(&mut self) -> Option<Session> {
        self.session.take()
    }

    /// The queue dies, and begins a new epoch.
    pub async fn restart_queue(&mut self) -> Result<(), Problem> {
        self.session = None;
        self.queue.go_down().await;
        self.epoch += 1;
        let up = self.queue.go_up().await;
        up.map_err(|error| Problem::NotTried(format!("the queue does not start again: {error}")))
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A recipient that the agent can serve.
    pub fn recipient(&mut self) -> String {
        match self.target.role {
            Role::Mda | Role::Msa => self.target.account.clone(),
            Role::Mta => format!("r{}@conformance.test", self.next()),
        }
    }

    /// A mail to it.
    pub fn mail(&mut self, subject: &str) -> Mail {
        Mail::new(&[self.recipient()], subject)
    }

    pub fn large_mail(&mut self, subject: &str) -> Mail {
        Mail::large(&[self.recipient()], subject)
    }

    /// A lease of it with its content inside, which can be read as well: a mail that cannot is one that has ended.
    pub fn lease(&mut self, mail: &Mail) -> Lease {
        self.keep(mail, Content::whole(mail.content.clone()));
        let counter = self.next();
        let reference = LeaseRef {
            job: Some(JobKey {
                queue_id: mail.envelope.queue_id.clone(),
                number: 5,
            }),
            revision: 1000 + counter,
            fence: Some(Fence {
                epoch: self.epoch,
                counter: 2000 + counter,
            }),
        };
        let duration = u64::try_from(DURATION.as_millis()).unwrap_or(u64::MAX);
        Lease {
            lease: Some(reference),
            duration_ms: duration,
            route: Some(self.route(mail)),
            attempt: 1,
            envelope: Some(mail.envelope.clone()),
            content: Some(mail.content.clone()),
            // A queue that knows no sites: the worker goes on.
            site: None,
            followed_by: 0,
        }
    }

    /// The same without content, which can be read.
    pub fn lease_to_read(&mut self, mail: &Mail, content: Content) -> Lease {
        let lease = self.lease(mail);
        self.keep(mail, content);
        Lease {
            content: None,
            ..lease
        }
    }

    fn keep(&self, mail: &Mail, content: Content) {
        let id = mail.envelope.queue_id.clone();
        self.queue
            .desk
            .change(|state| state.contents.insert(id, content));
    }

    /// A lease that is worked on until the sender says true, and that the worker has begun.
    pub async fn stalled(
        &mut self,
        mail: &Mail,
        duration: Option<Duration>,
    ) -> Result<(LeaseRef, watch::Sender<bool>), Problem> {
        let (gate, opened) = watch::channel(false);
        let content = Content {
            gate: Some(opened),
            ..Content::whole(mail.content.clone())
        };
        let mut lease = self.lease_to_read(mail, content);
        if let Some(duration) = duration {
            lease.duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        }
        self.session().await?.lease(&lease).await?;
        let id = &mail.envelope.queue_id;
        let begun = self
            .queue
            .desk
            .wait(self.target.patience, |state| {
                state.reads.iter().any(|(read, _)| read == id).then_some(())
            })
            .await;
        match begun {
            Some(()) => Ok((reference(&lease)?, gate)),
            None => Problem::broken("a lease without content is not read"),
        }
    }

    fn route(&self, mail: &Mail) -> Route {
        let first = mail.envelope.recipients.first();
        let address = first.map(|to| to.address.as_str()).unwrap_or_default();
        let destination = address
            .rsplit_once('@')
            .map_or(address, |(_, domain)| domain);
        let stores = self.session.as_ref().map(|session| &session.hello.stores);
        Route {
            class: self.class().into(),
            destination: destination.to_owned(),
            next_hop: self.host.as_ref().map(|host| host.address.to_string()),
            rule: "conformance".to_owned(),
            next_hops: Vec::new(),
            source: None,
            store: stores.and_then(|stores| stores.first().cloned()),
        }
    }

    /// What the agent is leased.
    pub fn class(&self) -> RouteClass {
        match self.target.role {
            Role::Mta => RouteClass::Relay,
            Role::Mda | Role::Msa => RouteClass::Local,
        }
    }

    /// How its work ends when all is well.
    pub fn done(&self) -> Action {
        match self.target.role {
            Role::Mta => Action::Relayed,
            Role::Mda | Role::Msa => Action::Delivered,
        }
    }

    /// Leases a mail, hears what became of it, and says that this is durable.
    pub async fn carry(&mut self, lease: &Lease) -> Result<BTreeMap<u32, Became>, Problem> {
        let reference = reference(lease)?;
        let session = self.session().await?;
        session.lease(lease).await?;
        let settlement = session.settlement_of(&reference).await?;
        session.settled(&reference, false).await?;
        outcomes(lease, &settlement)
    }

    /// The same, and all must have gone well.
    pub async fn carry_well(&mut self, lease: &Lease) -> Outcome {
        let outcomes = self.carry(lease).await?;
        self.went_well(lease, &outcomes)
    }

    pub fn went_well(&self, lease: &Lease, outcomes: &BTreeMap<u32, Became>) -> Outcome {
        let recipients = lease.envelope.iter().flat_map(|of| &of.recipients);
        for to in recipients {
            became(outcomes, to.index, self.done())?;
        }
        Ok(())
    }

    /// What is said of leases that have ended is stale; the worker gets room for others by it.
    pub async fn refuse_strays(&mut self) -> Outcome {
        let session = self.session().await?;
        for stray in session.take_untold() {
            session.settled(&stray, true).await?;
        }
        Ok(())
    }

    /// A mail program at the agent's door.
    pub async fn client(&self) -> Result<Client, Problem> {
        let door = self.target.door();
        let door = door.ok_or_else(|| {
            Problem::NotTried(match self.target.role {
                Role::Msa => "it takes --smtp and --password".to_owned(),
                Role::Mda | Role::Mta => "it takes --smtp".to_owned(),
            })
        })?;
        Client::open(&door, self.target.patience).await
    }

    pub fn host(&self) -> Result<&Host, Problem> {
        let host = self.host.as_ref();
        host.ok_or_else(|| {
            Problem::NotTried(format!(
                "no mail host can listen at {}: see --host",
                self.target.host
            ))
        })
    }
}

impl rules::Stage for Stage {
    fn patience(&self) -> Duration {
        self.target.patience
    }

    fn clear(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.queue.desk.reset();
            if let Some(host) = &self.host {
                host.answer(Script::default());
            }
            let _ = self.queue.go_up().await;
            if self.session.is_some() {
                self.break_off().await;
                let _ = self.session().await;
            }
        })
    }
}

pub fn reference(lease: &Lease) -> Result<LeaseRef, Problem> {
    let reference = lease.lease.clone();
    reference.ok_or_else(|| Problem::Broken("a lease without a reference".to_owned()))
}

/// The outcome of each recipient; each has at most one, and nobody else has any.
pub fn outcomes(lease: &Lease, settlement: &Settlement) -> Result<BTreeMap<u32, Became>, Problem> {
    let recipients = lease.envelope.iter().flat_map(|of| &of.recipients);
    let known: Vec<u32> = recipients.map(|to| to.index).collect();
    let mut outcomes = BTreeMap::new();
    for one in &settlement.outcomes {
        let Some(outcome) = &one.outcome else {
            return Problem::broken(format!("recipient {} has an empty outcome", one.index));
        };
        if !known.contains(&one.index) {
            return Problem::broken(format!("recipient {} is not of this lease", one.index));
        }
        if outcomes.insert(one.index, outcome.clone()).is_some() {
            return Problem::broken(format!("recipient {} has two outcomes", one.index));
        }
    }
    Ok(outcomes)
}

/// Must have become of a recipient.
pub fn became(outcomes: &BTreeMap<u32, Became>, index: u32, action: Action) -> Outcome {
    match outcomes.get(&index) {
        Some(outcome) if outcome.action() == action => Ok(()),
        Some(outcome) => Problem::broken(format!(
            "{:?} ({} {}) instead of {action:?}",
            outcome.action(),
            outcome.status,
            outcome.text
        )),
        None => Problem::broken(format!("recipient {index} has no outcome")),
    }
}
