//! Jobs of one mail that can share their transactions: all that counts for a connection is the same for each of them.
//!
//! ```text
//! jobs of one mail ─► hosts, protection, log-in, source of each ─► those that are equal in all of it go together
//!                                                                  and whoever is slow or has none goes alone
//! ```

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use postroad_envelope::{Envelope, LeaseRef, NextHop as RoutedHop, RouteClass};
use postroad_queue_client::Lease;
use tokio::time::timeout;

use super::Sender;
use super::content::Content;
use super::demands::Wishes;
use super::next_hop::{Candidate, NextHop};
use super::security::Security;
use super::sources::Source;
use super::turns::{self, turns};
use super::ways::Way;

/// What is not known of a job by then is not waited for: it goes alone, and the others go now.
const PATIENCE: Duration = Duration::from_secs(2);

/// Jobs that go together, or one.
pub struct Joined {
    leases: Vec<Lease>,
    /// The hosts of all of them, one for each place of their route; of a job that goes alone they are found later.
    aimed: Vec<NextHop>,
}

impl Joined {
    /// One job.
    pub fn alone(lease: Lease) -> Self {
        Self {
            leases: vec![lease],
            aimed: Vec::new(),
        }
    }

    /// Which ones.
    pub fn leases(&self) -> Vec<LeaseRef> {
        self.leases.iter().map(|lease| lease.lease).collect()
    }

    /// Without those that cannot go now.
    pub fn retain(mut self, stays: impl FnMut(&Lease) -> bool) -> Self {
        self.leases.retain(stays);
        self
    }

    /// One lease with the recipients of all.
    pub fn whole(&self) -> Option<Cow<'_, Lease>> {
        let (first, others) = self.leases.split_first()?;
        let mut whole = Cow::Borrowed(first);
        for other in others {
            let recipients = other.envelope.recipients.iter().cloned();
            whole.to_mut().envelope.recipients.extend(recipients);
        }
        Some(whole)
    }

    /// Where they go, if that is known.
    pub fn aimed(&self) -> &[NextHop] {
        &self.aimed
    }

    /// Each by itself again.
    pub fn into_leases(self) -> Vec<Lease> {
        self.leases
    }

    fn recipients(&self) -> usize {
        let each = self.leases.iter();
        each.map(|lease| lease.envelope.recipients.len()).sum()
    }
}

/// All that counts for the connections of a job, at one place of its route.
struct Aim {
    hop: NextHop,
    next_hop: Option<RoutedHop>,
    way: Arc<Way>,
    /// For each candidate how it is protected, and what it is called in the handshake.
    security: Vec<(Security, String)>,
}

impl Aim {
    fn is_same(&self, other: &Self) -> bool {
        are_same_hosts(&self.hop.candidates, &other.hop.candidates)
            && self.next_hop == other.next_hop
            && Arc::ptr_eq(&self.way, &other.way)
            && self.security == other.security
    }
}

/// In the same order; the addresses of one host may come in any.
fn are_same_hosts(some: &[Candidate], others: &[Candidate]) -> bool {
    let mut pairs = some.iter().zip(others);
    some.len() == others.len()
        && pairs.all(|(one, other)| one.host == other.host)
        && some.iter().all(|one| others.contains(one))
}

/// The aims of a job, and where it is sent from.
struct Aims {
    source: Source,
    at: Vec<Aim>,
}

impl Aims {
    fn are_same(&self, other: &Self) -> bool {
        let pairs = || self.at.iter().zip(&other.at);
        self.source == other.source
            && self.at.len() == other.at.len()
            && pairs().all(|(one, other)| one.is_same(other))
    }
}

/// What is the same for all jobs of a mail.
struct Course<'a> {
    /// Chooses among sources and places of routes, as for the attempt.
    seed: u64,
    /// Chooses among hosts.
    order: u64,
    content: &'a Content,
}

impl Sender {
    /// Sorts jobs of one mail by which of them go together.
    pub(super) async fn part(&self, leases: Vec<Lease>) -> Vec<Joined> {
        let aims = match self.may_join(&leases) {
            true => self.aims(&leases).await,
            false => Vec::new(),
        };
        let aims = aims.into_iter().chain(std::iter::repeat_with(|| None));
        let (mut parties, mut alone) = (Vec::<(Aims, Joined)>::new(), Vec::new());
        for (lease, aims) in leases.into_iter().zip(aims) {
            let Some(aims) = aims else {
                alone.push(Joined::alone(lease));
                continue;
            };
            let more = lease.envelope.recipients.len();
            let fits = |joined: &Joined| joined.recipients() + more <= self.config.join_recipients;
            let party = parties
                .iter_mut()
                .find(|(of, joined)| of.are_same(&aims) && fits(joined));
            match party {
                Some((_, joined)) => joined.leases.push(lease),
                None => parties.push((aims, Joined::alone(lease))),
            }
        }
        let parties = parties.into_iter().map(|(aims, joined)| Joined {
            aimed: aims.at.into_iter().map(|aim| aim.hop).collect(),
            ..joined
        });
        parties.chain(alone).collect()
    }

    /// Whether the mail is one of which several jobs may be in a transaction at all.
    fn may_join(&self, leases: &[Lease]) -> bool {
        let Some(first) = leases.first() else {
            return false;
        };
        let mail = |lease: &Lease| Envelope {
            recipients: Vec::new(),
            ..lease.envelope.clone()
        };
        let known = mail(first);
        let is_alike =
            |lease: &Lease| lease.route.class == RouteClass::Relay && mail(lease) == known;
        self.config.join_domains
            && leases.len() > 1
            // A sender for each recipient is a transaction for each.
            && !self.bounces.parts(&first.envelope.reverse_path)
            && leases.iter().all(is_alike)
    }

    /// Those of each job; none, if it goes alone.
    async fn aims(&self, leases: &[Lease]) -> Vec<Option<Aims>> {
        let Some(first) = leases.first() else {
            return Vec::new();
        };
        let Ok(content) = Content::open(&self.queue, first).await else {
            return Vec::new();
        };
        let course = Course {
            seed: turns::seed(first.envelope.queue_id, first.attempt),
            order: rand::random(),
            content: &content,
        };
        let course = &course;
        let each = leases.iter().map(|lease| async move {
            let aims = timeout(PATIENCE, self.aims_of(lease, course)).await;
            aims.ok().flatten()
        });
        join_all(each).await
    }

    async fn aims_of(&self, lease: &Lease, course: &Course<'_>) -> Option<Aims> {
        let (deciding, mut at) = (self.deciding(), Vec::new());
        let source = self.sources.of(&lease.route, course.seed).ok()?;
        for route in &turns(&lease.route, course.seed) {
            let hop = deciding.reach(route, &source, course.order).await.ok()?;
            let wishes = Wishes::of(&lease.envelope, route, course.content);
            let demands = deciding.demands(wishes, (route, &hop)).await;
            let way = Arc::clone(self.ways.of(route));
            let mut security = Vec::with_capacity(hop.candidates.len());
            for candidate in &hop.candidates {
                let decided = deciding.security(candidate, route, &demands).await;
                let (name, _) = way.names(candidate, route);
                security.push((decided.ok()?, name));
            }
            at.push(Aim {
                next_hop: route.next_hop.clone(),
                hop,
                way,
                security,
            });
        }
        Some(Aims { source, at })
    }
}
