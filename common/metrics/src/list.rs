//! The closed list of metrics. Dashboards and alerts rely on it: names and labels are only added, never changed or removed.
//! Only what stands here can be counted, and a test compares it with what the sources count and what processes tell.

use crate::labels::{
    ANSWER, CAUSE, CERTIFICATE, CHECK, CHECKED, CONNECT, COUNTED, CUT, KEYS, LISTENER, LOGIN,
    Label, NODE, OFFER, OUTCOME, PROTECTION, REASON, REFUSED, REPORT, ROUTE, RULE, SETTLED,
    SEVERITY, SITE, SOURCE, STAGE, STATE, SYNCED, TLS, TLS_VERSION, UNUSABLE, VERSION,
};

/// Something that is counted.
#[derive(Debug)]
pub struct Metric {
    /// As Prometheus calls it.
    pub name: &'static str,
    /// What sort of number it is.
    pub kind: Kind,
    /// Its labels besides `agent`, in the order in which values are given.
    pub labels: &'static [&'static Label],
    /// Which agents tell it.
    pub agents: &'static [&'static str],
    /// What it tells.
    pub meaning: &'static str,
}

/// What sort of number a metric is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// How it stands.
    Gauge,
    /// How many were up to which size.
    Histogram(&'static Buckets),
}

impl Kind {
    /// As the text format says it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The bounds of a histogram.
#[derive(Debug)]
pub struct Buckets {
    /// What is observed.
    pub unit: Unit,
    /// Upper bounds, ascending; in microseconds, octets or ones.
    pub bounds: &'static [u64],
}

/// What a histogram's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Observed in microseconds, told in seconds.
    Seconds,
    /// Octets.
    Bytes,
    /// A number of things.
    Ones,
}

const MS: u64 = 1000;
const S: u64 = 1000 * MS;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What waits for the disk, or for one process of ours.
static SHORT: Buckets = Buckets {
    unit: Unit::Seconds,
    bounds: &[
        500,
        MS,
        2 * MS,
        5 * MS,
        10 * MS,
        20 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        500 * MS,
        S,
        2 * S,
        5 * S,
        10 * S,
        30 * S,
    ],
};

/// What waits for other hosts.
static LONG: Buckets = Buckets {
    unit: Unit::Seconds,
    bounds: &[
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        S,
        2500 * MS,
        5 * S,
        10 * S,
        30 * S,
        60 * S,
        120 * S,
        300 * S,
        600 * S,
    ],
};

static SIZES: Buckets = Buckets {
    unit: Unit::Bytes,
    bounds: &[
        KIB,
        4 * KIB,
        16 * KIB,
        64 * KIB,
        256 * KIB,
        MIB,
        4 * MIB,
        16 * MIB,
        64 * MIB,
    ],
};

static GROUPS: Buckets = Buckets {
    unit: Unit::Ones,
    bounds: &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
};

const ALL: &[&str] = &["queued", "msa", "mta", "mda"];
const DOORS: &[&str] = &["msa", "mta", "mda"];
const WORKERS: &[&str] = &["mta", "mda"];
const MSA: &[&str] = &["msa"];
const MTA: &[&str] = &["mta"];
const MDA: &[&str] = &["mda"];
const QUEUED: &[&str] = &["queued"];

macro_rules! metrics {
    ($($ident:ident $name:literal $kind:expr, $agents:expr, [$($label:expr),*] $meaning:literal;)+) => {
        $(
            #[doc = $meaning]
            pub static $ident: Metric = Metric {
                name: $name,
                kind: $kind,
                labels: &[$(&$label),*],
                agents: $agents,
                meaning: $meaning,
            };
        )+

        /// All of them, in the order in which they are told.
        pub static METRICS: &[&Metric] = &[$(&$ident),+];
    };
}

use Kind::{Counter, Gauge, Histogram};

metrics! {
    // Every process.
    BUILD "postroad_build_info" Gauge, ALL, [VERSION] "Always 1; the label tells which version runs.";
    READY "postroad_ready" Gauge, ALL, [] "1 if every check is ready, as `/readyz` tells it; else 0.";
    CHECK_READY "postroad_check_ready" Gauge, ALL, [CHECK] "1 if this check is ready; else 0.";
    CERTIFICATE_EXPIRES "postroad_certificate_expires_seconds" Gauge, ALL, [CERTIFICATE] "Seconds until a certificate of ours runs out, negative once it has; none where there is no certificate.";
    CPU "process_cpu_seconds_total" Counter, ALL, [] "Processor time of the process, its own and the system's for it, in seconds.";
    START "process_start_time_seconds" Gauge, ALL, [] "When the process started, in seconds since 1970.";
    RESIDENT "process_resident_memory_bytes" Gauge, ALL, [] "Memory of the process that is in RAM, in octets.";
    VIRTUAL "process_virtual_memory_bytes" Gauge, ALL, [] "Address space of the process, in octets.";
    OPEN_FILES "process_open_fds" Gauge, ALL, [] "Open files and sockets of the process.";
    MOST_FILES "process_max_fds" Gauge, ALL, [] "How many files and sockets it may open.";
    THREADS "process_threads" Gauge, ALL, [] "Threads of the process.";

    // Listeners for mail.
    CONNECTIONS "postroad_connections_total" Counter, DOORS, [LISTENER] "Connections that were let in.";
    CONNECTIONS_OPEN "postroad_connections_open" Gauge, DOORS, [LISTENER] "Connections that are open now.";
    CONNECTIONS_REFUSED "postroad_connections_refused_total" Counter, DOORS, [LISTENER, RULE] "Connections turned away, since there were too many.";
    TLS_SESSIONS "postroad_tls_sessions_total" Counter, DOORS, [LISTENER, TLS_VERSION] "Handshakes of TLS that succeeded, by STARTTLS or from the first octet.";
    TLS_FAILURES "postroad_tls_failures_total" Counter, DOORS, [LISTENER] "Handshakes of TLS that failed.";
    EARLY_TALKERS "postroad_early_talkers_total" Counter, DOORS, [LISTENER] "Clients that spoke before the greeting, and were sent away.";
    CONVERSATIONS_CUT "postroad_conversations_cut_total" Counter, DOORS, [LISTENER, CUT] "Conversations that we ended, since one of their limits was reached.";
    LOGINS "postroad_logins_total" Counter, MSA, [LISTENER, LOGIN] "Attempts to log in.";
    MAILS_ACCEPTED "postroad_mails_accepted_total" Counter, DOORS, [LISTENER] "Mails accepted: from their 250 on they are ours.";
    RECIPIENTS_ACCEPTED "postroad_recipients_accepted_total" Counter, DOORS, [LISTENER] "Recipients of accepted mails, aliases expanded.";
    REFUSALS "postroad_refusals_total" Counter, DOORS, [LISTENER, STAGE, SEVERITY, REASON] "Clients, senders, recipients and mails refused. What is no proper SMTP is not counted.";
    MAIL_SIZE "postroad_mail_size_bytes" Histogram(&SIZES), DOORS, [LISTENER] "Sizes of accepted mails, in octets.";
    ACCEPT_TIME "postroad_accept_seconds" Histogram(&SHORT), DOORS, [LISTENER] "From the end of a mail's content to its 250, in seconds: the queue's commit and the way to it.";

    // The way to the queue.
    QUEUE_NODE_UP "postroad_queue_node_up" Gauge, DOORS, [NODE] "1 while this node of the queue answers; else 0. None where the queue is in the same process.";

    // Accounts.
    ACCOUNT_ANSWERS "postroad_account_answers_total" Counter, DOORS, [ANSWER] "Questions about accounts, senders and recipients.";
    PASSWORD_CHECKS "postroad_password_checks_total" Counter, DOORS, [CHECKED] "Passwords that were shown to log in.";
    ACCOUNTS_AWAY "postroad_accounts_away" Gauge, DOORS, [] "1 while the queue does not tell of accounts; 0 too where they come from a file.";

    // Failed log-ins, and what accounts send.
    OAUTH_KEYS "postroad_oauth_keys_total" Counter, MSA, [KEYS] "Looks for the keys of issuers of access tokens.";
    OAUTH_REFUSED "postroad_oauth_refused_total" Counter, MSA, [] "Access tokens that did not count.";
    GSSAPI_REFUSED "postroad_gssapi_refused_total" Counter, MSA, [] "Tickets of Kerberos that did not count.";
    BANS_REFUSED "postroad_bans_refused_total" Counter, MSA, [] "Connections and log-ins refused, since too many log-ins from their network had failed.";
    SENDING_REFUSED "postroad_sending_refused_total" Counter, MSA, [] "Mails refused, since their account has written to as many recipients as it may.";
    COUNTERS_AWAY "postroad_counters_away" Gauge, MSA, [] "1 while the queue does not count failed log-ins and mail sent for all copies, so that this one counts by itself.";

    // Workers.
    LEASES_WORKED_ON "postroad_worker_leases" Gauge, WORKERS, [] "Leases that the agent works on now.";
    ATTEMPTS "postroad_attempts_total" Counter, WORKERS, [ROUTE, OUTCOME, TLS] "Recipients tried, by what became of them and how the last host was spoken to.";
    ATTEMPT_TIME "postroad_attempt_seconds" Histogram(&LONG), WORKERS, [ROUTE] "How long attempts took, from the lease to the outcome of every recipient in it, in seconds.";
    OUTBOUND "postroad_outbound_connections_total" Counter, MTA, [CONNECT] "Connections to other hosts that were tried.";
    OUTBOUND_OPEN "postroad_outbound_connections_open" Gauge, MTA, [] "Connections to other hosts that are open now.";
    OUTBOUND_IDLE "postroad_outbound_connections_idle" Gauge, MTA, [] "Of these, connections that wait for the next mail to their host.";
    OUTBOUND_REUSED "postroad_outbound_connections_reused_total" Counter, MTA, [] "Times an idle connection was taken for another mail.";
    OUTBOUND_LOST_IDLE "postroad_outbound_connections_lost_idle_total" Counter, MTA, [] "Idle connections that hosts closed before another mail was begun.";
    OUTBOUND_TLS_FAILURES "postroad_outbound_tls_failures_total" Counter, MTA, [] "Handshakes of TLS with other hosts that failed.";
    OUTBOUND_PROTECTED "postroad_outbound_protected_total" Counter, MTA, [PROTECTION] "Conversations with other hosts that came so far that mail could be sent, by how they were protected.";
    OUTBOUND_UNUSABLE "postroad_outbound_unusable_total" Counter, MTA, [UNUSABLE] "Conversations that ended since the host cannot be used as it is configured; the mail waits.";
    JOINED "postroad_attempts_joined_total" Counter, MTA, [] "Attempts that needed no transactions of their own, since the mail went with another job of it.";
    LIMITED "postroad_attempts_limited_total" Counter, MTA, [] "Leases handed back, since their destination had as many conversations as it may have.";
    MAILDIR_SYNCS "postroad_maildir_syncs_total" Counter, MDA, [SYNCED] "Syncs of the mail store that were asked of the system, by what was synced.";
    MAILDIR_SYNCS_SHARED "postroad_maildir_syncs_shared_total" Counter, MDA, [] "Times a delivery needed no sync of its own, since that of another, which waited at the same time, was for it too.";

    // The queue: in and out.
    QUEUE_MAILS "postroad_queue_mails_total" Counter, QUEUED, [SOURCE] "Mails the queue began to keep.";
    QUEUE_REFUSALS "postroad_queue_refusals_total" Counter, QUEUED, [REFUSED] "Mails the queue refused, before or after their content came.";
    QUEUE_SUBMISSIONS "postroad_queue_submissions_open" Gauge, QUEUED, [] "Mails being received now.";
    QUEUE_LEASES "postroad_queue_leases_total" Counter, QUEUED, [ROUTE] "Leases given out.";
    QUEUE_LEASES_EXPIRED "postroad_queue_leases_expired_total" Counter, QUEUED, [] "Leases that ended without a result.";
    QUEUE_SETTLED "postroad_queue_settled_total" Counter, QUEUED, [SETTLED] "Recipients with a result, once it is durable.";
    QUEUE_CAUSES "postroad_queue_causes_total" Counter, QUEUED, [CAUSE] "Recipients that did not get a mail, or not yet, once it is durable: each attempt counts.";
    QUEUE_DROPPED "postroad_queue_dropped_total" Counter, QUEUED, [] "Recipients that operators removed without delivery.";
    QUEUE_WITHDRAWN "postroad_queue_withdrawn_total" Counter, QUEUED, [] "Mails that their accounts took back before anything was tried.";
    QUEUE_REPORTS "postroad_queue_reports_total" Counter, QUEUED, [REPORT] "Reports sent (RFC 3464).";

    // The queue: how it stands.
    QUEUE_JOBS "postroad_queue_jobs" Gauge, QUEUED, [STATE] "Jobs in the queue: a mail's recipients of one destination, up to a hundred, are a job.";
    QUEUE_OLDEST_DUE "postroad_queue_oldest_due_seconds" Gauge, QUEUED, [] "For how long the job that waits longest for a worker is due, in seconds; 0 if none waits. With many jobs it is some seconds late.";
    QUEUE_WORKERS "postroad_queue_workers" Gauge, QUEUED, [ROUTE] "Workers that are connected, by what they carry out.";
    QUEUE_ACCEPTING "postroad_queue_accepting" Gauge, QUEUED, [] "1 if new mail is taken; 0 if the disk has no room, or the queue stops.";
    QUEUE_CAUGHT_UP "postroad_queue_caught_up" Gauge, QUEUED, [] "1 once mail is given out; 0 while the index follows the journal after a start.";

    // The queue: what agents count together.
    QUEUE_COUNTED "postroad_queue_counts_total" Counter, QUEUED, [COUNTED] "Counts and questions of agents.";
    QUEUE_BANNED "postroad_queue_bans_begun_total" Counter, QUEUED, [COUNTED] "Bans that began.";
    QUEUE_BANS "postroad_queue_bans" Gauge, QUEUED, [COUNTED] "Bans that last.";
    QUEUE_COUNTERS "postroad_queue_counters" Gauge, QUEUED, [COUNTED] "Counters there are: one for each network or account, and each time that is looked back.";
    QUEUE_COUNTERS_DROPPED "postroad_queue_counters_dropped_total" Counter, QUEUED, [COUNTED] "Counters and bans that had to make room for new ones.";

    // The queue: sites.
    QUEUE_SITES "postroad_queue_sites" Gauge, QUEUED, [SITE] "Sites that mail is or was sent to lately.";

    // The queue: disk.
    QUEUE_COMMIT_TIME "postroad_queue_commit_seconds" Histogram(&SHORT), QUEUED, [] "How long writing and syncing one group of changes took, in seconds.";
    QUEUE_COMMIT_SIZE "postroad_queue_commit_changes" Histogram(&GROUPS), QUEUED, [] "Changes in one group.";
    QUEUE_COMMITTED "postroad_queue_committed_total" Counter, QUEUED, [OFFER] "Changes committed.";
    QUEUE_JOURNAL "postroad_queue_journal_bytes" Gauge, QUEUED, [] "Room that the journal takes, in octets.";
    QUEUE_DISK_FREE "postroad_queue_disk_free_bytes" Gauge, QUEUED, [] "Free room on the disk of the queue, in octets.";
    QUEUE_DISK_RESERVE "postroad_queue_disk_reserve_bytes" Gauge, QUEUED, [] "Below this much free room new mail is refused, in octets.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_customs_of_prometheus() {
        let mut seen = HashSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is listed twice");
            assert!(
                name.starts_with("postroad_") || name.starts_with("process_"),
                "{name}"
            );
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{name}"
            );
            assert_eq!(
                matches!(metric.kind, Kind::Counter),
                name.ends_with("_total"),
                "{name}: counters and only they end with _total"
            );
            assert!(metric.meaning.ends_with('.'), "{name}");
            assert!(!metric.meaning.contains(['|', '\n', '\\']), "{name}");
            assert!(!metric.agents.is_empty(), "{name}");
            if let Kind::Histogram(buckets) = metric.kind {
                let unit = match buckets.unit {
                    Unit::Seconds => "_seconds",
                    Unit::Bytes => "_bytes",
                    Unit::Ones => "",
                };
                assert!(name.ends_with(unit), "{name}");
                assert!(buckets.bounds.is_sorted_by(|a, b| a < b), "{name}");
            }
        }
    }

    #[test]
    fn labels_are_unique_words_with_a_meaning() {
        for metric in METRICS {
            let mut seen = HashSet::from(["agent"]);
            for label in metric.labels {
                assert!(seen.insert(label.name), "{}: {}", metric.name, label.name);
                assert!(
                    !matches!(label.name, "le" | "job" | "instance"),
                    "{}",
                    label.name
                );
                let words = label.words.unwrap_or_default();
                let texts: HashSet<_> = words.iter().map(|(text, _)| text).collect();
                assert_eq!(texts.len(), words.len(), "{}", label.name);
            }
        }
    }
}
