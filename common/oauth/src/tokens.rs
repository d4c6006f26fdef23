//! The issuers of a configuration.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroad_metrics::labels::Looked as Counted;
use postroad_metrics::{Counter, Metrics, Table, list};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::source::{Looked, Source};
use crate::validator::claimed_issuer;
use crate::{Claims, OAuthConfig, Rejection, Terms, Validator};

/// How often it is looked whose keys are due.
const ROUND: Duration = Duration::from_secs(5);

/// Judges tokens of all issuers. Clones share the keys.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    issuers: Vec<Issuer>,
    fetches: Table<Counted, Counter>,
    refused: Counter,
}

#[derive(Debug)]
struct Issuer {
    config: OAuthConfig,
    terms: Terms,
    source: Arc<Source>,
}

/// Why nobody gets in by a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It does not count.
    Rejected {
        /// The issuer it claims to be from, if that is one of ours.
        issuer: Option<String>,
        /// Why.
        why: Rejection,
    },
    /// There are no keys to judge it by, now.
    Away,
}

impl Tokens {
    /// By this configuration. Reads files of authorities; blocks. An issuer that cannot work is passed over: `check_all` told of it.
    pub fn new(issuers: &[OAuthConfig], metrics: &Metrics) -> Self {
        let issuers = issuers.iter().filter_map(|config| {
            let place = config.place().ok()?;
            let (refresh, max_stale) = (config.refresh.into(), config.max_stale.into());
            Some(Issuer {
                terms: config.terms(),
                source: Arc::new(Source::new(&config.issuer, place, refresh, max_stale)),
                config: config.clone(),
            })
        });
        Self(Arc::new(Shared {
            issuers: issuers.collect(),
            fetches: metrics.counters(&list::OAUTH_KEYS, &[]),
            refused: metrics.counter(&list::OAUTH_REFUSED, &[]),
        }))
    }

    /// By another configuration; keys that come from the same place as before are kept.
    pub fn successor(&self, issuers: &[OAuthConfig], metrics: &Metrics) -> Self {
        let new = Self::new(issuers, metrics);
        for issuer in &new.0.issuers {
            let same = |old: &&Issuer| {
                let (old, new) = (&old.config, &issuer.config);
                (&old.issuer, &old.jwks_file, &old.jwks_url, &old.ca_file)
                    == (&new.issuer, &new.jwks_file, &new.jwks_url, &new.ca_file)
            };
            if let Some(old) = self.0.issuers.iter().find(same) {
                issuer.source.inherit(&old.source);
            }
        }
        new
    }

    /// Whether there is no issuer, so that no token counts.
    pub fn is_empty(&self) -> bool {
        self.0.issuers.is_empty()
    }

    /// Judges a token. Looks for new keys if it names one that is not known.
    pub async fn check(&self, token: &str, now: SystemTime) -> Result<Claims, Refused> {
        let checked = self.judge(token, now).await;
        if matches!(checked, Err(Refused::Rejected { .. })) {
            self.0.refused.count();
        }
        checked
    }

    async fn judge(&self, token: &str, now: SystemTime) -> Result<Claims, Refused> {
        let stranger = |why| Refused::Rejected { issuer: None, why };
        let claimed = claimed_issuer(token).map_err(stranger)?;
        let mut issuers = self.0.issuers.iter();
        let issuer = issuers
            .find(|issuer| issuer.terms.issuer == claimed)
            .ok_or_else(|| stranger(Rejection::Issuer))?;
        if issuer.source.keys().is_none() {
            self.look(issuer).await;
        }
        let mut judged = issuer.check(token, now)?;
        if judged == Err(Rejection::UnknownKey) && self.look(issuer).await == Looked::Fetched {
            judged = issuer.check(token, now)?;
        }
        judged.map_err(|why| Refused::Rejected {
            issuer: Some(claimed),
            why,
        })
    }

    /// Fetches keys as they are due, of those tokens that are in force, until `shutdown`.
    pub async fn keep_latest(mut latest: watch::Receiver<Self>, shutdown: CancellationToken) {
        loop {
            let current = latest.borrow_and_update().clone();
            for issuer in &current.0.issuers {
                if issuer.source.is_due() {
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        _ = current.look(issuer) => {}
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(ROUND) => {}
                changed = latest.changed() => {
                    // Nobody is left who could replace them.
                    if changed.is_err() {
                        shutdown.cancelled().await;
                        return;
                    }
                }
            }
        }
    }

    async fn look(&self, issuer: &Issuer) -> Looked {
        let looked = issuer.source.look().await;
        match looked {
            Looked::Fetched => self.0.fetches.count(Counted::Fetched),
            Looked::Failed => self.0.fetches.count(Counted::Failed),
            Looked::NotYet => {}
        }
        looked
    }
}

impl Issuer {
    fn check(&self, token: &str, now: SystemTime) -> Result<Result<Claims, Rejection>, Refused> {
        let keys = self.source.keys().ok_or(Refused::Away)?;
        let validator = Validator {
            terms: &self.terms,
            keys: &keys,
        };
        Ok(validator.check(token, now))
    }
}

#[cfg(test)]
mod tests;
