//! What a queue that runs knows beside the configuration: recipients it does not try, rules that hold mail, what is in it of whom,
//! who is banned, and how sites stand.
//! It is only asked.

use std::time::Duration;

use postroad_counters::Ban;
use postroad_envelope::Suppression;
use postroad_queue_client::{
    CountersQuery, HoldRuleDetails, QueueAdmin as _, QueueError, SitesQuery, Usage, UsageQuery,
};
use tokio::time::timeout;

use crate::home::Home;
use crate::queue::Admin;
use crate::terminal::local_time;

/// A queue that is there answers at once.
const PATIENCE: Duration = Duration::from_secs(3);
/// Quotas and bans that are looked through, the fullest and the newest.
const MOST: u32 = 10_000;

/// A running queue, if there is one.
pub struct Live {
    admin: Option<Admin>,
    known: Known,
    note: Option<String>,
}

/// What it said of itself.
#[derive(Default)]
struct Known {
    suppressions: Vec<Suppression>,
    hold_rules: Vec<HoldRuleDetails>,
    usages: Vec<Usage>,
    bans: Vec<Ban>,
}

impl Live {
    /// Nobody is asked.
    pub fn unasked() -> Self {
        Self {
            admin: None,
            known: Known::default(),
            note: None,
        }
    }

    /// Asks the queue of an installation.
    pub async fn ask(home: &Home) -> Self {
        let why = match Admin::open(home, None) {
            Err(error) => error.to_string(),
            Ok(admin) => match timeout(PATIENCE, known(&admin)).await {
                Ok(Ok(known)) => {
                    return Self {
                        admin: Some(admin),
                        known,
                        note: None,
                    };
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            },
        };
        Self {
            note: Some(format!(
                "the running queue was not asked for suppressed recipients, hold rules, quotas, bans and the state of sites: {why}"
            )),
            ..Self::unasked()
        }
    }

    /// Why it could not be asked.
    pub fn note(&self) -> Option<String> {
        self.note.clone()
    }

    /// Recipients that are not tried.
    pub fn suppressions(&self) -> &[Suppression] {
        &self.known.suppressions
    }

    /// Rules that hold mail as it comes.
    pub fn hold_rules(&self) -> &[HoldRuleDetails] {
        &self.known.hold_rules
    }

    /// What is in the queue of whom.
    pub fn usages(&self) -> &[Usage] {
        &self.known.usages
    }

    /// Who is banned.
    pub fn bans(&self) -> &[Ban] {
        &self.known.bans
    }

    /// How a site stands, in words; none: nothing is known of it.
    pub async fn state_of(&self, destination: &str, site: &str) -> Option<String> {
        let query = SitesQuery {
            name: Some(destination.to_owned()),
            limit: 100,
        };
        let asked = self.admin.as_ref()?.sites(query);
        let list = timeout(PATIENCE, asked).await.ok()?.ok()?;
        let mut sites = list.sites.iter();
        let found = sites.find(|one| one.site == site || one.site == destination)?;
        let until = found
            .until
            .map(|until| format!(" until {}", local_time(until)));
        let reason = Some(&found.reason).filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| format!(" ({reason})"));
        Some(format!(
            "{}{}{}",
            found.state,
            until.unwrap_or_default(),
            reason.unwrap_or_default()
        ))
    }
}

async fn known(admin: &Admin) -> Result<Known, QueueError> {
    let all = UsageQuery {
        scope: None,
        limit: MOST,
    };
    let banned = CountersQuery {
        kind: None,
        bans: true,
        limit: MOST,
    };
    Ok(Known {
        suppressions: admin.suppressions().await?,
        hold_rules: admin.hold_rules().await?,
        usages: admin.usage(all).await?,
        bans: admin.counters(banned).await?.bans,
    })
}
