//! One job, or several of one mail that go together: where it goes, host after host until every recipient has an outcome, and what is told of it.

use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use postroad_address::ReversePath;
use postroad_envelope::{LeaseRef, Outcome, Route, RouteClass, StatusReport, Timestamp};
use postroad_queue_client::worker::{Desk, Verdict};
use postroad_queue_client::{HandBack, Lease, Settlement, SiteTry, Touch};
use postroad_smtp_session::OutgoingRecipient;

use super::attempted::Attempted;
use super::content::Content;
use super::deciding::Deciding;
use super::host::Job;
use super::ledger::{Hop, Ledger};
use super::next_hop::{Candidate, NextHop};
use super::outgoing::{outgoing, recipients, unfit, unreadable};
use super::race::Pair;
use super::record::How;
use super::site::SiteNote;
use super::sources::Source;
use super::together::Joined;
use super::tried::Course;
use super::trouble::{Disposition, Trouble};
use super::turns::{self, turns};
use super::unusable::Unusable;
use super::{Sender, record};

impl Sender {
    /// Tries a job, and settles it or gives it back.
    pub(super) fn carry_out_one(&self, lease: Lease, desk: &Desk) -> impl Future<Output = Verdict> {
        let name = lease.lease;
        let ended = self.carry_out(Joined::alone(lease), desk);
        ended.map(move |ended| {
            let ended = ended.into_iter().next().map(|(_, verdict)| verdict);
            ended.unwrap_or_else(|| self.limited(name, Duration::ZERO))
        })
    }

    /// Tries jobs of one mail together, and settles each or gives it back.
    pub(super) async fn carry_out(&self, joined: Joined, desk: &Desk) -> Vec<(LeaseRef, Verdict)> {
        let now = Instant::now();
        let (mut places, mut ended) = (Vec::new(), Vec::new());
        let joined = joined.retain(|lease| {
            match self.places.take(&lease.route.destination, now) {
                Ok(place) => places.push(place),
                Err(delay) => {
                    ended.push((lease.lease, self.limited(lease.lease, delay)));
                    return false;
                }
            }
            true
        });
        let Some(whole) = joined.whole() else {
            return ended;
        };
        let _worked_on: Vec<_> = places
            .iter()
            .map(|_| self.counts.attempts.begin())
            .collect();
        let started_at = Timestamp::from(SystemTime::now());
        match self.attempt(&whole, joined.aimed(), desk).await {
            Ok(attempted) => {
                let since = (now, started_at);
                ended.extend(self.conclude(joined.into_leases(), attempted, since, desk));
            }
            Err(delay) => {
                let each = joined.into_leases().into_iter();
                ended.extend(each.map(|lease| (lease.lease, self.limited(lease.lease, delay))));
            }
        }
        ended
    }

    /// Tells of each job what became of it.
    fn conclude(
        &self,
        leases: Vec<Lease>,
        attempted: Attempted,
        (since, started_at): (Instant, Timestamp),
        desk: &Desk,
    ) -> Vec<(LeaseRef, Verdict)> {
        let (took, together) = (since.elapsed(), leases.len());
        let others = u64::try_from(together.saturating_sub(1)).unwrap_or(u64::MAX);
        self.counts.joined.add(others);
        let mut ended = Vec::with_capacity(together);
        for (lease, part) in attempted.by_job(leases) {
            let each = part.outcomes.iter().map(|(_, outcome)| outcome);
            self.counts.attempts.tried(lease.route.class, each, took);
            let how = How {
                source: part.source.as_ref(),
                reused: &part.reused,
                together,
                started_at,
            };
            desk.tell(record::attempt(&self.agent, &lease, &part.outcomes, &how));
            let settlement = Settlement {
                elsewhere: Vec::new(),
                reporting: part.reporting,
                timed: part.timed,
                lease: lease.lease,
                outcomes: part.outcomes,
                sites: part.sites,
                started_at,
            };
            ended.push((lease.lease, Verdict::Settle(settlement)));
        }
        ended
    }

    /// There is no room for it now; that is no attempt.
    fn limited(&self, lease: LeaseRef, delay: Duration) -> Verdict {
        self.counts.limited.count();
        Verdict::HandBack(HandBack {
            touch: Touch::Unclear,
            lease,
            delay,
            reason: "limited".to_owned(),
        })
    }

    /// What decisions lean on.
    pub(super) fn deciding(&self) -> Deciding<'_> {
        Deciding {
            config: &self.config,
            ways: &self.ways,
            around: &self.around,
            resolver: &*self.resolver,
            policies: &self.policies,
            fetch: true,
        }
    }

    /// Tries a job at one host after the other; or tells how long its site has no room for it.
    async fn attempt(
        &self,
        lease: &Lease,
        aimed: &[NextHop],
        desk: &Desk,
    ) -> Result<Attempted, Duration> {
        let mut ledger = Ledger::new(&lease.envelope.recipients);
        if let Some(report) = self.deciding().looping(lease.envelope.hop_count) {
            ledger.settle_rest(&Outcome::Failed(report));
            return Ok(Attempted::nowhere(ledger));
        }
        let (mut sites, mut opened, mut no_room) = (Vec::new(), None, None);
        let seed = turns::seed(lease.envelope.queue_id, lease.attempt);
        let source = match self.sources.of(&lease.route, seed) {
            Ok(source) => source,
            Err(report) => {
                ledger.pass_over(*report);
                return Ok(Attempted::nowhere(ledger));
            }
        };
        for (turn, route) in turns(&lease.route, seed).iter().enumerate() {
            let way = (route, &source, aimed.get(turn));
            let hop = match self.aim(way, lease, &mut ledger).await {
                Ok(hop) => hop,
                Err(report) => {
                    ledger.pass_over(report);
                    continue;
                }
            };
            // The queue gave leave for one site; the others of a route are asked for as their turn comes.
            if lease.site.as_ref() != Some(&hop.site)
                && let Err(delay) = desk.may_connect(lease.lease, &hop.site).await
            {
                no_room = Some(no_room.map_or(delay, |known: Duration| known.min(delay)));
                continue;
            }
            if opened.is_none() {
                match Content::open(&self.queue, lease).await {
                    Ok(content) => opened = Some(content),
                    Err(error) => ledger.settle_rest(&unreadable(&error)),
                }
            }
            let mut note = SiteNote::default();
            if let Some(content) = &opened {
                match unfit(&lease.envelope, content) {
                    Some(outcome) => ledger.settle_rest(&outcome),
                    None => {
                        let way = (&hop, route, &source);
                        self.try_all(way, lease, content, &mut ledger, &mut note)
                            .await;
                    }
                }
            }
            sites.push(SiteTry {
                site: hop.site,
                result: Some(note.finish()),
            });
            if ledger.is_settled() {
                break;
            }
        }
        if let (true, Some(delay)) = (sites.is_empty(), no_room) {
            return Err(delay);
        }
        Ok(Attempted {
            sites,
            source: Some(source),
            ..Attempted::nowhere(ledger)
        })
    }

    /// The hosts behind one place of a route, as they were found before if they were, or why none of them is tried.
    async fn aim(
        &self,
        (route, source, found): (&Route, &Source, Option<&NextHop>),
        lease: &Lease,
        ledger: &mut Ledger<'_>,
    ) -> Result<NextHop, StatusReport> {
        let way = self.ways.of(route);
        ledger.head_for(Hop {
            routed: route.next_hop.is_some(),
            listed: way.is_listed(),
        });
        if let Some(report) = way.paused(route, Instant::now()) {
            return Err(report);
        }
        if let Some(found) = found {
            return Ok(found.clone());
        }
        let hop = self.deciding().reach(route, source, rand::random()).await?;
        for note in &hop.notes {
            tracing::debug!(
                queue_id = %lease.envelope.queue_id,
                destination = %route.destination,
                "{note}"
            );
        }
        Ok(hop)
    }

    async fn try_all(
        &self,
        (hop, route, source): (&NextHop, &Route, &Source),
        lease: &Lease,
        content: &Content,
        ledger: &mut Ledger<'_>,
        site: &mut SiteNote,
    ) {
        let demands = self.demands(lease, (route, hop), content).await;
        let mut mail = outgoing(&lease.envelope, lease.route.class, content);
        if route.class == RouteClass::Relay {
            mail.reverse_path = self.bounces.sign(&mail.reverse_path);
        }
        let mut left = self.in_order(&hop.candidates, source);
        while let Some(pair) = Pair::of(&left) {
            let tried = match self.security(pair.first, route, &demands).await {
                Ok(security) => {
                    let recipients = recipients(ledger);
                    let job = Job {
                        way: (route, &security, source),
                        demands: &demands,
                        mail: &mail,
                        deadline: lease.envelope.deliver_by,
                        senders: self.senders(lease, &recipients),
                        recipients,
                        content,
                    };
                    self.try_host(pair, &job).await
                }
                Err(refusal) => {
                    let trouble = Trouble::Unprotected(refusal);
                    self.count_trouble((pair.first, source), None, &demands, &trouble);
                    Course::at(pair.first).end(Disposition::never(trouble))
                }
            };
            // One that was overtaken has its turn yet, should the other not take the mail.
            left.retain(|candidate| !tried.iter().any(|(tried, _)| tried == candidate));
            for (candidate, disposition) in tried {
                let unusable = self.enter((candidate, route), lease, disposition, ledger, site);
                // A password that was refused is not tried at the next address of the same host.
                if ledger.is_settled() || unusable == Some(Unusable::LoginRefused) {
                    return;
                }
            }
        }
    }

    /// A sender for each recipient, if mail of this one has them (VERP).
    fn senders(&self, lease: &Lease, to: &[OutgoingRecipient]) -> Option<Vec<ReversePath>> {
        let sender = &lease.envelope.reverse_path;
        let parts = lease.route.class == RouteClass::Relay && self.bounces.parts(sender);
        let own = |to: &OutgoingRecipient| self.bounces.sender_for(sender, &to.forward_path);
        parts.then(|| to.iter().map(own).collect())
    }

    /// What came of one address.
    fn enter(
        &self,
        (candidate, route): (&Candidate, &Route),
        lease: &Lease,
        disposition: Disposition,
        ledger: &mut Ledger<'_>,
        site: &mut SiteNote,
    ) -> Option<Unusable> {
        let unusable = Unusable::of_routed(&disposition);
        let well = disposition.trouble.is_none() && unusable.is_none();
        site.enter(&candidate.name(), disposition.connections(), &disposition);
        ledger.enter(candidate, disposition);
        match unusable {
            Some(unusable) => self.note(route, lease, ledger, unusable),
            None if well => self.ways.of(route).works(route),
            None => {}
        }
        if !ledger.is_settled()
            && let Some(report) = ledger.last_trouble()
        {
            record::passed_over(lease, report);
        }
        unusable
    }

    /// Of the addresses of one host, those first to which a connection is open, and those last that are perhaps not to be reached.
    fn in_order<'a>(&self, candidates: &'a [Candidate], source: &Source) -> Vec<&'a Candidate> {
        let now = tokio::time::Instant::now();
        let mut order: Vec<&Candidate> = candidates.iter().collect();
        for host in order.chunk_by_mut(|one, other| one.host == other.host) {
            if host.len() > 1 {
                host.sort_by_cached_key(|candidate| {
                    let doubted = self.reach.doubts(candidate, source, now);
                    (!self.pool.leads_to(candidate), doubted)
                });
            }
        }
        order
    }

    /// A host that cannot be used is counted, and told to a person if our configuration names it.
    fn note(&self, route: &Route, lease: &Lease, ledger: &Ledger<'_>, unusable: Unusable) {
        let way = self.ways.of(route);
        let named = way.is_listed() || route.next_hop.is_some();
        if unusable == Unusable::LoginMissing && !named {
            return;
        }
        self.counts.connections.unusable.count(unusable.label());
        let (Some(report), now) = (ledger.last_trouble(), Instant::now()) else {
            return;
        };
        if named && way.is_news(route, now) {
            record::unusable(lease, report, unusable, way.is_listed());
        }
        if matches!(unusable, Unusable::LoginRefused | Unusable::NoMechanism) {
            way.login_refused(route, report, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets that a future holds from its beginning to its end.
    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// There are as many as mails under way. What is seldom waited for (TLS, a policy, a token) must be on the heap.
    #[test]
    fn a_mail_on_its_way_holds_little() {
        type Given = (&'static Sender, Lease, &'static Desk);
        let held = size(|(sender, lease, desk): Given| sender.carry_out_one(lease, desk));
        assert!(held <= 7 << 10, "{held} octets");
    }
}
