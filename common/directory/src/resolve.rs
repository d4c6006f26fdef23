use std::collections::HashSet;

use postroad_address::{ForwardPath, LocalPart, Mailbox};
use postroad_envelope::StoreName;
use postroad_reply::{
    BAD_MAILBOX_5_1_1, LOCAL_ERROR_451, MAILBOX_DISABLED_5_2_1, MAILBOX_UNAVAILABLE_550,
    MISCONFIGURED_4_3_5, NOT_AUTHORIZED_5_7_1, Reply,
};

use crate::{Account, Directory, MAX_ALIAS_DEPTH, MAX_EXPANSION, Step, What};

/// Where mail for an address goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// To these, at least one and each once.
    Local(Vec<Expanded>),
    /// The domain is ours, the address is not (550 5.1.1).
    UnknownRecipient,
    /// The domain is not ours (550 5.7.1 for strangers).
    ForeignDomain,
    /// The account does not receive (550 5.2.1).
    Disabled,
    /// Aliases lead back to themselves or through too many others: our fault (451 4.3.5).
    AliasLoop,
    /// Aliases lead to more than [`MAX_EXPANSION`] addresses: our fault (451 4.3.5).
    TooManyTargets,
}

/// One final address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// The address of the account, or the foreign one.
    pub address: Mailbox,
    /// What stood behind the delimiter of the local part: `lists` of `bob+lists`.
    pub detail: Option<String>,
    /// Whether the address is an account of ours.
    pub local: bool,
    /// Of an account of ours: the store that has its mailbox.
    pub store: StoreName,
    /// What the client said, if that is another address.
    pub original: Option<Mailbox>,
}

/// Where mail for an address goes, and whose its domain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Where it goes.
    pub resolution: Resolution,
    /// The tenant of the address's domain, if that is ours.
    pub tenant: Option<String>,
}

impl Resolution {
    /// Where the mail goes, or the reply to whoever named such a recipient.
    pub fn into_local(self) -> Result<Vec<Expanded>, Reply> {
        let (code, enhanced, text) = match self {
            Self::Local(all) => return Ok(all),
            Self::UnknownRecipient => (
                MAILBOX_UNAVAILABLE_550,
                BAD_MAILBOX_5_1_1,
                "there is no such mailbox here",
            ),
            Self::ForeignDomain => (
                MAILBOX_UNAVAILABLE_550,
                NOT_AUTHORIZED_5_7_1,
                "this domain is not ours",
            ),
            Self::Disabled => (
                MAILBOX_UNAVAILABLE_550,
                MAILBOX_DISABLED_5_2_1,
                "this mailbox takes no mail",
            ),
            Self::AliasLoop | Self::TooManyTargets => (
                LOCAL_ERROR_451,
                MISCONFIGURED_4_3_5,
                "the aliases of this address cannot be followed, please try again later",
            ),
        };
        Err(Reply::new(code, enhanced, text))
    }
}

/// What an address is, before any alias is followed.
enum Found<'a> {
    Account(&'a Account, Option<String>),
    Forward(Vec<&'a Mailbox>, Option<String>, (What, usize)),
    Unknown,
}

impl Directory {
    /// Follows a recipient through aliases, details, postmaster and catch-all to where its mail goes.
    pub fn resolve(&self, path: &ForwardPath) -> Resolution {
        self.follow(path, None)
    }

    /// The same; notes each address on the way, if that is wanted.
    pub(crate) fn follow(&self, path: &ForwardPath, steps: Option<&mut Vec<Step>>) -> Resolution {
        let asked = match self.asked(path) {
            Ok(asked) => asked,
            Err(resolution) => return resolution,
        };
        if self.is_local_domain(asked.domain()) {
            return self.walk(&asked, true, steps);
        }
        if let Some(steps) = steps {
            steps.push(Step {
                depth: 0,
                address: asked,
                what: What::Foreign,
                line: None,
            });
        }
        Resolution::ForeignDomain
    }

    /// The address that is meant.
    fn asked(&self, path: &ForwardPath) -> Result<Mailbox, Resolution> {
        match (path, self.primary_domain()) {
            (ForwardPath::Mailbox(mailbox), _) => Ok(mailbox.clone()),
            // RFC 5321 §4.1.1.3: `<postmaster>` without a domain is always accepted.
            (ForwardPath::Postmaster, Some(primary)) => match LocalPart::parse("postmaster") {
                Ok(postmaster) => Ok(Mailbox::new(postmaster, primary.name.clone())),
                Err(_) => Err(Resolution::UnknownRecipient),
            },
            (ForwardPath::Postmaster, None) => Err(Resolution::UnknownRecipient),
        }
    }

    /// The same, with the tenant.
    pub fn look_up(&self, path: &ForwardPath) -> Resolved {
        let tenant = match path.mailbox() {
            Some(mailbox) => self.tenant_of(mailbox.domain()),
            None => self.primary_domain().map(|primary| primary.tenant.as_str()),
        };
        Resolved {
            resolution: self.resolve(path),
            tenant: tenant.map(str::to_owned),
        }
    }

    /// Whether all mail for the address reaches this account and no other; a catch-all does not count.
    pub(crate) fn leads_only_to(&self, mailbox: &Mailbox, account: &Account) -> bool {
        if !self.is_local_domain(mailbox.domain()) {
            return false;
        }
        match self.expand(mailbox, false) {
            Resolution::Local(all) => match all.as_slice() {
                [only] => only.local && only.address.folded() == account.name(),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the address itself, detail and all, stands in the directory.
    pub(crate) fn is_named(&self, mailbox: &Mailbox) -> bool {
        self.find_exact(mailbox, None).is_some()
    }

    pub(crate) fn expand(&self, asked: &Mailbox, catch_all: bool) -> Resolution {
        self.walk(asked, catch_all, None)
    }

    fn walk(&self, asked: &Mailbox, catch_all: bool, steps: Option<&mut Vec<Step>>) -> Resolution {
        let mut walk = Walk {
            steps,
            directory: self,
            asked,
            catch_all,
            path: Vec::new(),
            seen: HashSet::new(),
            reached: Vec::new(),
            reached_keys: HashSet::new(),
            disabled: false,
        };
        match walk.visit(asked, None) {
            Err(broken) => broken,
            Ok(()) if !walk.reached.is_empty() => Resolution::Local(walk.reached),
            Ok(()) if walk.disabled => Resolution::Disabled,
            Ok(()) => Resolution::UnknownRecipient,
        }
    }

    fn find(&self, mailbox: &Mailbox, catch_all: bool) -> Found<'_> {
        if let Some(found) = self.find_exact(mailbox, None) {
            return found;
        }
        if let Some((base, detail)) = self.without_detail(mailbox)
            && let Some(found) = self.find_exact(&base, Some(detail))
        {
            return found;
        }
        match self.domain(mailbox.domain()).map(|entry| &entry.catch_all) {
            Some(Some(target)) if catch_all => {
                let line = self.domain(mailbox.domain()).map_or(0, |entry| entry.line);
                Found::Forward(vec![target], None, (What::CatchAll, line))
            }
            _ => Found::Unknown,
        }
    }

    fn find_exact(&self, mailbox: &Mailbox, detail: Option<String>) -> Option<Found<'_>> {
        let folded = mailbox.folded();
        if let Some(account) = self.accounts.get(&folded) {
            return Some(Found::Account(account, detail));
        }
        if let Some(alias) = self.aliases.get(&folded) {
            // A detail of a list has no meaning for its members.
            let detail = detail.filter(|_| alias.to.len() == 1);
            let told = (What::Alias, alias.line);
            return Some(Found::Forward(alias.to.iter().collect(), detail, told));
        }
        let domain = self.domain(mailbox.domain())?;
        match mailbox.local_part().folded().as_str() {
            // RFC 5321 §4.5.1 and RFC 2142 §2: these two exist in every domain.
            "postmaster" | "abuse" => {
                let told = (What::Role, domain.line);
                let postmaster = domain.postmaster.as_ref()?;
                Some(Found::Forward(vec![postmaster], detail, told))
            }
            _ => None,
        }
    }
}

struct Walk<'a> {
    steps: Option<&'a mut Vec<Step>>,
    directory: &'a Directory,
    asked: &'a Mailbox,
    catch_all: bool,
    /// The addresses between the asked one and this one.
    path: Vec<String>,
    /// All addresses met, so that each is followed once however many aliases share it.
    seen: HashSet<String>,
    reached: Vec<Expanded>,
    reached_keys: HashSet<String>,
    disabled: bool,
}

impl Walk<'_> {
    fn visit(&mut self, mailbox: &Mailbox, detail: Option<String>) -> Result<(), Resolution> {
        let folded = mailbox.folded();
        if self.path.contains(&folded) || self.path.len() > MAX_ALIAS_DEPTH {
            return Err(Resolution::AliasLoop);
        }
        if !self.seen.insert(folded.clone()) {
            return Ok(());
        }
        if !self.directory.is_local_domain(mailbox.domain()) {
            self.note(mailbox, What::Foreign, None);
            return self.reach(mailbox, None, None);
        }
        match self.directory.find(mailbox, self.catch_all) {
            Found::Account(account, _) if account.disabled => {
                self.note(mailbox, What::Disabled, Some(account.line));
                self.disabled = true;
            }
            Found::Account(account, own) => {
                self.note(mailbox, What::Account, Some(account.line));
                self.reach(&account.address, own.or(detail), Some(account))?;
            }
            Found::Forward(targets, own, (what, line)) => {
                self.note(mailbox, what, Some(line));
                self.path.push(folded);
                for target in targets {
                    self.visit(target, own.clone().or_else(|| detail.clone()))?;
                }
                self.path.pop();
            }
            Found::Unknown => self.note(mailbox, What::Unknown, None),
        }
        Ok(())
    }

    fn note(&mut self, address: &Mailbox, what: What, line: Option<usize>) {
        let depth = self.path.len();
        if let Some(steps) = &mut self.steps {
            steps.push(Step {
                depth,
                address: address.clone(),
                what,
                line,
            });
        }
    }

    fn reach(
        &mut self,
        address: &Mailbox,
        detail: Option<String>,
        account: Option<&Account>,
    ) -> Result<(), Resolution> {
        let folded = address.folded();
        if self.reached_keys.contains(&folded) {
            return Ok(());
        }
        if self.reached.len() >= MAX_EXPANSION {
            return Err(Resolution::TooManyTargets);
        }
        self.reached.push(Expanded {
            address: address.clone(),
            detail,
            local: account.is_some(),
            store: account
                .map(|account| account.store.clone())
                .unwrap_or_default(),
            original: (self.asked.folded() != folded).then(|| self.asked.clone()),
        });
        self.reached_keys.insert(folded);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const FILE: &str = r#"
[[domain]]
name = "Example.org"
postmaster = "alice@example.org"

[[domain]]
name = "bücher.example"
postmaster = "alice@example.org"
catch_all = "bob@example.org"
subaddress_delimiter = "-"

[[account]]
address = "Alice@example.org"
aliases = ["al@example.org"]

[[account]]
address = "bob@example.org"
may_send_as = ["sales@bücher.example"]

[[account]]
address = "gone@example.org"
disabled = true

[[alias]]
address = "team@example.org"
to = ["alice@example.org", "Alice@example.org", "nested@example.org", "x@foreign.example", "gone@example.org"]

[[alias]]
address = "nested@example.org"
to = ["bob+work@example.org", "al@example.org"]

[[alias]]
address = "ping@example.org"
to = ["pong@example.org"]

[[alias]]
address = "pong@example.org"
to = ["ping+x@example.org", "alice@example.org"]
"#;

    fn directory() -> Directory {
        Directory::parse(Path::new("directory.toml"), FILE).unwrap()
    }

    /// What an address expands to, as `address/detail`.
    fn reached(address: &str) -> Vec<String> {
        match directory().resolve(&ForwardPath::parse(address).unwrap()) {
            Resolution::Local(all) => all
                .iter()
                .map(|one| format!("{}/{}", one.address, one.detail.as_deref().unwrap_or("-")))
                .collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn accounts_in_any_case_and_with_detail() {
        assert_eq!(reached("aLICE@EXAMPLE.ORG"), ["Alice@example.org/-"]);
        assert_eq!(reached("alice+A+b@example.org"), ["Alice@example.org/A+b"]);
        assert_eq!(reached("al+x@example.org"), ["Alice@example.org/x"]);
        assert_eq!(reached("nobody@example.org"), ["UnknownRecipient"]);
        assert_eq!(reached("alice@elsewhere.example"), ["ForeignDomain"]);
        assert_eq!(reached("gone@example.org"), ["Disabled"]);
        assert_eq!(reached("\"..\"@example.org"), ["UnknownRecipient"]);
        assert_eq!(reached("a/b@example.org"), ["UnknownRecipient"]);
    }

    #[test]
    fn every_domain_has_postmaster_and_abuse() {
        for address in [
            "postmaster",
            "PostMaster@example.org",
            "abuse@xn--bcher-kva.example",
        ] {
            assert_eq!(reached(address), ["Alice@example.org/-"], "{address}");
        }
        assert_eq!(reached("anyone@BÜCHER.example"), ["bob@example.org/-"]);
    }

    #[test]
    fn aliases_expand_each_target_once() {
        assert_eq!(
            reached("team+ignored@example.org"),
            [
                "Alice@example.org/-",
                "bob@example.org/work",
                "x@foreign.example/-"
            ]
        );
        assert_eq!(reached("ping@example.org"), ["AliasLoop"]);
        let Resolution::Local(all) =
            directory().resolve(&ForwardPath::parse("team@example.org").unwrap())
        else {
            panic!("team is local");
        };
        assert!(
            all.iter()
                .all(|one| one.original == Mailbox::parse("team@example.org").ok())
        );
        assert_eq!(all.iter().filter(|one| one.local).count(), 2);
    }

    #[test]
    fn senders_an_account_may_use() {
        let directory = directory();
        let may = |account: &str, sender: &str| {
            let account = directory.account_by_name(account).unwrap();
            let sender = postroad_address::ReversePath::parse(sender).unwrap();
            directory.may_send_as(account, &sender)
        };
        for sender in [
            "",
            "ALICE@example.org",
            "alice+x@example.org",
            "al@example.org",
            "abuse@example.org",
        ] {
            assert!(may("alice@example.org", sender), "{sender}");
        }
        for sender in [
            "bob@example.org",
            "team@example.org",
            "x@foreign.example",
            "no@bücher.example",
            "ping@example.org",
        ] {
            assert!(!may("alice@example.org", sender), "{sender}");
        }
        assert!(may("bob@example.org", "sales-x@xn--bcher-kva.example"));
        assert!(
            !may("bob@example.org", "anyone@bücher.example"),
            "a catch-all gives no right to send"
        );
    }

    #[test]
    fn a_detail_that_is_somebody_elses_address_gives_no_right_to_send() {
        let file = "[[domain]]\nname = \"d.example\"\npostmaster = \"bob@d.example\"\n[[account]]\naddress = \"bob@d.example\"\n\
            [[account]]\naddress = \"bob+boss@d.example\"\n[[alias]]\naddress = \"bob+list@d.example\"\nto = [\"x@foreign.example\"]\n";
        let directory = Directory::parse(Path::new("d.toml"), file).unwrap();
        let bob = directory.account_by_name("bob@d.example").unwrap();
        let may = |sender: &str| {
            directory.may_send_as(bob, &postroad_address::ReversePath::parse(sender).unwrap())
        };
        assert!(may("bob+anything@d.example"));
        assert!(!may("bob+boss@d.example") && !may("Bob+LIST@d.example"));
    }

    proptest! {
        #[test]
        fn any_graph_of_aliases_ends(edges in proptest::collection::vec((0..12_u8, 0..14_u8), 0..60)) {
            let mut file = "[[domain]]\nname = \"d.example\"\n[[account]]\naddress = \"n12@d.example\"\n".to_owned();
            for from in 0..12 {
                let to: Vec<String> = edges.iter().filter(|edge| edge.0 == from).map(|edge| format!("\"n{}@d.example\"", edge.1)).collect();
                if !to.is_empty() {
                    file += &format!("[[alias]]\naddress = \"n{from}@d.example\"\nto = [{}]\n", to.join(", "));
                }
            }
            let directory = Directory::parse(Path::new("d"), &file).unwrap();
            for from in 0..12 {
                let path = ForwardPath::parse(&format!("n{from}@d.example")).unwrap();
                if let Resolution::Local(all) = directory.resolve(&path) {
                    prop_assert_eq!(all.len(), 1);
                }
            }
        }
    }
}
