use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::ACCOUNT_URI;

/// The accounts a caller may submit mail for, if it is a program of theirs rather than a submission agent, which may for all.
/// Compared without regard to case.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct OnlyAccounts(Arc<BTreeSet<String>>);

impl OnlyAccounts {
    /// Whether there is such a limit; without one any account will do.
    pub fn is_limit(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether mail of this account may be submitted.
    pub fn allow(&self, account: &str) -> bool {
        !self.is_limit() || self.0.contains(&account.to_lowercase())
    }

    /// The name a certificate of a program of this account carries.
    pub fn uri(account: &str) -> String {
        format!("{ACCOUNT_URI}{account}")
    }
}

impl FromIterator<String> for OnlyAccounts {
    fn from_iter<I: IntoIterator<Item = String>>(accounts: I) -> Self {
        let folded = accounts.into_iter().map(|account| account.to_lowercase());
        Self(Arc::new(folded.collect()))
    }
}

impl From<Vec<String>> for OnlyAccounts {
    fn from(accounts: Vec<String>) -> Self {
        accounts.into_iter().collect()
    }
}

impl From<OnlyAccounts> for Vec<String> {
    fn from(accounts: OnlyAccounts) -> Self {
        accounts.0.iter().cloned().collect()
    }
}

impl fmt::Debug for OnlyAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter()).finish()
    }
}
