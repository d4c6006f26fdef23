//! `Work`, answered in octets, so that rules can say what the generated code cannot.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes};
use postroad_proto::queue::v1::WorkUp;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, http},
    server::{Grpc, NamedService, StreamingService},
};

use super::{desk::Desk, session::Arrival};

const PATH: &str = "/postroad.queue.v1.Queue/Work";
/// Messages on their way to a worker.
const DOWN: usize = 64;

/// All of a queue's service but `Work`, and that.
#[derive(Clone)]
pub struct WithWork<S> {
    rest: S,
    work: Work,
}

impl<S> WithWork<S> {
    pub fn new(rest: S, desk: Arc<Desk>, arrivals: mpsc::Sender<Arrival>) -> Self {
        let work = Work { desk, arrivals };
        Self { rest, work }
    }
}

impl<S: NamedService> NamedService for WithWork<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for WithWork<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.rest.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        if request.uri().path() != PATH {
            return Box::pin(self.rest.call(request));
        }
        let work = self.work.clone();
        Box::pin(async move { Ok(Grpc::new(Down).streaming(work, request).await) })
    }
}

#[derive(Clone)]
struct Work {
    desk: Arc<Desk>,
    arrivals: mpsc::Sender<Arrival>,
}

impl StreamingService<WorkUp> for Work {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<WorkUp>>) -> Self::Future {
        let work = self.clone();
        Box::pin(async move {
            work.desk.work_is_asked_for()?;
            let (down, messages) = mpsc::channel(DOWN);
            let arrival = Arrival {
                up: request.into_inner(),
                down,
            };
            let come = work.arrivals.try_send(arrival);
            come.map_err(|_| Status::unavailable("too many workers have come"))?;
            Ok(Response::new(ReceiverStream::new(messages)))
        })
    }
}

/// Messages up, octets down.
#[derive(Debug, Clone, Copy, Default)]
struct Down;

impl Codec for Down {
    type Encode = Bytes;
    type Decode = WorkUp;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Down {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Down {
    type Item = WorkUp;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<WorkUp>, Status> {
        let message = WorkUp::decode(buffer);
        message
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
