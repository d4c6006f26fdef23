//! What a rule asks of a mail beside its recipient.

use postroad_address::{Domain, Mailbox, ReversePath};
use postroad_envelope::Envelope;

use crate::config::{RouteProblem, RouteRule, Several};

/// All of these must hold.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    sender: Vec<Sender>,
    account: Vec<Wild>,
    tenant: Vec<Wild>,
    tag: Vec<Wild>,
    listener: Vec<Wild>,
    facts: Vec<(String, Vec<Wild>)>,
}

#[derive(Debug)]
enum Sender {
    /// `<>` (RFC 5321 §4.5.5).
    Null,
    /// In the form of [`Mailbox::folded`].
    Mailbox(String),
    /// An A-label.
    Domain(String),
    /// With the dot before it.
    Below(String),
}

impl Conditions {
    pub fn new(rule: &RouteRule) -> Result<Self, RouteProblem> {
        let senders = rule.sender.iter().map(Sender::read);
        Ok(Self {
            sender: senders.collect::<Result<_, _>>()?,
            account: wilds(&rule.account),
            tenant: wilds(&rule.tenant),
            tag: wilds(&rule.tag),
            listener: wilds(&rule.listener),
            facts: rule
                .facts
                .iter()
                .map(|(name, values)| (name.clone(), wilds(values)))
                .collect(),
        })
    }

    /// Whether a mail has all that is asked for.
    pub fn hold(&self, mail: &Envelope) -> bool {
        let is_from = |sender: &Sender| sender.fits(&mail.reverse_path);
        let fact = |(name, values): &(String, Vec<Wild>)| {
            mail.facts.get(name).is_some_and(|fact| any(values, fact))
        };
        (self.sender.is_empty() || self.sender.iter().any(is_from))
            && asked(&self.account, mail.account.as_deref())
            && asked(&self.tenant, Some(mail.tenant.as_str()))
            && asked(&self.tag, mail.tags.iter().map(String::as_str))
            && asked(&self.listener, Some(mail.listener.as_str()))
            && self.facts.iter().all(fact)
    }
}

/// Whether nothing is asked, or one of the texts is what is asked for.
fn asked<'a>(wilds: &[Wild], texts: impl IntoIterator<Item = &'a str>) -> bool {
    wilds.is_empty() || texts.into_iter().any(|text| any(wilds, text))
}

fn any(wilds: &[Wild], text: &str) -> bool {
    let text = text.to_lowercase();
    wilds.iter().any(|wild| wild.fits(&text))
}

fn wilds(texts: &Several) -> Vec<Wild> {
    texts.iter().map(Wild::new).collect()
}

impl Sender {
    fn read(text: &str) -> Result<Self, RouteProblem> {
        let wrong = || RouteProblem::NotASender(text.to_owned());
        if text == "<>" {
            return Ok(Self::Null);
        }
        if text.contains('@') {
            let mailbox = Mailbox::parse(text).map_err(|_| wrong())?;
            return Ok(Self::Mailbox(mailbox.folded()));
        }
        let (below, name) = match text.strip_prefix('.') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let domain = Domain::parse(name).map_err(|_| wrong())?;
        Ok(match below {
            true => Self::Below(format!(".{}", domain.a_label())),
            false => Self::Domain(domain.a_label().to_owned()),
        })
    }

    fn fits(&self, sender: &ReversePath) -> bool {
        let ReversePath::Mailbox(mailbox) = sender else {
            return matches!(self, Self::Null);
        };
        match self {
            Self::Null => false,
            Self::Mailbox(folded) => mailbox.folded() == *folded,
            Self::Domain(domain) => mailbox.domain().a_label() == domain,
            Self::Below(suffix) => mailbox.domain().a_label().ends_with(suffix),
        }
    }
}

/// A text in which `*` stands for any other; upper and lower case are the same.
#[derive(Debug)]
struct Wild(Vec<String>);

impl Wild {
    fn new(text: &str) -> Self {
        Self(text.to_lowercase().split('*').map(str::to_owned).collect())
    }

    /// Whether a text in lower case is like that.
    fn fits(&self, text: &str) -> bool {
        let [first, between @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| only == text);
        };
        let rest = text.strip_prefix(first.as_str());
        let Some(mut rest) = rest.and_then(|rest| rest.strip_suffix(last.as_str())) else {
            return false;
        };
        // Each where it is found first leaves the most for those behind it.
        for part in between {
            let Some((_, behind)) = rest.split_once(part.as_str()) else {
                return false;
            };
            rest = behind;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use postroad_envelope::{QueueId, RouteClass, Timestamp};

    use super::*;

    fn path(sender: &str) -> ReversePath {
        match sender {
            "<>" => ReversePath::Null,
            sender => ReversePath::parse(sender).unwrap(),
        }
    }

    fn mail(sender: &str) -> Envelope {
        let at = Timestamp::from_millis(0);
        let id = QueueId::mint(at, [1; 10]);
        Envelope {
            account: Some("Alice@ours.test".to_owned()),
            tenant: "acme".to_owned(),
            tags: vec!["bulk".to_owned(), "May".to_owned()],
            listener: "submission".to_owned(),
            facts: [("list_id".to_owned(), "News of <x.lists.test>".to_owned())].into(),
            ..Envelope::new(id, path(sender), at)
        }
    }

    fn hold(change: impl FnOnce(&mut RouteRule), sender: &str) -> bool {
        let mut rule = RouteRule::new("*", RouteClass::Relay);
        change(&mut rule);
        Conditions::new(&rule).unwrap().hold(&mail(sender))
    }

    #[test]
    fn a_sender_is_an_address_a_domain_what_is_below_one_or_nobody() {
        for (pattern, sender, fits) in [
            ("A@X.test", "a@x.test", true),
            ("a@x.test", "b@x.test", false),
            ("x.test", "b@X.test", true),
            ("x.test", "b@y.x.test", false),
            (".x.test", "b@y.x.test", true),
            (".x.test", "b@x.test", false),
            (".x.test", "b@yx.test", false),
            ("BÜCHER.test", "b@xn--bcher-kva.test", true),
            ("<>", "<>", true),
            ("<>", "a@x.test", false),
            ("x.test", "<>", false),
        ] {
            let held = hold(|rule| rule.sender = pattern.into(), sender);
            assert_eq!(held, fits, "{pattern} {sender}");
        }
        for wrong in ["", ".", "a@", "a b", "*"] {
            let mut rule = RouteRule::new("*", RouteClass::Relay);
            rule.sender = wrong.into();
            let problem = Conditions::new(&rule).unwrap_err();
            assert_eq!(problem, RouteProblem::NotASender(wrong.to_owned()));
        }
    }

    #[test]
    fn all_conditions_must_hold_and_of_each_one_text() {
        type Change = fn(&mut RouteRule);
        let one: [(Change, bool); 13] = [
            (|_| {}, true),
            (|rule| rule.account = "alice@OURS.test".into(), true),
            (|rule| rule.account = "*@ours.test".into(), true),
            (|rule| rule.account = "bob@ours.test".into(), false),
            (|rule| rule.tenant = ["other", "acme"].into(), true),
            (|rule| rule.tenant = "acm".into(), false),
            (|rule| rule.tag = "may".into(), true),
            (|rule| rule.tag = "april".into(), false),
            (|rule| rule.listener = "sub*".into(), true),
            (|rule| rule.listener = "smtp".into(), false),
            (
                |rule| drop(rule.facts.insert("list_id".into(), "*.lists.test>".into())),
                true,
            ),
            (
                |rule| drop(rule.facts.insert("list_id".into(), "x".into())),
                false,
            ),
            (
                |rule| drop(rule.facts.insert("other".into(), "*".into())),
                false,
            ),
        ];
        for (number, (change, fits)) in one.into_iter().enumerate() {
            assert_eq!(hold(change, "a@x.test"), fits, "{number}");
            let both = |rule: &mut RouteRule| {
                change(rule);
                rule.sender = "y.test".into();
            };
            assert!(!hold(both, "a@x.test"), "{number}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (wild, text, fits) in [
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("*b", "ab", true),
            ("*b", "ba", false),
        ] {
            assert_eq!(Wild::new(wild).fits(text), fits, "{wild} {text}");
        }
    }
}
