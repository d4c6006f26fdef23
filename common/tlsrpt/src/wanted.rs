//! The TXT record at `_smtp._tls.DOMAIN` (RFC 8460 §3).

/// Addresses that are told; more are passed over.
const MAX_PLACES: usize = 4;

/// Where a domain wants its reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Mail addresses.
    pub mail: Vec<String>,
    /// URLs for POST.
    pub https: Vec<String>,
}

impl Wanted {
    /// The one record among all texts of the name; none, or several: the domain wants no reports.
    pub fn of<T: AsRef<str>>(texts: &[T]) -> Option<Self> {
        let mut ours = texts
            .iter()
            .map(AsRef::as_ref)
            .filter(|text| text.starts_with("v=TLSRPTv1;"));
        let (Some(text), None) = (ours.next(), ours.next()) else {
            return None;
        };
        let mut fields = text.split(';').skip(1);
        let rua = fields.find_map(|field| {
            let (key, value) = field.split_once('=')?;
            (key.trim() == "rua").then_some(value)
        })?;
        let mut wanted = Self::default();
        for place in rua.split(',').map(str::trim).take(MAX_PLACES) {
            let (scheme, rest) = place.split_once(':').unwrap_or_default();
            match scheme.to_ascii_lowercase().as_str() {
                // RFC 6068: what follows a question mark is for people who write themselves.
                "mailto" => wanted.mail.extend(
                    rest.split('?')
                        .next()
                        .and_then(decoded)
                        .filter(|to| !to.is_empty()),
                ),
                "https" => wanted.https.push(place.to_owned()),
                _ => {}
            }
        }
        (wanted != Self::default()).then_some(wanted)
    }
}

/// RFC 3986 §2.1, as far as it is text that has no end of a line in it.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        octets.push(u8::try_from(high * 16 + low).ok()?);
    }
    let text = String::from_utf8(octets).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_strange_ones_passed_over() {
        let wanted = Wanted::of(&[
            "v=spf1 -all",
            "v=TLSRPTv1; rua=mailto:tls%2breports@a.test?subject=x, https://a.test/v1,ftp://a.test",
        ])
        .unwrap();
        assert_eq!(wanted.mail, ["tls+reports@a.test"]);
        assert_eq!(wanted.https, ["https://a.test/v1"]);
    }

    #[test]
    fn no_record_two_records_and_nonsense_want_nothing() {
        for texts in [
            &[][..],
            &[
                "v=TLSRPTv1; rua=mailto:a@a.test",
                "v=TLSRPTv1; rua=mailto:b@a.test",
            ],
            &["v=TLSRPTv1;"],
            &["v=TLSRPTv1; rua=mailto:"],
            &["v=TLSRPTv1; rua=mailto:a%0d%0abcc:x@a.test"],
            &["v=TLSRPTv1; rua=mailto:%zz@a.test"],
            &["v=TLSRPTv1 rua=mailto:a@a.test"],
        ] {
            assert_eq!(Wanted::of(texts), None, "{texts:?}");
        }
    }
}
