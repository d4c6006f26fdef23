//! What tenants, accounts and recipient domains have in the queue, and how much of it they may have. Pure: the index tells
//! what comes and goes, and counts anew at a start.
//!
//! A mail counts for its tenant and its account while it lives, and for a domain once for each job there that has not
//! ended: a mail has one job for each route and domain, and another for each hundred recipients. Held mail counts.

use std::{collections::HashMap, fmt};

use crate::{MAX_JOB_RECIPIENTS, record::cut};

/// Octets kept of the name of a tenant or an account.
pub(crate) const MAX_NAME: usize = 320;

/// Whose mail is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Whoever pays for it.
    Tenant,
    /// Who submitted it.
    Account,
    /// The recipients' domain.
    Domain,
}

impl Scope {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Tenant, Self::Account, Self::Domain];

    /// The word in logs, tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Account => "account",
            Self::Domain => "domain",
        }
    }

    /// The form in which a name is counted; a domain is an A-label already.
    fn folded(self, name: &str) -> String {
        match self {
            Self::Tenant => cut(name, MAX_NAME),
            Self::Account => cut(name, MAX_NAME).to_lowercase(),
            Self::Domain => name.to_owned(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Mails and the octets of their contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// How many mails; of a domain, jobs.
    pub mails: u64,
    /// Their contents' octets.
    pub octets: u64,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self {
            mails: self.mails.saturating_add(other.mails),
            octets: self.octets.saturating_add(other.octets),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            mails: self.mails.saturating_sub(other.mails),
            octets: self.octets.saturating_sub(other.octets),
        }
    }

    /// So many mails of this size.
    fn of(mails: u64, size: u64) -> Self {
        Self {
            mails,
            octets: size.saturating_mul(mails),
        }
    }
}

/// How much there may be of one; 0: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Most mails.
    pub mails: u64,
    /// Most octets.
    pub octets: u64,
}

impl Quota {
    fn has_room(self, for_all: Amount) -> bool {
        let fits = |most: u64, all: u64| most == 0 || all <= most;
        fits(self.mails, for_all.mails) && fits(self.octets, for_all.octets)
    }

    /// How full it is, in hundredths, by what is fuller; none without a quota.
    pub fn percent(self, used: Amount) -> Option<u64> {
        let part = |most: u64, used: u64| (most > 0).then(|| used.saturating_mul(100) / most);
        part(self.mails, used.mails).max(part(self.octets, used.octets))
    }
}

/// Every quota: for all of a scope, and for those that are named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quotas {
    /// For each tenant without one of its own.
    pub tenant: Quota,
    /// For each account without one of its own.
    pub account: Quota,
    /// For each recipient domain without one of its own.
    pub domain: Quota,
    named: HashMap<Scope, HashMap<String, Quota>>,
}

impl Quotas {
    /// For all, and for nobody in particular.
    pub fn new(tenant: Quota, account: Quota, domain: Quota) -> Self {
        Self {
            tenant,
            account,
            domain,
            named: HashMap::new(),
        }
    }

    /// Whether nobody has any.
    pub fn are_none(&self) -> bool {
        let none = Quota::default();
        let of_all = [self.tenant, self.account, self.domain];
        let named = self.named.values().flat_map(HashMap::values);
        of_all.iter().chain(named).all(|quota| *quota == none)
    }

    /// One of its own. Tells whether it is the first of that name.
    pub fn name(&mut self, scope: Scope, name: &str, quota: Quota) -> bool {
        let of = self.named.entry(scope).or_default();
        of.insert(scope.folded(name), quota).is_none()
    }

    /// For all of a scope.
    pub const fn of_all(&self, scope: Scope) -> Quota {
        match scope {
            Scope::Tenant => self.tenant,
            Scope::Account => self.account,
            Scope::Domain => self.domain,
        }
    }

    /// For a name in the form in which it is counted.
    fn of(&self, scope: Scope, name: &str) -> Quota {
        let named = self.named.get(&scope).and_then(|named| named.get(name));
        named.copied().unwrap_or_else(|| self.of_all(scope))
    }

    /// These of a scope with their quotas, the fullest first: by part of the quota, then by octets.
    pub fn fullest(&self, scope: Scope, of: Vec<(String, Amount)>) -> Vec<(String, Amount, Quota)> {
        let mut all: Vec<(String, Amount, Quota)> = of
            .into_iter()
            .map(|(name, used)| {
                let quota = self.of(scope, &name);
                (name, used, quota)
            })
            .collect();
        all.sort_unstable_by(|(a, used_a, quota_a), (b, used_b, quota_b)| {
            let full =
                |quota: &Quota, used: &Amount| (quota.percent(*used), used.octets, used.mails);
            full(quota_b, used_b)
                .cmp(&full(quota_a, used_a))
                .then_with(|| a.cmp(b))
        });
        all
    }
}

/// What one mail takes of each quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    size: u64,
    /// By scope and name, how many mails: 1, but for domains with several jobs.
    parts: Vec<(Scope, String, u64)>,
}

impl Claim {
    /// Of a mail that is announced; without a size it counts as empty.
    pub fn announced<'a>(
        tenant: &str,
        account: Option<&str>,
        size: Option<u64>,
        recipient_domains: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut recipients: HashMap<&str, usize> = HashMap::new();
        for domain in recipient_domains {
            let count = recipients.entry(domain).or_default();
            *count = count.saturating_add(1);
        }
        let domains = recipients.into_iter().map(|(domain, count)| {
            let jobs = u64::try_from(count.div_ceil(MAX_JOB_RECIPIENTS)).unwrap_or(u64::MAX);
            (domain, jobs)
        });
        Self::new(tenant, account, size.unwrap_or(0), domains)
    }

    /// Of a mail with so many jobs for each domain; a domain may come several times.
    pub(crate) fn new<'a>(
        tenant: &str,
        account: Option<&str>,
        size: u64,
        domains: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Self {
        let part = |scope: Scope, name: &str, mails| (scope, scope.folded(name), mails);
        let mut parts = vec![part(Scope::Tenant, tenant, 1)];
        parts.extend(account.map(|account| part(Scope::Account, account, 1)));
        for (domain, jobs) in domains {
            let (_, domain, _) = part(Scope::Domain, domain, jobs);
            let known = parts
                .iter_mut()
                .find(|(scope, name, _)| *scope == Scope::Domain && *name == domain);
            match known {
                Some((_, _, mails)) => *mails = mails.saturating_add(jobs),
                None => parts.push((Scope::Domain, domain, jobs)),
            }
        }
        Self { size, parts }
    }
}

/// A quota that has no room for a mail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {scope} {name} has {} mails with {} octets in the queue, and no room for another with {size}", used.mails, used.octets)]
pub struct OverQuota {
    /// Whose.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// What there is.
    pub used: Amount,
    /// What there may be.
    pub quota: Quota,
    /// Octets of the mail that is refused, as far as known.
    pub size: u64,
}

impl OverQuota {
    /// Whether it would have no room if nothing else were there: the mail can never come in.
    pub const fn is_for_good(&self) -> bool {
        self.quota.octets != 0 && self.size > self.quota.octets
    }
}

/// The counters. Those with nothing in the queue take no memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    tenants: HashMap<String, Amount>,
    accounts: HashMap<String, Amount>,
    domains: HashMap<String, Amount>,
}

impl Usage {
    /// Counts a mail that is to come, if every quota has room for it.
    pub fn take(&mut self, quotas: &Quotas, claim: &Claim) -> Result<(), OverQuota> {
        self.check(quotas, claim)?;
        self.add(claim);
        Ok(())
    }

    /// Whether every quota has room for it.
    pub fn check(&self, quotas: &Quotas, claim: &Claim) -> Result<(), OverQuota> {
        for (scope, name, mails) in &claim.parts {
            let quota = quotas.of(*scope, name);
            let used = self.of(*scope, name);
            if !quota.has_room(used.plus(Amount::of(*mails, claim.size))) {
                return Err(OverQuota {
                    scope: *scope,
                    name: name.clone(),
                    used,
                    quota,
                    size: claim.size,
                });
            }
        }
        Ok(())
    }

    /// Counts a mail, room or not.
    pub fn add(&mut self, claim: &Claim) {
        for (scope, name, mails) in &claim.parts {
            self.more(*scope, name, Amount::of(*mails, claim.size));
        }
    }

    /// Counts a mail no more.
    pub fn remove(&mut self, claim: &Claim) {
        for (scope, name, mails) in &claim.parts {
            self.less(*scope, name, Amount::of(*mails, claim.size));
        }
    }

    /// A mail lives now; its jobs are told apart.
    pub fn add_mail(&mut self, tenant: &str, account: Option<&str>, size: u64) {
        self.add(&Claim::new(tenant, account, size, []));
    }

    /// A mail lives no more.
    pub fn remove_mail(&mut self, tenant: &str, account: Option<&str>, size: u64) {
        self.remove(&Claim::new(tenant, account, size, []));
    }

    /// A job lives now.
    pub fn add_job(&mut self, domain: &str, size: u64) {
        self.more(Scope::Domain, domain, Amount::of(1, size));
    }

    /// A job has ended.
    pub fn remove_job(&mut self, domain: &str, size: u64) {
        self.less(Scope::Domain, domain, Amount::of(1, size));
    }

    /// The domains of the other, tenants and accounts of this.
    #[must_use]
    pub fn with_domains_of(self, other: Self) -> Self {
        Self {
            domains: other.domains,
            ..self
        }
    }

    /// What one has, by its name as it is counted.
    pub fn of(&self, scope: Scope, name: &str) -> Amount {
        self.map(scope).get(name).copied().unwrap_or_default()
    }

    /// All of a scope, in any order.
    pub fn all(&self, scope: Scope) -> Vec<(String, Amount)> {
        let of_all = self.map(scope).iter();
        of_all.map(|(name, used)| (name.clone(), *used)).collect()
    }

    fn map(&self, scope: Scope) -> &HashMap<String, Amount> {
        match scope {
            Scope::Tenant => &self.tenants,
            Scope::Account => &self.accounts,
            Scope::Domain => &self.domains,
        }
    }

    fn map_mut(&mut self, scope: Scope) -> &mut HashMap<String, Amount> {
        match scope {
            Scope::Tenant => &mut self.tenants,
            Scope::Account => &mut self.accounts,
            Scope::Domain => &mut self.domains,
        }
    }

    fn more(&mut self, scope: Scope, name: &str, amount: Amount) {
        let map = self.map_mut(scope);
        match map.get_mut(name) {
            Some(used) => *used = used.plus(amount),
            None => drop(map.insert(name.to_owned(), amount)),
        }
    }

    fn less(&mut self, scope: Scope, name: &str, amount: Amount) {
        let map = self.map_mut(scope);
        let Some(used) = map.get_mut(name) else {
            return;
        };
        *used = used.minus(amount);
        if used.mails == 0 {
            map.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(account: &str, size: u64, domains: &[&str]) -> Claim {
        Claim::announced("acme", Some(account), Some(size), domains.iter().copied())
    }

    fn quota(mails: u64, octets: u64) -> Quota {
        Quota { mails, octets }
    }

    #[test]
    fn a_mail_is_refused_by_the_quota_it_would_break_and_by_no_other() {
        let mut quotas = Quotas {
            tenant: quota(3, 0),
            account: quota(0, 100),
            domain: quota(2, 0),
            ..Quotas::default()
        };
        assert!(quotas.name(Scope::Domain, "big.test", quota(0, 0)));
        assert!(!quotas.name(Scope::Domain, "big.test", quota(0, 0)));
        let mut usage = Usage::default();
        let mut refused = |claim: &Claim| usage.take(&quotas, claim).err().map(|over| over.scope);
        assert_eq!(refused(&claim("a", 60, &["far.test"])), None);
        assert_eq!(
            refused(&claim("a", 41, &["far.test"])),
            Some(Scope::Account)
        );
        assert_eq!(refused(&claim("A", 40, &["far.test", "x.test"])), None);
        assert_eq!(
            refused(&claim("b", 1, &["y.test", "far.test"])),
            Some(Scope::Domain)
        );
        assert_eq!(refused(&claim("b", 1, &["big.test"])), None);
        let over = usage.take(&quotas, &claim("b", 1, &["big.test"]));
        let over = over.unwrap_err();
        assert_eq!((over.scope, &over.name[..]), (Scope::Tenant, "acme"));
        assert_eq!(
            over.used,
            Amount {
                mails: 3,
                octets: 101
            }
        );
        assert!(!over.is_for_good());
    }

    #[test]
    fn a_mail_larger_than_a_quota_is_refused_for_good() {
        let quotas = Quotas {
            account: quota(0, 100),
            ..Quotas::default()
        };
        let over = Usage::default().check(&quotas, &claim("a", 101, &[]));
        assert!(over.unwrap_err().is_for_good());
    }

    #[test]
    fn many_recipients_of_a_domain_are_several_jobs() {
        let domains = vec!["far.test"; 101];
        let mut usage = Usage::default();
        usage.add(&claim("a", 10, &domains));
        let two = Amount {
            mails: 2,
            octets: 20,
        };
        assert_eq!(usage.of(Scope::Domain, "far.test"), two);
        usage.remove_job("far.test", 10);
        usage.remove_job("far.test", 10);
        usage.remove_mail("acme", Some("a"), 10);
        assert_eq!(usage, Usage::default());
    }

    #[test]
    fn the_fullest_come_first() {
        let mut quotas = Quotas {
            account: quota(10, 1000),
            ..Quotas::default()
        };
        quotas.name(Scope::Account, "free", quota(0, 0));
        let mut usage = Usage::default();
        for (account, size, mails) in [("mails", 1, 9), ("size", 500, 1), ("free", 5000, 1)] {
            (0..mails).for_each(|_| usage.add_mail("acme", Some(account), size));
        }
        let fullest = quotas.fullest(Scope::Account, usage.all(Scope::Account));
        let names: Vec<_> = fullest.iter().map(|(name, ..)| &name[..]).collect();
        assert_eq!(names, ["mails", "size", "free"]);
        assert_eq!(fullest[0].2.percent(fullest[0].1), Some(90));
        assert_eq!(fullest[2].2.percent(fullest[2].1), None);
    }
}
