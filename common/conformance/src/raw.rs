//! Messages as octets, for what the generated code cannot say.

use bytes::{Buf, BufMut, Bytes};
use futures::{Stream, StreamExt as _, stream};
use prost::Message;
use tokio::sync::oneshot;
use tonic::{
    Request, Response, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

/// A field of a later release: number 2000, with the value 1.
pub const LATER: &[u8] = &[0x80, 0x7d, 0x01];

/// Octets out, octets in.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let octets = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(octets)))
    }
}

/// Messages of a stream that ends when the other half is dropped, and not before.
pub fn held_open<T: Send + 'static>(
    messages: Vec<T>,
) -> (oneshot::Sender<()>, impl Stream<Item = T> + Send + 'static) {
    let (hold, end) = oneshot::channel();
    let messages = stream::iter(messages).chain(stream::pending());
    (hold, messages.take_until(end))
}

/// A message inside another, as its first field.
pub fn as_first_field(inner: &[u8]) -> Bytes {
    let mut outer = vec![0x0a];
    prost::encoding::encode_varint(u64::try_from(inner.len()).unwrap_or(u64::MAX), &mut outer);
    outer.extend_from_slice(inner);
    outer.into()
}

/// Calls with a stream of octets, and decodes the one answer.
pub async fn client_streaming<T: Message + Default>(
    channel: Channel,
    path: &'static str,
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<T, Status> {
    let mut grpc = ready(channel).await?;
    let path = PathAndQuery::from_static(path);
    let answer = grpc
        .client_streaming(Request::new(messages), path, Raw)
        .await?;
    decoded(&answer.into_inner())
}

/// Calls with a stream of octets; the answers are octets too.
pub async fn streaming(
    channel: Channel,
    path: &'static str,
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = ready(channel).await?;
    let path = PathAndQuery::from_static(path);
    let answers = grpc.streaming(Request::new(messages), path, Raw).await;
    answers.map(Response::into_inner)
}

/// A message from its octets.
pub fn decoded<T: Message + Default>(octets: &Bytes) -> Result<T, Status> {
    T::decode(octets.clone()).map_err(|error| Status::internal(error.to_string()))
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(grpc)
}
