//! Mails for the queue without SMTP, and a worker to whom everything succeeds.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use postroad_address::{Mailbox, ReversePath};
use postroad_envelope::{
    Envelope, LeaseRef, Outcome, QueueId, Recipient, RecipientIndex, RouteClass, StatusReport,
    Timestamp,
};
use postroad_queue_client::{
    Completion, Lease, QueueError, QueueService, Settlement,
    worker::{self, Handler, Verdict, WorkerOptions},
};
use postroad_reply::DELIVERED_2_6_0;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// What is submitted.
#[derive(Clone, Debug)]
pub struct Mails {
    /// Tasks that submit one mail after the other.
    pub submitters: usize,
    /// Octets of a mail, less its header.
    pub size: usize,
    /// Mail goes to `world0.test`, `world1.test`… in turn.
    pub destinations: usize,
    /// What the ids and contents are made from.
    pub seed: u64,
}

/// How a submission went.
#[derive(Clone, Copy, Debug)]
pub struct Submitted {
    pub began: Timestamp,
    pub took: Duration,
}

impl Mails {
    /// Submits the mails of these numbers; tells of each when and how long.
    pub async fn submit(
        &self,
        queue: &Arc<dyn QueueService>,
        numbers: Range<usize>,
    ) -> Result<Vec<Submitted>> {
        let next = Arc::new(AtomicUsize::new(numbers.start));
        let all = Arc::new(Mutex::new(Vec::with_capacity(numbers.len())));
        let mut submitters = JoinSet::new();
        for submitter in 0..self.submitters {
            let (queue, next) = (Arc::clone(queue), Arc::clone(&next));
            let (all, mails) = (Arc::clone(&all), self.clone());
            // The ids of two runs differ by the time in them.
            let mut random = StdRng::seed_from_u64(self.seed ^ ((submitter as u64) << 32));
            let content: Vec<u8> = (0..self.size)
                .map(|_| random.random_range(b'0'..=b'z'))
                .collect();
            let content = Bytes::from([b"Subject: measured\r\n\r\n", content.as_slice()].concat());
            submitters.spawn(async move {
                let mut own = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    let (began, clock) = (Timestamp::from(SystemTime::now()), Instant::now());
                    let to = number % mails.destinations;
                    let envelope = envelope_to(to, number, random.random())?;
                    submit(&*queue, envelope, &content).await?;
                    let took = clock.elapsed();
                    own.push(Submitted { began, took });
                }
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.append(&mut own);
                anyhow::Ok(())
            });
        }
        while let Some(ended) = submitters.join_next().await {
            ended??;
        }
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *all))
    }
}

/// From the sender of this number to `friend` at the destination of this number; ids differ by the time and by `id`.
pub fn envelope_to(destination: usize, sender: usize, id: [u8; 10]) -> Result<Envelope> {
    let now = Timestamp::from(SystemTime::now());
    let mailbox = |text: String| text.parse::<Mailbox>().ok().context("an address");
    let sender = mailbox(format!("sender{}@client.test", sender % SENDERS))?;
    let friend = mailbox(format!("friend@world{destination}.test"))?;
    let mut envelope = Envelope::new(QueueId::mint(now, id), ReversePath::Mailbox(sender), now);
    let friend = Recipient::new(RecipientIndex(0), friend);
    envelope.recipients.push(friend);
    // As an MSA brings it: to an MTA only certain clients' mail for others is allowed.
    envelope.account = Some("sender@client.test".to_owned());
    Ok(envelope)
}

const SENDERS: usize = 1000;

/// Submits one mail; it is durable then.
pub async fn submit(
    queue: &dyn QueueService,
    envelope: Envelope,
    content: &Bytes,
) -> Result<(), QueueError> {
    let mut submission = queue.submit(envelope).await?;
    submission.chunk(content.clone()).await?;
    let completion = Completion {
        size: content.len() as u64,
        ..Completion::default()
    };
    submission.finish(completion).await?;
    Ok(())
}

/// How long each took, the shortest first.
pub fn latencies<'a>(submitted: impl IntoIterator<Item = &'a Submitted>) -> Vec<Duration> {
    let mut latencies: Vec<Duration> = submitted.into_iter().map(|one| one.took).collect();
    latencies.sort_unstable();
    latencies
}

/// The latency that so many hundredths do not exceed, in milliseconds; 0 of none. `latencies` is sorted.
pub fn percentile_ms(latencies: &[Duration], part: usize) -> f64 {
    let latency = latencies.get(latencies.len() * part / 100);
    latency.map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
}

/// A worker to whom everything succeeds at once.
pub struct Worker {
    settled: watch::Receiver<usize>,
    stop: CancellationToken,
    work: JoinHandle<()>,
}

impl Worker {
    /// Connects to a queue, or waits until it can.
    pub fn start(queue: &Arc<dyn QueueService>, credits: u32) -> Self {
        let settler = Settler {
            settled: watch::channel(0).0,
        };
        let settled = settler.settled.subscribe();
        let stop = CancellationToken::new();
        let options = WorkerOptions {
            stores: Vec::new(),
            agent: "bench@test".to_owned(),
            host: "test".to_owned(),
            classes: vec![RouteClass::Relay],
            concurrency: credits,
            grace: Duration::from_secs(1),
        };
        let work = worker::run(
            Arc::clone(queue),
            options,
            Arc::new(settler) as Arc<dyn Handler>,
            stop.clone(),
        );
        Self {
            settled,
            stop,
            work: tokio::spawn(work),
        }
    }

    /// Returns once it has settled so many mails durably.
    pub async fn settled(&mut self, count: usize) -> Result<()> {
        self.settled.wait_for(|settled| *settled >= count).await?;
        Ok(())
    }

    /// How many it has settled.
    pub fn count(&self) -> usize {
        *self.settled.borrow()
    }

    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.work.await?)
    }
}

struct Settler {
    settled: watch::Sender<usize>,
}

#[async_trait]
impl Handler for Settler {
    async fn handle(&self, lease: Lease) -> Verdict {
        delivered(&lease)
    }

    async fn settled(&self, _lease: LeaseRef) {
        self.settled.send_modify(|count| *count += 1);
    }
}

/// All recipients of a lease have their mail.
pub fn delivered(lease: &Lease) -> Verdict {
    let outcome = Outcome::Delivered(StatusReport::local(DELIVERED_2_6_0, "measured"));
    let recipients = lease.envelope.recipients.iter();
    Verdict::Settle(Settlement {
        elsewhere: Vec::new(),
        timed: Vec::new(),
        reporting: Vec::new(),
        lease: lease.lease,
        outcomes: recipients
            .map(|recipient| (recipient.index, outcome.clone()))
            .collect(),
        sites: Vec::new(),
        started_at: Timestamp::from(SystemTime::now()),
    })
}
