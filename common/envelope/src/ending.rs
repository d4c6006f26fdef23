use std::fmt;

/// How a mail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// All recipients got it, or another system took it over.
    Delivered,
    /// No recipient got it, and it was given up for at least one.
    Failed,
    /// An operator removed it.
    Dropped,
    /// Some recipients got it, some did not.
    Partly,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Dropped, Self::Partly];

    /// The word in tables, JSON and the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
            Self::Partly => "partly",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
