//! What the header of a mail says of its recipients, and the From field it may lack.

use std::collections::BTreeSet;

use mail_parser::{Address, Header, HeaderName, HeaderValue, MessageParser};
use postroad_address::{Domain, Mailbox};
use postroad_message::unstructured_field;

/// `-t`: the recipients of To, Cc and Bcc; of a mail that is sent again, those of the Resent fields (RFC 5322 §3.6.6).
///
/// # Errors
///
/// The first address that is none.
pub fn recipients(header: &[u8], domain: &Domain) -> Result<Vec<Mailbox>, String> {
    let Some(message) = MessageParser::default().parse(header) else {
        return Ok(Vec::new());
    };
    let again = named(
        message.headers(),
        &[
            HeaderName::ResentTo,
            HeaderName::ResentCc,
            HeaderName::ResentBcc,
        ],
    );
    let texts = match again.is_empty() {
        true => named(
            message.headers(),
            &[HeaderName::To, HeaderName::Cc, HeaderName::Bcc],
        ),
        false => again,
    };
    texts.iter().map(|text| qualified(text, domain)).collect()
}

/// The addresses of these fields, each once.
fn named(headers: &[Header<'_>], names: &[HeaderName<'_>]) -> BTreeSet<String> {
    let fields = headers.iter().filter(|field| names.contains(&field.name));
    let values = fields.filter_map(|field| match &field.value {
        HeaderValue::Address(address) => Some(address),
        _ => None,
    });
    values.flat_map(texts).collect()
}

/// A word alone is a user of this host, which the parser takes for a name without an address.
fn texts(address: &Address<'_>) -> Vec<String> {
    let texts = address
        .iter()
        .filter_map(|one| one.address().or(one.name()));
    texts.map(str::to_owned).collect()
}

/// An address as programs of this host write it: without a domain it is of ours.
///
/// # Errors
///
/// A sentence with the address.
pub fn qualified(text: &str, domain: &Domain) -> Result<Mailbox, String> {
    let text = text.trim();
    let bare = text
        .strip_prefix('<')
        .and_then(|text| text.strip_suffix('>'))
        .unwrap_or(text);
    let whole = match bare.contains('@') || bare.is_empty() {
        true => bare.to_owned(),
        false => format!("{bare}@{domain}"),
    };
    Mailbox::parse(&whole).map_err(|error| format!("{text:?}: {error}"))
}

/// A From field for a mail without one.
pub fn from_field(sender: &Mailbox, full_name: Option<&str>) -> Vec<u8> {
    let name = full_name.map(str::trim).filter(|name| !name.is_empty());
    match name {
        None => unstructured_field("From", &sender.to_string(), true),
        Some(name) if name.is_ascii() => {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            unstructured_field("From", &format!("\"{quoted}\" <{sender}>"), true)
        }
        Some(name) => {
            // Encoded words for the name alone: an address must stay readable (RFC 2047 §5).
            let field = unstructured_field("From", name, false);
            let mut field = field.strip_suffix(b"\r\n").unwrap_or(&field).to_vec();
            field.extend_from_slice(format!("\r\n <{sender}>\r\n").as_bytes());
            field
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str) -> Result<Vec<String>, String> {
        let domain = Domain::parse("here.example").unwrap();
        let found = recipients(header.as_bytes(), &domain)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_fields_that_name_recipients_are_read() {
        let header = "From: me@a.example\r\nTo: \"Bob, B.\" <bob@b.example>, carol (away) ,\r\n root\r\n\
                      Cc: friends: dora@d.example, bob@b.example;\r\nTo: eve@e.example\r\nBcc: secret@s.example\r\n\r\n";
        let mut found = of(header).unwrap();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                "bob@b.example",
                "carol@here.example",
                "dora@d.example",
                "eve@e.example",
                "root@here.example",
                "secret@s.example"
            ]
        );
        assert_eq!(of("Subject: x\r\n\r\n").unwrap(), Vec::<String>::new());
        assert_eq!(
            of("To: undisclosed-recipients:;\r\n\r\n").unwrap(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn who_sends_a_mail_again_names_others() {
        let header = "To: bob@b.example\r\nResent-To: carol@c.example\r\n\r\n";
        assert_eq!(of(header).unwrap(), ["carol@c.example"]);
    }

    #[test]
    fn what_is_no_address_is_named() {
        assert!(of("To: a b@c@d\r\n\r\n").unwrap_err().contains("@"));
        assert!(
            of("To: Bob the Builder\r\n\r\n")
                .unwrap_err()
                .contains("Builder")
        );
    }

    #[test]
    fn a_missing_from_is_made_of_sender_and_name() {
        let sender = Mailbox::parse("www@a.example").unwrap();
        let made = |name| String::from_utf8(from_field(&sender, name)).unwrap();
        assert_eq!(made(None), "From: www@a.example\r\n");
        assert_eq!(
            made(Some("The \"Shop\"")),
            "From: \"The \\\"Shop\\\"\" <www@a.example>\r\n"
        );
        let odd = made(Some("Läden\r\nBcc: x@y.example"));
        assert_eq!(odd.matches("\r\n").count(), 2, "{odd}");
        assert!(
            odd.starts_with("From: =?UTF-8?") && odd.ends_with("\r\n <www@a.example>\r\n"),
            "{odd}"
        );
    }
}
