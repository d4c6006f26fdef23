use std::{fmt, net::SocketAddr};

/// Who gave us a mail, and how; crosses every hop so that logs and policy see the real client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The client's address; absent for mail of our own making and over Unix sockets.
    pub client: Option<SocketAddr>,
    /// Its name by reverse DNS, confirmed by a forward look-up.
    pub rdns: Option<String>,
    /// What it said in HELO, EHLO or LHLO.
    pub helo: Option<String>,
    /// How the connection was encrypted.
    pub tls: Option<TlsFacts>,
    /// The account that authenticated.
    pub account: Option<String>,
    /// By what protocol it came.
    pub protocol: Protocol,
    /// The neighbour that handed it over and told who its client was: its address is known, the rest is hearsay, and what is
    /// allowed goes by it. Absent: the client itself connected.
    pub peer: Option<SocketAddr>,
}

/// How a connection was encrypted, in the words of the registry of TLS parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsFacts {
    /// `TLS1.3`, `TLS1.2`.
    pub version: String,
    /// `TLS_AES_256_GCM_SHA384` and the like.
    pub cipher: String,
    /// The name for which the other side's certificate was verified; absent: it was not.
    pub verified: Option<String>,
}

/// The `with` word of Received (RFC 3848, RFC 6531 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO; TLS and AUTH add `S` and `A`.
    Esmtp {
        /// Under TLS.
        tls: bool,
        /// After AUTH.
        auth: bool,
        /// With SMTPUTF8.
        utf8: bool,
    },
    /// LHLO (RFC 2033).
    Lmtp {
        /// Under TLS.
        tls: bool,
        /// After AUTH.
        auth: bool,
        /// With SMTPUTF8.
        utf8: bool,
    },
    /// Made by Postroad itself: reports, resent mail.
    #[default]
    Internal,
}

impl Protocol {
    /// Every value, so that a word can be read back.
    pub fn all() -> impl Iterator<Item = Self> {
        let flags = || (0..8_u8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0));
        [Self::Internal, Self::Smtp]
            .into_iter()
            .chain(flags().map(|(tls, auth, utf8)| Self::Esmtp { tls, auth, utf8 }))
            .chain(flags().map(|(tls, auth, utf8)| Self::Lmtp { tls, auth, utf8 }))
    }

    /// Whether the client authenticated.
    pub fn is_authenticated(self) -> bool {
        match self {
            Self::Esmtp { auth, .. } | Self::Lmtp { auth, .. } => auth,
            Self::Smtp | Self::Internal => false,
        }
    }
}

/// The registered word: `ESMTPSA`, `UTF8LMTPS`; `internal` for our own.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plain, utf8_form, tls, auth, utf8) = match *self {
            Self::Internal => return f.write_str("internal"),
            Self::Smtp => return f.write_str("SMTP"),
            Self::Esmtp { tls, auth, utf8 } => ("ESMTP", "UTF8SMTP", tls, auth, utf8),
            Self::Lmtp { tls, auth, utf8 } => ("LMTP", "UTF8LMTP", tls, auth, utf8),
        };
        f.write_str(if utf8 { utf8_form } else { plain })?;
        f.write_str(if tls { "S" } else { "" })?;
        f.write_str(if auth { "A" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_rfc_3848_are_distinct() {
        let words: std::collections::HashSet<String> = Protocol::all()
            .map(|protocol| protocol.to_string())
            .collect();
        assert_eq!(words.len(), 18);
        assert!(
            words.contains("ESMTPSA") && words.contains("UTF8SMTPSA") && words.contains("LMTP")
        );
    }
}
