//! A mail for which a quota has no room: what the log and the client are told.

use postroad_queue::{Amount, OverQuota, Quota, Scope};
use postroad_queue_client::QueueError;
use postroad_reply::{
    EXCEEDED_STORAGE_552, INSUFFICIENT_STORAGE_452, MAILBOX_FULL_4_2_2, Reply, SYSTEM_FULL_4_3_1,
    TOO_LARGE_5_3_4,
};
use tracing::info;

/// Tells the log, and makes of it what the client hears. `account`: who submits, if that is known; strangers hear no figures.
pub(crate) fn refused(over: &OverQuota, account: Option<&str>) -> QueueError {
    let OverQuota {
        scope,
        name,
        used,
        quota,
        size,
    } = over;
    info!(
        event = "over_quota",
        scope = scope.as_str(),
        owner = name,
        mails = used.mails,
        most_mails = some(quota.mails),
        octets = used.octets,
        most_octets = some(quota.octets),
        size,
        account,
    );
    if over.is_for_good() {
        let text = format!(
            "the mail is too large: {} is more than {} may have in the queue at all",
            mib(*size),
            whose(*scope, name, account.is_some())
        );
        return QueueError::Refused(Reply::new(EXCEEDED_STORAGE_552, TOO_LARGE_5_3_4, text));
    }
    let enhanced = match scope {
        Scope::Account => MAILBOX_FULL_4_2_2,
        Scope::Tenant | Scope::Domain => SYSTEM_FULL_4_3_1,
    };
    let text = text(over, account.is_some());
    QueueError::OverQuota(Reply::new(INSUFFICIENT_STORAGE_452, enhanced, text))
}

fn text(over: &OverQuota, to_ours: bool) -> String {
    let whose = whose(over.scope, &over.name, to_ours);
    if to_ours {
        format!(
            "{whose} has {} in the queue, and no room for this mail; try again when some of it has left",
            figures(over.used, over.quota)
        )
    } else {
        format!("{whose} has no room for more mail in the queue now; please try again later")
    }
}

/// The names of our customers are not for strangers.
fn whose(scope: Scope, name: &str, to_ours: bool) -> String {
    match scope {
        Scope::Tenant if to_ours => format!("the tenant {name}"),
        Scope::Tenant => "the recipient's provider".to_owned(),
        Scope::Account | Scope::Domain => name.to_owned(),
    }
}

/// As far as they are limited: `10 of 10 mails and 3.5 of 100.0 MiB`.
fn figures(used: Amount, quota: Quota) -> String {
    let mails = some(quota.mails).map(|most| format!("{} of {most} mails", used.mails));
    let size = some(quota.octets).map(|most| format!("{} of {}", mib(used.octets), mib(most)));
    let both: Vec<String> = mails.into_iter().chain(size).collect();
    both.join(" and ")
}

fn mib(octets: u64) -> String {
    let tenths = octets.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn some(most: u64) -> Option<u64> {
    (most != 0).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(scope: Scope, name: &str) -> OverQuota {
        OverQuota {
            scope,
            name: name.to_owned(),
            used: Amount {
                mails: 7,
                octets: 3 << 20,
            },
            quota: Quota {
                mails: 7,
                octets: 10 << 20,
            },
            size: 100,
        }
    }

    #[test]
    fn a_person_learns_which_quota_how_full_and_what_to_do() {
        let reply = |over: &OverQuota, account| refused(over, account).to_reply().to_string();
        let (alice, ours) = ("alice@demo.test", Some("alice@demo.test"));
        assert_eq!(
            reply(&over(Scope::Account, alice), ours),
            "452 4.2.2 alice@demo.test has 7 of 7 mails and 3.0 MiB of 10.0 MiB in the queue, \
             and no room for this mail; try again when some of it has left"
        );
        let to_ours = reply(&over(Scope::Tenant, "acme"), ours);
        assert!(to_ours.starts_with("452 4.3.1 the tenant acme has 7 of 7"));
        let to_strangers = reply(&over(Scope::Tenant, "acme"), None);
        assert!(to_strangers.starts_with("452 4.3.1 the recipient's provider has no room"));
        let domain = reply(&over(Scope::Domain, "far.test"), None);
        assert!(domain.starts_with("452 4.3.1 far.test has no room"));
        let mut large = over(Scope::Domain, "far.test");
        large.size = 11 << 20;
        assert!(reply(&large, None).starts_with("552 5.3.4 the mail is too large: 11.0 MiB"));
    }
}
