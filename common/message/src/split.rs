use bytes::Bytes;

/// Octets a header may have unless a listener is told otherwise.
pub const DEFAULT_HEADER_LIMIT: usize = 256 * 1024;

/// The header is longer than the limit: the sender's fault, and permanent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header is longer than {limit} octets")]
pub struct HeaderTooLong {
    /// The limit that was passed.
    pub limit: usize,
}

/// What is known after a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// The header goes on.
    Incomplete,
    /// The header with the empty line that ends it (if the content has one), and what came after it so far.
    Complete {
        /// Octets of the header; empty if the content begins with its body.
        header: Bytes,
        /// The beginning of the body.
        rest: Bytes,
    },
}

/// Finds the end of the header in a stream of chunks, holding at most its limit and one chunk.
///
/// The header ends with the first empty line. Content whose first line cannot be a field has no header.
#[derive(Debug)]
pub struct HeaderSplitter {
    held: Vec<u8>,
    scan: Scan,
    limit: usize,
}

impl HeaderSplitter {
    /// A splitter for one mail.
    pub fn new(limit: usize) -> Self {
        Self {
            held: Vec::new(),
            scan: Scan::default(),
            limit,
        }
    }

    /// Takes the next chunk. After `Complete` the splitter is empty again and what follows is body.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Split, HeaderTooLong> {
        self.held.extend_from_slice(chunk);
        match self.scan.header_end(&self.held) {
            Some(end) if end <= self.limit => Ok(self.complete(end)),
            None if self.held.len() <= self.limit => Ok(Split::Incomplete),
            _ => Err(HeaderTooLong { limit: self.limit }),
        }
    }

    /// The content ended: all that is held is the header, unless it cannot be one.
    pub fn finish(&mut self) -> (Bytes, Bytes) {
        let end = if starts_like_header(&self.held) {
            self.held.len()
        } else {
            0
        };
        match self.complete(end) {
            Split::Complete { header, rest } => (header, rest),
            Split::Incomplete => (Bytes::new(), Bytes::new()),
        }
    }

    fn complete(&mut self, end: usize) -> Split {
        let mut header = Bytes::from(std::mem::take(&mut self.held));
        self.scan = Scan::default();
        let rest = header.split_off(end);
        Split::Complete { header, rest }
    }
}

impl Default for HeaderSplitter {
    fn default() -> Self {
        Self::new(DEFAULT_HEADER_LIMIT)
    }
}

/// Divides content that is all there into header (with its empty line) and body.
pub fn split(content: &[u8]) -> (&[u8], &[u8]) {
    let end = Scan::default().header_end(content).unwrap_or({
        if starts_like_header(content) {
            content.len()
        } else {
            0
        }
    });
    content.split_at_checked(end).unwrap_or((content, &[]))
}

/// How far content has been looked through, so that tiny chunks do not make long lines expensive.
#[derive(Debug, Default)]
struct Scan {
    line_start: usize,
    looked_at: usize,
}

impl Scan {
    /// Where the header ends, if that can be told.
    fn header_end(&mut self, content: &[u8]) -> Option<usize> {
        loop {
            let news = content.get(self.looked_at..)?;
            let Some(at) = news.iter().position(|&byte| byte == b'\n') else {
                self.looked_at = content.len();
                return None;
            };
            let line_end = self.looked_at + at + 1;
            let line = content.get(self.line_start..line_end)?;
            if matches!(line, b"\r\n" | b"\n") {
                return Some(line_end);
            }
            if self.line_start == 0 && !starts_like_header(line) {
                return Some(0);
            }
            (self.line_start, self.looked_at) = (line_end, line_end);
        }
    }
}

/// Whether the first line is a field, or the `From ` line that mbox tools leave in front of one.
fn starts_like_header(content: &[u8]) -> bool {
    let line = content.split(|&byte| byte == b'\n').next().unwrap_or(&[]);
    field_name(line).is_some() || line.starts_with(b"From ") || line.starts_with(b">From ")
}

/// The name before the colon: printable ASCII (RFC 5322 §2.2), with the white space §4.5 still allows after it.
pub fn field_name(line: &[u8]) -> Option<&str> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line.get(..colon)?.trim_ascii_end();
    let valid = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    valid.then(|| std::str::from_utf8(name).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_empty_line_ends_the_header() {
        assert_eq!(
            split(b"A: b\r\n\r\nbody\r\n"),
            (&b"A: b\r\n\r\n"[..], &b"body\r\n"[..])
        );
        assert_eq!(split(b"A: b\r\n"), (&b"A: b\r\n"[..], &b""[..]));
        assert_eq!(split(b"\r\nbody"), (&b"\r\n"[..], &b"body"[..]));
    }

    #[test]
    fn content_may_have_no_header() {
        for body in [&b"hello world\r\n\r\nA: b\r\n"[..], b" : x\r\n", b"hello"] {
            assert_eq!(split(body), (&b""[..], body));
        }
        assert_eq!(split(b""), (&b""[..], &b""[..]));
    }

    #[test]
    fn a_header_has_a_limit() {
        let mut splitter = HeaderSplitter::new(10);
        assert_eq!(splitter.push(b"A: b\r\n"), Ok(Split::Incomplete));
        assert_eq!(
            splitter.push(b"C: ddddddd"),
            Err(HeaderTooLong { limit: 10 })
        );
        let mut splitter = HeaderSplitter::new(10);
        let whole = splitter.push(b"A: b\r\n\r\nand a body longer than the limit");
        assert!(
            matches!(whole, Ok(Split::Complete { header, .. }) if header == b"A: b\r\n\r\n"[..])
        );
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(content in "[A: \r\n]{0,60}", size in 1_usize..8) {
            let mut splitter = HeaderSplitter::default();
            let (mut header, mut body, mut done) = (Bytes::new(), Vec::new(), false);
            for chunk in content.as_bytes().chunks(size) {
                if done {
                    body.extend_from_slice(chunk);
                } else if let Split::Complete { header: found, rest } = splitter.push(chunk).unwrap() {
                    (header, done) = (found, true);
                    body.extend_from_slice(&rest);
                }
            }
            if !done {
                let (found, rest) = splitter.finish();
                header = found;
                body.extend_from_slice(&rest);
            }
            let (whole_header, whole_body) = split(content.as_bytes());
            prop_assert_eq!(&header[..], whole_header);
            prop_assert_eq!(&body[..], whole_body);
        }
    }
}
