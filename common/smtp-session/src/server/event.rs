use std::fmt;

use bytes::Bytes;
use postroad_address::{ForwardPath, ReversePath};
use postroad_reply::Reply;
use postroad_sasl::{ContextCall, Credentials, SecretQuery};
use postroad_smtp::{Forwarded, HeloName, MailParams, RcptParams, XClient};

/// What the driver has to do. Those marked *answer* stop the session until
/// [`ServerSession::answer`](super::ServerSession::answer) or one of its kin is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// *Answer* whether this client is served; accepted, it gets the greeting.
    Connected,
    /// *Answer* EHLO, HELO or LHLO.
    Hello(Hello),
    /// Write the output, make the handshake, then call
    /// [`tls_started`](super::ServerSession::tls_started).
    StartTls,
    /// *Answer* with [`secret`](super::ServerSession::secret), or refuse.
    Secret(SecretQuery),
    /// *Answer* with [`context`](super::ServerSession::context), or refuse.
    Context(ContextCall),
    /// *Answer* with [`authenticated`](super::ServerSession::authenticated), or refuse.
    Authenticate(Credentials),
    /// *Answer* whether this client is served, for whom a proxy speaks from now on; accepted, it gets the greeting. Its LOGIN is to be
    /// told by [`speaks_for`](super::ServerSession::speaks_for).
    XClient(XClient),
    /// *Answer* MAIL.
    Mail(MailRequest),
    /// *Answer* RCPT.
    Rcpt(RcptRequest),
    /// *Answer* VRFY, to a client that logged in; accepted, it is told nothing (252).
    Verify(String),
    /// *Answer* EXPN likewise; accepted, it is told nothing.
    Expand(String),
    /// *Answer* whether content may come; there is at least one recipient.
    Data,
    /// Some of the content, dot-stuffing removed.
    Content(Bytes),
    /// The content is refused; drop what there is of it. The client is told at its end.
    ContentRefused(Reply),
    /// *Answer* the whole content (LMTP: perhaps with [`answer_each`](super::ServerSession::answer_each)).
    ContentEnd,
    /// The transaction is gone (RSET, EHLO, STARTTLS).
    Reset,
    /// Write the output and close.
    Closed(CloseReason),
}

/// The usual answers to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyReply {
    /// Yes, in the usual words.
    Accept,
    /// Yes, in these words.
    AcceptWith(Reply),
    /// No (4yz or 5yz).
    Refuse(Reply),
    /// No, and nothing more (421 or 554).
    Close(Reply),
}

/// What the client calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// By which command.
    pub kind: HelloKind,
    /// The name, worth nothing.
    pub name: HeloName,
}

/// The three greetings of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HelloKind {
    /// Without extensions.
    Helo,
    /// With extensions.
    Ehlo,
    /// LMTP.
    Lhlo,
}

/// MAIL, its parameters checked against what was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailRequest {
    /// The sender.
    pub reverse_path: ReversePath,
    /// The parameters.
    pub params: MailParams,
}

/// RCPT, its parameters checked against what was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptRequest {
    /// The recipient.
    pub forward_path: ForwardPath,
    /// The parameters.
    pub params: RcptParams,
}

/// MAIL … end of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// How it began.
    pub mail: MailRequest,
    /// Accepted recipients, in order; the same one may appear twice, as the client wrote it.
    pub recipients: Vec<RcptRequest>,
    /// What XFORWARD said before MAIL, of this transaction alone.
    pub forwarded: Option<Forwarded>,
}

/// Why a conversation ended by the session's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client said QUIT.
    Quit,
    /// The policy wanted no more of it.
    Policy,
    /// See [`ServerLimits::mails`](super::ServerLimits::mails).
    TooManyMails,
    /// See [`ServerLimits::commands`](super::ServerLimits::commands).
    TooManyCommands,
    /// See [`ServerLimits::errors`](super::ServerLimits::errors).
    TooManyErrors,
    /// See [`ServerLimits::auth_failures`](super::ServerLimits::auth_failures).
    TooManyAuthFailures,
    /// See [`ServerLimits::refused_recipients`](super::ServerLimits::refused_recipients).
    TooManyRefusedRecipients,
    /// See [`ServerLimits::idle_commands`](super::ServerLimits::idle_commands).
    TooManyIdleCommands,
    /// Octets behind STARTTLS in plain text, or behind a refused DATA.
    CommandInjection,
    /// The client spoke before it was greeted.
    EarlyTalker,
    /// What came was HTTP, TLS in plain text, or the like.
    OtherProtocol,
    /// Content went on far beyond the limit after it was refused.
    Flood,
    /// The client took too long.
    TimedOut,
    /// We are leaving.
    Shutdown,
}

impl CloseReason {
    /// The word in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Policy => "policy",
            Self::TooManyMails => "too_many_mails",
            Self::TooManyCommands => "too_many_commands",
            Self::TooManyErrors => "too_many_errors",
            Self::TooManyAuthFailures => "too_many_auth_failures",
            Self::TooManyRefusedRecipients => "too_many_refused_recipients",
            Self::TooManyIdleCommands => "too_many_idle_commands",
            Self::CommandInjection => "command_injection",
            Self::EarlyTalker => "early_talker",
            Self::OtherProtocol => "other_protocol",
            Self::Flood => "flood",
            Self::TimedOut => "timed_out",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
