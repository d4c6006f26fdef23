//! The answer for a person: a block for each recipient, a label before each line.

use std::fmt::Display;

use super::told::{
    Asked, Final, Host, Limit, Mail, Place, Recipient, Report, Retry, Route, Sending, Site, Told,
};
use crate::terminal::{Terminal, harmless};

/// Columns of the labels.
const LABEL: usize = 11;
/// Characters of a DNS record or a reply.
const LONGEST: usize = 160;

/// Writes all of it.
pub fn tell(told: &Told, terminal: &mut Terminal<'_>) {
    let mut page = Page {
        terminal: &mut *terminal,
        indent: 0,
    };
    page.mail(&told.mail);
    for recipient in &told.recipients {
        page.blank();
        page.recipient(recipient);
    }
    for note in &told.notes {
        terminal.say(format_args!("note: {}", harmless(note)));
    }
}

struct Page<'p, 't> {
    terminal: &'p mut Terminal<'t>,
    indent: usize,
}

impl Page<'_, '_> {
    fn blank(&mut self) {
        self.terminal.line("");
    }

    fn head(&mut self, text: &str) {
        let indent = self.indent;
        let text = harmless(text);
        self.terminal.line(format_args!("{:indent$}{text}", ""));
    }

    fn row(&mut self, label: &str, text: impl Display) {
        let indent = self.indent + 2;
        let text = harmless(&text.to_string());
        self.terminal
            .line(format_args!("{:indent$}{label:LABEL$}{text}", ""));
    }

    /// Rows of one label.
    fn rows(&mut self, label: &str, texts: impl IntoIterator<Item = String>) {
        let mut label = label;
        for text in texts {
            self.row(std::mem::take(&mut label), text);
        }
    }

    fn mail(&mut self, mail: &Mail) {
        self.head(&format!("mail from <{}>", mail.from));
        let at = mail.listener.as_ref();
        let at = at.map(|listener| format!(", at listener {listener}"));
        self.row("comes", format!("{}{}", mail.way, at.unwrap_or_default()));
        self.row("tenant", &mail.tenant);
        if !mail.tags.is_empty() {
            self.row("tags", mail.tags.join(", "));
        }
        let facts = mail.facts.iter();
        self.rows(
            "facts",
            facts.map(|(name, value)| format!("{name} = {value}")),
        );
        if let Some(size) = mail.size {
            let utf8 = if mail.smtputf8 { ", SMTPUTF8" } else { "" };
            let hops = mail.hops;
            self.row(
                "content",
                format!(
                    "{size} octets, {}{utf8}, Received fields: {hops}",
                    mail.body
                ),
            );
        }
        if mail.requiretls {
            self.row("demands", "REQUIRETLS");
        }
        if mail.priority != 0 {
            self.row("priority", mail.priority);
        }
        if let Some(until) = &mail.rests_until {
            self.row("rests", format!("until {until} (msa.undo, or as it asks)"));
        }
    }

    fn recipient(&mut self, recipient: &Recipient) {
        self.head(&recipient.to);
        match (recipient.taken, &recipient.reply) {
            (true, Some(reply)) => self.row("taken", reply),
            (true, None) => {}
            (false, reply) => self.row("REFUSED", reply.as_deref().unwrap_or_default()),
        }
        if let Some(remedy) = &recipient.remedy {
            self.row("to mend", remedy);
        }
        let steps = recipient.directory.iter().map(|step| {
            let indent = 2 * step.depth;
            let place = step.place.as_ref().map(|place| format!("   {place}"));
            format!(
                "{:indent$}{}: {}{}",
                "",
                step.address,
                step.is,
                place.unwrap_or_default()
            )
        });
        self.rows("directory", steps);
        if recipient.taken && recipient.leads_to.is_empty() {
            let once = "where another of these goes: each address gets the mail once";
            self.row("route", once);
        }
        let several = recipient.leads_to.len() > 1;
        for ending in &recipient.leads_to {
            if several {
                self.indent = 2;
                self.head(&format!("to {}", ending.address));
            }
            self.ending(ending);
        }
        self.indent = 0;
        if recipient.more > 0 {
            self.row("", format!("and {} more", recipient.more));
        }
    }

    fn ending(&mut self, ending: &Final) {
        self.route(&ending.route);
        if let Some(report) = &ending.suppressed {
            self.row("FAILS", words(report));
        }
        if let Some(held) = &ending.held {
            self.row(
                "HELD",
                format!("by {held}; `postroad queue rule list` shows it"),
            );
        }
        if let Some(sending) = &ending.sending {
            self.sending(sending, ending.leases.as_ref());
            if sending.fails() {
                self.row("retry", "none: it fails for good, and its sender is told");
            }
        }
        if let Some(retry) = &ending.retry {
            self.retry(retry, &ending.route.class);
        }
    }

    fn route(&mut self, route: &Route) {
        let place = route.place.as_ref().map(|place| format!("   {place}"));
        let does = match route.class.as_str() {
            "hold" => ": kept until someone releases it",
            "discard" => ": thrown away",
            _ => "",
        };
        self.row(
            "route",
            format!(
                "{}, {}{does}{}",
                route.class,
                route.rule,
                place.unwrap_or_default()
            ),
        );
        if let Some(store) = route.store.as_ref().filter(|store| *store != "default") {
            self.row("store", store);
        }
        if route.next_hops.len() > 1 {
            self.rows("to one of", route.next_hops.iter().cloned());
        }
        if let Some(source) = &route.source {
            self.row("pool", format!("{}   {}", source.text, source.place));
        }
    }

    fn sending(&mut self, sending: &Sending, leases: Option<&Limit>) {
        self.row("said", format!("MAIL FROM:<{}>", sending.mail_from));
        if !sending.needs.is_empty() {
            self.row("needs", format!("a host with {}", sending.needs.join(", ")));
        }
        if let Some(report) = &sending.nowhere {
            self.row("NOWHERE", words(report));
        }
        let limits = leases.into_iter().map(|leases| {
            let most = leases
                .most
                .map_or("any number".to_owned(), |most| most.to_string());
            format!(
                "{most} jobs of the destination at a time   {}",
                leases.place
            )
        });
        let own = sending.per_destination.most.unwrap_or_default();
        let own = format!(
            "{own} of them at one mta   {}",
            sending.per_destination.place
        );
        self.rows("limits", limits.chain([own]));
        let count = sending.places.len();
        for (number, place) in (1..).zip(&sending.places) {
            let label = match (count, number) {
                (1, _) => "to",
                (_, 1) => "first",
                _ => "then",
            };
            self.row(label, &place.aim);
            self.place(place);
        }
    }

    fn place(&mut self, place: &Place) {
        self.rows("  dns", place.dns.iter().map(question));
        if let Some(report) = &place.problem {
            self.row("  NO HOST", words(report));
        }
        if let Some(site) = &place.site {
            self.rows("  site", site_rows(site));
        }
        self.rows("  left out", place.notes.iter().cloned());
        if let Some(sts) = &place.mta_sts {
            let fetched = sts.fetched_at.as_ref();
            let fetched = fetched.map(|at| format!(" (fetched {at})"));
            let policy = sts.policy.clone().unwrap_or_else(|| "no policy".to_owned());
            let counts = format!("{policy}{}", fetched.unwrap_or_default());
            self.rows("  mta-sts", [counts].into_iter().chain(sts.problem.clone()));
        }
        for host in &place.hosts {
            self.rows("  host", host_rows(host));
        }
    }

    fn retry(&mut self, retry: &Retry, class: &str) {
        if class == "hold" {
            let life = span(retry.life);
            return self.row("kept", format!("{life} at most   {}", retry.place));
        }
        let after: Vec<String> = retry.intervals.iter().map(|one| span(*one)).collect();
        let jitter = match retry.jitter_percent {
            0 => String::new(),
            percent => format!(" (each up to {percent} % more or less)"),
        };
        let tell = retry.tell_after.map(|after| {
            let after = span(after);
            format!("its sender is told after {after} that it waits")
        });
        let rows = [
            format!("after {}{jitter}   {}", after.join(", "), retry.place),
            format!("given up after {}", span(retry.life)),
        ];
        let causes = retry.by_cause.iter().map(|own| {
            let first = span(own.first);
            format!("first after {first} if {}   {}", own.cause, own.place)
        });
        self.rows("retry", rows.into_iter().chain(tell).chain(causes));
    }
}

fn words(report: &Report) -> String {
    format!("{} {}", report.status, report.text)
}

fn question(asked: &Asked) -> String {
    let secure = if asked.secure { "   secure" } else { "" };
    let answer = match &asked.problem {
        Some(problem) => problem.clone(),
        None => asked.records.join(", "),
    };
    let answer: String = answer.chars().take(LONGEST).collect();
    let ttl = asked.ttl.map(|ttl| format!("   TTL {ttl}"));
    let ttl = ttl.unwrap_or_default();
    format!("{} {}: {answer}{ttl}{secure}", asked.name, asked.kind)
}

fn site_rows(site: &Site) -> Vec<String> {
    let mut limits = Vec::new();
    limits.extend(
        site.connections
            .map(|most| format!("{most} connections at once")),
    );
    limits.extend(
        site.messages_per
            .as_ref()
            .map(|rate| format!("{rate} mails")),
    );
    limits.extend(
        site.connections_per
            .as_ref()
            .map(|rate| format!("{rate} connections")),
    );
    limits.extend(
        site.first_connections
            .map(|most| format!("{most} while it is new")),
    );
    let limits = match limits.is_empty() {
        true => "no limit".to_owned(),
        false => limits.join(", "),
    };
    let limits = match site.heeded {
        true => format!("{limits}   {}", site.place),
        false => format!("its limits are not heeded   {}", site.place),
    };
    let state = site.state.as_ref().map(|state| format!("now {state}"));
    [site.name.clone(), limits]
        .into_iter()
        .chain(state)
        .collect()
}

fn host_rows(host: &Host) -> Vec<String> {
    let secure = if host.secure { "   secure" } else { "" };
    let mut rows = vec![format!("{}{secure}", host.name)];
    if let Some(report) = &host.problem {
        rows.push(format!("NOT USED: {}", words(report)));
    }
    if let Some(tls) = &host.tls {
        let implicit = if tls.implicit {
            ", from the first octet"
        } else {
            ""
        };
        rows.push(format!(
            "TLS {} ({}){implicit}, certificate: {}   {}",
            tls.level, tls.why, tls.certificate, tls.place
        ));
        rows.extend(tls.problem.clone());
    }
    let from = host.from.as_ref().map_or("any address", String::as_str);
    let login = host.login.as_ref();
    let login = login.map(|user| format!(", logs in as {user}"));
    let login = login.unwrap_or_default();
    rows.push(format!("from {from}, EHLO {}{login}", host.ehlo));
    rows
}

/// `4m`, `1h30m`, `5d`.
fn span(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let (mut left, mut text) = (seconds, String::new());
    for (name, length) in units {
        if left >= length {
            text += &format!("{}{name}", left / length);
            left %= length;
        }
    }
    match text.is_empty() {
        true => "0s".to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (240, "4m"),
            (5400, "1h30m"),
            (432_000, "5d"),
            (90_061, "1d1h1m1s"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
