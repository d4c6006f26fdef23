//! `postroad.queue.v1.Queue`.

use std::sync::Arc;

use futures::{StreamExt, stream::BoxStream};
use postroad_counters::Count;
use postroad_net::{PeerIdentity, PeerRole};
use postroad_proto::{
    ConvertError, convert,
    queue::v1::{self, queue_server::Queue},
};
use postroad_queue_client::{
    AdmitRequest, Completion, QueueError, QueueService, WorkChannel, WorkHello, WorkUp, wire,
};
use postroad_rpc::{peer_identity, require_agent, require_role};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::{Gate, submit_many};

/// Whether new mail is taken.
#[derive(Clone)]
pub(crate) struct Admission {
    /// None: it is, else the reason why not.
    pub closed: watch::Receiver<Option<String>>,
    /// See [`Front::unasked`](crate::core::Front).
    pub unasked: watch::Receiver<u64>,
}

const SUBMITTERS: [PeerRole; 3] = [PeerRole::Msa, PeerRole::Mta, PeerRole::Mda];
const AGENTS: [PeerRole; 4] = [
    PeerRole::Msa,
    PeerRole::Mta,
    PeerRole::Mda,
    PeerRole::Queued,
];
/// Who counts for clients and accounts; which of them what, the gate says.
const COUNTERS: [PeerRole; 2] = [PeerRole::Msa, PeerRole::Mta];
/// Messages of one direction of a worker's stream under way.
const WORK_CHANNEL: usize = 64;

pub(crate) type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// Serves a [`QueueService`].
pub(crate) struct AgentsRpc<S> {
    pub queue: Arc<S>,
    pub gate: Gate,
    pub admission: Admission,
    /// Ends streams that clients would keep open.
    pub stopping: CancellationToken,
    /// Parent of the tasks that outlive a handler.
    pub tasks: TaskTracker,
}

#[tonic::async_trait]
impl<S: QueueService> Queue for AgentsRpc<S> {
    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<v1::Accepted>, Status> {
        require_role(&request, &SUBMITTERS)?;
        let peer = peer_identity(&request)?.clone();
        let mut parts = request.into_inner();
        let begin = match parts.message().await?.and_then(|first| first.part) {
            Some(v1::submit_request::Part::Begin(envelope)) => envelope,
            _ => return Err(Status::invalid_argument("the first part is the envelope")),
        };
        let envelope = begin.try_into().map_err(invalid)?;
        self.gate.submit(&peer, &envelope)?;
        let mut submission = self.queue.submit(envelope).await.map_err(refused)?;
        let mut crc = 0;
        while let Some(part) = parts.message().await? {
            match part.part {
                Some(v1::submit_request::Part::Chunk(bytes)) => {
                    crc = crc32c::crc32c_append(crc, &bytes);
                    submission.chunk(bytes).await.map_err(refused)?;
                }
                Some(v1::submit_request::Part::End(end)) => {
                    check_crc(&end, crc)?;
                    let completion = Completion::try_from(end).map_err(invalid)?;
                    let accepted = submission.finish(completion).await.map_err(refused)?;
                    return Ok(Response::new(accepted.into()));
                }
                _ => return Err(Status::invalid_argument("only chunks, then the end")),
            }
        }
        Err(Status::invalid_argument(
            "the stream ended before the mail did",
        ))
    }

    type SubmitManyStream = Stream<v1::SubmitManyResponse>;

    async fn submit_many(
        &self,
        request: Request<Streaming<v1::SubmitManyRequest>>,
    ) -> Result<Response<Self::SubmitManyStream>, Status> {
        require_role(&request, &SUBMITTERS)?;
        let peer = peer_identity(&request)?.clone();
        let (answers, stream) = mpsc::channel(submit_many::UNDER_WAY);
        let task = submit_many::serve(
            Arc::clone(&self.queue),
            (self.gate.clone(), peer),
            request.into_inner(),
            self.admission.clone(),
            self.stopping.clone(),
            answers,
        );
        self.tasks.spawn(task);
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn admit(
        &self,
        request: Request<v1::AdmitRequest>,
    ) -> Result<Response<v1::AdmitResponse>, Status> {
        require_role(&request, &SUBMITTERS)?;
        let only = peer_identity(&request)?.only.clone();
        let admit: AdmitRequest = request.into_inner().try_into().map_err(invalid)?;
        if !only.allow(admit.account.as_deref().unwrap_or_default()) {
            return Err(Status::permission_denied("not allowed for this caller"));
        }
        let refusal = match self.queue.admit(admit).await {
            Ok(()) => None,
            Err(error) => Some(wire::refusal_from_error(&error)),
        };
        Ok(Response::new(v1::AdmitResponse { refusal }))
    }

    type WorkStream = Stream<v1::WorkDown>;

    async fn work(
        &self,
        request: Request<Streaming<v1::WorkUp>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        require_role(&request, &[PeerRole::Mta, PeerRole::Mda])?;
        let peer: PeerIdentity = peer_identity(&request)?.clone();
        let mut up = request.into_inner();
        let hello = match up.message().await?.and_then(|first| first.message) {
            Some(v1::work_up::Message::Hello(hello)) => {
                WorkHello::try_from(hello).map_err(invalid)?
            }
            _ => return Err(Status::invalid_argument("the first message is hello")),
        };
        Gate::work(&peer, &hello.classes)?;
        let agent = hello.agent.clone();
        let channel = self.queue.work(hello).await.map_err(refused)?;
        let (out, stream) = mpsc::channel(WORK_CHANNEL);
        self.tasks.spawn(async move {
            let why = pump_work(up, channel, out).await;
            debug!(worker = agent, reason = why, "the stream of a worker ended");
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    type ReadStream = Stream<v1::ReadResponse>;

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        require_role(&request, &[PeerRole::Mta, PeerRole::Mda, PeerRole::Admin])?;
        let read = request.get_ref();
        let queue_id = convert::queue_id("queue_id", &read.queue_id).map_err(invalid)?;
        let chunks = if read.retired {
            require_role(&request, &[PeerRole::Admin])?;
            self.queue.read_any(queue_id, read.offset).await
        } else if read.length > 0 {
            let (offset, length) = (read.offset, read.length);
            self.queue.read_part(queue_id, offset, length).await
        } else {
            self.queue.read(queue_id, read.offset).await
        };
        let chunks = chunks.map_err(refused)?;
        let stream = chunks.map(|chunk| match chunk {
            Ok(chunk) => Ok(v1::ReadResponse { chunk }),
            Err(error) => Err(wire::to_status(&error)),
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn record(
        &self,
        request: Request<v1::RecordRequest>,
    ) -> Result<Response<v1::RecordResponse>, Status> {
        require_role(&request, &AGENTS)?;
        require_agent(&request)?;
        let events = request
            .into_inner()
            .events
            .into_iter()
            .map(TryInto::try_into);
        let events = events
            .collect::<Result<_, ConvertError>>()
            .map_err(invalid)?;
        self.queue.record(events).await.map_err(refused)?;
        Ok(Response::new(v1::RecordResponse {}))
    }

    async fn count(
        &self,
        request: Request<v1::CountRequest>,
    ) -> Result<Response<v1::CountResponse>, Status> {
        require_role(&request, &COUNTERS)?;
        require_agent(&request)?;
        let peer = peer_identity(&request)?.clone();
        let count = Count::try_from(request.into_inner()).map_err(invalid)?;
        Gate::count(&peer, &count.key)?;
        let counted = self.queue.count(count).await.map_err(refused)?;
        Ok(Response::new((&counted).into()))
    }

    async fn withdraw(
        &self,
        request: Request<v1::WithdrawRequest>,
    ) -> Result<Response<v1::WithdrawResponse>, Status> {
        require_role(&request, &[PeerRole::Msa])?;
        let peer = peer_identity(&request)?.clone();
        let asked = request.into_inner();
        let queue_id = convert::queue_id("queue_id", &asked.queue_id).map_err(invalid)?;
        if asked.account.is_empty() {
            return Err(Status::invalid_argument("account: is missing"));
        }
        Gate::withdraw(&peer, &asked.account)?;
        let withdrawn = self.queue.withdraw(queue_id, &asked.account).await;
        Ok(Response::new(withdrawn.map_err(refused)?.into()))
    }
}

/// Carries messages both ways until either end is gone; says why it ended.
async fn pump_work(
    mut up: Streaming<v1::WorkUp>,
    mut channel: WorkChannel,
    out: mpsc::Sender<Result<v1::WorkDown, Status>>,
) -> &'static str {
    let upwards = async {
        loop {
            let message = match up.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return "the worker left",
                Err(_) => return "the connection broke",
            };
            match WorkUp::from_wire(message) {
                Ok(Some(message)) => {
                    if channel.up.send(message).await.is_err() {
                        return "the queue ended the stream";
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    debug!(error = %error, "a message that cannot be");
                    return "the worker sent what cannot be";
                }
            }
        }
    };
    let downwards = async {
        while let Some(message) = channel.down.next().await {
            let message = message
                .map(Into::into)
                .map_err(|error| wire::to_status(&error));
            if out.send(message).await.is_err() {
                return "the worker does not listen";
            }
        }
        "the queue ended the stream"
    };
    tokio::select! {
        why = upwards => why,
        why = downwards => why,
    }
}

fn check_crc(end: &v1::Completion, crc: u32) -> Result<(), Status> {
    if end.crc32c == crc {
        return Ok(());
    }
    // Damaged on the way: the same mail sent again may well be fine.
    let error = QueueError::Unavailable("the content does not match its checksum".to_owned());
    Err(wire::to_status(&error))
}

pub(super) fn invalid(error: ConvertError) -> Status {
    wire::to_status(&error.into())
}

pub(super) fn refused(error: QueueError) -> Status {
    wire::to_status(&error)
}
