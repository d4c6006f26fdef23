//! A host that cannot be used as it is configured: the mail waits, and a person must look.
//!
//! RFC 4954 §6 and RFC 3207 §4 have permanent codes for some of this. They are permanent for the connection, and our own
//! set-up is what is wrong, so no mail may bounce for it.

use postroad_metrics::labels::Unusable as Label;
use postroad_net::Error as NetError;
use postroad_reply::{
    AUTH_INVALID_4_7_8, AUTH_REQUIRED_530, CRYPTOGRAPHY_4_7_5, ENCRYPTION_NEEDED_4_7_11,
    EnhancedStatusCode, POLICY_4_7_0, Reply, SECURITY_LACKING_4_7_4, Severity,
};
use postroad_smtp_session::{ClientError, RecipientResult, Stage};

use super::trouble::{Disposition, Trouble};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Our name or password.
    LoginRefused,
    /// The host cannot look at our password now.
    LoginPostponed,
    /// It offers no log-in of a kind that we know.
    NoMechanism,
    /// The password would go in plain text.
    PasswordUnprotected,
    /// It wants a log-in, and none is configured.
    LoginMissing,
    /// It offers no TLS, or refuses it.
    NoTls,
    /// No TLS comes about.
    Handshake,
    /// Its certificate does not count, with what to do about that.
    Certificate(&'static str),
}

impl Unusable {
    /// What is wrong with the conversation, if it is of this kind.
    pub fn of(trouble: &Trouble) -> Option<Self> {
        match trouble {
            Trouble::Session(ClientError::Refused { stage, reply }) => match stage {
                Stage::Auth if reply.severity() == Severity::Permanent => Some(Self::LoginRefused),
                Stage::Auth => Some(Self::LoginPostponed),
                Stage::StartTls => Some(Self::NoTls),
                _ => None,
            },
            Trouble::NoToken(why) if why.may_pass() => Some(Self::LoginPostponed),
            Trouble::NoToken(_) => Some(Self::LoginRefused),
            Trouble::Session(ClientError::TlsNotOffered) => Some(Self::NoTls),
            Trouble::Session(ClientError::NoMechanism(_)) => Some(Self::NoMechanism),
            Trouble::Session(ClientError::AuthWithoutTls) => Some(Self::PasswordUnprotected),
            Trouble::Handshake(NetError::Refused(refused)) => {
                Some(Self::Certificate(refused.remedy))
            }
            Trouble::Handshake(_) => Some(Self::Handshake),
            _ => None,
        }
    }

    /// The same for how a whole conversation went with a host that our own routes name.
    pub fn of_routed(disposition: &Disposition) -> Option<Self> {
        let missing = |result: &RecipientResult| match result {
            RecipientResult::Refused { reply, .. } => wants_login(reply),
            _ => false,
        };
        let results = disposition.results.iter().flatten();
        match &disposition.trouble {
            Some(trouble) => Self::of(trouble),
            None => results
                .into_iter()
                .any(missing)
                .then_some(Self::LoginMissing),
        }
    }

    /// The status of the mail's recipients. The host's own says more, but must not be one for good.
    pub fn status(self, reply: Option<&Reply>) -> EnhancedStatusCode {
        let said = reply.and_then(Reply::enhanced);
        let said = said.filter(|status| status.class() != 2);
        said.map_or_else(|| self.own_status(), EnhancedStatusCode::as_transient)
    }

    /// RFC 3463 §3.8, RFC 5248 §2.4.
    fn own_status(self) -> EnhancedStatusCode {
        match self {
            Self::LoginRefused => AUTH_INVALID_4_7_8,
            Self::NoMechanism => SECURITY_LACKING_4_7_4,
            Self::PasswordUnprotected => ENCRYPTION_NEEDED_4_7_11,
            Self::Certificate(_) => CRYPTOGRAPHY_4_7_5,
            Self::LoginPostponed | Self::LoginMissing | Self::NoTls | Self::Handshake => {
                POLICY_4_7_0
            }
        }
    }

    /// What whoever runs this host can do; none: it may pass by itself.
    pub fn remedy(self, listed: bool) -> Option<&'static str> {
        match self {
            Self::LoginRefused => Some(
                "mend `user` and `password_file` (or `token_file`, or `oauth`) of this host in mta.outbound.hosts",
            ),
            Self::NoMechanism => Some(
                "ask whoever runs it for a mechanism that `mechanisms` allows, such as SCRAM-SHA-256 or PLAIN, or leave `user` out of its entry in mta.outbound.hosts",
            ),
            Self::PasswordUnprotected => Some("set `tls` of this host in mta.outbound.hosts"),
            Self::LoginMissing => {
                Some("write `user` and `password_file` for this host into mta.outbound.hosts")
            }
            Self::NoTls if listed => Some(
                "if it speaks TLS from the first octet write `implicit_tls = true` for it in mta.outbound.hosts, if it has none another `tls`",
            ),
            Self::Certificate(remedy) => Some(remedy),
            Self::LoginPostponed | Self::NoTls | Self::Handshake => None,
        }
    }

    /// Whether it stays so until somebody mends it.
    pub fn needs_a_person(self) -> bool {
        !matches!(self, Self::LoginPostponed | Self::Handshake)
    }

    /// As it is counted.
    pub fn label(self) -> Label {
        match self {
            Self::LoginRefused => Label::LoginRefused,
            Self::LoginPostponed => Label::LoginPostponed,
            Self::NoMechanism => Label::NoMechanism,
            Self::PasswordUnprotected => Label::PasswordUnprotected,
            Self::LoginMissing => Label::LoginMissing,
            Self::NoTls => Label::NoTls,
            Self::Handshake => Label::Handshake,
            Self::Certificate(_) => Label::Certificate,
        }
    }
}

/// RFC 4954 §6: 530, authentication required; RFC 3207 §4 says the same of TLS.
pub fn wants_login(reply: &Reply) -> bool {
    reply.code() == AUTH_REQUIRED_530
}
