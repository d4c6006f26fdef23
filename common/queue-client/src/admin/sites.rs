use postroad_envelope::Timestamp;

/// See [`QueueAdmin::sites`](crate::QueueAdmin::sites).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SitesQuery {
    /// Of this site, or the site of this destination; none: all.
    pub name: Option<String>,
    /// Most of them; 0 means the server's default (1,000); at most 10,000.
    pub limit: u32,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SiteList {
    /// Those that are not open first.
    pub sites: Vec<SiteDetails>,
    /// How many there are, beyond the limit too.
    pub total: u64,
}

/// What a site takes, and how it stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SiteDetails {
    /// Its name; of a destination whose site is not known, or that has limits of its own, the destination.
    pub site: String,
    /// Some of its destinations.
    pub domains: Vec<String>,
    /// All of them.
    pub domain_count: u64,
    /// `new`, `open`, `limited`, `backing-off`, `paused` or `down`.
    pub state: String,
    /// When it is tried again.
    pub until: Option<Timestamp>,
    /// Mails on their way.
    pub in_use: u32,
    /// Most at once, now.
    pub connections: u32,
    /// Mails a minute, as it was learned.
    pub per_minute: Option<f64>,
    /// What is configured, for people.
    pub limits: String,
    /// Destinations that wait for leave.
    pub waiting: u64,
    /// Mails taken in the last ten minutes.
    pub taken: u32,
    /// Mails refused in the last ten minutes since they were too many.
    pub refused: u32,
    /// What it said when it refused last.
    pub reason: String,
    /// When that was.
    pub reason_at: Option<Timestamp>,
}
