//! A report on its way: whom the domain names, the mail, the queue.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use postroad_address::{Mailbox, ReversePath};
use postroad_dns::{HostName, Resolver};
use postroad_envelope::{Envelope, Notify, QueueId, Recipient, RecipientIndex, Timestamp};
use postroad_queue_client::{Completion, QueueError, QueueService};
use postroad_tlsrpt::{Day, Mail, Submitter, Wanted};

/// What is needed to send.
pub struct Sending {
    /// Whether anything is sent.
    pub enabled: bool,
    pub queue: Arc<dyn QueueService>,
    pub resolver: Arc<dyn Resolver>,
    /// Who we are: the host's name, and our domain.
    pub hostname: String,
    pub organisation: String,
    /// Reports go out so long after the end of their day.
    pub after: Duration,
}

impl Sending {
    /// Whether the reports of that day are to go out now.
    pub fn is_time(&self, date: Date) -> bool {
        let ended = date.tomorrow().ok().and_then(|next| {
            let midnight = next.to_zoned(TimeZone::UTC).ok()?;
            Some(SystemTime::from(midnight.timestamp()))
        });
        self.enabled && ended.is_some_and(|ended| SystemTime::now() >= ended + self.after)
    }

    /// Tells one domain; false: that is to be tried again.
    pub async fn tell(&self, domain: &str, date: Date, day: &Day) -> bool {
        let Some(wanted) = self.wanted(domain).await else {
            return false;
        };
        for to in wanted.mail {
            let Ok(address) = to.parse::<Mailbox>() else {
                continue;
            };
            match self.send(domain, date, day, &address).await {
                Ok(()) => tracing::info!(
                    event = "tls_report_sent",
                    destination = domain,
                    rcpt_to = %address,
                    "how TLS went on {date} was told"
                ),
                Err(error @ (QueueError::Unavailable(_) | QueueError::Full(_))) => {
                    tracing::info!(%error, "a report of TLS waits for the queue");
                    return false;
                }
                Err(error) => tracing::warn!(
                    event = "fault",
                    destination = domain,
                    "the queue does not take a report of TLS: {error}"
                ),
            }
        }
        true
    }

    /// Where the domain wants it; none: it cannot be told now.
    async fn wanted(&self, domain: &str) -> Option<Wanted> {
        let name = HostName::parse(domain).map(|name| name.below("_smtp._tls"));
        let Ok(Ok(name)) = name else {
            return Some(Wanted::default());
        };
        match self.resolver.txt(&name).await {
            Ok(texts) => Some(Wanted::of(&texts.records).unwrap_or_default()),
            Err(error) if error.is_temporary() => None,
            Err(_) => Some(Wanted::default()),
        }
    }

    async fn send(
        &self,
        domain: &str,
        date: Date,
        day: &Day,
        to: &Mailbox,
    ) -> Result<(), QueueError> {
        let now = Timestamp::from(SystemTime::now());
        let contact = format!("postmaster@{}", self.organisation);
        let report_id = format!("{date}.{domain}@{}", self.hostname);
        let by = Submitter {
            organisation: &self.organisation,
            contact: &contact,
        };
        let Some(report) = day.report(domain, date, &by, &report_id) else {
            return Ok(());
        };
        let queue_id = self.queue_id(domain, date, to);
        let mail = Mail {
            domain,
            organisation: &self.organisation,
            date,
            report_id: &report_id,
            contact: &contact,
            to: &to.to_string(),
            sent: &now.to_rfc5322(),
            boundary: &format!("report-{queue_id}"),
        };
        let content = mail
            .content(&report)
            .map_err(|error| QueueError::Unavailable(error.to_string()))?;
        let mut envelope = Envelope::new(queue_id, ReversePath::Null, now);
        envelope.recipients = vec![Recipient {
            notify: Notify::Never,
            ..Recipient::new(RecipientIndex(0), to.clone())
        }];
        envelope.listener = "report".to_owned();
        envelope.size = content.len() as u64;
        envelope
            .facts
            .insert("message_id".to_owned(), format!("<{report_id}>"));
        let completion = Completion {
            size: envelope.size,
            ..Completion::default()
        };
        let mut submission = self.queue.submit(envelope).await?;
        submission.chunk(Bytes::from(content)).await?;
        submission.finish(completion).await.map(drop)
    }

    /// The same for the same report, so that one that is sent again after a crash is there only once.
    fn queue_id(&self, domain: &str, date: Date, to: &Mailbox) -> QueueId {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (
                salt,
                &self.hostname,
                domain,
                date.to_string(),
                to.to_string(),
            )
                .hash(&mut hasher);
            hasher.finish().to_be_bytes()
        };
        let mut random = [0; 10];
        for (octet, mixed) in random.iter_mut().zip(half(1).into_iter().chain(half(2))) {
            *octet = mixed;
        }
        let midnight = date.to_zoned(TimeZone::UTC).map(|day| day.timestamp());
        let midnight = midnight
            .map(SystemTime::from)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        QueueId::mint(Timestamp::from(midnight), random)
    }
}
