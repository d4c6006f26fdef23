//! Sizes and numbers.

use super::Work;
use crate::output::quoted;

const MIB: u64 = 1024 * 1024;
/// What `queued.size_limit` is without being set.
const QUEUE_TAKES: u64 = 128 * MIB;
/// Recipients that every server has to take: RFC 5321 §4.5.3.1.8.
const FEWEST_RECIPIENTS: u64 = 100;

impl Work<'_> {
    pub(super) fn limits(&mut self) {
        self.message_size();
        self.recipients();
        self.connections();
        self.concurrency();
        if self.is_set("hopcount_limit") {
            let value = self.values.value("hopcount_limit");
            let from = self.from("hopcount_limit");
            for section in ["mta.inbound", "mta.outbound"] {
                self.config.set(section, "max_hops", value.clone(), &from);
            }
            self.became(
                "hopcount_limit",
                format!("mta.inbound.max_hops and mta.outbound.max_hops = {value}"),
            );
        }
    }

    fn has_msa(&self) -> bool {
        self.config.has("msa")
    }

    fn message_size(&mut self) {
        let name = "message_size_limit";
        let value = self.values.value(name);
        if !value.is_empty() && value.parse::<u64>().is_err() {
            return self.lost(name, format!("{value} is no number of octets"));
        }
        let Ok(octets) = value.parse::<u64>() else {
            // 10 MiB is Postfix's own; ours takes more.
            return self.needless(name, "it stays as built in");
        };
        let from = self.from(name);
        let size = match octets {
            0 => QUEUE_TAKES,
            octets => octets,
        };
        let shown = quoted(&shown(size));
        self.config
            .set("mta.inbound", "size_limit", shown.clone(), &from);
        if self.has_msa() {
            self.config.set("msa", "size_limit", shown.clone(), &from);
        }
        if size > QUEUE_TAKES {
            self.config
                .set("queued", "size_limit", shown.clone(), &from);
        }
        match octets {
            0 => self.became(
                name,
                format!("size_limit = {shown} in [mta.inbound] and [msa]; there is always a limit"),
            ),
            _ => self.became(
                name,
                format!("size_limit = {shown} in [mta.inbound] and [msa]"),
            ),
        }
    }

    fn recipients(&mut self) {
        let name = "smtpd_recipient_limit";
        if !self.is_set(name) {
            return;
        }
        let value = self.values.value(name);
        let Ok(count) = value.parse::<u64>() else {
            return self.lost(name, format!("{value} is no number"));
        };
        let count = count.max(FEWEST_RECIPIENTS);
        let from = self.from(name);
        self.config
            .set("mta.inbound", "max_recipients", count.to_string(), &from);
        if self.has_msa() {
            self.config
                .set("msa", "max_recipients", count.to_string(), &from);
        }
        self.became(
            name,
            format!("max_recipients = {count} in [mta.inbound] and [msa]"),
        );
    }

    fn connections(&mut self) {
        let name = "default_process_limit";
        if self.is_set(name) {
            self.number(name, &[("mta.inbound.limits", "max_connections")]);
        }
        let name = "smtpd_client_connection_count_limit";
        if self.is_set(name) {
            match self.values.value(name).as_str() {
                "0" => self.needless(
                    name,
                    "there is always a limit: mta.inbound.limits.max_connections_per_ip is 50",
                ),
                _ if self.has_msa() => self.number(
                    name,
                    &[
                        ("mta.inbound.limits", "max_connections_per_ip"),
                        ("msa.limits", "max_connections_per_ip"),
                    ],
                ),
                _ => self.number(name, &[("mta.inbound.limits", "max_connections_per_ip")]),
            }
        }
        let name = "smtpd_client_auth_rate_limit";
        if self.is_set(name) {
            self.needless(
                name,
                "failed log-ins get a network banned: msa.auth.ban_after",
            );
        }
        self.needless(
            "smtpd_client_event_limit_exceptions",
            "msa.auth.ban_except has this host; add networks that many people come by",
        );
        let mut clients = self.services.iter();
        let smtp = clients
            .find(|one| one.name == "smtp" && one.kind == "unix")
            .and_then(|one| Some((one.most?, one.line)));
        if let Some((most @ 1.., line)) = smtp {
            self.config.set(
                "mta.outbound",
                "concurrency",
                most.to_string(),
                &format!("master.cf:{line}"),
            );
        }
    }

    fn number(&mut self, name: &str, keys: &[(&str, &str)]) {
        let value = self.values.value(name);
        if value.parse::<u32>().is_err() {
            return self.lost(name, format!("{value} is no number"));
        }
        let from = self.from(name);
        let shown: Vec<String> = keys
            .iter()
            .map(|(section, key)| format!("{section}.{key} = {value}"))
            .collect();
        for (section, key) in keys {
            self.config.set(section, key, value.clone(), &from);
        }
        self.became(name, shown.join(", "));
    }

    fn concurrency(&mut self) {
        let both = [
            ("queued.destination", "max_leases"),
            ("mta.outbound", "per_destination"),
        ];
        let names = [
            "default_destination_concurrency_limit",
            "smtp_destination_concurrency_limit",
        ];
        for name in names {
            if self.is_set(name) && self.values.value(name) != "0" {
                self.number(name, &both);
            }
        }
        let local = [
            "local_destination_concurrency_limit",
            "virtual_destination_concurrency_limit",
        ];
        for name in local {
            self.needless(
                name,
                "local mail has no limit for a destination; mda.concurrency is for all",
            );
        }
        let ending = "_destination_concurrency_limit";
        let all = self.settings.iter();
        let of_transports = all.filter_map(|one| one.name.strip_suffix(ending));
        let of_transports: Vec<String> = of_transports.map(str::to_owned).collect();
        for transport in of_transports {
            let name = format!("{transport}{ending}");
            let is_known = names.contains(&name.as_str()) || local.contains(&name.as_str());
            match (is_known, self.used.contains(&transport)) {
                (true, _) => {}
                (_, true) => self.became(&name, "max_leases of its routes"),
                (_, false) => self.needless(&name, "no mail goes that way"),
            }
        }
        self.needless(
            "lmtp_destination_concurrency_limit",
            "max_leases of its route, or queued.destination.max_leases",
        );
        self.needless(
            "relay_destination_concurrency_limit",
            "max_leases of its route, or queued.destination.max_leases",
        );
    }
}

fn shown(octets: u64) -> String {
    let units = [(1024 * MIB, "GiB"), (MIB, "MiB"), (1024, "KiB")];
    let whole = units
        .into_iter()
        .find(|(unit, _)| octets.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", octets / unit),
        None => format!("{octets}B"),
    }
}
