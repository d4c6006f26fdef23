use std::time::Duration;

use postroad_sasl::{Mechanism, Password};
use postroad_smtp::HeloName;

use super::Stage;

/// How we present ourselves to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Our name in EHLO.
    pub helo_name: HeloName,
    /// LMTP instead of SMTP (RFC 2033).
    pub lmtp: bool,
    /// Whether to use STARTTLS.
    pub tls: TlsUse,
    /// Name and password, or token, where the host asks for them.
    pub auth: Option<(String, Password)>,
    /// By what mechanisms, in whatever order: the strongest that is offered is taken, and none beside these. Default: all that are for
    /// passwords; for a token those of [`Mechanism::BY_TOKEN`] must be named.
    pub mechanisms: Vec<Mechanism>,
    /// A password is shown to a host without TLS, too; default no.
    pub auth_without_tls: bool,
    /// BDAT instead of DATA where CHUNKING and PIPELINING are offered; default no.
    pub chunking: bool,
    /// How long to wait.
    pub timeouts: ClientTimeouts,
}

/// Whether to use STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsUse {
    /// Not even if offered.
    Never,
    /// If offered and not refused (RFC 7435).
    IfOffered,
    /// Without it nothing is sent.
    Required,
}

/// RFC 5321 §4.5.3.2 has the default values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// The greeting: 5 minutes.
    pub greeting: Duration,
    /// EHLO, STARTTLS, AUTH, MAIL, RCPT, RSET: 5 minutes.
    pub command: Duration,
    /// 354 to DATA: 2 minutes.
    pub data: Duration,
    /// One block of content: 3 minutes.
    pub block: Duration,
    /// The reply to the final dot: 10 minutes.
    pub end: Duration,
    /// QUIT: 10 seconds, since nothing depends on it any more.
    pub quit: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            greeting: Duration::from_secs(5 * MINUTE),
            command: Duration::from_secs(5 * MINUTE),
            data: Duration::from_secs(2 * MINUTE),
            block: Duration::from_secs(3 * MINUTE),
            end: Duration::from_secs(10 * MINUTE),
            quit: Duration::from_secs(10),
        }
    }
}

impl ClientTimeouts {
    /// The one that runs at this stage.
    pub fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Greeting => self.greeting,
            Stage::Data => self.data,
            Stage::Content => self.block,
            Stage::End => self.end,
            Stage::Quit => self.quit,
            Stage::Hello
            | Stage::StartTls
            | Stage::Auth
            | Stage::Reset
            | Stage::Mail
            | Stage::Rcpt
            | Stage::Idle => self.command,
        }
    }
}

impl ClientConfig {
    /// Opportunistic TLS, no AUTH, DATA, the time-outs of RFC 5321.
    pub fn new(helo_name: HeloName) -> Self {
        Self {
            helo_name,
            lmtp: false,
            tls: TlsUse::IfOffered,
            auth: None,
            mechanisms: Mechanism::BY_PASSWORD.to_vec(),
            auth_without_tls: false,
            chunking: false,
            timeouts: ClientTimeouts::default(),
        }
    }
}
