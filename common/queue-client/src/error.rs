use postroad_reply::{
    INSUFFICIENT_STORAGE_452, LOCAL_ERROR_451, Reply, SYSTEM_4_3_0, SYSTEM_FULL_4_3_1,
};

/// Why the queue did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The queue cannot be reached, is starting or stopping. Nothing is known to be stored; try again later.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
    /// No room: disk reserve or limit of mails under way.
    #[error("the queue takes no more mail now: {0}")]
    Full(String),
    /// A quota has no room for the mail now, with the reply to give.
    #[error("a quota is used up: {0}")]
    OverQuota(Reply),
    /// The queue refuses this mail for good, with the reply to give.
    #[error("the queue refuses the mail: {0}")]
    Refused(Reply),
    /// The id is known with other content, or stands for something else.
    #[error("the queue id is taken by another mail")]
    IdTaken,
    /// No such mail.
    #[error("there is no such mail in the queue")]
    NotFound,
    /// The prefix fits several mails, or the mail is in a state that does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// This agent may not do that.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// What was sent makes no sense to the queue: a fault of the caller.
    #[error("the queue did not understand the request: {0}")]
    Invalid(String),
    /// The queue has not built this.
    #[error("the queue cannot do this: {0}")]
    Unsupported(String),
}

impl QueueError {
    /// What an SMTP client is told. The cause goes to the log, not to the peer.
    pub fn to_reply(&self) -> Reply {
        match self {
            Self::Full(_) => Reply::new(
                INSUFFICIENT_STORAGE_452,
                SYSTEM_FULL_4_3_1,
                "no room in the queue now, please try again later",
            ),
            Self::Refused(reply) | Self::OverQuota(reply) => reply.clone(),
            // The last two are a fault or a configuration of ours, to be mended while the mail waits where it is.
            Self::Unavailable(_)
            | Self::IdTaken
            | Self::NotFound
            | Self::Conflict(_)
            | Self::Unsupported(_)
            | Self::Invalid(_)
            | Self::NotAllowed(_) => Reply::new(
                LOCAL_ERROR_451,
                SYSTEM_4_3_0,
                "the mail could not be queued, please try again later",
            ),
        }
    }
}
