//! The mails there are: few, so that everything happens to the same ones.

use std::time::Duration;

use bytes::Bytes;
use postroad_address::{Mailbox, ReversePath};
use postroad_envelope::{
    Envelope, Notify, QueueId, Recipient, RecipientIndex, Route, RouteClass, Timestamp,
};
use postroad_journal::{ContentNonce, ContentRef};
use postroad_queue::Content;

const SUCCESS_TOO: Notify = Notify::On {
    success: true,
    failure: true,
    delay: false,
};
const DEFAULT: Notify = Notify::On {
    success: false,
    failure: true,
    delay: true,
};

/// What one submission says; no two shapes are the same mail.
pub struct Shape {
    pub sender: &'static str,
    pub to: &'static [(&'static str, Notify)],
    /// Its content lies in a file.
    pub in_file: bool,
    /// Not tried before so many seconds after it came, and given up an hour after it came.
    pub later: Option<u64>,
}

const fn shape(to: &'static [(&'static str, Notify)]) -> Shape {
    Shape {
        sender: "alice@demo.test",
        to,
        in_file: false,
        later: None,
    }
}

pub const SHAPES: [Shape; 8] = [
    shape(&[("bob@demo.test", DEFAULT)]),
    shape(&[("bob@demo.test", DEFAULT), ("x@a.example", SUCCESS_TOO)]),
    shape(&[
        ("x@a.example", DEFAULT),
        ("y@b.example", DEFAULT),
        ("z@a.example", Notify::Never),
    ]),
    shape(&[("d@drop.test", DEFAULT)]),
    shape(&[
        ("d@drop.test", SUCCESS_TOO),
        ("h@hold.test", DEFAULT),
        ("x@b.example", DEFAULT),
    ]),
    Shape {
        sender: "",
        ..shape(&[("x@a.example", DEFAULT), ("bob@demo.test", DEFAULT)])
    },
    Shape {
        in_file: true,
        ..shape(&[("x@a.example", DEFAULT)])
    },
    Shape {
        later: Some(90),
        ..shape(&[("y@b.example", DEFAULT), ("carol@demo.test", SUCCESS_TOO)])
    },
];

/// The report a sender gets is a mail of this shape, without a sender of its own.
pub const REPORT: Shape = Shape {
    sender: "",
    ..shape(&[("alice@demo.test", Notify::Never)])
};

/// So many seconds after the beginning of all tests.
pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
}

pub fn id(number: u8) -> QueueId {
    QueueId::mint(at(0), [number; 10])
}

pub fn file_of(id: QueueId) -> ContentRef {
    ContentRef {
        nonce: ContentNonce(id.to_bytes()),
        len: 9,
        crc: 1,
    }
}

impl Shape {
    pub fn content(&self, id: QueueId) -> Content {
        if self.in_file {
            Content::File(file_of(id))
        } else {
            Content::Inline(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n"))
        }
    }

    pub fn envelope(&self, id: QueueId, now: Timestamp) -> Envelope {
        let sender = match self.sender {
            "" => ReversePath::Null,
            sender => ReversePath::parse(sender).unwrap(),
        };
        let mut envelope = Envelope::new(id, sender, now);
        let to = (0..).zip(self.to).map(|(index, (address, notify))| {
            let address = Mailbox::parse(address).unwrap();
            Recipient {
                notify: *notify,
                ..Recipient::new(RecipientIndex(index), address)
            }
        });
        envelope.recipients = to.collect();
        let after = |seconds| now.plus(Duration::from_secs(seconds));
        envelope.not_before = self.later.map(after);
        envelope.expires_at = self.later.map(|_| after(3600));
        envelope
    }
}

/// How mail for a domain leaves.
pub fn class_of(domain: &str) -> RouteClass {
    match domain {
        "demo.test" => RouteClass::Local,
        "drop.test" => RouteClass::Discard,
        "hold.test" => RouteClass::Hold,
        _ => RouteClass::Relay,
    }
}

pub fn route_to(domain: &str) -> Route {
    let class = class_of(domain);
    Route::new(class, domain, class.to_string())
}

pub fn route(_: &Envelope, recipient: &Recipient) -> Route {
    route_to(recipient.address.domain().a_label())
}
