//! What services of master.cf and their options come to: submission, certificates, neighbours, parts of Postfix.

use super::{Work, listeners::Role};
use crate::{
    output::{list, quoted},
    report::{Told, Verdict},
};

/// Programs of Postfix that a queue, a schedule and agents take the place of.
const PARTS: [&str; 24] = [
    "pickup",
    "cleanup",
    "qmgr",
    "oqmgr",
    "tlsmgr",
    "trivial-rewrite",
    "bounce",
    "verify",
    "flush",
    "proxymap",
    "smtp",
    "showq",
    "error",
    "discard",
    "local",
    "virtual",
    "lmtp",
    "anvil",
    "scache",
    "postlogd",
    "dnsblog",
    "tlsproxy",
    "smtpd",
    "postscreen",
];

/// Options of submission that are as they are at the msa.
const SUBMISSION: [&str; 12] = [
    "smtpd_tls_security_level",
    "smtpd_tls_auth_only",
    "smtpd_sasl_auth_enable",
    "smtpd_sasl_type",
    "smtpd_sasl_path",
    "smtpd_sasl_security_options",
    "smtpd_sasl_tls_security_options",
    "smtpd_enforce_tls",
    "smtpd_reject_unlisted_recipient",
    "smtpd_sasl_local_domain",
    "smtpd_use_tls",
    "smtpd_tls_mandatory_protocols",
];

impl Work<'_> {
    /// Who may tell by XFORWARD whose mail it hands over.
    pub(super) fn neighbours(&mut self) {
        let name = "smtpd_authorized_xforward_hosts";
        let all = self.listed(name);
        let networks: Vec<String> = all
            .iter()
            .filter_map(|word| super::people::network(word))
            .flatten()
            .collect();
        if networks.is_empty() {
            return self.needless(name, "there is no network in it");
        }
        let from = self.from(name);
        self.config.set(
            "mta.inbound",
            "xforward_networks",
            list(networks.iter().map(|one| quoted(one))),
            &from,
        );
        self.became(
            name,
            format!("mta.inbound.xforward_networks = [{}]", networks.join(", ")),
        );
    }

    pub(super) fn msa(&mut self, submission: &[(String, usize)], submissions: &[(String, usize)]) {
        let certificates = self.certificates();
        let files = [
            "smtpd_tls_cert_file",
            "smtpd_tls_key_file",
            "smtpd_tls_eccert_file",
            "smtpd_tls_eckey_file",
            "smtpd_tls_chain_files",
            "tls_server_sni_maps",
        ];
        let shown = list(certificates.iter().map(|(cert, key)| {
            format!(
                "{{ cert_file = {}, key_file = {} }}",
                quoted(cert),
                quoted(key)
            )
        }));
        let from = files
            .iter()
            .find(|name| self.is_set(name))
            .map(|name| self.from(name))
            .unwrap_or_default();
        let level = self.values.value("smtpd_tls_security_level");
        let with_tls = !matches!(level.as_str(), "" | "none")
            || self.values.says_yes("smtpd_use_tls")
            || self.values.says_yes("smtpd_enforce_tls");
        let mut logs_in = !submission.is_empty() || !submissions.is_empty();
        let at_25 = self.values.says_yes("smtpd_sasl_auth_enable");
        if at_25 && !logs_in {
            logs_in = true;
            self.must(
                "people logged in at port 25: tell them to use port 587 (STARTTLS) or 465 (TLS)",
            );
        } else if logs_in {
            let addresses =
                |all: &[(String, usize)]| list(all.iter().map(|(address, _)| quoted(address)));
            let from = |all: &[(String, usize)]| match all.first() {
                Some((_, line)) => format!("master.cf:{line}"),
                None => "master.cf has no such service".to_owned(),
            };
            self.config.set(
                "msa",
                "submission",
                addresses(submission),
                &from(submission),
            );
            self.config.set(
                "msa",
                "submissions",
                addresses(submissions),
                &from(submissions),
            );
        }
        self.needless("smtpd_tls_wrappermode", "at port 25 TLS begins by STARTTLS");
        if !at_25 {
            let told = "nobody logs in at port 25";
            self.needless("smtpd_sasl_auth_enable", told);
        }
        if at_25 {
            self.became(
                "smtpd_sasl_auth_enable",
                "log-ins at the msa, ports 587 and 465; at port 25 there are none",
            );
        }
        let mut where_shown = Vec::new();
        if !certificates.is_empty() && logs_in {
            self.config.set("msa", "certificates", shown.clone(), &from);
            where_shown.push("msa.certificates");
        }
        let is_inbound = self.config.value("mta.inbound", "enabled").is_none();
        if !certificates.is_empty() && with_tls && is_inbound {
            self.config.set("mta.inbound", "certificates", shown, &from);
            where_shown.push("mta.inbound.certificates");
        }
        for name in files {
            match where_shown.is_empty() {
                true => self.needless(name, "no server of ours offers TLS here"),
                false => self.became(name, where_shown.join(", ")),
            }
        }
        if certificates.is_empty() && logs_in {
            self.must("msa.certificates: people log in under TLS only, so the msa needs a certificate; none is named in main.cf");
        }
        if logs_in {
            self.must("msa and mta must be able to read the keys of the certificates: make them readable for their group");
        }
        match level.as_str() {
            "" => {}
            "none" => self.needless(
                "smtpd_tls_security_level",
                "without certificates in [mta.inbound] no STARTTLS is offered",
            ),
            "encrypt" if self.config.value("mta.inbound", "enabled").is_none() => {
                self.lost("smtpd_tls_security_level", "mta.inbound.certificates: STARTTLS is offered to all, and demanded of nobody (RFC 3207 §4)");
            }
            _ if !is_inbound => self.needless(
                "smtpd_tls_security_level",
                "nobody is listened to at port 25; at the msa all is under TLS",
            ),
            _ => self.became(
                "smtpd_tls_security_level",
                "mta.inbound.certificates: STARTTLS is offered",
            ),
        }
    }

    /// An option of a service that nothing was noted for.
    pub(super) fn option(&self, at: usize, name: &str, value: &str) -> Option<Told> {
        let told = |verdict, text: &str| {
            let text = text.to_owned();
            Some(Told { verdict, text })
        };
        let service = self.services.get(at)?;
        match self.roles.get(&at) {
            Some(Role::Reinjection) => told(
                Verdict::NotNeeded,
                "mail comes back there from the content filter, which is not called",
            ),
            Some(Role::Submission | Role::Submissions) if name == "smtpd_tls_wrappermode" => told(
                Verdict::Translated,
                "msa.submissions begins with TLS, msa.submission does not",
            ),
            Some(Role::Submission | Role::Submissions) if SUBMISSION.contains(&name) => told(
                Verdict::NotNeeded,
                "it is how the msa is: log-in under TLS, by the accounts of directory.toml",
            ),
            Some(Role::Submission | Role::Submissions)
                if name.starts_with("smtpd_tls_") && name.ends_with("_file") =>
            {
                told(Verdict::Translated, "msa.certificates")
            }
            Some(Role::Inbound) if name == "smtpd_sasl_auth_enable" => {
                told(Verdict::NotNeeded, "at port 25 nobody logs in")
            }
            Some(Role::Inbound | Role::Passed) if name == "smtpd_tls_security_level" => match value
            {
                "encrypt" => told(
                    Verdict::NotTranslated,
                    "STARTTLS is offered to all, and demanded of nobody",
                ),
                _ => told(
                    Verdict::NotNeeded,
                    "STARTTLS is offered where mta.inbound.certificates are",
                ),
            },
            Some(_)
                if name == "smtpd_upstream_proxy_protocol"
                    || name == "postscreen_upstream_proxy_protocol" =>
            {
                told(
                    Verdict::NotTranslated,
                    "name the addresses of the balancers in proxy_networks of [msa] or [mta.inbound]; a listener without them takes no PROXY header",
                )
            }
            Some(_) => None,
            None if self.is_client(at) => {
                let notes = self.notes.get(&(None, name.to_owned()))?;
                notes.iter().max_by_key(|told| told.verdict).cloned()
            }
            None if self.is_filter(&service.name) => told(
                Verdict::NotNeeded,
                "it is the way to the content filter, which is not called",
            ),
            None if !self.is_used(&service.name) && !is_ordinary(&service.name) => {
                told(Verdict::NotNeeded, "no mail goes to this service")
            }
            None if name.starts_with("smtp_") || name.starts_with("lmtp_") => {
                match crate::knowledge::known(name, value) {
                    Some(known) => Some(known),
                    None => told(
                        Verdict::NotTranslated,
                        "mail of all routes leaves as [mta.outbound] has it; a transport has no settings of its own",
                    ),
                }
            }
            None => None,
        }
    }

    /// The ordinary SMTP client: its options are as if they stood in main.cf.
    pub(super) fn is_client(&self, at: usize) -> bool {
        let service = self.services.get(at);
        service.is_some_and(|one| one.name == "smtp" && one.kind == "unix" && one.command == "smtp")
    }

    /// Whether a transport leads to a content filter and nowhere else.
    pub(super) fn is_filter(&self, name: &str) -> bool {
        let begin = format!("{name}:");
        let options = self.services.iter().flat_map(|one| one.options.iter());
        let mut all = self.settings.iter().chain(options);
        !self.is_used(name)
            && all.any(|one| one.name == "content_filter" && one.value.starts_with(&begin))
    }

    /// Whether a name is that of a service, so that parameters which begin with it are about the service.
    pub(super) fn is_of_service(&self, name: &str) -> bool {
        let mut services = self.services.iter();
        services.any(|one| {
            name.strip_prefix(one.name.as_str())
                .is_some_and(|rest| rest.starts_with('_'))
        })
    }

    /// A service that nothing was noted for.
    pub(super) fn plain_service(&self, at: usize) -> Told {
        let Some(service) = self.services.get(at) else {
            return super::not_needed("");
        };
        if PARTS.contains(&service.command.as_str()) {
            return super::not_needed("a part of Postfix; the queue and its agents do its work");
        }
        if service.kind == "inet" {
            return Told {
                verdict: Verdict::NotTranslated,
                text: format!(
                    "nothing here does the work of {}: let it run by itself, or leave it out",
                    service.command
                ),
            };
        }
        super::not_needed("no mail goes to this service")
    }
}

/// Services that are there in every Postfix.
fn is_ordinary(name: &str) -> bool {
    PARTS.contains(&name)
        || [
            "rewrite",
            "defer",
            "trace",
            "proxywrite",
            "retry",
            "postlog",
            "relay",
        ]
        .contains(&name)
}
