use std::net::IpAddr;

use postroad_address::{Domain, ForwardPath};
use postroad_envelope::{Origin, Protocol, QueueId, Timestamp};

/// Our trace field (RFC 5321 §4.4): one per acceptance by SMTP or LMTP.
///
/// What a client said is reduced to characters that can neither end the field nor open or close a comment.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Who gave us the mail, and how.
    pub origin: &'a Origin,
    /// Our own name.
    pub host: &'a Domain,
    /// The mail.
    pub queue_id: QueueId,
    /// The recipient, if there is exactly one; with more, naming any would tell the others (§7.2).
    pub only_recipient: Option<&'a ForwardPath>,
    /// Whoever it was shall not be told to others: a name that stands in place of all that is known of the client.
    pub hidden: Option<&'a str>,
    /// When it was received.
    pub at: Timestamp,
}

impl Received<'_> {
    /// The folded field with its line end.
    pub fn to_field(&self) -> Vec<u8> {
        let mut field = String::from("Received: ");
        if self.origin.protocol != Protocol::Internal {
            field.push_str(&self.client_clause());
        }
        field.push_str(&format!("by {} (Postroad)", self.host.a_label()));
        if self.origin.protocol != Protocol::Internal {
            field.push_str(&format!(" with {}", self.origin.protocol));
        }
        field.push_str(&format!("\r\n\tid {}", self.queue_id));
        if let Some(recipient) = self.recipient() {
            field.push_str(&format!("\r\n\tfor <{recipient}>"));
        }
        field.push_str(&format!(";\r\n\t{}\r\n", self.at.to_rfc5322()));
        field.into_bytes()
    }

    fn client_clause(&self) -> String {
        if let Some(instead) = self.hidden {
            return format!("from {} (client not shown)\r\n\t", token(instead));
        }
        let helo = self.origin.helo.as_deref().map_or_else(unknown, host_text);
        let rdns = self.origin.rdns.as_deref().map_or_else(unknown, host_text);
        let client = match self.origin.client {
            Some(client) => format!("{rdns} {}", literal(client.ip())),
            // By a Unix socket.
            None => "local".to_owned(),
        };
        let mut clause = format!("from {helo} ({client})\r\n\t");
        if let Some(tls) = &self.origin.tls {
            let (version, cipher) = (token(&tls.version), token(&tls.cipher));
            clause.push_str(&format!("({version} {cipher})\r\n\t"));
        }
        clause
    }

    /// RFC 6531 §3.7.3: an address outside ASCII stands only in the field of a mail that came with SMTPUTF8.
    fn recipient(&self) -> Option<String> {
        let utf8 = matches!(
            self.origin.protocol,
            Protocol::Esmtp { utf8: true, .. } | Protocol::Lmtp { utf8: true, .. }
        );
        let text = self.only_recipient?.to_string();
        (utf8 || text.is_ascii()).then_some(text)
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The A-label of a name, or what is left of a text that is none.
fn host_text(text: &str) -> String {
    match Domain::parse(text) {
        Ok(domain) => match domain.literal() {
            Some(ip) => literal(ip),
            None => domain.a_label().to_owned(),
        },
        Err(_) => token(text),
    }
}

/// RFC 5321 §4.1.3: IPv6 carries a tag. A mapped IPv4 address is shown as what it is.
fn literal(ip: IpAddr) -> String {
    Domain::from_ip(ip.to_canonical()).as_str().to_owned()
}

fn token(text: &str) -> String {
    let clean: String = text
        .chars()
        .take(255)
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || "._-:[]".contains(c) => c,
            _ => '?',
        })
        .collect();
    if clean.is_empty() { unknown() } else { clean }
}

#[cfg(test)]
mod tests {
    use postroad_envelope::TlsFacts;
    use proptest::prelude::*;

    use super::*;
    use crate::HeaderBlock;

    const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn field(origin: &Origin, recipient: Option<&str>) -> String {
        let recipient = recipient.map(|text| ForwardPath::parse(text).unwrap());
        let received = Received {
            origin,
            host: &Domain::parse("mx.example").unwrap(),
            queue_id: QueueId::from_bytes([0; 16]),
            only_recipient: recipient.as_ref(),
            hidden: None,
            at: AT,
        };
        String::from_utf8(received.to_field()).unwrap()
    }

    fn origin() -> Origin {
        Origin {
            client: Some("[2001:db8::1]:4711".parse().unwrap()),
            helo: Some("client.example".to_owned()),
            protocol: Protocol::Esmtp {
                tls: true,
                auth: false,
                utf8: false,
            },
            tls: Some(TlsFacts {
                version: "TLS1.3".to_owned(),
                cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
                verified: None,
            }),
            ..Origin::default()
        }
    }

    #[test]
    fn says_all_there_is_to_say() {
        assert_eq!(
            field(&origin(), Some("bob@x.example")),
            "Received: from client.example (unknown [IPv6:2001:db8::1])\r\n\t\
             (TLS1.3 TLS_AES_256_GCM_SHA384)\r\n\tby mx.example (Postroad) with ESMTPS\r\n\t\
             id 00000000000000000000000000\r\n\tfor <bob@x.example>;\r\n\t\
             Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
    }

    #[test]
    fn our_own_mail_has_no_from_and_no_with() {
        assert_eq!(
            field(&Origin::default(), None),
            "Received: by mx.example (Postroad)\r\n\tid 00000000000000000000000000;\r\n\t\
             Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
    }

    #[test]
    fn a_client_of_a_unix_socket_is_local() {
        let origin = Origin {
            client: None,
            tls: None,
            ..origin()
        };
        let text = field(&origin, None);
        assert!(
            text.starts_with("Received: from client.example (local)\r\n\tby "),
            "{text}"
        );
    }

    #[test]
    fn a_client_that_is_hidden_is_nowhere_in_it() {
        let origin = origin();
        let received = Received {
            origin: &origin,
            host: &Domain::parse("mx.example").unwrap(),
            queue_id: QueueId::from_bytes([0; 16]),
            only_recipient: None,
            hidden: Some("submission"),
            at: AT,
        };
        let text = String::from_utf8(received.to_field()).unwrap();
        assert!(
            text.starts_with("Received: from submission (client not shown)\r\n\tby mx.example (Postroad) with ESMTPS"),
            "{text}"
        );
        for told in ["2001:db8", "client.example", "4711"] {
            assert!(!text.contains(told), "{text}");
        }
    }

    #[test]
    fn mapped_addresses_and_names_outside_ascii() {
        let origin = Origin {
            client: Some("[::ffff:192.0.2.1]:1".parse().unwrap()),
            rdns: Some("bücher.example".to_owned()),
            tls: None,
            ..origin()
        };
        let text = field(&origin, Some("bøb@x.example"));
        assert!(
            text.contains("(xn--bcher-kva.example [192.0.2.1])"),
            "{text}"
        );
        assert!(!text.contains("for <"), "{text}");
    }

    proptest! {
        #[test]
        fn no_client_can_break_the_field(helo in "(?s).{0,300}", rdns in "[ -~\r\n]{0,40}") {
            let origin = Origin { helo: Some(helo), rdns: Some(rdns), ..origin() };
            let text = field(&origin, None);
            let block = HeaderBlock::parse(text.as_bytes());
            prop_assert_eq!((block.iter().count(), block.malformed_lines()), (1, 0));
            prop_assert_eq!(text.matches('(').count(), 3);
            prop_assert_eq!(text.matches(')').count(), 3);
            prop_assert!(text.is_ascii() && text.lines().all(|line| line.len() < 998));
        }
    }
}
