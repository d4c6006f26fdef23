//! Lists of restrictions, one by one (postconf(5), `smtpd_*_restrictions`).

use super::{Scope, Work, listeners::Role};
use crate::{
    lines::{in_braces, words},
    report::Verdict,
};

const LISTS: [&str; 8] = [
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
    "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
    "smtpd_etrn_restrictions",
];

/// Restrictions with a word behind them.
const WITH_ARGUMENT: [&str; 10] = [
    "check_policy_service",
    "reject_rbl_client",
    "reject_rhsbl_client",
    "reject_rhsbl_helo",
    "reject_rhsbl_sender",
    "reject_rhsbl_recipient",
    "reject_rhsbl_reverse_client",
    "permit_dnswl_client",
    "permit_rhswl_client",
    "sleep",
];

const UNLISTED: &str = "what is not an account or alias of ours is refused";
const ADDRESSES: &str = "addresses without a domain are refused";
const NAMES: &str = "names and addresses of strangers are not looked up in the DNS to refuse them: leave it out, or put a filter in front";

impl Work<'_> {
    pub(super) fn restrictions(&mut self) {
        self.classes = words(&self.values.value("smtpd_restriction_classes"))
            .into_iter()
            .map(str::to_owned)
            .collect();
        self.needless(
            "smtpd_restriction_classes",
            "the lists that it names are told of by themselves",
        );
        for name in self.classes.clone() {
            let is_used = self.settings.iter().any(|one| {
                one.name != name
                    && one.name != "smtpd_restriction_classes"
                    && one.value.contains(&name)
            });
            if !is_used {
                self.needless(&name, "no list of restrictions uses it");
            } else if let Some(value) = self.values.raw(&name).map(str::to_owned) {
                self.list(None, &name, &value);
            }
        }
        for name in LISTS {
            if let Some(value) = self.values.raw(name).map(str::to_owned) {
                self.list(None, name, &value);
            }
        }
        for at in 0..self.services.len() {
            for option in self.services[at].options.clone() {
                if LISTS.contains(&option.name.as_str())
                    && self.roles.get(&at) != Some(&Role::Reinjection)
                {
                    self.list(Some(at), &option.name, &option.value);
                }
            }
        }
    }

    fn list(&mut self, scope: Scope, name: &str, value: &str) {
        let value = self.values_of(scope).expand(value);
        let all = words(&value);
        if all.is_empty() {
            return self.note(scope, name, Verdict::NotNeeded, "it is empty");
        }
        let mut rest = all.into_iter();
        let mut warns = false;
        while let Some(word) = rest.next() {
            let inner = in_braces(word).map(|inner| words(inner));
            let word = match inner.as_deref() {
                Some([first, ..]) => *first,
                _ => word,
            };
            let takes_word = word.starts_with("check_") || WITH_ARGUMENT.contains(&word);
            let argument = match inner.as_deref() {
                Some([_, argument, ..]) => Some(*argument),
                None if takes_word => rest.next(),
                _ => None,
            };
            if word == "warn_if_reject" {
                warns = true;
                continue;
            }
            let (verdict, text) = self.restriction(scope, word, argument);
            let (verdict, text) = match std::mem::take(&mut warns) {
                true => (Verdict::NotNeeded, "it only warns".to_owned()),
                false => (verdict, text),
            };
            let shown = match argument {
                Some(argument) => format!("{word} {argument}: {text}"),
                None => format!("{word}: {text}"),
            };
            self.note(scope, name, verdict, shown);
        }
    }

    fn restriction(&self, scope: Scope, word: &str, argument: Option<&str>) -> (Verdict, String) {
        use Verdict::{NotNeeded, NotTranslated, Translated};
        let at_msa = matches!(
            scope.and_then(|at| self.roles.get(&at)),
            Some(Role::Submission | Role::Submissions)
        );
        let (verdict, text) = match word {
            "permit_mynetworks" | "permit_inet_interfaces" if at_msa => {
                (NotNeeded, "who submits logs in, from wherever")
            }
            "permit_mynetworks" => (
                Translated,
                "mta.inbound.relay_networks and queued.relay_networks",
            ),
            "permit_inet_interfaces" => (Translated, "this host is in relay_networks"),
            "permit_sasl_authenticated" if !self.config.has("msa") => {
                (NotNeeded, "nobody logs in on this host")
            }
            "permit_sasl_authenticated" => (
                Translated,
                "the msa takes mail from who has logged in, for anyone",
            ),
            "reject_unauth_destination" | "defer_unauth_destination" => (
                Translated,
                "mail for domains that are not ours is taken from relay_networks alone",
            ),
            "permit_auth_destination" => (NotNeeded, "mail for domains of ours is taken"),
            "permit" => (NotNeeded, "what is not refused is taken"),
            "reject" | "defer" if at_msa => (NotNeeded, "who has not logged in is refused"),
            "reject" | "defer" => (
                NotTranslated,
                "what was refused here may be taken: only domains of ours are open to strangers",
            ),
            "reject_unlisted_recipient" | "check_recipient_maps" => (NotNeeded, UNLISTED),
            "reject_unlisted_sender" => (
                NotNeeded,
                "accounts use senders of their own alone; of strangers nothing is known",
            ),
            "reject_sender_login_mismatch"
            | "reject_authenticated_sender_login_mismatch"
            | "reject_unauthenticated_sender_login_mismatch"
            | "reject_known_sender_login_mismatch" => (
                Translated,
                "an account uses its own address, its aliases and may_send_as; nothing else",
            ),
            "reject_non_fqdn_recipient" | "reject_unknown_recipient_domain" if at_msa => (
                NotNeeded,
                "mail for a domain without a mail host comes back to who sent it",
            ),
            "reject_non_fqdn_recipient" | "reject_unknown_recipient_domain" => {
                (NotNeeded, UNLISTED)
            }
            "reject_non_fqdn_sender" if at_msa => {
                (NotNeeded, "accounts use senders of their own alone")
            }
            "reject_non_fqdn_sender" => (NotNeeded, ADDRESSES),
            "reject_unknown_sender_domain" if at_msa => {
                (NotNeeded, "accounts use senders of their own alone")
            }
            "reject_unauth_pipelining" => (
                NotNeeded,
                "commands ahead of replies are answered one by one",
            ),
            "reject_multi_recipient_bounce" => (
                NotNeeded,
                "a report for several recipients is taken for those that exist",
            ),
            "reject_plaintext_session" => (NotNeeded, "log-ins are taken under TLS only"),
            "reject_invalid_helo_hostname"
            | "reject_invalid_hostname"
            | "reject_non_fqdn_helo_hostname"
            | "reject_non_fqdn_hostname"
                if at_msa =>
            {
                (NotNeeded, "what a mail program calls itself says nothing")
            }
            "reject_invalid_helo_hostname"
            | "reject_invalid_hostname"
            | "reject_non_fqdn_helo_hostname"
            | "reject_non_fqdn_hostname" => (
                NotTranslated,
                "what a client calls itself is no reason to refuse its mail (RFC 5321 §4.1.4): leave it out, or put a filter in front",
            ),
            "reject_unknown_sender_domain"
            | "reject_unknown_helo_hostname"
            | "reject_unknown_hostname"
            | "reject_unknown_client_hostname"
            | "reject_unknown_client"
            | "reject_unknown_reverse_client_hostname" => (NotTranslated, NAMES),
            "reject_unknown_forward_client_hostname" => (NotTranslated, NAMES),
            "reject_unverified_recipient" => (
                NotTranslated,
                "other hosts are not asked for their addresses: list them as accounts",
            ),
            "reject_unverified_sender" => (
                NotTranslated,
                "other hosts are not asked whether a sender exists: leave it out",
            ),
            "permit_mx_backup" => (
                NotTranslated,
                "mail for others is not taken because their MX names us: write [[domain]], its accounts and a route",
            ),
            "permit_tls_clientcerts" | "permit_tls_all_clientcerts" => (
                NotTranslated,
                "a client certificate opens nothing here: give it an account",
            ),
            "check_policy_service" if is_greylist(argument) => (
                NotTranslated,
                "there is no greylisting: leave it out, or put a filter in front",
            ),
            "check_policy_service" => (
                NotTranslated,
                "policy servers are not asked: leave it out, or put a filter in front",
            ),
            "sleep" => (NotNeeded, "nobody is kept waiting"),
            word if word.starts_with("reject_rbl")
                || word.starts_with("reject_rhsbl")
                || word.starts_with("permit_dnswl")
                || word.starts_with("permit_rhswl") =>
            {
                (
                    NotTranslated,
                    "blocklists are not asked: put a filter in front that does, or leave it out",
                )
            }
            word if word.starts_with("check_") => (
                NotTranslated,
                "lists of clients, senders and recipients are not looked into: use the firewall, hold rules or a filter in front",
            ),
            word if self.classes.iter().any(|class| class == word) => {
                (NotNeeded, "a list of its own, which is told of there")
            }
            word if word.starts_with("mua_") => (NotNeeded, "it names a list that is not set"),
            _ => (NotTranslated, "it is not known here"),
        };
        (verdict, text.to_owned())
    }
}

fn is_greylist(argument: Option<&str>) -> bool {
    argument.is_some_and(|argument| argument.contains("grey") || argument.ends_with(":10023"))
}
