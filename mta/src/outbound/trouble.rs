//! What goes wrong with a conversation, and how far it came.

use std::io;

use postroad_envelope::TlsFacts;
use postroad_net::Error as NetError;
use postroad_queue_client::QueueError;
use postroad_reply::{
    BAD_CONNECTION_4_4_2, BAD_CONTENT_5_6_0, EnhancedStatusCode, LOOP_5_4_6, MISCONFIGURED_4_3_5,
    NO_ANSWER_4_4_1, Reply, SYSTEM_4_3_0,
};
use postroad_smtp::ContentFault;
use postroad_smtp_session::{ClientError, RecipientResult, Stage};

use super::login::NoToken;
use super::lots::Promise;
use super::security::Refusal;
use super::unusable::Unusable;

/// What went wrong with a whole conversation.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No connection came about.
    #[error("cannot connect: {0}")]
    Connect(NetError),
    /// The TLS handshake failed.
    #[error("{0}")]
    Handshake(NetError),
    /// The host does not go on.
    #[error("{0}")]
    Session(ClientError),
    /// The host is ourselves; if a route of ours led there, that is ours to mend.
    #[error("greeted with our own name {name}, so the mail loops")]
    Ourselves {
        /// What it called itself.
        name: String,
        /// Whether a route named the host, rather than the DNS.
        routed: bool,
    },
    /// The host hung up.
    #[error("closed the connection {}", at(*.0))]
    HungUp(Stage),
    /// The host said nothing for too long.
    #[error("did not answer in time {}", at(*.0))]
    TimedOut(Stage),
    /// The connection broke.
    #[error("lost the connection {where_}: {1}", where_ = at(*.0))]
    Broken(Stage, io::Error),
    /// It cannot be used for this mail; nothing was tried.
    #[error("{0}")]
    Unprotected(Refusal),
    /// Its certificate must be verified, and no authority is known for that.
    #[error("its certificate must be verified, and {0}")]
    NoAuthority(String),
    /// There is no token to log in with.
    #[error("{0}")]
    NoToken(NoToken),
    /// Ours: the content cannot be read from the queue.
    #[error("the content could not be read from the queue: {0}")]
    Content(QueueError),
    /// The mail's: its lines could be read in two ways.
    #[error("{0}")]
    Unfit(ContentFault),
}

impl Trouble {
    /// The host's own words, if these are the trouble.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Session(
                ClientError::Refused { reply, .. } | ClientError::Unexpected { reply, .. },
            ) => Some(reply),
            _ => None,
        }
    }

    /// Where the conversation was.
    pub fn stage(&self) -> Stage {
        match self {
            Self::HungUp(stage) | Self::TimedOut(stage) | Self::Broken(stage, _) => *stage,
            Self::Session(
                ClientError::Refused { stage, .. }
                | ClientError::Unexpected { stage, .. }
                | ClientError::Protocol { stage, .. },
            ) => *stage,
            Self::Session(ClientError::TlsNotOffered | ClientError::PlaintextAfterStartTls)
            | Self::Handshake(_)
            | Self::Unprotected(_)
            | Self::NoAuthority(_) => Stage::StartTls,
            Self::Session(_) | Self::NoToken(_) => Stage::Auth,
            Self::Content(_) | Self::Unfit(_) => Stage::Content,
            Self::Connect(_) | Self::Ourselves { .. } => Stage::Greeting,
        }
    }

    /// RFC 3463 §3.5, for what has no status from the host.
    pub fn status(&self) -> EnhancedStatusCode {
        if let Some(unusable) = Unusable::of(self) {
            return unusable.status(self.reply());
        }
        match self {
            Self::Connect(_) => NO_ANSWER_4_4_1,
            Self::Ourselves { routed: true, .. } => MISCONFIGURED_4_3_5,
            Self::Ourselves { routed: false, .. } => LOOP_5_4_6,
            Self::Content(_) => SYSTEM_4_3_0,
            Self::Unprotected(refusal) => refusal.status,
            Self::NoAuthority(_) => MISCONFIGURED_4_3_5,
            Self::Unfit(_) => BAD_CONTENT_5_6_0,
            _ => BAD_CONNECTION_4_4_2,
        }
    }

    /// Whether the host hung up before it said anything to MAIL.
    pub fn is_parting(&self) -> bool {
        let (Self::HungUp(stage) | Self::Broken(stage, _)) = self else {
            return false;
        };
        matches!(stage, Stage::Reset | Stage::Mail)
    }
}

/// Where the conversation was, for a person.
fn at(stage: Stage) -> &'static str {
    match stage {
        Stage::Greeting => "before its greeting",
        Stage::Hello => "at EHLO",
        Stage::StartTls => "at STARTTLS",
        Stage::Auth => "at AUTH",
        Stage::Reset => "at RSET",
        Stage::Mail => "at MAIL FROM",
        Stage::Rcpt => "at RCPT TO",
        Stage::Data => "at DATA",
        Stage::Content => "while the content was sent",
        Stage::End => "after the end of the content, so that it may have taken the mail",
        Stage::Quit => "at QUIT",
        Stage::Idle => "between commands",
    }
}

/// How far a conversation came.
#[derive(Debug, Default)]
pub struct Disposition {
    /// One per recipient asked for, in their order; none: nothing is known.
    pub results: Vec<Option<RecipientResult>>,
    /// For each of them: what the host sees to.
    pub promises: Vec<Promise>,
    /// Why it ended early.
    pub trouble: Option<Trouble>,
    /// How it was encrypted.
    pub tls: Option<TlsFacts>,
    /// How it had to be protected, and why.
    pub security: Option<String>,
    /// Whether the connection had carried other mail before.
    pub reused: bool,
    /// Whether another address of the host was being connected to at the same time.
    pub overtook: bool,
}

impl Disposition {
    /// Connections that were begun for it, so far as the host may have seen them.
    pub fn connections(&self) -> u32 {
        u32::from(!self.reused) + u32::from(self.overtook)
    }

    /// A host that was not tried.
    pub fn never(trouble: Trouble) -> Self {
        Self {
            trouble: Some(trouble),
            ..Self::default()
        }
    }
}
