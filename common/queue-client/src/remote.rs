mod admin;
mod large;
mod many;
mod nodes;
mod presence;
mod submission;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use postroad_counters::{Count, Counted};
use postroad_envelope::{Envelope, Event, QueueId};
use postroad_metrics::Metrics;
use postroad_proto::{
    convert,
    queue::v1::{self, queue_client::QueueClient},
};
use postroad_rpc::{ChannelPool, Endpoint, TlsFiles, dial_pool};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub use self::{admin::RemoteAdmin, nodes::QueueNodes};
use self::{many::SubmitStreams, submission::RemoteSubmission};
use crate::{
    AdmitRequest, ContentStream, QueueError, QueueService, Submission, Withdrawn, WorkChannel,
    WorkDown, WorkHello,
    wire::{from_status, refusal_into_error},
};

/// Connections an agent keeps to its queue: each is one serial task, so one alone would be the bottleneck.
const CHANNELS: usize = 2;
/// Messages a worker may have on their way before it waits.
const WORK_BACKLOG: usize = 64;

/// One queue on the other side of a Unix socket or of mutual TLS.
///
/// Connects when first used and again whenever the connection was lost, so agents may start in any order.
pub struct RemoteQueue {
    pool: ChannelPool,
    streams: SubmitStreams,
}

impl RemoteQueue {
    /// Prepares the connections; fails only on certificates that cannot be read. Must be called in a tokio runtime.
    pub fn connect(
        endpoint: &Endpoint,
        tls: Option<&TlsFiles>,
    ) -> Result<Self, postroad_rpc::Error> {
        let pool = dial_pool(endpoint, tls, CHANNELS)?;
        let streams = SubmitStreams::start(pool.channels());
        Ok(Self { pool, streams })
    }

    /// See [`ChannelPool::count_certificate`].
    pub fn count_certificate(&self, metrics: &Metrics) {
        self.pool.count_certificate(metrics);
    }

    /// See [`ChannelPool::watch_certificates`].
    pub async fn watch_certificates(&self, shutdown: CancellationToken) {
        self.pool.watch_certificates(shutdown).await;
    }

    fn client(&self) -> QueueClient<Channel> {
        QueueClient::new(self.pool.pick())
    }
}

#[async_trait]
impl QueueService for RemoteQueue {
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError> {
        // A call for each mail is dear: this one and that of its events were a quarter of what a mail costs (tests/bench/README.md).
        if self.streams.take_unasked(request.size.unwrap_or(0)) {
            return Ok(());
        }
        let answer = self.client().admit(v1::AdmitRequest::from(&request)).await;
        match answer
            .map_err(|status| from_status(&status))?
            .into_inner()
            .refusal
        {
            None => Ok(()),
            Some(refusal) => Err(refusal_into_error(refusal)),
        }
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        Ok(Box::new(RemoteSubmission::new(
            envelope,
            self.streams.pick(),
            self.client(),
        )))
    }

    async fn work(&self, hello: WorkHello) -> Result<WorkChannel, QueueError> {
        let (up, ups) = mpsc::channel(WORK_BACKLOG);
        let first = v1::WorkUp::from(&hello);
        let rest = ReceiverStream::new(ups).map(v1::WorkUp::from);
        let answer = self
            .client()
            .work(stream::once(async { first }).chain(rest))
            .await;
        let down = answer
            .map_err(|status| from_status(&status))?
            .into_inner()
            .map_err(|status| from_status(&status))
            .try_filter_map(|message| async { Ok(WorkDown::from_wire(message)?) });
        Ok(WorkChannel {
            up,
            down: down.boxed(),
        })
    }

    async fn read(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        self.content(queue_id, Wanted::from(offset)).await
    }

    async fn read_part(
        &self,
        queue_id: QueueId,
        offset: u64,
        length: u64,
    ) -> Result<ContentStream, QueueError> {
        self.content(queue_id, Wanted::part(offset, length)).await
    }

    async fn read_any(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        let wanted = Wanted::from(offset).also_retired();
        self.content(queue_id, wanted).await
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), QueueError> {
        let events = events.into_iter().map(Into::into).collect();
        let answer = self.client().record(v1::RecordRequest { events }).await;
        answer.map(drop).map_err(|status| from_status(&status))
    }

    async fn count(&self, count: Count) -> Result<Counted, QueueError> {
        let answer = self.client().count(v1::CountRequest::from(&count)).await;
        let counted = answer.map_err(|status| from_status(&status))?;
        Ok(counted.into_inner().try_into()?)
    }

    async fn withdraw(&self, queue_id: QueueId, account: &str) -> Result<Withdrawn, QueueError> {
        let request = v1::WithdrawRequest {
            queue_id: convert::queue_id_bytes(queue_id),
            account: account.to_owned(),
        };
        let answer = self.client().withdraw(request).await;
        let withdrawn = answer.map_err(|status| from_status(&status))?;
        Ok(withdrawn.into_inner().try_into()?)
    }
}

impl RemoteQueue {
    async fn content(
        &self,
        queue_id: QueueId,
        wanted: Wanted,
    ) -> Result<ContentStream, QueueError> {
        let request = v1::ReadRequest {
            queue_id: convert::queue_id_bytes(queue_id),
            offset: wanted.offset,
            length: wanted.length,
            retired: wanted.retired,
        };
        let answer = self
            .client()
            .read(request)
            .await
            .map_err(|status| from_status(&status))?;
        let chunks = answer.into_inner().map_ok(|message| message.chunk);
        Ok(chunks.map_err(|status| from_status(&status)).boxed())
    }
}

/// Which content is to be read.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    offset: u64,
    /// None at all: to the end.
    length: u64,
    /// Also of a mail that is retired.
    retired: bool,
}

impl Wanted {
    fn part(offset: u64, length: u64) -> Self {
        Self {
            offset,
            length,
            retired: false,
        }
    }

    /// To its end.
    fn from(offset: u64) -> Self {
        Self::part(offset, 0)
    }

    fn also_retired(self) -> Self {
        Self {
            retired: true,
            ..self
        }
    }
}
