use std::fmt;

use postroad_address::Mailbox;

use crate::{NextHop, RouteClass};

/// Position of a recipient in its mail; unique there and never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RecipientIndex(pub u32);

impl fmt::Display for RecipientIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One who shall get the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Its index in the envelope.
    pub index: RecipientIndex,
    /// Where the mail goes, after alias expansion.
    pub address: Mailbox,
    /// What the client said in RCPT TO, if an alias changed it.
    pub original: Option<Mailbox>,
    /// NOTIFY (RFC 3461 §4.1).
    pub notify: Notify,
    /// ORCPT (RFC 3461 §4.2).
    pub orcpt: Option<OriginalRecipient>,
    /// A route an operator or rule set for this recipient alone.
    pub route_override: Option<RouteOverride>,
    /// The folder below the mailbox, if the edge or an address detail chose one.
    pub target_folder: Option<String>,
}

impl Recipient {
    /// A recipient as named by the client, nothing else said.
    pub fn new(index: RecipientIndex, address: Mailbox) -> Self {
        Self {
            index,
            address,
            original: None,
            notify: Notify::default(),
            orcpt: None,
            route_override: None,
            target_folder: None,
        }
    }
}

/// See [`Recipient::route_override`].
pub type RouteOverride = (RouteClass, Option<NextHop>);

/// NOTIFY= of RCPT (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Notify {
    /// Nothing said: failures are reported, and delays as local policy has it. The next host is told nothing either, whereas it
    /// must hear whatever was said (§5.2.1).
    #[default]
    Unsaid,
    /// Nobody is told anything.
    Never,
    /// Told in these cases.
    On {
        /// SUCCESS
        success: bool,
        /// FAILURE
        failure: bool,
        /// DELAY
        delay: bool,
    },
}

impl Notify {
    /// Whether the sender is told of a failure.
    pub const fn wants_failure(self) -> bool {
        matches!(self, Self::Unsaid | Self::On { failure: true, .. })
    }

    /// Whether the sender is told of success.
    pub const fn wants_success(self) -> bool {
        matches!(self, Self::On { success: true, .. })
    }

    /// Whether the sender is told of a delay.
    pub const fn wants_delay(self) -> bool {
        matches!(self, Self::Unsaid | Self::On { delay: true, .. })
    }
}

/// ORCPT= of RCPT (RFC 3461 §4.2), the address decoded from xtext.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginalRecipient {
    /// `rfc822`, `utf-8` or another registered type.
    pub address_type: String,
    /// The address as the sender wrote it.
    pub address: String,
}
