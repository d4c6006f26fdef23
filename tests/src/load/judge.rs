//! Compares what was accepted with what arrived.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Add,
};

use anyhow::{Context as _, Result, ensure};

use super::{Sent, content};
use crate::{Kept, Mail, unwired};

/// What the judge found in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Mails in Maildirs.
    pub filed: usize,
    /// Mails at the peer, each counted once.
    pub relayed: usize,
    /// How many the peer has once more: over SMTP that cannot be excluded if a host dies (RFC 1047).
    pub relayed_again: usize,
    /// How many arrived though nobody had been told that they were accepted.
    pub unpromised: usize,
}

impl Add for Verdict {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            filed: self.filed + other.filed,
            relayed: self.relayed + other.relayed,
            relayed_again: self.relayed_again + other.relayed_again,
            unpromised: self.unpromised + other.unpromised,
        }
    }
}

/// What was accepted arrived whole, and nothing was filed twice. `filed` is all that lies in Maildirs, in whatever store, by account.
pub fn judge(
    sent: &[Sent],
    filed: &BTreeMap<String, Vec<Mail>>,
    relayed: &[Kept],
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut arrived = BTreeSet::new();
    let mut deliveries = BTreeSet::new();
    for (account, mails) in filed {
        for mail in mails {
            let (id, recipient) = mail.delivery()?;
            let name = &mail.name;
            ensure!(deliveries.insert((id, recipient)), "{name} was filed twice");
            let token = whole(&mail.content, true).with_context(|| name.clone())?;
            let once = arrived.insert((token.clone(), account.clone()));
            ensure!(once, "{token} was filed twice for {account}, {name} is one");
        }
        verdict.filed += mails.len();
    }
    for kept in relayed {
        let token = whole(&kept.content, false)?;
        for to in &kept.to {
            if arrived.insert((token.clone(), to.clone())) {
                verdict.relayed += 1;
            } else {
                verdict.relayed_again += 1;
            }
        }
    }
    for Sent {
        token, to, reply, ..
    } in sent
    {
        let is_there = arrived.remove(&(token.clone(), to.clone()));
        ensure!(
            is_there,
            "{token} for {to} was accepted ({reply}) and is lost"
        );
    }
    verdict.unpromised = arrived.len();
    Ok(verdict)
}

/// The token of a mail of a load.
pub fn token(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    let subject = text
        .lines()
        .find_map(|line| line.strip_prefix("Subject: token "))?;
    Some(subject.trim_end().to_owned())
}

/// The token of a mail that has all its content. A Maildir has other line ends.
fn whole(arrived: &[u8], in_maildir: bool) -> Result<String> {
    let token = token(arrived).context("a mail without a token")?;
    let number = token
        .rsplit('-')
        .next()
        .and_then(|number| number.parse().ok());
    let mut written = content(number.context("a token without a number")?, &token);
    if in_maildir {
        written = unwired(&written);
    }
    ensure!(
        arrived.ends_with(&written),
        "{token} was changed on its way"
    );
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LOCAL: &str = "bob@demo.test";
    const FOREIGN: &str = "friend@world.test";

    fn sent(token: &str, to: &str) -> Sent {
        Sent {
            token: token.to_owned(),
            to: to.to_owned(),
            reply: String::new(),
            at: Instant::now(),
        }
    }

    fn filed(tokens: &[(&str, &str)]) -> BTreeMap<String, Vec<Mail>> {
        let mail = |(id, token): &(&str, &str)| Mail {
            name: format!("1.Q01m82zeek8etesv9sk3k12xte{id}R0.mx.demo.test,S=1"),
            content: unwired(&content(1, token)),
        };
        BTreeMap::from([(LOCAL.to_owned(), tokens.iter().map(mail).collect())])
    }

    fn kept(token: &str) -> Kept {
        Kept {
            from: String::new(),
            to: vec![FOREIGN.to_owned()],
            content: content(1, token),
        }
    }

    #[test]
    fn what_is_lost_doubled_or_changed_is_seen() -> Result<()> {
        let all = [sent("0-0-1", LOCAL), sent("0-1-1", FOREIGN)];
        let right = filed(&[("m", "0-0-1"), ("n", "0-2-1")]);
        let twice = [kept("0-1-1"), kept("0-1-1")];
        let verdict = judge(&all, &right, &twice)?;
        let expected = Verdict {
            filed: 2,
            relayed: 1,
            relayed_again: 1,
            unpromised: 1,
        };
        ensure!(verdict == expected, "{verdict:?}");

        let mut cut = kept("0-1-1");
        cut.content.pop();
        for (filed, relayed, fault) in [
            (filed(&[]), vec![kept("0-1-1")], "is lost"),
            (right.clone(), vec![], "is lost"),
            (right.clone(), vec![cut], "was changed"),
            (
                filed(&[("m", "0-0-1"), ("m", "0-2-1")]),
                vec![],
                "filed twice",
            ),
            (
                filed(&[("m", "0-0-1"), ("n", "0-0-1")]),
                vec![],
                "filed twice",
            ),
        ] {
            let found = judge(&all, &filed, &relayed).err().context(fault)?;
            ensure!(format!("{found:#}").contains(fault), "{found:#}");
        }
        Ok(())
    }
}
