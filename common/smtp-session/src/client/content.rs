//! Content on its way out.

use std::mem;

use bytes::{Buf, BytesMut};
use postroad_smtp::{Command, DotEncoder};

use super::{ClientSession, Phase};

/// Octets of one BDAT.
const CHUNK: usize = 256 << 10;

#[derive(Debug)]
pub(super) enum Encoder {
    Dots(DotEncoder),
    Chunks(BytesMut),
}

impl Encoder {
    pub(super) fn dots() -> Self {
        Self::Dots(DotEncoder::new())
    }

    pub(super) fn chunks() -> Self {
        Self::Chunks(BytesMut::new())
    }
}

impl ClientSession {
    /// After [`Progress::SendContent`](super::Progress::SendContent): encodes the next piece into the output,
    /// which is to be written before the next call.
    pub fn content(&mut self, piece: &[u8]) {
        let Phase::Content(delivery, encoder) = &mut self.phase else {
            return;
        };
        match encoder {
            Encoder::Dots(encoder) => encoder.encode(piece, &mut self.output),
            Encoder::Chunks(chunk) => {
                chunk.extend_from_slice(piece);
                if chunk.len() >= CHUNK {
                    bdat(chunk, false, &mut self.output);
                    delivery.chunk_sent();
                }
            }
        }
    }

    /// Ends the content; what the host says then decides.
    pub fn content_end(&mut self) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Content(delivery, encoder) => {
                match encoder {
                    Encoder::Dots(mut encoder) => encoder.finish(&mut self.output),
                    Encoder::Chunks(mut chunk) => bdat(&mut chunk, true, &mut self.output),
                }
                self.phase = Phase::Ending(delivery);
            }
            phase => self.phase = phase,
        }
    }
}

fn bdat(chunk: &mut BytesMut, last: bool, out: &mut BytesMut) {
    let size = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
    Command::Bdat { size, last }.write_to(out);
    out.extend_from_slice(chunk);
    chunk.advance(chunk.len());
}
