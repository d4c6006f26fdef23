use std::{fmt, str::FromStr};

/// How far an attempt had come when it ended: what a reply answers, or what failed before there was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Looking up where to go.
    Dns,
    /// Connecting.
    Connect,
    /// The greeting.
    Greeting,
    /// EHLO, HELO, LHLO.
    Hello,
    /// STARTTLS and the handshake.
    Tls,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, waiting for 354.
    Data,
    /// Sending the content.
    Content,
    /// Behind the content.
    End,
}

/// Why a recipient did not get a mail, or not yet: what a person and a schedule have to know of thousands of ways to say it.
/// The list is closed, and causes are only ever added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// There is no such mailbox.
    MailboxUnknown,
    /// There is, and it takes no mail: suspended, closed, asleep.
    MailboxDisabled,
    /// It has no room.
    MailboxFull,
    /// The domain does not exist, or has no mail.
    DomainUnknown,
    /// The sender's address, or its domain, is not believed to exist or may not send.
    SenderRefused,
    /// SPF, DKIM, DMARC, the reverse name or the name in EHLO are not as the host wants them.
    Unauthenticated,
    /// The content looks like spam to the host.
    Spam,
    /// The content is of a kind that the host does not take: a virus, a kind of file, a broken header.
    Content,
    /// Our address or domain is on a list, or has no good name.
    Reputation,
    /// Too many mails, recipients or connections in too short a time.
    RateLimited,
    /// A first attempt is put off on purpose.
    Greylisted,
    /// A rule of the host's that says no more.
    Policy,
    /// The mail is too large.
    TooLarge,
    /// The host wants a log-in, or ours was not good.
    LoginRequired,
    /// The host does not take mail for that domain from us.
    RelayDenied,
    /// No connection, or it broke.
    Connection,
    /// The name service did not answer.
    Dns,
    /// No TLS, or not good enough.
    Tls,
    /// The two do not understand one another.
    Protocol,
    /// The host has trouble of its own.
    System,
    /// The mail went round in a circle.
    Loop,
    /// Its time was over.
    Expired,
    /// Mail to that recipient failed for good before, so it was not tried.
    Suppressed,
    /// Something else.
    Other,
}

/// A word that is not in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of {0}")]
pub struct NotInList(&'static str);

macro_rules! words {
    ($kind:ident: $($variant:ident $word:literal,)+) => {
        impl $kind {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in logs, JSON, tables and rules.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $kind {
            type Err = NotInList;

            fn from_str(word: &str) -> Result<Self, NotInList> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(NotInList(concat!($($word, " ",)+))),
                }
            }
        }
    };
}

words! { Stage:
    Dns "dns",
    Connect "connect",
    Greeting "greeting",
    Hello "hello",
    Tls "tls",
    Auth "auth",
    Mail "mail",
    Rcpt "rcpt",
    Data "data",
    Content "content",
    End "end",
}

words! { Cause:
    MailboxUnknown "mailbox_unknown",
    MailboxDisabled "mailbox_disabled",
    MailboxFull "mailbox_full",
    DomainUnknown "domain_unknown",
    SenderRefused "sender_refused",
    Unauthenticated "unauthenticated",
    Spam "spam",
    Content "content",
    Reputation "reputation",
    RateLimited "rate_limited",
    Greylisted "greylisted",
    Policy "policy",
    TooLarge "too_large",
    LoginRequired "login_required",
    RelayDenied "relay_denied",
    Connection "connection",
    Dns "dns",
    Tls "tls",
    Protocol "protocol",
    System "system",
    Loop "loop",
    Expired "expired",
    Suppressed "suppressed",
    Other "other",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for cause in Cause::ALL {
            assert_eq!(cause.as_str().parse(), Ok(*cause));
        }
        for stage in Stage::ALL {
            assert_eq!(stage.as_str().parse(), Ok(*stage));
        }
        assert!("Spam".parse::<Cause>().is_err());
    }
}
