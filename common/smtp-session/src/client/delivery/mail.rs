//! What is sent, and what became of it.

use postroad_address::{ForwardPath, ReversePath};
use postroad_envelope::{BodyKind, Notify, OriginalRecipient, Ret};
use postroad_reply::{EnhancedStatusCode, Reply};
use postroad_smtp::By;

use crate::client::Stage;

/// A mail to be sent; what the host does not offer is left out where that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMail {
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// RCPT TO; at least one.
    pub recipients: Vec<OutgoingRecipient>,
    /// Octets of the content, header edits applied.
    pub size: u64,
    /// BODY. Content declared as 8BITMIME is never sent to a host without it (5.6.3); content of which nothing was
    /// said is sent as it is.
    pub body: BodyKind,
    /// The sender asked for SMTPUTF8. A host without it is sent the mail nevertheless if all that needs it can be done without: domains
    /// become A-labels.
    pub smtputf8: bool,
    /// The header is not all ASCII: with `smtputf8` never sent to a host without it (5.6.7, RFC 6531 §3.5).
    pub utf8_header: bool,
    /// REQUIRETLS; never sent to a host without it (5.7.30, RFC 8689 §4.2.1).
    pub requiretls: bool,
    /// RET, where DSN is offered.
    pub ret: Option<Ret>,
    /// ENVID, where DSN is offered.
    pub envid: Option<String>,
    /// MT-PRIORITY (RFC 6710), -9 to 9, where it is offered; 0 is ordinary, and what a host takes without being told.
    pub priority: i8,
    /// BY (RFC 2852) with the time that is left now. What is to be returned goes to no host that does not offer it, or needs longer
    /// (5.3.3, 5.4.7); LMTP is where mail ends, and stores need not offer it.
    pub deliver_by: Option<By>,
    /// AUTH (RFC 4954 §5), where we have logged in: who submitted the mail, or `<>` as the empty text.
    pub auth: Option<String>,
}

/// One recipient of an [`OutgoingMail`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRecipient {
    /// The address.
    pub forward_path: ForwardPath,
    /// NOTIFY, where DSN is offered.
    pub notify: Option<Notify>,
    /// ORCPT, where DSN is offered.
    pub orcpt: Option<OriginalRecipient>,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientResult {
    /// The host took responsibility, in these words.
    Accepted(Reply),
    /// The host refused, for now or for good.
    Refused {
        /// When: at MAIL, RCPT, DATA, or the end.
        stage: Stage,
        /// In these words.
        reply: Reply,
    },
    /// We did not ask, since the host lacks what the mail needs.
    Unfit {
        /// Which lack.
        status: EnhancedStatusCode,
        /// In words.
        text: &'static str,
    },
}
