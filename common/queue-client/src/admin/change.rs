use postroad_envelope::{Filter, NextHop, RouteClass};

/// What an operator does to mails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes what is delayed due now.
    Retry,
    /// Keeps it from being leased until it is released.
    Hold,
    /// Ends a hold.
    Release,
    /// Fails what is pending; the senders are told.
    Fail,
    /// Fails what is pending as if its time were over; the senders are told.
    Expire,
    /// Removes it without telling the senders.
    Drop,
    /// Sends it another way, from now on. A hold by an operator stays.
    Reroute {
        /// Relay, lmtp or local.
        class: RouteClass,
        /// A host instead of the domain's mail hosts; LMTP needs one.
        next_hop: Option<NextHop>,
    },
    /// Which of what is due goes first: -9 to 9, the greatest.
    Priority(i8),
}

impl Change {
    /// The word of the command line, of logs and of the timeline.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Fail => "fail",
            Self::Expire => "expire",
            Self::Drop => "drop",
            Self::Reroute { .. } => "reroute",
            Self::Priority(_) => "priority",
        }
    }
}

/// Which mails are changed, by whom and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which mails; one that means none is refused.
    pub filter: Filter,
    /// Change nothing, only count.
    pub dry_run: bool,
    /// Who asks, for the record; empty: whoever the connection was opened for.
    pub by: String,
    /// Why, for the record, and for the sender of a mail that is made to fail.
    pub reason: String,
}

impl From<Filter> for Order {
    fn from(filter: Filter) -> Self {
        Self {
            filter,
            dry_run: false,
            by: String::new(),
            reason: String::new(),
        }
    }
}

/// What a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Mails that were changed.
    pub mails: u64,
    /// Mails that were passed over, at least in part, since a worker holds them now.
    pub busy: u64,
}
