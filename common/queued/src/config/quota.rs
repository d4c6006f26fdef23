//! How much of the queue tenants, accounts and recipient domains may fill.

use postroad_address::{Domain, Mailbox};
use postroad_daemon::ByteSize;
use postroad_queue::{Quota, Quotas, Scope};
use serde::{Deserialize, Serialize};

use super::Config;
use crate::ConfigError;

/// `[queued.quota]`: 0 mails and `"0B"` are no quota. Mail counts from its acceptance until it has left.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaConfig {
    /// Mails of each tenant.
    pub tenant_mails: u64,
    /// Their contents together.
    pub tenant_size: ByteSize,
    /// Mails that each account has submitted.
    pub account_mails: u64,
    /// Their contents together.
    pub account_size: ByteSize,
    /// Mails for each recipient domain; one with more than 100 recipients there counts several times.
    pub domain_mails: u64,
    /// Their contents together.
    pub domain_size: ByteSize,
    /// Tenants with quotas of their own.
    pub tenants: Vec<NamedQuota>,
    /// Accounts with quotas of their own, by address.
    pub accounts: Vec<NamedQuota>,
    /// Recipient domains with quotas of their own.
    pub domains: Vec<NamedQuota>,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        let none = ByteSize::bytes(0);
        Self {
            tenant_mails: 0,
            tenant_size: none,
            account_mails: 0,
            account_size: none,
            domain_mails: 0,
            domain_size: none,
            tenants: Vec::new(),
            accounts: Vec::new(),
            domains: Vec::new(),
        }
    }
}

/// `[[queued.quota.tenants]]`, `accounts`, `domains`. What is not given is as for all others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedQuota {
    /// Whose.
    pub name: String,
    /// Most mails; 0: any number.
    #[serde(default)]
    pub mails: Option<u64>,
    /// Most octets; `"0B"`: any number.
    #[serde(default)]
    pub size: Option<ByteSize>,
}

impl Config {
    /// What there may be of each.
    pub(crate) fn quotas(&self) -> Result<Quotas, ConfigError> {
        let config = &self.quota;
        let quota = |mails, size: ByteSize| Quota {
            mails,
            octets: size.as_u64(),
        };
        let mut quotas = Quotas::new(
            quota(config.tenant_mails, config.tenant_size),
            quota(config.account_mails, config.account_size),
            quota(config.domain_mails, config.domain_size),
        );
        for (scope, key, named) in [
            (Scope::Tenant, "tenants", &config.tenants),
            (Scope::Account, "accounts", &config.accounts),
            (Scope::Domain, "domains", &config.domains),
        ] {
            for one in named {
                let failed = |problem| ConfigError::Quota {
                    key,
                    name: one.name.clone(),
                    problem,
                };
                let name = name_of(scope, &one.name).map_err(failed)?;
                if one.mails.is_none() && one.size.is_none() {
                    return Err(failed("has neither mails nor size; give one of them"));
                }
                let of_all = quotas.of_all(scope);
                let octets = one.size.map_or(of_all.octets, ByteSize::as_u64);
                let mails = one.mails.unwrap_or(of_all.mails);
                if !quotas.name(scope, &name, Quota { mails, octets }) {
                    return Err(failed("is there twice; keep one of them"));
                }
            }
        }
        Ok(quotas)
    }
}

/// The name as mail has it.
fn name_of(scope: Scope, name: &str) -> Result<String, &'static str> {
    match scope {
        Scope::Tenant if name.is_empty() => {
            Err("is no tenant; give the name that directory.toml has")
        }
        Scope::Tenant => Ok(name.to_owned()),
        Scope::Account => Mailbox::parse(name)
            .map(|account| account.to_string())
            .map_err(|_| "is no account; give its address"),
        Scope::Domain => Domain::parse(name)
            .map(|domain| domain.a_label().to_owned())
            .map_err(|_| "is no domain"),
    }
}

#[cfg(test)]
mod tests {
    use postroad_daemon::CommonConfig;
    use postroad_queue::{Claim, Usage};

    use super::*;

    fn refused(config: &Config, account: &str, size: u64, domain: &str) -> Option<Scope> {
        let quotas = config.quotas().unwrap();
        let mut usage = Usage::default();
        let mail = Claim::announced("default", Some(account), Some(size), [domain]);
        usage.take(&quotas, &mail).unwrap();
        usage.take(&quotas, &mail).err().map(|over| over.scope)
    }

    #[test]
    fn who_is_named_has_a_quota_of_its_own_and_what_is_not_given_is_as_for_all() {
        let text = r#"
            [quota]
            account_mails = 1
            account_size = "1KiB"
            domain_mails = 1
            [[quota.accounts]]
            name = "Bulk@demo.test"
            mails = 0
            [[quota.domains]]
            name = "Bücher.example"
            mails = 5
        "#;
        let config: Config = toml::from_str(text).unwrap();
        let far = "xn--bcher-kva.example";
        assert_eq!(
            refused(&config, "a@demo.test", 1, far),
            Some(Scope::Account)
        );
        assert_eq!(refused(&config, "bulk@demo.test", 1, far), None);
        assert_eq!(
            refused(&config, "bulk@demo.test", 600, far),
            Some(Scope::Account)
        );
        assert_eq!(
            refused(&config, "bulk@demo.test", 1, "x.test"),
            Some(Scope::Domain)
        );
        assert_eq!(
            refused(&Config::default(), "a@demo.test", 1 << 40, far),
            None
        );
    }

    #[test]
    fn quotas_that_mean_nobody_are_refused() {
        for (text, says) in [
            (
                r#"accounts = [{ name = "alice", mails = 1 }]"#,
                "queued.quota.accounts: \"alice\" is no account",
            ),
            (r#"domains = [{ name = "a b", mails = 1 }]"#, "is no domain"),
            (r#"tenants = [{ name = "", mails = 1 }]"#, "is no tenant"),
            (r#"tenants = [{ name = "acme" }]"#, "neither mails nor size"),
            (
                r#"domains = [{ name = "a.test", mails = 1 }, { name = "A.test", size = "1B" }]"#,
                "twice",
            ),
        ] {
            let config: Config = toml::from_str(&format!("[quota]\n{text}")).unwrap();
            let problem = config
                .check(&CommonConfig::default())
                .unwrap_err()
                .to_string();
            assert!(problem.contains(says), "{problem}");
        }
    }
}
