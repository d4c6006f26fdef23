//! A report for a host that takes no 8-bit content: it is owed to somebody, and nobody can be told that it did not arrive.

use mail_parser::{MessageParser, MimeHeaders as _, PartType};
use postroad_message::{HeaderBlock, split};

use crate::{
    quoted,
    returned::header_lines,
    words::{HEADER_ATTACHED, MAIL_ATTACHED},
};

const ENCODING: &str = "Content-Transfer-Encoding";
const MAIL: &str = "message/rfc822";

/// A multipart/report (RFC 6522) in ASCII, as RFC 6152 §3 asks for before it goes to a host without 8BITMIME: text becomes
/// quoted-printable, a returned mail its header (a `message/rfc822` can have no encoding, RFC 2046 §5.2.1).
///
/// None if it is no report, or one that cannot be said in ASCII: its own header holds more.
pub fn seven_bit(report: &[u8]) -> Option<Vec<u8>> {
    if report.is_ascii() {
        return Some(report.to_vec());
    }
    let mail = MessageParser::new().with_mime_headers().parse(report)?;
    let root = mail.root_part();
    let kind = root.content_type()?;
    let is_report = kind.ctype().eq_ignore_ascii_case("multipart")
        && kind.subtype()?.eq_ignore_ascii_case("report");
    let boundary = kind.attribute("boundary").filter(|_| is_report)?;
    let PartType::Multipart(parts) = &root.body else {
        return None;
    };
    let mut out = without_encoding(split(report).0);
    out.extend_from_slice(format!("{ENCODING}: 7bit\r\n\r\n").as_bytes());
    let cut =
        |from: u32, to: u32| report.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?);
    let parts = parts.iter().map(|&at| {
        let part = mail.parts.get(usize::try_from(at).ok()?)?;
        let header = cut(part.offset_header, part.offset_body)?;
        Some((header, cut(part.offset_body, part.offset_end)?))
    });
    let parts: Vec<(&[u8], &[u8])> = parts.collect::<Option<_>>()?;
    let loses_body = parts
        .iter()
        .any(|(header, body)| kind_of(header) == MAIL && !is_ascii(header, body));
    for (at, (header, body)) in parts.into_iter().enumerate() {
        out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        // RFC 6522 §3: the first part is what a person reads.
        if at == 0 && loses_body {
            out.extend(part_in_ascii(header, &header_is_attached(body))?);
        } else {
            out.extend(part_in_ascii(header, body)?);
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    out.is_ascii().then_some(out)
}

/// None for what has parts of its own: they would have to be encoded one by one.
fn part_in_ascii(header: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    if is_ascii(header, body) {
        return Some([header, body].concat());
    }
    let kind = kind_of(header);
    let (mut head, text) = match kind.as_str() {
        _ if kind.starts_with("multipart/") => return None,
        MAIL => {
            let lines = header_lines(split(body).0);
            (b"Content-Type: text/rfc822-headers\r\n".to_vec(), lines)
        }
        // RFC 6532 §3.5: the types of internationalized mail may be encoded.
        _ => (without_encoding(header), body.to_vec()),
    };
    head.extend_from_slice(format!("{ENCODING}: quoted-printable\r\n\r\n").as_bytes());
    head.extend(quoted::printable(&text));
    Some(head)
}

fn is_ascii(header: &[u8], body: &[u8]) -> bool {
    header.is_ascii() && body.is_ascii()
}

/// The type of a part, in small letters.
fn kind_of(header: &[u8]) -> String {
    let kind = HeaderBlock::parse(header).first("Content-Type");
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().to_owned()
}

/// Our own words, which promise the whole mail; a report of others says what it says. What is longer has a line for itself.
fn header_is_attached(text: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(text) else {
        return text.to_vec();
    };
    let goes_on = format!("{MAIL_ATTACHED} ");
    match text.contains(&goes_on) {
        true => text.replacen(&goes_on, &format!("{HEADER_ATTACHED}\r\n"), 1),
        false => text.replacen(MAIL_ATTACHED, HEADER_ATTACHED, 1),
    }
    .into_bytes()
}

/// The fields, without the empty line.
fn without_encoding(header: &[u8]) -> Vec<u8> {
    let block = HeaderBlock::parse(header);
    let fields = block.iter();
    let others = fields.filter(|field| !field.name().eq_ignore_ascii_case(ENCODING));
    let mut lines = Vec::with_capacity(header.len());
    for field in others {
        lines.extend_from_slice(format!("{}:", field.name()).as_bytes());
        lines.extend_from_slice(field.raw());
        if !field.raw().ends_with(b"\n") {
            lines.extend_from_slice(b"\r\n");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(parts: &[&str]) -> Vec<u8> {
        let mut text = "From: MAILER-DAEMON\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n\
            \tboundary=\"line\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            .to_owned();
        for part in parts {
            text.push_str(&format!("--line\r\n{part}\r\n"));
        }
        text.push_str("--line--\r\n");
        text.into_bytes()
    }

    fn in_ascii(parts: &[&str]) -> Option<String> {
        let told = String::from_utf8(seven_bit(&report(parts))?).unwrap();
        let (_, rest) = told.split_once("\r\n\r\n")?;
        assert!(told.contains("\tboundary=\"line\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"));
        Some(rest.to_owned())
    }

    #[test]
    fn text_becomes_legible_ascii_and_a_mail_its_header() {
        let parts = [
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nJørn =\r\nYour mail is attached. If\r\n",
            "Content-Type: message/delivery-status\r\n\r\nStatus: 5.1.1\r\n",
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             Subject: =?u?q?=C3=A9?=\r\nTo: b\r\n\r\nJørn\r\n",
        ];
        let expected = "--line\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Content-Transfer-Encoding: quoted-printable\r\n\r\nJ=C3=B8rn =3D\r\nThe header of your mail is attached.\r\nIf\r\n\r\n\
            --line\r\nContent-Type: message/delivery-status\r\n\r\nStatus: 5.1.1\r\n\r\n\
            --line\r\nContent-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
            Subject: =3D?u?q?=3DC3=3DA9?=3D\r\nTo: b\r\n\r\n--line--\r\n";
        assert_eq!(in_ascii(&parts).unwrap(), expected);
    }

    #[test]
    fn types_of_internationalized_mail_are_encoded_and_keep_their_names() {
        for kind in [
            "message/global",
            "message/global-delivery-status",
            "message/global-headers",
        ] {
            let told = in_ascii(&[&format!("Content-Type: {kind}\r\n\r\nTo: jørn\r\n")]);
            let expected = format!(
                "--line\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nTo: j=C3=B8rn\r\n\
                 \r\n--line--\r\n"
            );
            assert_eq!(told.unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_report_or_has_parts_within_parts_is_left_alone() {
        assert_eq!(
            seven_bit(b"Subject: s\r\n\r\nplain").unwrap(),
            b"Subject: s\r\n\r\nplain"
        );
        assert_eq!(seven_bit("Subject: s\r\n\r\nJørn\r\n".as_bytes()), None);
        let inner = "Content-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\n\r\nJørn\r\n--in--\r\n";
        assert_eq!(in_ascii(&[inner]), None);
        let mut named = b"Subject: J\xf8rn\r\n".to_vec();
        named.extend(report(&["\r\nplain\r\n"]));
        assert_eq!(seven_bit(&named), None);
    }
}
