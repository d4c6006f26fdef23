use postroad_envelope::Ret;
use postroad_message::split;

use crate::ReportKind;

/// Content above this size goes back as its header only.
pub const RETURN_LIMIT: usize = 256 * 1024;
/// Octets of a header that go back.
const HEADER_LIMIT: usize = 64 * 1024;
/// RFC 5322 §2.1.1, without the line end.
const LONGEST_LINE: usize = 998;

/// What of the mail goes back to its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// All of it.
    Full(Vec<u8>),
    /// Its header, without the empty line.
    Headers(Vec<u8>),
}

impl Returned {
    /// Chooses by RET, kind and size. `content` may be the beginning only, then `complete` is false; a beginning that
    /// holds the header is enough.
    ///
    /// RFC 3461 §4.3: RET concerns failures; other reports return the header.
    pub fn choose(kind: ReportKind, ret: Option<Ret>, content: &[u8], complete: bool) -> Self {
        let full = kind == ReportKind::Failed
            && ret != Some(Ret::Headers)
            && complete
            && content.len() <= RETURN_LIMIT
            && fits_in_a_report(content);
        if full {
            Self::Full(content.to_vec())
        } else {
            Self::Headers(header_lines(split(content).0))
        }
    }

    /// The octets.
    pub fn octets(&self) -> &[u8] {
        match self {
            Self::Full(octets) | Self::Headers(octets) => octets,
        }
    }
}

/// Whether content can be a part as it is: BINARYMIME content, or what has broken lines, cannot (RFC 2045 §2.8).
fn fits_in_a_report(content: &[u8]) -> bool {
    content.split_inclusive(|&byte| byte == b'\n').all(|line| {
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        text.len() <= LONGEST_LINE && !text.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
    })
}

/// The header in lines that may stand in a mail: bounded, cut where too long.
pub(crate) fn header_lines(header: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(header.len().min(HEADER_LIMIT));
    for line in header.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let line = line.get(..LONGEST_LINE).unwrap_or(line);
        if lines.len() + line.len() > HEADER_LIMIT {
            break;
        }
        lines.extend(line.iter().map(|&byte| match byte {
            0 | b'\r' => b'?',
            byte => byte,
        }));
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] = b"Subject: s\r\nTo: b\r\n\r\nbody\r\n";
    const HEADER: &[u8] = b"Subject: s\r\nTo: b\r\n";

    #[test]
    fn failures_return_all_unless_asked_otherwise() {
        let choose = |kind, ret| Returned::choose(kind, ret, MAIL, true);
        let (full, header) = (
            Returned::Full(MAIL.to_vec()),
            Returned::Headers(HEADER.to_vec()),
        );
        assert_eq!(choose(ReportKind::Failed, None), full);
        assert_eq!(choose(ReportKind::Failed, Some(Ret::Full)), full);
        assert_eq!(choose(ReportKind::Failed, Some(Ret::Headers)), header);
        assert_eq!(choose(ReportKind::Delayed, Some(Ret::Full)), header);
        assert_eq!(choose(ReportKind::Succeeded, None), header);
    }

    #[test]
    fn what_cannot_be_a_part_is_cut_to_its_header() {
        let choose = |body: &[u8], complete| {
            let content = [MAIL, body].concat();
            Returned::choose(ReportKind::Failed, Some(Ret::Full), &content, complete)
        };
        assert!(matches!(choose(b"fine\r\n", true), Returned::Full(_)));
        for body in [
            &[0_u8][..],
            b"a\nb",
            b"a\rb\r\n",
            &[b'x'; 999],
            &b"0123456789abcd\r\n".repeat(16_400),
        ] {
            assert_eq!(choose(body, true), Returned::Headers(HEADER.to_vec()));
        }
        assert_eq!(choose(b"", false), Returned::Headers(HEADER.to_vec()));
    }

    #[test]
    fn headers_are_bounded() {
        let mail = format!(
            "A: {}\r\n{}\r\nbody",
            "x".repeat(5000),
            "B: c\r\n".repeat(50_000)
        );
        let returned = Returned::choose(ReportKind::Failed, None, mail.as_bytes(), false);
        let octets = returned.octets();
        assert!(octets.len() <= HEADER_LIMIT + 2 && octets.ends_with(b"B: c\r\n"));
        assert!(
            octets
                .split(|&byte| byte == b'\n')
                .all(|line| line.len() <= 999)
        );
    }
}
