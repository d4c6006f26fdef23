//! A listener without its port, for `postroad explain`: the same policy and limits, for a client that has logged in.

use std::sync::Arc;

use postroad_daemon::CommonConfig;
use postroad_smtpd::Smtpd;

use crate::policy::Submission;
use crate::port::smtpd_config;
use crate::{Config, Dependencies};

/// The names of the listeners, those of `submission` first.
pub fn listeners(config: &Config) -> Vec<String> {
    let all = config.all_listeners().into_iter();
    let mut names: Vec<String> = all.map(|terms| terms.name).collect();
    names.dedup();
    names
}

/// A server as that of a listener, each of whose clients has proved to be this account; none: there is no such listener. Reads
/// files; blocks.
pub fn server(
    config: &Config,
    common: &CommonConfig,
    dependencies: &Dependencies,
    listener: &str,
    account: &str,
) -> Option<Smtpd> {
    let mut all = config.all_listeners().into_iter();
    let terms = all.find(|terms| terms.name == listener)?;
    let mut smtpd = smtpd_config(&terms, config, common);
    smtpd.account = Some(account.to_owned());
    // TLS and the log-in are behind it.
    smtpd.implicit_tls = false;
    smtpd.session.require_tls = false;
    smtpd.session.require_auth = false;
    smtpd.session.offers.auth.clear();
    smtpd.greeting_delay = std::time::Duration::ZERO;
    let policy = Submission::new(config, common, dependencies);
    Some(Smtpd::new(
        smtpd,
        Arc::new(policy),
        Arc::clone(&dependencies.queue),
        None,
        &dependencies.metrics,
    ))
}
