use bytes::{Bytes, BytesMut};
use memchr::memchr;
use postroad_reply::{EnhancedStatusCode, Reply, ReplyCode};

/// Collects the lines of one reply (RFC 5321 §4.2), within bounds, tolerant of what real hosts say: a bare LF
/// as line end, no text behind the code, text that is not UTF-8.
#[derive(Debug)]
pub struct ReplyDecoder {
    max_line: usize,
    max_lines: usize,
    lines: Vec<(ReplyCode, Bytes)>,
}

/// What a host said that is no SMTP reply; the host's fault. The connection is of no use afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line of more octets than anyone needs.
    #[error("the host sent a reply line that is too long")]
    LineTooLong,
    /// More lines than anyone needs.
    #[error("the host sent a reply of too many lines")]
    TooManyLines,
    /// No code at the start of a line, or one nobody defines.
    #[error("the host sent something that is no SMTP reply")]
    Malformed,
}

impl Default for ReplyDecoder {
    /// 128 lines of 4 KiB: eight times what RFC 5321 §4.5.3.1.5 allows a line.
    fn default() -> Self {
        Self::new(4096, 128)
    }
}

impl ReplyDecoder {
    /// With these bounds on the octets of a line and on lines.
    pub fn new(max_line: usize, max_lines: usize) -> Self {
        Self {
            max_line,
            max_lines,
            lines: Vec::new(),
        }
    }

    /// Takes the next complete reply off `input`. None: more input is needed.
    pub fn decode(&mut self, input: &mut BytesMut) -> Option<Result<Reply, ReplyError>> {
        while let Some(end) = memchr(b'\n', input) {
            let line = input.split_to(end + 1).freeze();
            match self.add(line) {
                Ok(false) => {}
                Ok(true) => return Some(Ok(assemble(std::mem::take(&mut self.lines)))),
                Err(error) => return Some(Err(error)),
            }
        }
        (input.len() > self.max_line).then_some(Err(ReplyError::LineTooLong))
    }

    /// Whether that was the last line of its reply.
    fn add(&mut self, line: Bytes) -> Result<bool, ReplyError> {
        if line.len() > self.max_line {
            return Err(ReplyError::LineTooLong);
        }
        if self.lines.len() == self.max_lines {
            return Err(ReplyError::TooManyLines);
        }
        let text = line.trim_ascii_end();
        let code = text.get(..3).and_then(code).ok_or(ReplyError::Malformed)?;
        let last = match text.get(3) {
            None | Some(b' ' | b'\t') => true,
            Some(b'-') => false,
            Some(_) => return Err(ReplyError::Malformed),
        };
        self.lines
            .push((code, line.slice_ref(text.get(4..).unwrap_or_default())));
        Ok(last)
    }
}

fn code(digits: &[u8]) -> Option<ReplyCode> {
    let number = digits.iter().try_fold(0_u16, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u16::from(digit - b'0'))
    });
    number.and_then(|number| ReplyCode::new(number).ok())
}

/// Lines with different codes are a fault no host should make; the last one counts, as in other clients.
fn assemble(lines: Vec<(ReplyCode, Bytes)>) -> Reply {
    let Some(&(code, _)) = lines.last() else {
        return Reply::plain(postroad_reply::LOCAL_ERROR_451, "");
    };
    let mut enhanced = None;
    let texts: Vec<String> = lines
        .iter()
        .map(|(_, line)| {
            let text = String::from_utf8_lossy(line);
            let Some((status, rest)) = enhanced_status(code, &text) else {
                return text.into_owned();
            };
            enhanced.get_or_insert(status);
            rest.to_owned()
        })
        .collect();
    let text = texts.join("\n");
    match enhanced {
        Some(enhanced) => Reply::new(code, enhanced, text),
        None => Reply::plain(code, text),
    }
}

/// RFC 2034 §4: a status of the same class as the code, at the start of the text.
fn enhanced_status(code: ReplyCode, text: &str) -> Option<(EnhancedStatusCode, &str)> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let status: EnhancedStatusCode = word.parse().ok()?;
    (u16::from(status.class()) == code.value() / 100).then_some((status, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(input: &[u8]) -> Option<Result<Reply, ReplyError>> {
        ReplyDecoder::new(64, 3).decode(&mut BytesMut::from(input))
    }

    fn text(input: &str) -> String {
        decode(input.as_bytes()).unwrap().unwrap().to_string()
    }

    #[test]
    fn replies_of_real_hosts() {
        assert_eq!(text("250 2.1.5 ok\r\n"), "250 2.1.5 ok");
        assert_eq!(
            text("550-5.1.1 no\r\n550 5.1.1 such user\r\n"),
            "550 5.1.1 no such user"
        );
        assert_eq!(text("250\n"), "250");
        assert_eq!(decode(b"250-\r\n250 \r\n").unwrap().unwrap().text(), "\n");
        assert_eq!(text("550 4.1.1 other class\r\n"), "550 4.1.1 other class");
        assert_eq!(
            decode(b"550 4.1.1 x\r\n").unwrap().unwrap().enhanced(),
            None
        );
        assert_eq!(decode(b"250-a\r\n"), None);
        assert_eq!(text("250 \u{1b}[2J\r\n"), "250 ?[2J");
    }

    #[test]
    fn hosts_that_do_not_speak_smtp() {
        assert_eq!(decode(b"SSH-2.0-x\r\n"), Some(Err(ReplyError::Malformed)));
        assert_eq!(decode(b"100 x\r\n"), Some(Err(ReplyError::Malformed)));
        assert_eq!(decode(b"2500 x\r\n"), Some(Err(ReplyError::Malformed)));
        assert_eq!(decode(&[b'2'; 65]), Some(Err(ReplyError::LineTooLong)));
        assert_eq!(
            decode(&b"250-x\r\n".repeat(4)),
            Some(Err(ReplyError::TooManyLines))
        );
    }

    proptest! {
        #[test]
        fn what_we_send_is_what_a_client_reads(text in "[ -~&&[^ ]][ -~]{0,900}", permanent: bool) {
            use postroad_reply::*;
            let reply = if permanent {
                Reply::new(MAILBOX_UNAVAILABLE_550, BAD_MAILBOX_5_1_1, text.trim_end())
            } else {
                Reply::plain(OK_250, format!("x{}", text.trim_end()))
            };
            let mut wire = BytesMut::from(reply.to_wire().as_slice());
            let read = ReplyDecoder::default().decode(&mut wire).unwrap().unwrap();
            prop_assert_eq!((read.code(), read.enhanced()), (reply.code(), reply.enhanced()));
            prop_assert!(wire.is_empty());
        }

        #[test]
        fn nothing_panics(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(input.as_slice());
            let mut decoder = ReplyDecoder::new(64, 3);
            while let Some(Ok(_)) = decoder.decode(&mut buffer) {}
        }
    }
}
