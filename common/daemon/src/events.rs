//! The closed list of events and fields. Log readers rely on it: names are only added, never
//! changed or removed, and tests of the agents compare what they log with it.

use std::fmt::Write as _;

/// Every value the field `event` can have, with the fact it stands for.
pub const EVENTS: &[(&str, &str)] = &[
    // The life of a process.
    ("config_loaded", "The configuration was read and is valid."),
    ("listening", "A listener takes connections."),
    (
        "ready",
        "Every check of what the process does by itself is ready; it does its work.",
    ),
    (
        "stopping",
        "The process was told to stop, or one of its tasks ended.",
    ),
    ("stopped", "The process ends."),
    (
        "directory_loaded",
        "Domains, accounts and aliases were read, at the start or again.",
    ),
    (
        "directory_problem",
        "Something in the directory is odd; it works nevertheless.",
    ),
    (
        "certificate_reloaded",
        "A certificate and its key were read again.",
    ),
    (
        "certificate_warning",
        "A certificate or its key needs the attention of a person.",
    ),
    (
        "revocations_reloaded",
        "The list of revoked certificates was read again.",
    ),
    (
        "reloaded",
        "The configuration was read again; what is live of it is in force.",
    ),
    (
        "reload_failed",
        "A file was changed and cannot be used; what was read before stays in force.",
    ),
    // Conversations.
    ("connection_opened", "A peer connected."),
    (
        "client_told",
        "A proxy told for whom it speaks (XCLIENT); `peer` is that client from now on.",
    ),
    (
        "connection_refused",
        "A peer was turned away before the conversation began.",
    ),
    ("connection_closed", "A conversation ended."),
    ("tls_failed", "A TLS handshake failed."),
    (
        "tls_report_sent",
        "A domain was told how TLS went with its mail hosts.",
    ),
    (
        "sts_policy",
        "What a domain says of its mail hosts by MTA-STS was fetched.",
    ),
    (
        "sts_failed",
        "A domain says that it has an MTA-STS policy, and there is none to be had; one that was fetched before counts on.",
    ),
    ("auth_succeeded", "A client proved to be an account."),
    ("auth_failed", "A client did not prove to be an account."),
    (
        "token_refused",
        "An access token did not count; `reason` says why. The token is not logged.",
    ),
    (
        "app_password_used",
        "An account logged in by a password of one of its programs.",
    ),
    (
        "app_password_refused",
        "A password of a program is right and does not open this; `reason` says why. The client hears what it would of a wrong one.",
    ),
    (
        "ticket_refused",
        "A ticket of Kerberos did not count; `reason` says why.",
    ),
    (
        "keys_fetched",
        "The keys of an issuer of access tokens were read, and are not those of before.",
    ),
    (
        "keys_away",
        "The keys of an issuer of access tokens cannot be read.",
    ),
    (
        "accounts_from_queue",
        "The process asks the queue for accounts and reads no directory file.",
    ),
    (
        "accounts_lost",
        "The queue does not tell of accounts; what is remembered goes on.",
    ),
    ("accounts_found", "The queue tells of accounts again."),
    (
        "verifier_given",
        "A submission agent was given what checks the password of an account, if there is such an account.",
    ),
    (
        "counters_lost",
        "The queue does not count for all copies of an agent; this one counts by itself.",
    ),
    (
        "counters_found",
        "The queue counts for all copies of an agent again.",
    ),
    (
        "counters_full",
        "There are more counters or bans than there is room for; the oldest make room.",
    ),
    (
        "banned",
        "A client's network is refused for a time, since too much of it failed.",
    ),
    ("accepted", "A mail was accepted: from here on it is ours."),
    ("rejected", "A command or a mail was refused."),
    (
        "bounce_came",
        "A mail came to an address that was made for one recipient (VERP), who is `bounce_of`.",
    ),
    // The queue.
    ("queue_started", "The queue accepts mail."),
    (
        "caught_up",
        "The queue has read its journal after a start: from here on it gives mail out.",
    ),
    ("replay", "The journal was read after a start."),
    (
        "index_renewed",
        "The index was much larger than what it held; it was made anew.",
    ),
    (
        "index_outdated",
        "The index was of another release's format; it is built anew from the journal.",
    ),
    (
        "checkpoint",
        "The index is on disk up to a position of the journal.",
    ),
    (
        "reclaimed",
        "A segment of the journal was emptied for new use.",
    ),
    (
        "corruption",
        "Stored data is damaged; the damaged part was put aside.",
    ),
    ("disk_failed", "The disk refused to keep data."),
    (
        "disk_full",
        "Free space fell below the reserve, or there is none for another journal segment or for the index; no mail is accepted, what was accepted goes on.",
    ),
    (
        "disk_recovered",
        "Free space is back; mail is accepted again.",
    ),
    (
        "site_state",
        "The queue learned that a site takes less mail than it is given, or more again, or that nobody answers there.",
    ),
    ("submitted", "The queue keeps a mail."),
    (
        "leased",
        "A worker was given recipients of a mail to work on.",
    ),
    (
        "lease_expired",
        "A worker did not answer in time; its recipients are due again.",
    ),
    ("settled", "The outcome of a recipient is on disk."),
    ("dsn_sent", "A report about a mail was put into the queue."),
    (
        "over_quota",
        "A mail was refused: its tenant, account or recipient domain has no room in the queue.",
    ),
    (
        "suppressed",
        "A host said that there is no such mailbox: mail to it is not tried until it is released.",
    ),
    ("held", "A mail waits until somebody releases it."),
    ("released", "A held mail goes on."),
    ("dropped", "A mail was removed without delivery."),
    (
        "withdrawn",
        "A mail was taken back by its account before anything of it was tried.",
    ),
    (
        "purging",
        "Retired mails are being forgotten for good: how far that is.",
    ),
    (
        "purged",
        "An operator had retired mails forgotten for good.",
    ),
    (
        "resent",
        "An operator sent a retired mail again, as a new mail.",
    ),
    (
        "rerouted",
        "A mail goes another way since domains or routes changed.",
    ),
    (
        "store_shared",
        "Two hosts serve one mail store; each has mailboxes of its own.",
    ),
    ("queue_connected", "The process reached the queue."),
    (
        "queue_lost",
        "The process cannot reach the queue and tries again.",
    ),
    ("worker_connected", "A worker takes leases."),
    (
        "worker_lost",
        "The stream of a worker ended; its leases are freed.",
    ),
    // The way out.
    ("attempt", "A delivery was tried, here or at another host."),
    ("delivered", "A mail lies in a mailbox."),
    (
        "host_unusable",
        "A host that mail goes by cannot be used as it is configured; the mail waits.",
    ),
    (
        "family_unreachable",
        "IPv6, or IPv4, leads nowhere from here or is far slower than the other; for a while it comes last.",
    ),
    // People.
    (
        "admin",
        "A person or a program with the admin role changed something.",
    ),
    (
        "fault",
        "Something failed in a way nobody foresaw; the work goes on.",
    ),
];

/// Every field besides `ts`, `level`, `agent`, `event` and `message`.
pub const FIELDS: &[(&str, &str)] = &[
    ("session_id", "One conversation of a listener."),
    ("queue_id", "One mail."),
    ("listener", "The listener's name in the configuration."),
    (
        "peer",
        "`[ip]:port` of the other side, `local` over a Unix socket, or the name of an agent.",
    ),
    (
        "proxy",
        "`[ip]:port` of the balancer that carries a connection, or of the proxy that speaks for a client.",
    ),
    ("helo", "What the client called itself."),
    (
        "client",
        "`[ip]:port` of the client behind a mail system in front of us (`peer`), as that told by XFORWARD; port 0: it did not say.",
    ),
    ("client_name", "The name by DNS of that client."),
    ("client_helo", "What that client called itself."),
    (
        "peer_queue_id",
        "The id that a mail has at the mail system in front of us.",
    ),
    ("account", "The account a client proved to be."),
    ("app_password", "What the app password it showed is called."),
    ("mail_from", "The reverse-path."),
    ("rcpt_to", "A forward-path."),
    (
        "bounce_of",
        "The recipient whose mail came back, as the address tells.",
    ),
    ("recipients", "How many recipients."),
    ("message_id", "The Message-ID of the mail."),
    ("size", "Octets of content."),
    (
        "scope",
        "What a quota is for: a tenant, an account or a domain.",
    ),
    ("owner", "Whose quota it is."),
    ("mails", "How many mails there are."),
    ("most_mails", "How many mails there may be."),
    ("octets", "Octets of content there are."),
    ("most_octets", "Octets of content there may be."),
    ("relay", "`host[ip]:port` a mail was handed to."),
    ("attempt", "Which attempt this was, from 1."),
    (
        "outcome",
        "What became of it: delivered, relayed, delayed, failed, expanded.",
    ),
    ("code", "The reply code (RFC 5321 §4.2)."),
    ("enhanced", "The enhanced status code (RFC 3463)."),
    (
        "cause",
        "Why a recipient did not get the mail, or not yet: mailbox_unknown, mailbox_full, spam, connection and so on.",
    ),
    ("reply", "The text of the reply."),
    ("rule", "The rule that decided."),
    ("delay_ms", "Milliseconds since the mail was accepted."),
    ("duration_ms", "Milliseconds this took."),
    ("tls", "Version and cipher of the connection."),
    (
        "verified",
        "The name for which the certificate of the other side was verified.",
    ),
    (
        "tls_policy",
        "How a connection had to be protected, and why.",
    ),
    ("mode", "How strict a policy is."),
    (
        "reused",
        "Whether a connection had carried other mail before.",
    ),
    (
        "joined",
        "How many jobs of the mail went together, if it was sent once for several domains.",
    ),
    ("mechanism", "The SASL mechanism."),
    ("domains", "How many domains."),
    ("accounts", "How many accounts."),
    ("aliases", "How many aliases."),
    ("address", "An address of a listener or of the queue."),
    (
        "node",
        "A node of the queue, where it has several: its host, or the path of its socket.",
    ),
    ("path", "A file or folder."),
    (
        "route",
        "The route class: local, relay, lmtp, hold, discard.",
    ),
    ("destination", "The recipient domain or named route."),
    ("worker", "The holder of leases."),
    ("host", "The machine an agent runs on."),
    ("store", "The mail store that an agent serves."),
    ("report", "The mail that is a report about this one."),
    ("resent_of", "The retired mail that this one repeats."),
    ("by", "Who asked for it, in their own words."),
    ("role", "The role of a peer: msa, mta, mda, admin."),
    ("job", "Recipients of one mail that are leased together."),
    ("lsn", "A position in the journal."),
    ("segment", "A segment of the journal."),
    ("epoch", "Which start of the queue this is."),
    ("records", "How many records."),
    ("count", "How many."),
    ("retry_at", "When the next attempt is due."),
    ("task", "A task of the process."),
    ("verb", "What an admin did."),
    ("name", "A name that a certificate is for."),
    (
        "serial",
        "The serial number of a certificate, in hexadecimal digits.",
    ),
    ("not_after", "When a certificate runs out."),
    ("version", "The version of the program."),
    ("status", "The exit status."),
    ("changed", "Keys whose new values are in force."),
    ("restart", "Keys whose new values need a restart."),
    ("key", "What agents count together, and of whom."),
    ("until", "When it ends by itself."),
    ("reason", "Why."),
    ("site", "The mail hosts behind one or many destinations."),
    ("state", "How the site stands."),
    (
        "issuer",
        "Who issues access tokens: `iss` of tokens, and of `msa.auth.oauth`.",
    ),
    (
        "principal",
        "Whose ticket of Kerberos it was, as Kerberos writes it.",
    ),
    ("keys", "How many keys."),
    ("error", "What failed, with its cause."),
    ("remedy", "What a person can do about it."),
];

/// The list as a page of reference.
pub fn log_reference() -> String {
    let mut page = String::from(
        "# Log reference\n\n\
         Every line has `ts` (RFC 3339, UTC, milliseconds), `level` and `agent`; a line about a fact \
         has `event`. `ERROR` means that a person must act. Events and fields are only added.\n",
    );
    for (title, head, entries) in [("Events", "event", EVENTS), ("Fields", "field", FIELDS)] {
        // Writing to a String cannot fail.
        let _ = write!(page, "\n## {title}\n\n| {head} | meaning |\n|---|---|\n");
        for (name, meaning) in entries {
            let _ = writeln!(page, "| `{name}` | {meaning} |");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_words_with_a_meaning() {
        for list in [EVENTS, FIELDS] {
            let mut seen = HashSet::new();
            for (name, meaning) in list {
                assert!(seen.insert(*name), "{name} is listed twice");
                assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
                assert!(meaning.ends_with('.') && !meaning.contains(['|', '\n']));
            }
        }
    }

    #[test]
    fn the_reference_lists_every_event_and_field() {
        let page = log_reference();
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, EVENTS.len() + FIELDS.len());
        assert!(
            page.contains("\n| `accepted` | A mail was accepted: from here on it is ours. |\n")
        );
    }
}
