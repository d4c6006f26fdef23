/// See [`QueueAdmin::usage`](crate::QueueAdmin::usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageQuery {
    /// Of these alone; none: of all three.
    pub scope: Option<UsageScope>,
    /// Most of each scope; 0 means the server's default (100); at most 10,000.
    pub limit: u32,
}

/// Whose mail is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UsageScope {
    /// Whoever pays for it.
    Tenant,
    /// Who submitted it.
    Account,
    /// The recipients' domain.
    Domain,
}

impl UsageScope {
    /// The word in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Account => "account",
            Self::Domain => "domain",
        }
    }
}

/// What one has in the queue, and may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// What it is.
    pub scope: UsageScope,
    /// Its name.
    pub name: String,
    /// Its mails; of a domain one for each job, as a mail has for each route and hundred recipients there.
    pub mails: u64,
    /// Octets of their contents.
    pub octets: u64,
    /// The quota of mails, if there is one.
    pub most_mails: Option<u64>,
    /// The quota of octets, if there is one.
    pub most_octets: Option<u64>,
}

impl Usage {
    /// How full it is, in hundredths, by what is fuller; none without a quota.
    pub fn percent(&self) -> Option<u64> {
        let part = |used: u64, most: Option<u64>| {
            let most = most.filter(|most| *most > 0)?;
            Some(used.saturating_mul(100) / most)
        };
        part(self.mails, self.most_mails).max(part(self.octets, self.most_octets))
    }
}
