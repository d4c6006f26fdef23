//! What all conversations of a host count together.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::script::{Limit, Rule, Script, Stage, When};

/// Senders and recipients that the greylist remembers.
const GREYLISTED: usize = 100_000;

/// What a rule may ask about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    pub connection: u64,
    pub mail: u64,
    pub from: Option<&'a str>,
    pub to: &'a [String],
    pub tls: bool,
    pub login: bool,
    /// Octets of content so far.
    pub octets: u64,
}

/// The counts of a host.
#[derive(Debug)]
pub struct Tally {
    pub connections: u64,
    pub open: u64,
    /// MAIL commands that no rule of time turned away.
    pub mails: u64,
    /// Of each rule, how often all but its time fitted.
    hits: Vec<u64>,
    /// When connections came, and mails: as many as a limit needs.
    connected: Vec<VecDeque<Duration>>,
    mailed: Vec<VecDeque<Duration>>,
    greylisted: HashMap<String, Duration>,
    chance: StdRng,
}

impl Tally {
    pub fn new(script: &Script) -> Self {
        Self {
            connections: 0,
            open: 0,
            mails: 0,
            hits: vec![0; script.rules.len()],
            connected: vec![VecDeque::new(); script.limits.connections.len()],
            mailed: vec![VecDeque::new(); script.limits.mails.len()],
            greylisted: HashMap::new(),
            chance: StdRng::seed_from_u64(script.seed),
        }
    }

    /// Another script is followed from now on: its rules and limits begin anew, what was counted goes on.
    pub fn follow(&mut self, script: &Script) {
        let new = Self::new(script);
        *self = Self {
            connections: self.connections,
            open: self.open,
            mails: self.mails,
            ..new
        };
    }

    /// The rule that is followed here.
    pub fn rule<'a>(
        &mut self,
        script: &'a Script,
        stage: Stage,
        facts: Facts<'_>,
    ) -> Option<&'a Rule> {
        let mut followed = None;
        // Also those behind it count their times.
        for (rule, hits) in script.rules.iter().zip(&mut self.hits) {
            if rule.stage != stage || !fits(&rule.when, facts) {
                continue;
            }
            *hits += 1;
            let in_time = rule.when.time.is_none_or(|time| time.contains(*hits));
            if followed.is_some() || !in_time {
                continue;
            }
            let chance = rule.when.chance;
            if chance.is_none_or(|percent| self.chance.random_range(0..100) < percent) {
                followed = Some(rule);
            }
        }
        followed
    }

    /// Octets of no meaning: none ends a line.
    pub fn garbage(&mut self, count: usize) -> Vec<u8> {
        let octets = (0..count).map(|_| match self.chance.random() {
            b'\r' | b'\n' => 0,
            octet => octet,
        });
        octets.collect()
    }

    /// A connection has come; the reply that it reads, if it is one too many.
    pub fn connect<'a>(&mut self, script: &'a Script, now: Duration) -> Option<&'a str> {
        let limits = &script.limits;
        // It counts itself already.
        if let Some(limit) = &limits.at_once
            && self.open > limit.most
        {
            return Some(&limit.reply);
        }
        take(&limits.connections, &mut self.connected, now)
    }

    /// A mail is about to begin.
    pub fn mail<'a>(&mut self, script: &'a Script, now: Duration) -> Option<&'a str> {
        take(&script.limits.mails, &mut self.mailed, now)
    }

    /// A sender and recipient are named.
    pub fn greylist<'a>(
        &mut self,
        script: &'a Script,
        from: &str,
        to: &str,
        now: Duration,
    ) -> Option<&'a str> {
        let limit = script.limits.greylist.as_ref()?;
        let key = format!("{from}\n{to}").to_lowercase();
        if self.greylisted.len() >= GREYLISTED && !self.greylisted.contains_key(&key) {
            self.greylisted.clear();
        }
        let first = *self.greylisted.entry(key).or_insert(now);
        (now < first + limit.within).then_some(limit.reply.as_str())
    }
}

fn fits(when: &When, facts: Facts<'_>) -> bool {
    let to = when
        .to
        .as_ref()
        .is_none_or(|to| facts.to.iter().any(|it| to.fits(it)));
    let from = when
        .from
        .as_ref()
        .is_none_or(|from| facts.from.is_some_and(|it| from.fits(it)));
    to && from
        && when
            .connection
            .is_none_or(|range| range.contains(facts.connection))
        && when.mail.is_none_or(|range| range.contains(facts.mail))
        && when.tls.is_none_or(|tls| tls == facts.tls)
        && when.login.is_none_or(|login| login == facts.login)
        && when.after.is_none_or(|after| facts.octets >= after)
}

/// Counts it in every window, unless one is full.
fn take<'a>(
    limits: &'a [Limit],
    windows: &mut [VecDeque<Duration>],
    now: Duration,
) -> Option<&'a str> {
    for (limit, window) in limits.iter().zip(windows.iter_mut()) {
        while window
            .front()
            .is_some_and(|&then| then + limit.within <= now)
        {
            window.pop_front();
        }
        if u64::try_from(window.len()).unwrap_or(u64::MAX) >= limit.most {
            return Some(&limit.reply);
        }
    }
    for window in windows {
        window.push_back(now);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_slide() {
        let text = "mails per 1m: 2 else 451 4.7.1 slow\nmails per 1h: 3 else 451 4.7.1 slower\n";
        let script = Script::parse(text).unwrap();
        let mut tally = Tally::new(&script);
        let mut at = |seconds| tally.mail(&script, Duration::from_secs(seconds));
        assert_eq!((at(0), at(1)), (None, None));
        assert_eq!(at(59), Some("451 4.7.1 slow"));
        assert_eq!(at(60), None, "those refused do not count");
        assert_eq!(at(200), Some("451 4.7.1 slower"));
        assert_eq!(at(3600), None);
    }

    #[test]
    fn a_rule_may_count_its_times() {
        let text =
            "on RCPT to full@* time 1..2: 452 4.2.2 full\non RCPT chance 50%: 451 4.3.0 no\n";
        let script = Script::parse(text).unwrap();
        let mut tally = Tally::new(&script);
        let to = ["full@peer.test".to_owned()];
        let facts = Facts {
            to: &to,
            ..Facts::default()
        };
        let mut line = || {
            tally
                .rule(&script, Stage::Rcpt, facts)
                .map(|rule| rule.line)
        };
        assert_eq!((line(), line()), (Some(1), Some(1)));
        let by_chance = (0..1000).filter(|_| line() == Some(2)).count();
        assert!((400..600).contains(&by_chance), "{by_chance}");
    }
}
