use postroad_address::{Mailbox, ReversePath};

use crate::Directory;

/// Whether an account may use a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderVerdict {
    /// It may.
    Allowed {
        /// Whose the account's domain is.
        tenant: Option<String>,
    },
    /// It may not (RFC 6409 §6.1).
    NotAllowed {
        /// The account as the directory writes it.
        account: Mailbox,
    },
    /// There is no such account any more, or it is disabled.
    NoAccount,
}

impl Directory {
    /// Whether the account of this name, which logged in some time ago, may use this sender now.
    pub fn check_sender(&self, account: &str, sender: &ReversePath) -> SenderVerdict {
        let account = self.account_by_name(account);
        let Some(account) = account.filter(|account| !account.disabled) else {
            return SenderVerdict::NoAccount;
        };
        if !self.may_send_as(account, sender) {
            return SenderVerdict::NotAllowed {
                account: account.address.clone(),
            };
        }
        let tenant = self.tenant_of(account.address.domain());
        SenderVerdict::Allowed {
            tenant: tenant.map(str::to_owned),
        }
    }
}
