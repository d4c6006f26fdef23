//! Quoted-printable (RFC 2045 §6.7), for text that goes where perhaps only ASCII gets through.

/// Columns of a line, with the `=` of a soft line break (RFC 2045 §6.7 rule 5).
const COLUMNS: usize = 76;

/// The text in ASCII; its lines end with CRLF and stay lines.
pub fn printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        let (line, end) = match line.strip_suffix(b"\r\n") {
            Some(line) => (line, &b"\r\n"[..]),
            None => (line, &b""[..]),
        };
        let mut column = 0;
        for (at, &octet) in line.iter().enumerate() {
            // Rule 3: blanks at the end of a line get lost.
            let is_last = at + 1 == line.len();
            let plain = match octet {
                b'=' => false,
                b' ' | b'\t' => !is_last,
                octet => octet.is_ascii_graphic(),
            };
            let width = if plain { 1 } else { 3 };
            if column + width >= COLUMNS {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            column += width;
            match plain {
                true => out.push(octet),
                false => out.extend_from_slice(format!("={octet:02X}").as_bytes()),
            }
        }
        out.extend_from_slice(end);
    }
    out
}

#[cfg(test)]
mod tests {
    use mail_parser::decoders::quoted_printable::quoted_printable_decode;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_stay_legible() {
        let text = "J\u{f8}rn = 1 \r\n.\r\n";
        assert_eq!(printable(text.as_bytes()), b"J=C3=B8rn =3D 1=20\r\n.\r\n");
    }

    proptest! {
        #[test]
        fn any_text_comes_back_in_short_ascii_lines(lines in proptest::collection::vec("[^\r\n]{0,90}", 0..6)) {
            let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let quoted = printable(text.as_bytes());
            prop_assert!(quoted.is_ascii());
            prop_assert!(quoted.split(|&octet| octet == b'\n').all(|line| line.len() <= COLUMNS + 1));
            prop_assert_eq!(quoted_printable_decode(&quoted).unwrap_or_default(), text.as_bytes());
        }
    }
}
