//! Contents in an mbox (RFC 4155), and back, octet by octet.
//!
//! A line that would look like the beginning of the next mail gets a `>` more (`mboxrd`): `From ` becomes `>From `, and
//! `>From ` becomes `>>From `, so it can be taken away again. Most contents have CRLF at the end of every line and nowhere
//! else a CR or LF; these are written with the LF that is the custom in an mbox. Any other content is written as it is. Which
//! of both was done is told by [`Lines`].

/// How the ends of lines of one content are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lines {
    /// CRLF as LF.
    Lf,
    /// As they are.
    Raw,
}

const FROM: &[u8; 5] = b"From ";

/// Finds out how a content is to be written.
#[derive(Debug, Default)]
pub(super) struct Endings {
    after_cr: bool,
    odd: bool,
}

impl Endings {
    pub fn push(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.odd |= self.after_cr != (octet == b'\n');
            self.after_cr = octet == b'\r';
        }
    }

    pub fn finish(self) -> Lines {
        match self.odd || self.after_cr {
            true => Lines::Raw,
            false => Lines::Lf,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// At the beginning of a line, or behind nothing but `>` in it.
    Start,
    /// So much of `From ` was met there.
    From(usize),
    Inside,
}

/// Writes contents.
#[derive(Debug)]
pub(super) struct Quoter {
    lines: Lines,
    at: At,
}

impl Quoter {
    pub fn new(lines: Lines) -> Self {
        let at = At::Start;
        Self { lines, at }
    }

    /// Appends what the next octets become.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        for &octet in octets {
            if octet == b'\r' && self.lines == Lines::Lf {
                continue;
            }
            self.at = match (self.at, octet) {
                (At::Start, b'F') => At::From(1),
                (At::From(met), octet) if FROM.get(met) == Some(&octet) => {
                    if met + 1 < FROM.len() {
                        At::From(met + 1)
                    } else {
                        // Before or behind others of its kind: the same octets.
                        out.push(b'>');
                        out.extend_from_slice(FROM);
                        At::Inside
                    }
                }
                (at, octet) => {
                    out.extend_from_slice(met(at));
                    out.push(octet);
                    behind(at, octet)
                }
            };
        }
    }

    pub fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(met(self.at));
    }
}

fn met(at: At) -> &'static [u8] {
    match at {
        At::From(met) => FROM.get(..met).unwrap_or_default(),
        _ => &[],
    }
}

fn behind(at: At, octet: u8) -> At {
    match (at, octet) {
        (_, b'\n') | (At::Start, b'>') => At::Start,
        _ => At::Inside,
    }
}

/// Reads contents.
#[derive(Debug)]
pub(super) struct Unquoter {
    lines: Lines,
    at: At,
    /// A `>` at the beginning of the line that is perhaps to be taken away.
    held: bool,
}

impl Unquoter {
    pub fn new(lines: Lines) -> Self {
        Self {
            lines,
            at: At::Start,
            held: false,
        }
    }

    /// Appends what the next octets were.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        for &octet in octets {
            self.at = match (self.at, octet) {
                (At::Start, b'>') if !self.held => {
                    self.held = true;
                    At::Start
                }
                (At::Start, b'F') => At::From(1),
                (At::From(met), octet) if FROM.get(met) == Some(&octet) => {
                    if met + 1 < FROM.len() {
                        At::From(met + 1)
                    } else {
                        self.held = false;
                        out.extend_from_slice(FROM);
                        At::Inside
                    }
                }
                (at, octet) => {
                    // In a run of them one is as good as the other, so it stays held until the run ends.
                    let goes_on = matches!(at, At::Start) && octet == b'>';
                    if !goes_on {
                        self.release(out);
                    }
                    out.extend_from_slice(met(at));
                    if octet == b'\n' && self.lines == Lines::Lf {
                        out.push(b'\r');
                    }
                    out.push(octet);
                    behind(at, octet)
                }
            };
        }
    }

    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.release(out);
        out.extend_from_slice(met(self.at));
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held) {
            out.push(b'>');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(content: &[u8], piece: usize) -> (Lines, Vec<u8>) {
        let mut endings = Endings::default();
        content.chunks(piece).for_each(|some| endings.push(some));
        let lines = endings.finish();
        let (mut quoter, mut out) = (Quoter::new(lines), Vec::new());
        for some in content.chunks(piece) {
            quoter.push(some, &mut out);
        }
        quoter.finish(&mut out);
        (lines, out)
    }

    fn read(lines: Lines, octets: &[u8], piece: usize) -> Vec<u8> {
        let (mut unquoter, mut out) = (Unquoter::new(lines), Vec::new());
        for some in octets.chunks(piece) {
            unquoter.push(some, &mut out);
        }
        unquoter.finish(&mut out);
        out
    }

    #[test]
    fn lines_are_quoted_and_end_as_is_the_custom() {
        for (content, lines, wanted) in [
            (&b""[..], Lines::Lf, &b""[..]),
            (b"a\r\nFrom b\r\n", Lines::Lf, b"a\n>From b\n"),
            (b"From b\r\n>From\r\n", Lines::Lf, b">From b\n>From\n"),
            (b">>From b", Lines::Lf, b">>>From b"),
            (b"a From b\r\n From c", Lines::Lf, b"a From b\n From c"),
            (b"Fro", Lines::Lf, b"Fro"),
            (b"\r\nFFrom b", Lines::Lf, b"\nFFrom b"),
            (b"\nFrom b", Lines::Raw, b"\n>From b"),
            (b"\rFrom b\r\n", Lines::Raw, b"\rFrom b\r\n"),
            (b"a\r\r\n", Lines::Raw, b"a\r\r\n"),
            (b"a\r", Lines::Raw, b"a\r"),
        ] {
            let (found, octets) = written(content, 1);
            assert_eq!((found, octets.as_slice()), (lines, wanted), "{content:?}");
        }
    }

    /// Many of the octets that matter.
    fn contents() -> impl Strategy<Value = Vec<u8>> {
        let some = prop_oneof![
            Just(b"From ".to_vec()),
            Just(b">".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"Fro".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..4),
        ];
        let pieces = proptest::collection::vec(some, 0..24);
        pieces.prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_content_comes_back(
            content in contents(), crlf in any::<bool>(), piece in 1_usize..9, other in 1_usize..9,
        ) {
            // Both ways of writing are to be met.
            let text = String::from_utf8_lossy(&content).replace(['\r', '\n'], "\r\n").into_bytes();
            let content = if crlf { text } else { content };
            let (lines, octets) = written(&content, piece);
            prop_assert!(!crlf || lines == Lines::Lf);
            let split = octets.split(|octet| *octet == b'\n');
            let is_begin = |line: &[u8]| line.starts_with(FROM);
            prop_assert!(!split.into_iter().any(is_begin), "{octets:?}");
            prop_assert_eq!(read(lines, &octets, other), content);
        }

        #[test]
        fn arbitrary_octets_come_back(content in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (lines, octets) = written(&content, 7);
            prop_assert_eq!(read(lines, &octets, 300), content);
        }
    }
}
