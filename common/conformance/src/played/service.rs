//! The calls of an agent, but for `Work`.

use std::{future::pending, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use postroad_proto::queue::v1::{
    self, Accepted, Refusal, SubmitManyResponse, queue_server::Queue, submit_many_response as many,
    submit_request::Part,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    answers::{Answer, Form, Submitted, reason, status},
    desk::{Content, Desk},
};

const CHUNK: usize = 64 << 10;
/// Answers on their way.
const BACKLOG: usize = 64;

/// The queue's service.
pub struct Service(pub Arc<Desk>);

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Queue for Service {
    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Accepted>, Status> {
        let mut parts = request.into_inner();
        let Some(Part::Begin(envelope)) = next_part(&mut parts).await? else {
            return Err(Status::invalid_argument("begin comes first"));
        };
        let mut content = BytesMut::new();
        let (mut chunks, mut largest) = (0, 0);
        let broken = loop {
            match next_part(&mut parts).await {
                Ok(Some(Part::Chunk(chunk))) => {
                    (chunks, largest) = (chunks + 1, largest.max(chunk.len()));
                    content.extend_from_slice(&chunk);
                }
                Ok(Some(Part::End(end))) => break Ok(end),
                Ok(Some(Part::Begin(_))) => {
                    break Err(Status::invalid_argument("begin comes once"));
                }
                Ok(None) => break Err(Status::invalid_argument("there is no end")),
                Err(status) => break Err(status),
            }
        };
        let (end, broken) = match broken {
            Ok(end) => (Some(end), None),
            Err(status) => (None, Some(status)),
        };
        let queue_id = envelope.queue_id.clone();
        let submitted = Submitted {
            envelope,
            content: content.freeze(),
            end,
            form: Form::Parts { chunks, largest },
        };
        if let Some(status) = broken {
            self.0.change(|state| state.submitted.push(submitted));
            return Err(status);
        }
        match self.0.answer_to(submitted) {
            Answer::Accepted => {}
            Answer::AcceptedWhen(mut gate) => drop(gate.wait_for(|open| *open).await),
            Answer::Refused(code, reply) => return Err(status(code, reply.as_ref())),
            Answer::Silence => return Err(Status::unavailable("the stream broke")),
        }
        Ok(Response::new(accepted(queue_id)))
    }

    type SubmitManyStream = Answers<SubmitManyResponse>;

    async fn submit_many(
        &self,
        request: Request<Streaming<v1::SubmitManyRequest>>,
    ) -> Result<Response<Self::SubmitManyStream>, Status> {
        let (answers, stream) = mpsc::channel(BACKLOG);
        let admission = v1::Admission {
            open: true,
            reason: String::new(),
            // What an agent asks is part of what is tried.
            unasked: 0,
        };
        let _ = answers.try_send(Ok(message(many::Message::Admission(admission))));
        tokio::spawn(take(Arc::clone(&self.0), request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn admit(
        &self,
        request: Request<v1::AdmitRequest>,
    ) -> Result<Response<v1::AdmitResponse>, Status> {
        let refusal = self.0.change(|state| {
            state.admitted.push(request.into_inner());
            state.no_admission.clone()
        });
        let refusal = refusal.map(|(code, reply)| Refusal {
            reason: reason(code).into(),
            text: "as the tester wants it".to_owned(),
            reply,
        });
        Ok(Response::new(v1::AdmitResponse { refusal }))
    }

    type WorkStream = Answers<v1::WorkDown>;

    /// See [`super::work`].
    async fn work(
        &self,
        _: Request<Streaming<v1::WorkUp>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        Err(Status::internal("this is answered elsewhere"))
    }

    type ReadStream = Answers<v1::ReadResponse>;

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let v1::ReadRequest {
            queue_id, offset, ..
        } = request.into_inner();
        let content = self.0.change(|state| {
            state.reads.push((queue_id.clone(), offset));
            let content = state.contents.get_mut(&queue_id)?;
            let now = content.clone();
            content.cut = None;
            Some(now)
        });
        let content = content.ok_or_else(|| Status::not_found("there is no such mail"))?;
        Ok(Response::new(chunks(content, offset)))
    }

    async fn record(
        &self,
        request: Request<v1::RecordRequest>,
    ) -> Result<Response<v1::RecordResponse>, Status> {
        let events = request.into_inner().events;
        self.0.change(|state| state.events.extend(events));
        Ok(Response::new(v1::RecordResponse::default()))
    }

    async fn count(
        &self,
        request: Request<v1::CountRequest>,
    ) -> Result<Response<v1::CountResponse>, Status> {
        let silent = self.0.change(|state| {
            state.counts += 1;
            state.counts_in_silence
        });
        if silent {
            pending::<()>().await;
        }
        Ok(Response::new(v1::CountResponse {
            value: request.into_inner().add,
            ..v1::CountResponse::default()
        }))
    }

    async fn withdraw(
        &self,
        _: Request<v1::WithdrawRequest>,
    ) -> Result<Response<v1::WithdrawResponse>, Status> {
        Err(Status::unimplemented("mail is not taken back here"))
    }
}

fn accepted(queue_id: Bytes) -> Accepted {
    Accepted {
        queue_id,
        duplicate: false,
    }
}

async fn next_part(parts: &mut Streaming<v1::SubmitRequest>) -> Result<Option<Part>, Status> {
    loop {
        match parts.message().await? {
            None => return Ok(None),
            Some(v1::SubmitRequest { part: Some(part) }) => return Ok(Some(part)),
            Some(_) => {}
        }
    }
}

fn message(message: many::Message) -> SubmitManyResponse {
    SubmitManyResponse {
        message: Some(message),
    }
}

/// Takes mails until the stream ends or shall break.
async fn take(
    desk: Arc<Desk>,
    mut mails: Streaming<v1::SubmitManyRequest>,
    answers: mpsc::Sender<Result<SubmitManyResponse, Status>>,
) {
    while let Ok(Some(mail)) = mails.message().await {
        let (sequence, envelope) = (mail.sequence, mail.envelope.unwrap_or_default());
        let queue_id = envelope.queue_id.clone();
        let submitted = Submitted {
            envelope,
            content: mail.content,
            end: mail.completion,
            form: Form::OneOfMany,
        };
        let result = match desk.answer_to(submitted) {
            Answer::Accepted => many::answer::Result::Accepted(accepted(queue_id)),
            Answer::AcceptedWhen(mut gate) => {
                let _ = gate.wait_for(|open| *open).await;
                many::answer::Result::Accepted(accepted(queue_id))
            }
            Answer::Refused(code, reply) => many::answer::Result::Refusal(Refusal {
                reason: reason(code).into(),
                text: "as the tester wants it".to_owned(),
                reply,
            }),
            Answer::Silence => {
                let _ = answers
                    .send(Err(Status::unavailable("the stream broke")))
                    .await;
                return;
            }
        };
        if desk.state().says_unknown {
            let _ = answers.send(Ok(SubmitManyResponse::default())).await;
        }
        let answer = many::Answer {
            sequence,
            result: Some(result),
        };
        let _ = answers
            .send(Ok(message(many::Message::Answer(answer))))
            .await;
    }
}

/// The content from there on, as far as it shall come.
fn chunks(content: Content, offset: u64) -> Answers<v1::ReadResponse> {
    let Content { octets, cut, gate } = content;
    let from = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(octets.len());
    let (to, error) = match cut {
        Some((to, code)) => (to.clamp(from, octets.len()), code),
        None => (octets.len(), None),
    };
    let wanted = octets.slice(from..to);
    let count = wanted.len().div_ceil(CHUNK);
    let chunks = (0..count).map(|number| {
        let begin = number * CHUNK;
        let end = (begin + CHUNK).min(wanted.len());
        let chunk = wanted.slice(begin..end);
        Ok(v1::ReadResponse { chunk })
    });
    let error = error.map(|code| Err(Status::new(code, "the reading broke off")));
    let messages: Vec<_> = chunks.chain(error).collect();
    let gate = async move {
        if let Some(mut gate) = gate {
            let _ = gate.wait_for(|open| *open).await;
        }
        stream::iter(messages)
    };
    stream::once(gate).flatten().boxed()
}
