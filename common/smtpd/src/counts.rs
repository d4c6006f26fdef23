//! What a listener counts.

use postroad_metrics::labels::{Cut, Login, Reason, Severity, Stage, TlsVersion};
use postroad_metrics::{Counter, Gauge, Histogram, Metrics, Table, list};
use postroad_net::TlsInfo;
use postroad_reply::{Reply, Severity as Kind};
use postroad_smtp_session::CloseReason;

/// The numbers of one listener.
pub struct Counts {
    pub connections: Counter,
    pub open: Gauge,
    tls_sessions: Table<TlsVersion, Counter>,
    pub tls_failures: Counter,
    pub early_talkers: Counter,
    cut: Table<Cut, Counter>,
    /// None where nobody can log in.
    logins: Option<Table<Login, Counter>>,
    pub mails: Counter,
    pub recipients: Counter,
    refusals: Table<(Stage, Severity, Reason), Counter>,
    pub sizes: Histogram,
    /// From the end of the content to the 250.
    pub times: Histogram,
}

impl Counts {
    pub fn new(metrics: &Metrics, listener: &str, offers_auth: bool) -> Self {
        let name = [listener];
        Self {
            connections: metrics.counter(&list::CONNECTIONS, &name),
            open: metrics.gauge(&list::CONNECTIONS_OPEN, &name),
            tls_sessions: metrics.counters(&list::TLS_SESSIONS, &name),
            early_talkers: metrics.counter(&list::EARLY_TALKERS, &name),
            cut: metrics.counters(&list::CONVERSATIONS_CUT, &name),
            tls_failures: metrics.counter(&list::TLS_FAILURES, &name),
            logins: offers_auth.then(|| metrics.counters(&list::LOGINS, &name)),
            mails: metrics.counter(&list::MAILS_ACCEPTED, &name),
            recipients: metrics.counter(&list::RECIPIENTS_ACCEPTED, &name),
            refusals: metrics.counters(&list::REFUSALS, &name),
            sizes: metrics.histogram(&list::MAIL_SIZE, &name),
            times: metrics.histogram(&list::ACCEPT_TIME, &name),
        }
    }

    pub fn encrypted(&self, tls: &TlsInfo) {
        self.tls_sessions.count(match tls.version {
            postroad_net::TlsVersion::Tls12 => TlsVersion::Tls12,
            postroad_net::TlsVersion::Tls13 => TlsVersion::Tls13,
        });
    }

    /// A conversation that ended so; only limits count.
    pub fn ended(&self, reason: CloseReason) {
        self.cut.count(match reason {
            CloseReason::TooManyMails => Cut::Mails,
            CloseReason::TooManyCommands => Cut::Commands,
            CloseReason::TooManyErrors => Cut::Errors,
            CloseReason::TooManyAuthFailures => Cut::AuthFailures,
            CloseReason::TooManyRefusedRecipients => Cut::RefusedRecipients,
            CloseReason::TooManyIdleCommands => Cut::IdleCommands,
            CloseReason::TimedOut => Cut::Time,
            CloseReason::Flood => Cut::Flood,
            CloseReason::Quit
            | CloseReason::Policy
            | CloseReason::CommandInjection
            | CloseReason::EarlyTalker
            | CloseReason::OtherProtocol
            | CloseReason::Shutdown => return,
        });
    }

    pub fn login(&self, login: Login) {
        if let Some(logins) = &self.logins {
            logins.count(login);
        }
    }

    pub fn refused(&self, stage: Stage, reply: &Reply) {
        let severity = match reply.severity() {
            Kind::Permanent => Severity::Permanent,
            _ => Severity::Transient,
        };
        let subject = reply.enhanced().map_or(0, |status| status.subject());
        self.refusals
            .count((stage, severity, Reason::of_subject(subject)));
    }
}
