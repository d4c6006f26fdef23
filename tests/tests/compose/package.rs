//! The Debian package on a host of its own: a container with systemd, where an administrator installs, upgrades and removes it while mail
//! comes in and mail waits.

mod host;
mod steps;

use anyhow::{Context as _, Result};

use crate::part;
use host::Host;

/// Every step, in order.
pub async fn live(passed: &mut usize) -> Result<()> {
    let packages = host::build_packages().await?;
    let host = Host::start(packages).await?;
    let lived = host_steps(&host, passed).await;
    let lived = match lived {
        Ok(()) => Ok(()),
        Err(error) => {
            let logs = host.last_words().await;
            Err(error).context(logs)
        }
    };
    // The failure of a step says more than one of the end.
    let removed = Host::remove().await;
    lived.and(removed)
}

async fn host_steps(host: &Host, passed: &mut usize) -> Result<()> {
    let on = host;
    part!(on, steps::installing_asks_for_setup, passed);
    part!(on, steps::units_are_sound_and_confined, passed);
    part!(on, steps::setup_and_one_start_carry_a_mail, passed);
    part!(on, steps::each_agent_has_a_user_and_few_powers, passed);
    part!(on, steps::a_bad_configuration_is_not_tried_again, passed);
    part!(on, steps::what_ends_early_or_hangs_is_started_again, passed);
    part!(on, steps::an_upgrade_loses_nothing, passed);
    part!(on, steps::mail_outlives_the_package, passed);
    Ok(())
}
