//! What is remembered of a directory elsewhere, and when that may still be used.

use std::time::{Duration, Instant};

use postroad_address::ForwardPath;
use postroad_directory::{AppPassword, Resolution, Resolved, SenderVerdict};
use zeroize::Zeroizing;

use crate::cache::{Cache, Given};

/// Verifier of an account that logged in here: a PHC string, or one of an app password with what that is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    /// As the contract has it.
    pub text: Zeroizing<String>,
    /// Of an app password.
    pub terms: Option<AppPassword>,
}

/// All that is remembered.
pub struct Memory {
    /// Of our own addresses.
    found: Cache<Resolved>,
    /// Of what is not ours; apart, since strangers choose what is asked.
    not_ours: Cache<Resolved>,
    /// By account and sender.
    senders: Cache<SenderVerdict>,
    /// By folded account, and the prefix of an app password.
    verifiers: Cache<Verifier>,
    /// How long an answer may be used while nobody can be asked.
    max_stale: Duration,
    /// Which time of listening to changes this is; what was learnt in another may have changed unheard.
    watch: u64,
    listening: bool,
    /// The newest directory that was told of.
    generation: u64,
}

/// Something remembered.
pub enum Remembered<V> {
    /// As good as asked.
    Fresh(V),
    /// Good enough if nobody can be asked.
    Stale(V),
    /// Nothing, or it is too old.
    Nothing,
}

impl<V> Remembered<V> {
    pub fn map<W>(self, f: impl FnOnce(V) -> W) -> Remembered<W> {
        match self {
            Self::Fresh(value) => Remembered::Fresh(f(value)),
            Self::Stale(value) => Remembered::Stale(f(value)),
            Self::Nothing => Remembered::Nothing,
        }
    }
}

/// Whence an answer came.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    at: Instant,
    watch: u64,
}

/// How an answer may be remembered, as it says itself.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub max_age: Duration,
    pub generation: u64,
}

impl Memory {
    pub fn new(most: usize, max_stale: Duration) -> Self {
        Self {
            found: Cache::new(most),
            not_ours: Cache::new(most),
            senders: Cache::new(most),
            verifiers: Cache::new(most),
            max_stale,
            watch: 0,
            listening: false,
            generation: 0,
        }
    }

    pub fn resolved(&mut self, path: &ForwardPath, now: Instant) -> Remembered<Resolved> {
        let key = key_of(path);
        let mut remembered = self.found.find(&key);
        if remembered.is_none() {
            remembered = self.not_ours.find(&key);
        }
        if remembered.is_none()
            && let Some(domain) = domain_key(path)
        {
            remembered = self.not_ours.find(&domain);
        }
        self.judge(remembered, now)
    }

    pub fn sender(
        &mut self,
        account: &str,
        sender: &str,
        now: Instant,
    ) -> Remembered<SenderVerdict> {
        let remembered = self.senders.find(&sender_key(account, sender));
        self.judge(remembered, now)
    }

    pub fn verifier(
        &mut self,
        account: &str,
        app: Option<&str>,
        now: Instant,
    ) -> Remembered<Verifier> {
        let remembered = self.verifiers.find(&verifier_key(account, app));
        self.judge(remembered, now)
    }

    fn judge<V>(&self, remembered: Option<(V, Given)>, now: Instant) -> Remembered<V> {
        let Some((value, given)) = remembered else {
            return Remembered::Nothing;
        };
        let age = now.saturating_duration_since(given.at);
        if self.listening && given.watch == self.watch && age < given.max_age {
            return Remembered::Fresh(value);
        }
        match age < self.max_stale {
            true => Remembered::Stale(value),
            false => Remembered::Nothing,
        }
    }

    /// To be called before asking: a change that is told meanwhile is not overwritten by the answer.
    pub fn asking(&self, now: Instant) -> Asked {
        Asked {
            at: now,
            watch: self.watch,
        }
    }

    pub fn keep_resolved(
        &mut self,
        path: &ForwardPath,
        resolved: &Resolved,
        asked: Asked,
        terms: Terms,
    ) {
        let (key, domain) = (key_of(path), domain_key(path));
        self.found.remove(&key);
        self.not_ours.remove(&key);
        let is_foreign = resolved.resolution == Resolution::ForeignDomain;
        if let Some(domain) = domain.as_deref().filter(|_| !is_foreign) {
            self.not_ours.remove(domain);
        }
        let Some(given) = self.given(asked, terms) else {
            return;
        };
        let (cache, key, weight) = match &resolved.resolution {
            Resolution::UnknownRecipient => (&mut self.not_ours, key, 1),
            Resolution::ForeignDomain => (&mut self.not_ours, domain.unwrap_or(key), 1),
            Resolution::Local(targets) => (&mut self.found, key, targets.len()),
            _ => (&mut self.found, key, 1),
        };
        cache.put(key, resolved.clone(), weight, given);
    }

    pub fn keep_sender(
        &mut self,
        account: &str,
        sender: &str,
        verdict: &SenderVerdict,
        asked: Asked,
        terms: Terms,
    ) {
        if let Some(given) = self.given(asked, terms) {
            self.senders
                .put(sender_key(account, sender), verdict.clone(), 1, given);
        }
    }

    pub fn keep_verifier(
        &mut self,
        (account, app): (&str, Option<&str>),
        verifier: &Verifier,
        asked: Asked,
        terms: Terms,
    ) {
        if let Some(given) = self.given(asked, terms) {
            self.verifiers
                .put(verifier_key(account, app), verifier.clone(), 1, given);
        }
    }

    /// None: what was told since is newer than the answer.
    fn given(&self, asked: Asked, terms: Terms) -> Option<Given> {
        let outdated =
            self.listening && asked.watch == self.watch && terms.generation < self.generation;
        (!outdated).then_some(Given {
            at: asked.at,
            max_age: terms.max_age,
            watch: asked.watch,
        })
    }

    /// From now on changes are told, beginning with this directory.
    pub fn listen(&mut self, generation: u64) {
        self.watch += 1;
        self.listening = true;
        self.generation = generation;
    }

    /// Changes are not told any more.
    pub fn deaf(&mut self) {
        self.listening = false;
    }

    /// These accounts have another secret or other senders; none: anything may be another.
    pub fn changed(&mut self, accounts: &[String], generation: u64) {
        self.generation = generation;
        if accounts.is_empty() {
            self.found.clear();
            self.not_ours.clear();
            self.senders.clear();
            self.verifiers.clear();
            return;
        }
        let is_of_another = |key: &str| {
            let owner = key.split_once('\0').map_or(key, |(owner, _)| owner);
            !accounts.iter().any(|account| account == owner)
        };
        self.verifiers.retain(is_of_another);
        self.senders.retain(is_of_another);
    }
}

fn key_of(path: &ForwardPath) -> String {
    // As it is written: an answer repeats the address it was asked for.
    path.to_string()
}

fn domain_key(path: &ForwardPath) -> Option<String> {
    Some(format!("@{}", path.mailbox()?.domain().a_label()))
}

fn sender_key(account: &str, sender: &str) -> String {
    format!("{account}\0{sender}")
}

fn verifier_key(account: &str, app: Option<&str>) -> String {
    match app {
        None => account.to_owned(),
        Some(prefix) => format!("{account}\0{prefix}"),
    }
}

#[cfg(test)]
mod tests {
    use postroad_address::Mailbox;
    use postroad_directory::Expanded;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn terms(generation: u64) -> Terms {
        Terms {
            max_age: MINUTE,
            generation,
        }
    }

    fn path(text: &str) -> ForwardPath {
        ForwardPath::parse(text).unwrap()
    }

    fn resolved(resolution: Resolution) -> Resolved {
        Resolved {
            resolution,
            tenant: None,
        }
    }

    fn local(address: &str) -> Resolved {
        resolved(Resolution::Local(vec![Expanded {
            address: Mailbox::parse(address).unwrap(),
            detail: None,
            local: true,
            store: postroad_envelope::StoreName::default(),
            original: None,
        }]))
    }

    fn state<V>(remembered: Remembered<V>) -> &'static str {
        match remembered {
            Remembered::Fresh(_) => "fresh",
            Remembered::Stale(_) => "stale",
            Remembered::Nothing => "nothing",
        }
    }

    fn verifier(text: &str) -> Verifier {
        Verifier {
            text: Zeroizing::new(text.to_owned()),
            terms: None,
        }
    }

    #[test]
    fn an_app_password_goes_with_its_account() {
        let now = Instant::now();
        let mut memory = memory(now);
        let asked = memory.asking(now);
        let app = ("alice@a.example", Some("abcdefgh"));
        memory.keep_verifier(app, &verifier("app"), asked, terms(5));
        let known = |memory: &mut Memory, app| state(memory.verifier("alice@a.example", app, now));
        assert_eq!(known(&mut memory, Some("abcdefgh")), "fresh");
        assert_eq!(known(&mut memory, Some("other")), "nothing");
        memory.changed(&["alice@a.example".to_owned()], 6);
        assert_eq!(known(&mut memory, Some("abcdefgh")), "nothing");
    }

    /// Knows alice of a.example since now, and listens.
    fn memory(now: Instant) -> Memory {
        let mut memory = Memory::new(100, 10 * MINUTE);
        memory.listen(5);
        let asked = memory.asking(now);
        memory.keep_resolved(
            &path("alice@a.example"),
            &local("alice@a.example"),
            asked,
            terms(5),
        );
        memory.keep_sender(
            "alice@a.example",
            "x@a.example",
            &SenderVerdict::NoAccount,
            asked,
            terms(5),
        );
        memory.keep_verifier(
            ("alice@a.example", None),
            &verifier("hash"),
            asked,
            terms(5),
        );
        memory
    }

    fn states(memory: &mut Memory, now: Instant) -> [&'static str; 3] {
        [
            state(memory.resolved(&path("alice@a.example"), now)),
            state(memory.sender("alice@a.example", "x@a.example", now)),
            state(memory.verifier("alice@a.example", None, now)),
        ]
    }

    #[test]
    fn an_answer_is_fresh_then_stale_then_gone() {
        let now = Instant::now();
        let mut memory = memory(now);
        for (age, expected) in [
            (Duration::ZERO, "fresh"),
            (MINUTE - Duration::from_secs(1), "fresh"),
            (MINUTE, "stale"),
            (10 * MINUTE, "nothing"),
        ] {
            assert_eq!(states(&mut memory, now + age), [expected; 3], "{age:?}");
        }
    }

    #[test]
    fn while_nobody_listens_and_after_a_gap_all_is_asked_again() {
        let now = Instant::now();
        let mut memory = memory(now);
        memory.deaf();
        assert_eq!(states(&mut memory, now), ["stale"; 3]);
        let asked = memory.asking(now);
        memory.listen(5);
        assert_eq!(states(&mut memory, now), ["stale"; 3]);
        memory.keep_verifier(
            ("alice@a.example", None),
            &verifier("hash"),
            asked,
            terms(5),
        );
        assert_eq!(states(&mut memory, now), ["stale"; 3], "asked in the gap");
        let asked = memory.asking(now);
        memory.keep_verifier(
            ("alice@a.example", None),
            &verifier("hash"),
            asked,
            terms(5),
        );
        assert_eq!(states(&mut memory, now), ["stale", "stale", "fresh"]);
    }

    #[test]
    fn a_change_drops_what_it_names_and_older_answers_are_not_kept() {
        let now = Instant::now();
        let mut memory = memory(now);
        memory.changed(&["bob@a.example".to_owned()], 6);
        assert_eq!(states(&mut memory, now), ["fresh"; 3]);
        let asked = memory.asking(now);
        memory.changed(&["alice@a.example".to_owned()], 7);
        assert_eq!(states(&mut memory, now), ["fresh", "nothing", "nothing"]);
        memory.keep_verifier(("alice@a.example", None), &verifier("old"), asked, terms(6));
        assert_eq!(states(&mut memory, now), ["fresh", "nothing", "nothing"]);
        memory.keep_verifier(("alice@a.example", None), &verifier("new"), asked, terms(7));
        assert_eq!(states(&mut memory, now), ["fresh", "nothing", "fresh"]);
        memory.changed(&[], 8);
        assert_eq!(states(&mut memory, now), ["nothing"; 3]);
    }

    #[test]
    fn a_foreign_domain_is_known_by_any_of_its_addresses_until_it_is_ours() {
        let now = Instant::now();
        let mut memory = memory(now);
        let asked = memory.asking(now);
        let foreign = resolved(Resolution::ForeignDomain);
        memory.keep_resolved(&path("x@far.example"), &foreign, asked, terms(5));
        let known = memory.resolved(&path("y@FAR.example"), now);
        assert!(matches!(known, Remembered::Fresh(known) if known == foreign));
        let unknown = resolved(Resolution::UnknownRecipient);
        memory.keep_resolved(&path("z@far.example"), &unknown, asked, terms(6));
        let known = memory.resolved(&path("z@far.example"), now);
        assert!(matches!(known, Remembered::Fresh(known) if known == unknown));
        assert_eq!(
            state(memory.resolved(&path("y@far.example"), now)),
            "nothing"
        );
        assert_eq!(state(memory.resolved(&path("postmaster"), now)), "nothing");
    }

    #[test]
    fn strangers_do_not_push_out_what_is_ours() {
        let now = Instant::now();
        let mut memory = memory(now);
        let asked = memory.asking(now);
        for number in 0..1000 {
            let path = path(&format!("x{number}@a.example"));
            memory.keep_resolved(
                &path,
                &resolved(Resolution::UnknownRecipient),
                asked,
                terms(5),
            );
        }
        assert_eq!(states(&mut memory, now), ["fresh"; 3]);
    }
}
