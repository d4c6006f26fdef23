//! Mails that the played queue leases.

use bytes::Bytes;
use postroad_proto::queue::v1::{Envelope, HeaderEdit, Origin, Recipient, header_edit};

use crate::queue::caller::{TAG, new_id, now_ms};

/// Too much for a lease.
pub const LARGE: usize = 700_000;

/// A mail with a word in it that no other has.
#[derive(Debug, Clone)]
pub struct Mail {
    pub marker: String,
    pub envelope: Envelope,
    pub content: Bytes,
}

impl Mail {
    /// From a sender of another domain.
    pub fn new(recipients: &[String], subject: &str) -> Self {
        let marker = format!("conformance-{:016x}", rand::random::<u64>());
        let content = format!(
            "Subject: {subject}\r\nX-Marker: {marker}\r\n\r\nA mail that tries the contract.\r\n.dot\r\n"
        );
        Self::with_content(recipients, marker, content.into())
    }

    /// One that does not fit into a lease.
    pub fn large(recipients: &[String], subject: &str) -> Self {
        let mail = Self::new(recipients, subject);
        let line = format!("{}\r\n", "x".repeat(70));
        let more = line.repeat(LARGE / line.len());
        let content = [&mail.content[..], more.as_bytes()].concat();
        Self::with_content(recipients, mail.marker, content.into())
    }

    fn with_content(recipients: &[String], marker: String, content: Bytes) -> Self {
        let recipients = (0..).zip(recipients).map(|(index, address)| Recipient {
            // Not all are there: others have had theirs.
            index: index * 2 + 3,
            address: address.clone(),
            ..Recipient::default()
        });
        let envelope = Envelope {
            queue_id: new_id(),
            reverse_path: "sender@conformance.test".to_owned(),
            recipients: recipients.collect(),
            tenant: "default".to_owned(),
            tags: vec![TAG.to_owned()],
            received_at_ms: now_ms(),
            size: u64::try_from(content.len()).unwrap_or(u64::MAX),
            header_edits: vec![on_top("X-Above: 1\r\n"), on_top("X-Above: 2\r\n")],
            origin: Some(Origin {
                client: Some("192.0.2.7:50123".to_owned()),
                helo: Some("conformance.test".to_owned()),
                protocol: "ESMTP".to_owned(),
                ..Origin::default()
            }),
            ..Envelope::default()
        };
        Self {
            marker,
            envelope,
            content,
        }
    }
}

/// Adds a field above what is there.
pub fn on_top(field: &str) -> HeaderEdit {
    add(field, false)
}

/// Adds a field below what is there.
pub fn at_bottom(field: &str) -> HeaderEdit {
    add(field, true)
}

/// Takes every field of a name away.
pub fn without(name: &str) -> HeaderEdit {
    let remove = header_edit::Remove {
        name: name.to_owned(),
        occurrence: None,
    };
    HeaderEdit {
        edit: Some(header_edit::Edit::Remove(remove)),
    }
}

fn add(field: &str, at_bottom: bool) -> HeaderEdit {
    let field = Bytes::copy_from_slice(field.as_bytes());
    let add = header_edit::Add { at_bottom, field };
    HeaderEdit {
        edit: Some(header_edit::Edit::Add(add)),
    }
}
