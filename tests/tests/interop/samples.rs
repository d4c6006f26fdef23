//! Mails that are not easy to carry.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Octets of the attachment before its encoding.
const ATTACHMENT: usize = 25 * 1024 * 1024;
const SEED: u64 = 5321;

/// A mail in a file, as it goes over the wire (lines end with CRLF) but without dot-stuffing.
pub struct Sample {
    pub file: PathBuf,
    /// The same file with the final dot of DATA. swaks wants it so, or adds a line of its own.
    pub dotted: PathBuf,
    pub content: Vec<u8>,
}

pub struct Samples {
    /// Octets above 127, lines that begin with dots, the longest line there may be, blanks at ends.
    pub awkward: Sample,
    /// A header and nothing else.
    pub empty: Sample,
    /// With the attachment.
    pub large: Sample,
    /// A plain one, for many.
    pub plain: Sample,
}

impl Samples {
    pub fn write(folder: &Path) -> Result<Self> {
        fs::create_dir(folder)?;
        let write = |name: &str, kind: &str, body: &[u8]| -> Result<Sample> {
            let content = [header(name, kind).as_bytes(), b"\r\n", body].concat();
            let file = folder.join(name);
            fs::write(&file, &content)?;
            let dotted = file.with_extension("dotted");
            fs::write(&dotted, [&content[..], b".\r\n"].concat())?;
            Ok(Sample {
                file,
                dotted,
                content,
            })
        };
        Ok(Self {
            awkward: write("awkward", "text/plain; charset=iso-8859-1", &awkward())?,
            empty: write("empty", "text/plain", b"")?,
            large: write(
                "large",
                "multipart/mixed; boundary=\"=_part\"",
                large().as_bytes(),
            )?,
            plain: write("plain", "text/plain", b"Hello!\r\n")?,
        })
    }
}

/// All that clients would add, so that they add nothing.
fn header(name: &str, kind: &str) -> String {
    format!(
        "From: Sender <alice@demo.test>\r\nTo: undisclosed-recipients:;\r\nSubject: {name}\r\n\
         Date: Mon, 23 Nov 2026 00:00:00 +0000\r\nMessage-ID: <{name}@client.test>\r\nMIME-Version: 1.0\r\n\
         Content-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n"
    )
}

fn awkward() -> Vec<u8> {
    let mut body = Vec::new();
    let mut line = |octets: &[u8]| body.extend_from_slice(&[octets, b"\r\n"].concat());
    line(b".");
    line(b"..");
    line(b".leading dot");
    line(b"...three");
    line(b"");
    line(&(0x80..=0xff).collect::<Vec<u8>>());
    line("UTF-8: \u{fc}\u{df}\u{20ac}\u{1f4ee}".as_bytes());
    line(b"blanks at the end \t ");
    line(b"From here on");
    line(b"QUIT");
    // RFC 5321 §4.5.3.1.6: 1000 octets with CRLF.
    line(&[b'x'; 998]);
    line(&[&b"."[..], &[b'y'; 997]].concat());
    line(b"");
    line(b".");
    body
}

fn large() -> String {
    let mut attachment = vec![0; ATTACHMENT];
    StdRng::seed_from_u64(SEED).fill(&mut attachment[..]);
    let encoded = BASE64_STANDARD.encode(&attachment);
    let mut body = String::with_capacity(encoded.len() * 79 / 76 + 1000);
    body += "--=_part\r\nContent-Type: text/plain\r\n\r\nSee the attachment.\r\n--=_part\r\n\
             Content-Type: application/octet-stream; name=\"noise\"\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(76));
        body += line;
        body += "\r\n";
        rest = more;
    }
    body + "--=_part--\r\n"
}
