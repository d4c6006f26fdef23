use bytes::BytesMut;
use memchr::memchr2;

/// Adds dot-stuffing (RFC 5321 §4.5.2) to a stream, and the final dot.
///
/// What leaves is canonical whatever comes in: a bare LF becomes CRLF and a bare CR a blank
/// (RFC 5321 §2.3.8), so that no mail can be smuggled through us, should whoever calls not have looked for them before; the last line
/// gets its CRLF if it has none.
#[derive(Debug)]
pub struct DotEncoder {
    at_line_start: bool,
    pending_cr: bool,
}

impl Default for DotEncoder {
    fn default() -> Self {
        Self {
            at_line_start: true,
            pending_cr: false,
        }
    }
}

impl DotEncoder {
    /// At the start of content.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the encoded form of the next chunk to `out`.
    pub fn encode(&mut self, mut chunk: &[u8], out: &mut BytesMut) {
        out.reserve(chunk.len() + chunk.len() / 64 + 4);
        while !chunk.is_empty() {
            if std::mem::take(&mut self.pending_cr) {
                match chunk.strip_prefix(b"\n") {
                    Some(rest) => {
                        chunk = rest;
                        self.end_line(out);
                    }
                    None => self.blank(out),
                }
                continue;
            }
            if self.at_line_start && chunk.starts_with(b".") {
                out.extend_from_slice(b".");
            }
            chunk = self.run(chunk, out);
        }
    }

    /// Ends the content: CRLF if the last line has none, then the dot.
    pub fn finish(&mut self, out: &mut BytesMut) {
        if std::mem::take(&mut self.pending_cr) {
            self.blank(out);
        }
        if !self.at_line_start {
            self.end_line(out);
        }
        out.extend_from_slice(b".\r\n");
    }

    /// Copies whole good lines at once, up to what needs a change; gives what is left.
    fn run<'a>(&mut self, chunk: &'a [u8], out: &mut BytesMut) -> &'a [u8] {
        let mut end = 0;
        loop {
            let rest = chunk.get(end..).unwrap_or_default();
            let Some(at) = memchr2(b'\r', b'\n', rest) else {
                self.at_line_start = rest.is_empty() && (end > 0 || self.at_line_start);
                out.extend_from_slice(chunk);
                return &[];
            };
            end += at;
            let tail = chunk.get(end..).unwrap_or_default();
            if tail.starts_with(b"\r\n") && tail.get(2) != Some(&b'.') {
                end += 2;
                continue;
            }
            let (good, tail) = chunk.split_at(end);
            out.extend_from_slice(good);
            self.at_line_start = at == 0 && (end > 0 || self.at_line_start);
            return self.special(tail, out);
        }
    }

    /// At a CR or LF that is not simply copied.
    fn special<'a>(&mut self, tail: &'a [u8], out: &mut BytesMut) -> &'a [u8] {
        match tail {
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => {
                self.end_line(out);
                rest
            }
            [b'\r', rest @ ..] => {
                self.pending_cr = true;
                rest
            }
            other => other,
        }
    }

    fn end_line(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(b"\r\n");
        self.at_line_start = true;
    }

    fn blank(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(b" ");
        self.at_line_start = false;
    }
}
