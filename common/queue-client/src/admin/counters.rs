use postroad_counters::{Ban, Counter, Kind};

/// See [`QueueAdmin::counters`](crate::QueueAdmin::counters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountersQuery {
    /// Of this kind alone; none: of all.
    pub kind: Option<Kind>,
    /// Bans instead of counters.
    pub bans: bool,
    /// Most of them; 0 means the server's default (1,000); at most 10,000.
    pub limit: u32,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CounterList {
    /// Counters, the highest first.
    pub counters: Vec<Counter>,
    /// Bans, the newest first.
    pub bans: Vec<Ban>,
    /// How many there are, beyond the limit too.
    pub total: u64,
}
