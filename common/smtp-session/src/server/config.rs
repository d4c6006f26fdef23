use std::time::Duration;

use postroad_address::Domain;
use postroad_sasl::Mechanism;

/// How a server presents itself and what it allows.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Our name in the greeting and the reply to EHLO.
    pub host_name: Domain,
    /// Which protocol.
    pub flavour: Flavour,
    /// Which extensions.
    pub offers: Offers,
    /// MAIL only under TLS (530 5.7.0).
    pub require_tls: bool,
    /// MAIL only after AUTH (530 5.7.0).
    pub require_auth: bool,
    /// Bounds.
    pub limits: ServerLimits,
}

/// Which protocol a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// RFC 5321, between hosts.
    Smtp,
    /// RFC 6409, from mail clients.
    Submission,
    /// RFC 2033, a reply for each recipient after the content.
    Lmtp,
}

/// The extensions offered, beyond those always there (SIZE, PIPELINING, ENHANCEDSTATUSCODES, 8BITMIME).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// STARTTLS (RFC 3207), while not encrypted.
    pub starttls: bool,
    /// AUTH (RFC 4954) with these, only under TLS.
    pub auth: Vec<Mechanism>,
    /// What those hear first whose token is refused.
    pub token_refused: TokenRefused,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030), with CHUNKING alone.
    pub binarymime: bool,
    /// FUTURERELEASE (RFC 4865): the longest time that a mail may be held.
    pub future_release: Option<Duration>,
    /// MT-PRIORITY (RFC 6710): the highest that is granted; a higher one is lowered to it.
    pub mt_priority: Option<i8>,
    /// DELIVERBY (RFC 2852): the least seconds for mail that is to be returned otherwise; 0 takes any.
    pub deliver_by: Option<u64>,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689), only under TLS.
    pub requiretls: bool,
    /// XCLIENT: the client is a proxy, believed for whom it speaks.
    pub xclient: bool,
    /// LOGIN of XCLIENT: that its clients proved to be accounts.
    pub xclient_login: bool,
    /// XFORWARD: the client is believed what it tells of its own clients.
    pub xforward: bool,
}

/// Why a token is refused, in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefused {
    /// RFC 7628 §3.2.2.
    pub oauthbearer: String,
    /// As Google's documentation of XOAUTH2 has it.
    pub xoauth2: String,
}

/// The bounds of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Octets of content; default 50 MiB.
    pub size: u64,
    /// Recipients of one mail; default 1000, and never fewer than the 100 of RFC 5321 §4.5.3.1.8.
    pub recipients: usize,
    /// Octets of a content line; default 1 MiB, since real mail ignores RFC 5321 §4.5.3.1.6.
    pub content_line: usize,
    /// MAIL commands of one connection, taken or refused, as MAILMAX counts them (RFC 9422 §4.1); the next one is 421. Default 1000;
    /// [`u32::MAX`]: as many as there are.
    pub mails: u32,
    /// Commands of one connection, whatever they are; the next one is 421. Default 100,000; [`u32::MAX`]: as many as there are.
    pub commands: u32,
    /// Mistakes (syntax, order, unknown commands) before 421; default 10.
    pub errors: u32,
    /// Failed authentications before 421; default 3.
    pub auth_failures: u32,
    /// Refused recipients before 421, against guessing of addresses; default 100.
    pub refused_recipients: u32,
    /// Commands without an accepted mail before 421; default 100. RCPT is not counted.
    pub idle_commands: u32,
}

impl ServerConfig {
    /// A server of this name and flavour with default limits and all extensions but STARTTLS, AUTH and REQUIRETLS;
    /// submission requires TLS and AUTH.
    pub fn new(host_name: Domain, flavour: Flavour) -> Self {
        let submission = flavour == Flavour::Submission;
        Self {
            host_name,
            flavour,
            offers: Offers::default(),
            require_tls: submission,
            require_auth: submission,
            limits: ServerLimits::default(),
        }
    }
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            starttls: false,
            auth: Vec::new(),
            token_refused: TokenRefused::default(),
            chunking: true,
            binarymime: true,
            future_release: None,
            mt_priority: None,
            deliver_by: None,
            dsn: true,
            smtputf8: true,
            requiretls: false,
            xclient: false,
            xclient_login: false,
            xforward: false,
        }
    }
}

/// That it is, and nothing of how to get a better one.
impl Default for TokenRefused {
    fn default() -> Self {
        Self {
            oauthbearer: r#"{"status":"invalid_token"}"#.to_owned(),
            xoauth2: r#"{"status":"401","schemes":"bearer"}"#.to_owned(),
        }
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            size: 50 << 20,
            recipients: 1000,
            content_line: 1 << 20,
            mails: 1000,
            commands: 100_000,
            errors: 10,
            auth_failures: 3,
            refused_recipients: 100,
            idle_commands: 100,
        }
    }
}
