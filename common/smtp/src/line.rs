use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use postroad_reply::{Reply, SYNTAX_5_5_2, SYNTAX_ERROR_500};

/// Cuts input into command lines, in memory bounded by the longest line allowed.
///
/// Only CRLF ends a line. A bare LF ends a faulty one, so that the peer is told at once and nothing behind it
/// is ever taken for part of it.
#[derive(Debug)]
pub struct LineDecoder {
    max: usize,
    scanned: usize,
    discarding: bool,
}

/// What is wrong with a line as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// More octets than allowed; the whole line was discarded.
    #[error("line too long")]
    TooLong,
    /// LF without CR before it (RFC 5321 §2.3.8).
    #[error("lines must end with CRLF, a bare LF was found")]
    BareLf,
    /// CR without LF after it (RFC 5321 §2.3.8).
    #[error("lines must end with CRLF, a bare CR was found")]
    BareCr,
    /// A NUL octet.
    #[error("NUL is not allowed")]
    Nul,
}

impl LineFault {
    /// The answer it earns.
    pub fn reply(self) -> Reply {
        Reply::new(SYNTAX_ERROR_500, SYNTAX_5_5_2, self.to_string())
    }
}

impl LineDecoder {
    /// Lines of at most `max` octets, CRLF included.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            scanned: 0,
            discarding: false,
        }
    }

    /// Takes the next line off `input`, without its CRLF. None: more input is needed.
    pub fn decode(&mut self, input: &mut BytesMut) -> Option<Result<Bytes, LineFault>> {
        let unseen = input.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr(b'\n', unseen) else {
            self.wait(input);
            return None;
        };
        let length = self.scanned + at + 1;
        self.scanned = 0;
        let line = input.split_to(length).freeze();
        if std::mem::take(&mut self.discarding) || length > self.max {
            return Some(Err(LineFault::TooLong));
        }
        Some(check(line))
    }

    /// Remembers how far there is no line end, and forgets what is too long to be a line.
    fn wait(&mut self, input: &mut BytesMut) {
        if self.discarding || input.len() > self.max {
            self.discarding = true;
            input.advance(input.len());
        }
        self.scanned = input.len();
    }
}

fn check(mut line: Bytes) -> Result<Bytes, LineFault> {
    let Some(text) = line.strip_suffix(b"\r\n") else {
        return Err(LineFault::BareLf);
    };
    let length = text.len();
    if memchr(0, text).is_some() {
        return Err(LineFault::Nul);
    }
    if memchr(b'\r', text).is_some() {
        return Err(LineFault::BareCr);
    }
    line.truncate(length);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8], step: usize) -> Vec<Result<Bytes, LineFault>> {
        let mut decoder = LineDecoder::new(12);
        let mut buffer = BytesMut::new();
        let mut lines = Vec::new();
        for chunk in input.chunks(step) {
            buffer.extend_from_slice(chunk);
            while let Some(line) = decoder.decode(&mut buffer) {
                lines.push(line);
            }
            assert!(buffer.len() <= 12 + step, "memory is bounded");
        }
        lines
    }

    #[test]
    fn only_crlf_ends_a_line_however_it_arrives() {
        let input = b"NOOP\r\n0123456789\r\n0123456789a\r\nA\nB\rC\r\nD\0\r\n\r\nQUIT\r\n";
        for step in 1..input.len() {
            let expected = [
                Ok(Bytes::from_static(b"NOOP")),
                Ok(Bytes::from_static(b"0123456789")),
                Err(LineFault::TooLong),
                Err(LineFault::BareLf),
                Err(LineFault::BareCr),
                Err(LineFault::Nul),
                Ok(Bytes::new()),
                Ok(Bytes::from_static(b"QUIT")),
            ];
            assert_eq!(decode(input, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn an_endless_line_costs_no_memory_and_one_fault() {
        let mut input = vec![b'x'; 100_000];
        input.extend_from_slice(b"\r\nNOOP\r\n");
        assert_eq!(
            decode(&input, 1000),
            [Err(LineFault::TooLong), Ok(Bytes::from_static(b"NOOP"))]
        );
    }
}
