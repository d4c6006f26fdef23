//! A mail as programs of this host write it, made into what SMTP carries.

use postroad_message::HeaderSplitter;

/// Octets of a line of the header that are kept until it ends; a longer one is text.
const LONGEST_FIELD: usize = 128 << 10;
/// The same of a line of text, which then goes on in pieces.
const PIECE: usize = 4 << 10;

/// Makes lines end with CRLF, however they ended; finds the end, and the header's.
///
/// * LF, CRLF and CR alone end a line (RFC 5322 §2.3: a mail has no other CR or LF).
/// * A first line `From … ` is a mailbox's, no part of the mail.
/// * Text that begins without a header gets an empty line before it.
/// * Unless dots are ignored, a line with a dot alone ends the mail.
#[derive(Debug)]
pub struct Lines {
    ignore_dots: bool,
    at: At,
    line: Vec<u8>,
    /// The beginning of the line has gone on already.
    inside: bool,
    /// The last octet was a CR whose line is done; an LF belongs to it.
    after_cr: bool,
    /// An octet above 127 was seen.
    pub eight_bit: bool,
    /// An octet that no mail may have was seen (RFC 5321 §4.5.2: NUL).
    pub nul: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Header,
    Body,
    End,
}

impl Lines {
    /// At the beginning of a mail.
    pub fn new(ignore_dots: bool) -> Self {
        Self {
            ignore_dots,
            at: At::Start,
            line: Vec::new(),
            inside: false,
            after_cr: false,
            eight_bit: false,
            nul: false,
        }
    }

    /// Whether the dot came: nothing behind it belongs to the mail.
    pub fn is_over(&self) -> bool {
        self.at == At::End
    }

    /// Takes more octets, and appends whole lines to `out`.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        for &octet in octets {
            if self.at == At::End {
                return;
            }
            let was_cr = std::mem::replace(&mut self.after_cr, octet == b'\r');
            match octet {
                b'\n' if was_cr => {}
                b'\n' | b'\r' => self.line_done(out),
                octet => {
                    self.eight_bit |= octet > 127;
                    self.nul |= octet == 0;
                    self.line.push(octet);
                    self.go_on(out);
                }
            }
        }
    }

    /// The input has ended; a last line without an end gets one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if (self.inside || !self.line.is_empty()) && self.at != At::End {
            self.line_done(out);
        }
    }

    /// A line without an end is not kept in memory for ever.
    fn go_on(&mut self, out: &mut Vec<u8>) {
        match self.at {
            At::Body if self.line.len() < PIECE => return,
            At::Start | At::Header if self.line.len() <= LONGEST_FIELD => return,
            At::Start | At::Header => out.extend_from_slice(b"\r\n"),
            At::Body | At::End => {}
        }
        self.at = At::Body;
        self.inside = true;
        out.append(&mut self.line);
    }

    fn line_done(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        let inside = std::mem::replace(&mut self.inside, false);
        if line == b"." && !inside && !self.ignore_dots {
            self.at = At::End;
            return;
        }
        match self.at {
            At::Start if line.starts_with(b"From ") => {
                self.at = At::Header;
                return;
            }
            At::Start | At::Header => {
                self.at = At::Header;
                let goes_on = line.starts_with(b" ") || line.starts_with(b"\t");
                if line.is_empty() {
                    self.at = At::Body;
                } else if !goes_on && !is_field(&line) {
                    out.extend_from_slice(b"\r\n");
                    self.at = At::Body;
                }
            }
            At::Body | At::End => {}
        }
        out.extend_from_slice(&line);
        out.extend_from_slice(b"\r\n");
    }
}

/// RFC 5322 §2.2: a name of printable characters, a colon.
fn is_field(line: &[u8]) -> bool {
    let name = line
        .split(|&octet| octet == b':')
        .next()
        .unwrap_or_default();
    let name = name.trim_ascii_end();
    name.len() < line.len() && !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

/// The header of a mail in the form that [`Lines`] makes, of at most `limit` octets.
pub fn header_of(content: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut splitter = HeaderSplitter::new(limit);
    let piece = bytes::Bytes::copy_from_slice(content);
    match splitter.push(&piece).ok()? {
        postroad_message::Split::Complete { header, .. } => Some(header.to_vec()),
        postroad_message::Split::Incomplete => Some(splitter.finish().0.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(text: &[u8], ignore_dots: bool) -> Vec<u8> {
        let (mut lines, mut out) = (Lines::new(ignore_dots), Vec::new());
        lines.push(text, &mut out);
        lines.finish(&mut out);
        out
    }

    #[test]
    fn lines_end_with_crlf_however_they_ended() {
        let wanted: &[u8] = b"To: x\r\nSubject: y\r\n\r\none\r\ntwo\r\n";
        for text in [
            "To: x\nSubject: y\n\none\ntwo\n",
            "To: x\r\nSubject: y\r\n\r\none\r\ntwo\r\n",
            "To: x\rSubject: y\r\rone\rtwo",
            "From me@host Thu Jan  1 00:00:00 1970\nTo: x\nSubject: y\n\none\ntwo",
        ] {
            assert_eq!(made(text.as_bytes(), false), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_dot_ends_the_mail_unless_dots_are_ignored() {
        assert_eq!(made(b"S: y\n\na\n.\nb\n", false), b"S: y\r\n\r\na\r\n");
        assert_eq!(
            made(b"S: y\n\na\n.\nb\n", true),
            b"S: y\r\n\r\na\r\n.\r\nb\r\n"
        );
        assert_eq!(
            made(b"S: y\n\n..\n.x\n", false),
            b"S: y\r\n\r\n..\r\n.x\r\n"
        );
    }

    #[test]
    fn text_without_a_header_is_no_header() {
        assert_eq!(made(b"hello\nworld\n", false), b"\r\nhello\r\nworld\r\n");
        assert_eq!(
            made("wörld: x\n".as_bytes(), false),
            "\r\nwörld: x\r\n".as_bytes()
        );
        assert_eq!(made(b"To: x\nhello\n", false), b"To: x\r\n\r\nhello\r\n");
        assert_eq!(
            made(b"To: x\n folded\nCc: y\n", false),
            b"To: x\r\n folded\r\nCc: y\r\n"
        );
        assert_eq!(made(b"", false), b"");
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let (mut lines, mut out) = (Lines::new(false), Vec::new());
        lines.push(b"S: y\n\n", &mut out);
        lines.push(&[b'x'; PIECE], &mut out);
        assert_eq!(out.len(), 8 + PIECE);
        lines.push(b".\n", &mut out);
        assert!(!lines.is_over() && out.ends_with(b"x.\r\n"));
        let header = made(&[b'x'; LONGEST_FIELD + 2], false);
        assert!(header.starts_with(b"\r\nxx") && header.ends_with(b"xx\r\n"));
        assert_eq!(header.len(), LONGEST_FIELD + 6);
    }

    #[test]
    fn octets_that_matter_are_noticed() {
        let mut lines = Lines::new(true);
        lines.push("a: ü\n".as_bytes(), &mut Vec::new());
        assert!(lines.eight_bit && !lines.nul);
        lines.push(b"\0", &mut Vec::new());
        assert!(lines.nul);
    }

    proptest! {
        /// However the octets come, and whatever they are.
        #[test]
        fn pieces_make_the_same_as_the_whole(text in "(?s)[a: \t.\r\nF]{0,60}", cut in 0usize..60, dots: bool) {
            let (first, second) = text.as_bytes().split_at(cut.min(text.len()));
            let (mut lines, mut out) = (Lines::new(dots), Vec::new());
            lines.push(first, &mut out);
            lines.push(second, &mut out);
            lines.finish(&mut out);
            prop_assert_eq!(&out, &made(text.as_bytes(), dots));
            let ends = out.iter().enumerate().all(|(at, &octet)| match octet {
                b'\n' => at > 0 && out[at - 1] == b'\r',
                b'\r' => out.get(at + 1) == Some(&b'\n'),
                _ => true,
            });
            prop_assert!(ends);
        }

        /// What was made once stays as it is, but for a dot alone.
        #[test]
        fn made_once_is_made(text in "(?s)[a: \t\r\n]{0,60}") {
            let once = made(text.as_bytes(), true);
            prop_assert_eq!(made(&once, true), once);
        }
    }
}
