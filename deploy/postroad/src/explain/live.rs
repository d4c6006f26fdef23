//! What a queue that runs knows beside the configuration: recipients it does not try, rules that hold mail, and how sites stand.
//! It is only asked.

use std::time::Duration;

use postroad_envelope::Suppression;
use postroad_queue_client::{HoldRuleDetails, QueueAdmin as _, QueueError, SitesQuery};
use tokio::time::timeout;

use crate::home::Home;
use crate::queue::Admin;
use crate::terminal::local_time;

/// A queue that is there answers at once.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running queue, if there is one.
pub struct Live {
    admin: Option<Admin>,
    suppressions: Vec<Suppression>,
    hold_rules: Vec<HoldRuleDetails>,
    note: Option<String>,
}

impl Live {
    /// Nobody is asked.
    pub fn unasked() -> Self {
        Self {
            admin: None,
            suppressions: Vec::new(),
            hold_rules: Vec::new(),
            note: None,
        }
    }

    /// Asks the queue of an installation.
    pub async fn ask(home: &Home) -> Self {
        let why = match Admin::open(home, None) {
            Err(error) => error.to_string(),
            Ok(admin) => match timeout(PATIENCE, known(&admin)).await {
                Ok(Ok((suppressions, hold_rules))) => {
                    return Self {
                        admin: Some(admin),
                        suppressions,
                        hold_rules,
                        note: None,
                    };
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            },
        };
        Self {
            note: Some(format!(
                "the running queue was not asked for suppressed recipients, hold rules and the state of sites: {why}"
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
        &self.suppressions
    }

    /// Rules that hold mail as it comes.
    pub fn hold_rules(&self) -> &[HoldRuleDetails] {
        &self.hold_rules
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

async fn known(admin: &Admin) -> Result<(Vec<Suppression>, Vec<HoldRuleDetails>), QueueError> {
    Ok((admin.suppressions().await?, admin.hold_rules().await?))
}
