use crate::Timestamp;

/// An address to which mail of a tenant or account is not tried, since such mail has failed for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// The recipient, folded.
    pub address: String,
    /// Whose mail.
    pub tenant: String,
    /// Only of this account; none: of all of the tenant.
    pub account: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Until when; none: until it is released.
    pub until: Option<Timestamp>,
    /// Why, for a person: what the host said then.
    pub reason: String,
    /// Who entered it: an operator, or the id of the mail that failed.
    pub by: String,
}

impl Suppression {
    /// Whether it is in force.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Whether it is about the same mail as another: one replaces the other.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.address, &self.tenant, &self.account)
            == (&other.address, &other.tenant, &other.account)
    }
}
