//! Content on its way out.

use std::mem;

use bytes::{Buf, BytesMut};
use postroad_reply::Reply;
use postroad_smtp::{Command, ContentChecker, ContentFault, DotEncoder};

use super::{ClientError, ClientSession, Delivery, Phase, Progress};

/// Octets of one BDAT.
const CHUNK: usize = 256 << 10;
/// Chunks under way at a time. While its replies are not read a host may stop reading too (RFC 2920 §3.1): Dovecot 2.3 does after 70.
const CHUNKS: usize = 8;

#[derive(Debug)]
pub(super) enum Encoder {
    Dots(DotEncoder),
    /// With no checker for BINARYMIME, which has no lines.
    Chunks(BytesMut, Option<ContentChecker>),
}

impl Encoder {
    /// DATA.
    pub(super) fn dots() -> Self {
        Self::Dots(DotEncoder::new())
    }

    /// BDAT; `binary`: with BINARYMIME.
    pub(super) fn chunks(binary: bool) -> Self {
        // Long lines are another's to judge.
        let checker = (!binary).then(|| ContentChecker::new(usize::MAX));
        Self::Chunks(BytesMut::new(), checker)
    }
}

impl ClientSession {
    /// Whether replies are to be received before more content is given. A host that refuses a chunk needs no more of the content: the
    /// mail is [done](Progress::Done) when it has answered to all of them.
    pub fn awaits_replies(&self) -> bool {
        match &self.phase {
            Phase::Content(delivery, _) => delivery.unanswered() >= CHUNKS,
            phase => matches!(phase, Phase::Cut(_)),
        }
    }

    /// A reply while content is under way.
    pub(super) fn step_content(
        &mut self,
        mut delivery: Delivery,
        encoder: Encoder,
        reply: Reply,
    ) -> Result<Option<Progress>, ClientError> {
        delivery.chunk_answered(reply)?;
        if delivery.has_chunk_fault() {
            return Ok(self.end_cut(delivery));
        }
        self.phase = Phase::Content(delivery, encoder);
        Ok(None)
    }

    /// A reply after a chunk was refused.
    pub(super) fn step_cut(
        &mut self,
        mut delivery: Delivery,
        reply: Reply,
    ) -> Result<Option<Progress>, ClientError> {
        delivery.chunk_answered(reply)?;
        Ok(self.end_cut(delivery))
    }

    /// RFC 3030 §2: without BDAT LAST the host has no mail, and RSET makes an end of what it has.
    fn end_cut(&mut self, delivery: Delivery) -> Option<Progress> {
        if delivery.unanswered() > 0 {
            self.phase = Phase::Cut(delivery);
            return None;
        }
        self.needs_reset = true;
        self.phase = Phase::Ready;
        Some(Progress::Done(delivery.refused_by_chunk()))
    }

    /// After [`Progress::SendContent`]: encodes the next piece into the output,
    /// which is to be written before the next call.
    ///
    /// Content that could be read in two ways never leaves, so that no mail can be smuggled through us (RFC 5321 §2.3.8): a fault in
    /// it is an error for good, nothing of the piece is encoded, and the content never ends. The connection is to be closed; without
    /// its end the host drops what it has (§4.1.1.4).
    pub fn content(&mut self, piece: &[u8]) -> Result<(), ContentFault> {
        let Phase::Content(delivery, encoder) = &mut self.phase else {
            return Ok(());
        };
        match encoder {
            Encoder::Dots(encoder) => encoder.encode(piece, &mut self.output)?,
            Encoder::Chunks(chunk, checker) => {
                if let Some(fault) = checker.as_mut().and_then(|checker| checker.check(piece)) {
                    return Err(fault);
                }
                chunk.extend_from_slice(piece);
                if chunk.len() >= CHUNK {
                    bdat(chunk, false, &mut self.output);
                    delivery.chunk_sent();
                }
            }
        }
        Ok(())
    }

    /// Ends the content; what the host says then decides. The error is that of [`content`](Self::content).
    pub fn content_end(&mut self) -> Result<(), ContentFault> {
        if let Phase::Content(_, encoder) = &mut self.phase {
            match encoder {
                Encoder::Dots(encoder) => encoder.finish(&mut self.output)?,
                Encoder::Chunks(chunk, checker) => {
                    if let Some(fault) = checker.as_mut().and_then(ContentChecker::finish) {
                        return Err(fault);
                    }
                    bdat(chunk, true, &mut self.output);
                }
            }
        }
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Content(mut delivery, _) => {
                self.phase = if delivery.is_at_once() {
                    delivery.sent_at_once();
                    Phase::Envelope(delivery)
                } else {
                    Phase::Ending(delivery)
                };
            }
            phase => self.phase = phase,
        }
        Ok(())
    }
}

fn bdat(chunk: &mut BytesMut, last: bool, out: &mut BytesMut) {
    let size = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
    Command::Bdat { size, last }.write_to(out);
    out.extend_from_slice(chunk);
    chunk.advance(chunk.len());
}
