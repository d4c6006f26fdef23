//! Whether the running queue has room for a mail, and listens to who brings it: quotas and bans, as they stand now.

use std::net::IpAddr;

use ipnet::IpNet;
use postroad_counters::Ban;
use postroad_queue_client::{Usage, UsageScope};

use crate::terminal::local_time;

/// Whose a mail is.
pub struct Whose<'a> {
    pub tenant: &'a str,
    pub account: Option<&'a str>,
    /// Of its recipients, in ASCII.
    pub domains: Vec<&'a str>,
    /// Octets of its content, as far as that is known.
    pub size: u64,
    /// Who brings it.
    pub ip: Option<IpAddr>,
}

/// A line for each quota that counts for the mail; one without room says so.
pub fn quotas(usages: &[Usage], whose: &Whose<'_>) -> Vec<String> {
    let concerns = |one: &&Usage| match one.scope {
        UsageScope::Tenant => one.name == whose.tenant,
        UsageScope::Account => whose.account == Some(&one.name),
        UsageScope::Domain => whose.domains.contains(&one.name.as_str()),
    };
    let limited = usages.iter().filter(|one| one.percent().is_some());
    let lines = limited.filter(concerns).map(|one| {
        let (scope, name) = (one.scope.as_str(), &one.name);
        let used = figures(one);
        match has_room(one, whose.size) {
            true => format!("quota: {scope} {name} has {used} in the queue"),
            false => format!(
                "quota: {scope} {name} has {used} in the queue, and no room for this mail; its client hears 452 until some of it has left (`postroad queue usage`)"
            ),
        }
    });
    lines.collect()
}

fn has_room(one: &Usage, size: u64) -> bool {
    let fits = |used: u64, more: u64, most: Option<u64>| {
        most.is_none_or(|most| used.saturating_add(more) <= most)
    };
    fits(one.mails, 1, one.most_mails) && fits(one.octets, size, one.most_octets)
}

/// `3 of 10 mails and 2048 of 4096 octets`.
fn figures(one: &Usage) -> String {
    let part =
        |used: u64, most: Option<u64>, of: &str| most.map(|most| format!("{used} of {most} {of}"));
    let both = [
        part(one.mails, one.most_mails, "mails"),
        part(one.octets, one.most_octets, "octets"),
    ];
    both.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

/// A line for each ban on the client or the account.
pub fn bans(bans: &[Ban], whose: &Whose<'_>) -> Vec<String> {
    let concerns = |ban: &&Ban| {
        let subject = ban.key.subject();
        let network = subject.parse::<IpNet>().ok();
        let is_client = network.is_some_and(|network| {
            let client = whose.ip.map(|ip| ip.to_canonical());
            client.is_some_and(|client| network.contains(&client))
        });
        is_client || whose.account == Some(subject)
    };
    let lines = bans.iter().filter(concerns).map(|ban| {
        format!(
            "{} is banned until {}, since {} were counted; `postroad queue unban {}` ends it",
            ban.key,
            local_time(ban.until),
            ban.value,
            ban.key.subject()
        )
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use postroad_envelope::Timestamp;

    use super::*;

    fn usage(scope: UsageScope, name: &str, mails: u64, most_mails: Option<u64>) -> Usage {
        Usage {
            scope,
            name: name.to_owned(),
            mails,
            octets: 900,
            most_mails,
            most_octets: Some(1000),
        }
    }

    fn of_alice(size: u64) -> Whose<'static> {
        Whose {
            tenant: "default",
            account: Some("alice@ours.test"),
            domains: vec!["far.test"],
            size,
            ip: Some("::ffff:192.0.2.7".parse().unwrap()),
        }
    }

    #[test]
    fn quotas_of_those_whose_mail_it_is_are_told_and_what_is_full_is_told_as_such() {
        let usages = [
            usage(UsageScope::Tenant, "default", 3, Some(10)),
            usage(UsageScope::Account, "alice@ours.test", 2, Some(2)),
            usage(UsageScope::Account, "bob@ours.test", 2, Some(2)),
            usage(UsageScope::Domain, "far.test", 1, None),
            Usage {
                most_octets: None,
                ..usage(UsageScope::Domain, "far.test", 1, None)
            },
        ];
        let told = quotas(&usages, &of_alice(100));
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(
            told[0],
            "quota: tenant default has 3 of 10 mails and 900 of 1000 octets in the queue"
        );
        assert!(told[1].contains("2 of 2 mails") && told[1].contains("hears 452"));
        assert_eq!(
            told[2],
            "quota: domain far.test has 900 of 1000 octets in the queue"
        );
        let large = quotas(&usages, &of_alice(101));
        assert!(
            large.iter().all(|line| line.contains("hears 452")),
            "{large:?}"
        );
    }

    #[test]
    fn bans_of_the_client_and_of_the_account_are_told() {
        let all = [
            "client/192.0.2.7/32",
            "auth_failed/192.0.2.8/32",
            "sent/alice@ours.test",
            "sent/bob@ours.test",
        ];
        let all = all.map(|key| Ban {
            key: key.parse().unwrap(),
            since: Timestamp::default(),
            until: Timestamp::from_millis(1_800_000_000_000),
            value: 11,
        });
        let told = bans(&all, &of_alice(0));
        let keys: Vec<&str> = told
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(
            keys,
            [
                all[0].key.to_string().as_str(),
                all[2].key.to_string().as_str()
            ]
        );
        assert!(told[0].contains("since 11 were counted"), "{told:?}");
    }
}
