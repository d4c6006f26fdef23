use bytes::BytesMut;

use super::{ContentChecker, ContentFault, decode::Stop};

/// Adds dot-stuffing (RFC 5321 §4.5.2) to a stream, and the final dot.
///
/// What leaves is canonical, so that no mail can be smuggled through us: content that has a bare CR or LF or a NUL
/// (RFC 5321 §2.3.8) is a fault, after which it never ends. The last line gets its CRLF if it has none.
#[derive(Debug)]
pub struct DotEncoder {
    at_line_start: bool,
    /// Lines of any length: they are another's to judge.
    checker: ContentChecker,
}

impl Default for DotEncoder {
    fn default() -> Self {
        Self {
            at_line_start: true,
            checker: ContentChecker::new(usize::MAX),
        }
    }
}

impl DotEncoder {
    /// At the start of content.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the encoded form of the next chunk to `out`; nothing of it if it has a fault.
    pub fn encode(&mut self, chunk: &[u8], out: &mut BytesMut) -> Result<(), ContentFault> {
        let before = out.len();
        out.reserve(chunk.len() + chunk.len() / 64 + 4);
        let rest = self.end_pending_line(chunk, out);
        self.encode_lines(rest, out);
        match self.checker.fault() {
            Some(fault) => {
                out.truncate(before);
                Err(fault)
            }
            None => Ok(()),
        }
    }

    /// Ends the content: CRLF if the last line has none, then the dot. With a fault there is no end.
    pub fn finish(&mut self, out: &mut BytesMut) -> Result<(), ContentFault> {
        if let Some(fault) = self.checker.finish() {
            return Err(fault);
        }
        if !self.at_line_start {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        Ok(())
    }

    /// The other half of a CRLF that was cut in two; gives what is left.
    fn end_pending_line<'a>(&mut self, chunk: &'a [u8], out: &mut BytesMut) -> &'a [u8] {
        let rest = self.checker.end_pending_line(chunk);
        if rest.len() < chunk.len() {
            out.extend_from_slice(b"\r\n");
            self.at_line_start = true;
        }
        rest
    }

    /// Copies whole lines at once, up to one that starts with a dot, or a CR that may be half a CRLF.
    fn encode_lines(&mut self, chunk: &[u8], out: &mut BytesMut) {
        let (mut copied, mut at) = (0, 0);
        while at < chunk.len() {
            let rest = chunk.get(at..).unwrap_or_default();
            if self.at_line_start && rest.starts_with(b".") {
                out.extend_from_slice(chunk.get(copied..at).unwrap_or_default());
                out.extend_from_slice(b".");
                copied = at;
            }
            let (length, stop) = self.checker.line(rest);
            at += length;
            self.at_line_start = matches!(stop, Stop::LineEnd);
            if matches!(stop, Stop::PendingCr) {
                self.checker.wait_for_line_feed();
                break;
            }
        }
        out.extend_from_slice(chunk.get(copied..at).unwrap_or_default());
    }
}
