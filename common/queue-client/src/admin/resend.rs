use postroad_address::Mailbox;
use postroad_envelope::{QueueId, RouteOverride};

/// A retired mail that is to be sent again, as a new mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resend {
    /// Which one.
    pub queue_id: QueueId,
    /// Who shall get it; none named: all who were to get it the first time.
    pub recipients: Vec<Mailbox>,
    /// Another way than the queue would choose; addresses are taken as they are then.
    pub route: Option<RouteOverride>,
    /// Who asks, as in [`Order::by`](super::Order::by).
    pub by: String,
    /// Why, for the record.
    pub reason: String,
    /// Change nothing, only say whether it can be done.
    pub dry_run: bool,
}

impl From<QueueId> for Resend {
    fn from(queue_id: QueueId) -> Self {
        Self {
            queue_id,
            recipients: Vec::new(),
            route: None,
            by: String::new(),
            reason: String::new(),
            dry_run: false,
        }
    }
}

/// See [`QueueAdmin::resend`](super::QueueAdmin::resend).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resent {
    /// The new mail; none: it was only asked whether it can be done.
    pub queue_id: Option<QueueId>,
    /// Who gets it.
    pub recipients: Vec<String>,
}
