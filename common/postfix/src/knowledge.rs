//! What is known of parameters that become no key: why nothing need be written, or why it cannot be.
//!
//! A `*` in a name is any text. The first list with a name that fits counts. What becomes a key is not here but in
//! [`translate`](crate::translate).

mod lost;
mod needless;

use self::{lost::LOST, needless::NEEDLESS};
use crate::report::{Told, Verdict};

/// What is known of a parameter with this value.
pub fn known(name: &str, value: &str) -> Option<Told> {
    for (off, why, names) in LOST {
        if fits(names, name) {
            let is_off = value.is_empty() || off.iter().any(|one| value.eq_ignore_ascii_case(one));
            return Some(match is_off {
                true => told(Verdict::NotNeeded, "it is switched off"),
                false => told(Verdict::NotTranslated, why),
            });
        }
    }
    let found = NEEDLESS.iter().find(|(_, names)| fits(names, name));
    found.map(|(why, _)| told(Verdict::NotNeeded, why))
}

fn told(verdict: Verdict, text: &str) -> Told {
    let text = text.to_owned();
    Told { verdict, text }
}

fn fits(names: &[&str], name: &str) -> bool {
    names.iter().any(|pattern| match pattern.split_once('*') {
        None => name == *pattern,
        Some((begin, rest)) => {
            name.strip_prefix(begin)
                .is_some_and(|behind| match rest.split_once('*') {
                    None => behind.ends_with(rest),
                    Some((middle, _)) => behind.contains(middle),
                })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_is_not_lost() {
        let verdict = |name, value| known(name, value).map(|told| told.verdict);
        assert_eq!(verdict("smtpd_milters", ""), Some(Verdict::NotNeeded));
        assert_eq!(
            verdict("smtpd_milters", "inet:x:1"),
            Some(Verdict::NotTranslated)
        );
        assert_eq!(verdict("mailbox_size_limit", "0"), Some(Verdict::NotNeeded));
        assert_eq!(
            verdict("slow_destination_rate_delay", "1s"),
            Some(Verdict::NotTranslated)
        );
        assert_eq!(verdict("my_own_name", "x"), None);
    }
}
