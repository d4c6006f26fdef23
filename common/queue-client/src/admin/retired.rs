use postroad_envelope::{Ending, Timestamp};

/// What is known of a mail after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetiredFacts {
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub ending: Ending,
    /// Whether its content is still there, so that it can be sent again.
    pub has_content: bool,
}
