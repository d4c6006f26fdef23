//! One host: its connections, an idle one or new ones, and what is sent over them.

use std::time::Instant;

use postroad_address::ReversePath;
use postroad_envelope::{BodyKind, DeliverBy, Route, RouteClass, TlsFacts};
use postroad_net::Stream;
use postroad_queue_client::QueueError;
use postroad_sasl::Password;
use postroad_smtp_session::{ClientConfig, OutgoingMail, OutgoingRecipient, Stage, TlsUse};

use super::content::Content;
use super::conversation::{Conversation, Manners};
use super::demands::Demands;
use super::lots::Lots;
use super::next_hop::{Candidate, Door};
use super::outgoing::transaction;
use super::pool::Key;
use super::race::{Pair, dial};
use super::security::{Basis, Level, Security};
use super::sources::Source;
use super::tried::Course;
use super::trouble::{Disposition, Trouble};
use super::{Sender, record};

impl Sender {
    /// One host, in as many connections as it takes; all of them to the address that the first one was made to.
    pub(super) async fn try_host<'a>(
        &self,
        pair: Pair<'a>,
        job: &Job<'_>,
    ) -> Vec<(&'a Candidate, Disposition)> {
        let said = job.way.1.to_string();
        let mut lots = Lots::new(job.recipients.len());
        let (mut pair, mut use_idle, mut course) = (pair, true, Course::at(pair.first));
        loop {
            let opened = self
                .conversation(pair, &mut course, job.way, use_idle)
                .await;
            pair = Pair::alone(course.at);
            let to = (course.at, job.way.2);
            let mut conversation = match opened {
                Ok(conversation) => {
                    // One that was open is counted already.
                    if conversation.used().mails == 0 {
                        self.count_conversation(to, job.way.1, job.demands, &conversation);
                    }
                    conversation
                }
                Err(trouble) => {
                    self.count_trouble(to, Some(job.way.1), job.demands, &trouble);
                    return course.end(disposition(lots, Some(trouble), None, said));
                }
            };
            let reused = conversation.used().mails > 0;
            let tls = conversation.tls();
            let host = &course.at.host;
            let delivered = self.deliver(&mut conversation, host, job, &mut lots).await;
            if lots.wants_domains_apart() {
                self.apart.learn(host, Instant::now());
            }
            let (ended, trouble) = match delivered {
                // The host has seen nothing of this lot, and a new connection tells what it has to say of it.
                Delivered::Stale => {
                    use_idle = false;
                    continue;
                }
                Delivered::Trouble(trouble) => (true, Some(trouble)),
                Delivered::Farewell => (true, None),
                Delivered::Well => {
                    self.pool.put(conversation);
                    (lots.is_done(), None)
                }
            };
            if ended {
                return course.end(Disposition {
                    reused,
                    ..disposition(lots, trouble, tls, said)
                });
            }
        }
    }

    /// A connection on which mail can be sent: an idle one if that may be and there is any that fits, or a new one.
    async fn conversation<'a>(
        &self,
        pair: Pair<'a>,
        course: &mut Course<'a>,
        way: (&Route, &Security, &Source),
        use_idle: bool,
    ) -> Result<Box<Conversation>, Trouble> {
        let login = self.ways.of(way.0).login.credentials().await;
        let login = login.map_err(Trouble::NoToken)?;
        if use_idle {
            let tls = way.1.level.tls_use();
            let key = Key::of(
                pair.first,
                &self.manners(pair.first, way, tls, login.clone())?,
            );
            if let Some(conversation) = self.pool.take(&key).await {
                return Ok(conversation);
            }
        }
        // On the heap: a mail over a connection that is open has no room for how one is made.
        Box::pin(self.connect(pair, course, way, login)).await
    }

    /// A new connection on which mail can be sent.
    async fn connect<'a>(
        &self,
        pair: Pair<'a>,
        course: &mut Course<'a>,
        way: (&Route, &Security, &Source),
        login: Option<(String, Password)>,
    ) -> Result<Box<Conversation>, Trouble> {
        let (_, security, _) = way;
        let manners = |at, tls| self.manners(at, way, tls, login.clone());
        let usual = manners(pair.first, security.level.tls_use())?;
        let stream = course.run(dial(pair, &usual, &self.reach).await)?;
        // What is said of us in EHLO may differ by family.
        let usual = manners(course.at, security.level.tls_use())?;
        let may_fall_back = security.level == Level::May && !usual.implicit_tls;
        match converse(stream, course.at, &usual).await {
            Err(trouble) if may_fall_back && is_handshake(&trouble) => {
                // RFC 7435 §3: opportunistic security falls back to what there was before.
                tracing::info!(
                    event = "tls_failed",
                    relay = %record::relay(&course.at.remote(None)),
                    "sending in plain text instead: {trouble}"
                );
                let manners = manners(course.at, TlsUse::Never)?;
                let again = dial(Pair::alone(course.at), &manners, &self.reach).await;
                let stream = course.run(again)?;
                let mut conversation = converse(stream, course.at, &manners).await?;
                // The next mail may have more luck.
                conversation.use_once();
                Ok(conversation)
            }
            conversation => conversation,
        }
    }

    /// On one connection, as much as the host takes there; at least one transaction.
    async fn deliver(
        &self,
        conversation: &mut Conversation,
        host: &str,
        job: &Job<'_>,
        lots: &mut Lots,
    ) -> Delivered {
        let ascii = match job.said_in_ascii(conversation).await {
            Ok(ascii) => ascii,
            Err(error) => return Delivered::Trouble(Trouble::Content(error)),
        };
        let (whole, content) = match &ascii {
            Some((mail, content)) => (mail, content),
            None => (job.mail, job.content),
        };
        let (mut bearing, promise) = (conversation.bearing(), conversation.promise());
        if job.senders.is_some() {
            bearing = bearing.one_each();
        }
        if self.apart.knows(host, Instant::now()) {
            bearing = bearing.one_domain();
        }
        loop {
            let lot = lots.next(&job.recipients, &bearing);
            let chosen = lot.iter().filter_map(|&at| job.recipients.get(at));
            let mut mail = transaction(whole, chosen.cloned().collect(), job.deadline);
            if let (Some(senders), Some(&at)) = (&job.senders, lot.first())
                && let Some(sender) = senders.get(at)
            {
                mail.reverse_path = sender.clone();
            }
            let transferred = conversation.transfer(mail, content).await;
            if transferred.stale {
                self.counts.connections.lost_idle.count();
                lots.give_back(&lot);
                return Delivered::Stale;
            }
            lots.enter(&lot, transferred.results, promise);
            if let Some(trouble) = transferred.trouble {
                return Delivered::Trouble(trouble);
            }
            // RFC 5321 §3.8: who said 421 hears nothing more.
            if conversation.is_closed() {
                lots.give_up();
                return Delivered::Farewell;
            }
            if lots.is_done() || !self.pool.bears(&conversation.used()) {
                return Delivered::Well;
            }
        }
    }

    fn manners<'a>(
        &'a self,
        candidate: &Candidate,
        (route, security, source): (&Route, &'a Security, &'a Source),
        tls: TlsUse,
        login: Option<(String, Password)>,
    ) -> Result<Manners<'a>, Trouble> {
        let way = self.ways.of(route);
        let (tls_name, _) = way.names(candidate, route);
        let lmtp = route.class == RouteClass::Lmtp;
        let to = match &candidate.door {
            Door::Tcp(address) => Some(address.ip()),
            Door::Unix(_) => None,
        };
        let look = security.basis == Basis::StsTesting;
        let client_tls = self.ways.tls(way, &security.certificate, look);
        Ok(Manners {
            config: &self.config,
            source,
            client: ClientConfig {
                lmtp,
                tls,
                auth: login,
                auth_without_tls: way.auth_without_tls,
                mechanisms: way.mechanisms.clone(),
                chunking: self.config.chunking,
                timeouts: (&self.config.timeouts).into(),
                ..ClientConfig::new(source.helo_name(to).clone())
            },
            tls: client_tls.map_err(Trouble::NoAuthority)?,
            tls_name,
            certificate: &security.certificate,
            implicit_tls: way.is_implicit(route),
            counts: &self.counts.connections,
            // An LMTP server of this host rightly has its name.
            own_names: if lmtp { &[] } else { &self.own_names },
            routed: route.next_hop.is_some(),
        })
    }
}

/// What there is to be said to a host.
pub(super) struct Job<'a> {
    pub way: (&'a Route, &'a Security, &'a Source),
    pub demands: &'a Demands,
    /// Without recipients.
    pub mail: &'a OutgoingMail,
    pub deadline: Option<DeliverBy>,
    pub recipients: Vec<OutgoingRecipient>,
    /// The sender of each of them, if it is not that of the mail: one transaction for each.
    pub senders: Option<Vec<ReversePath>>,
    pub content: &'a Content,
}

impl Job<'_> {
    /// A report in 8 bits as a host gets it that does not take such: nobody can be told that a report did not arrive, so it is
    /// not refused for that.
    async fn said_in_ascii(
        &self,
        conversation: &Conversation,
    ) -> Result<Option<(OutgoingMail, Content)>, QueueError> {
        let is_report = self.mail.reverse_path.is_null();
        let eight_bit = self.mail.body == BodyKind::EightBitMime;
        if !is_report || !eight_bit || conversation.takes_eight_bits() {
            return Ok(None);
        }
        let content = self.content.report_in_ascii().await?;
        Ok(content.map(|content| {
            let mail = OutgoingMail {
                body: BodyKind::SevenBit,
                size: content.size(),
                utf8_header: content.has_utf8_header(),
                ..self.mail.clone()
            };
            (mail, content)
        }))
    }
}

/// How a connection ended, or did not.
enum Delivered {
    /// It is good for more.
    Well,
    /// The host ended it after it had answered.
    Farewell,
    /// The host ended it before it had seen what was to be sent: another connection is of use.
    Stale,
    /// It broke.
    Trouble(Trouble),
}

fn disposition(
    lots: Lots,
    trouble: Option<Trouble>,
    tls: Option<TlsFacts>,
    security: String,
) -> Disposition {
    let (results, promises) = lots.results();
    Disposition {
        results,
        promises,
        trouble,
        tls,
        security: Some(security),
        reused: false,
        overtook: false,
    }
}

async fn converse(
    stream: Stream,
    candidate: &Candidate,
    manners: &Manners<'_>,
) -> Result<Box<Conversation>, Trouble> {
    let conversation = Conversation::over(stream, candidate, manners).await?;
    conversation.set_up(manners).await
}

/// Whether a conversation ended because of STARTTLS, rather than by the host's refusal of us.
fn is_handshake(trouble: &Trouble) -> bool {
    trouble.stage() == Stage::StartTls && trouble.reply().is_none()
}
