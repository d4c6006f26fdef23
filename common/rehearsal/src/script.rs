//! What a script says, as values.

use std::path::PathBuf;
use std::time::Duration;

/// All that a host does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What it calls itself.
    pub name: String,
    /// What else its certificate is for.
    pub names: Vec<String>,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// When TLS begins.
    pub tls: Tls,
    /// Which certificate is shown.
    pub certificate: CertificateKind,
    /// Lines of the reply to EHLO; none: those of a good host.
    pub offers: Option<Vec<String>>,
    /// The same under TLS.
    pub offers_under_tls: Option<Vec<String>>,
    /// Whom AUTH lets in; none: everybody.
    pub logins: Vec<Login>,
    /// Octets of content.
    pub size: u64,
    /// Whether anybody is let in at all.
    pub door: Door,
    /// How much it takes.
    pub limits: Limits,
    /// Of what is left to chance.
    pub seed: u64,
    /// What is done otherwise than a good host would.
    pub rules: Vec<Rule>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            name: "mx.peer.test".to_owned(),
            names: Vec::new(),
            protocol: Protocol::Smtp,
            tls: Tls::StartTls,
            certificate: CertificateKind::Good,
            offers: None,
            offers_under_tls: None,
            logins: Vec::new(),
            size: 64 << 20,
            door: Door::Open,
            limits: Limits::default(),
            seed: 1,
            rules: Vec::new(),
        }
    }
}

impl Script {
    /// Certificates and keys of the user's own.
    pub fn certificate_files(&self) -> Vec<(PathBuf, PathBuf)> {
        let actions = self.rules.iter().flat_map(|rule| &rule.actions);
        let shown = actions.filter_map(|action| match action {
            Action::Show(kind) => Some(kind),
            _ => None,
        });
        let kinds = shown.chain([&self.certificate]);
        let files = kinds.filter_map(|kind| match kind {
            CertificateKind::Files { cert, key } => Some((cert.clone(), key.clone())),
            _ => None,
        });
        files.collect()
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 2033.
    Lmtp,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// By STARTTLS, which is offered.
    StartTls,
    /// Before the greeting.
    AtOnce,
    /// Never.
    Never,
}

/// Whether the host is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// It listens.
    Open,
    /// Nobody listens: connections are refused.
    Shut,
    /// Nobody answers: connections run into a time-out.
    Deaf,
}

/// Which certificate is shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateKind {
    /// Of the authority of the rehearsal, for the host's names.
    Good,
    /// The same, run out.
    Expired,
    /// The same, for a name that is not the host's.
    AnotherName,
    /// Of an authority that nobody has.
    UnknownAuthority,
    /// The user's own.
    Files {
        /// PEM, with its chain.
        cert: PathBuf,
        /// PEM.
        key: PathBuf,
    },
}

/// Whom AUTH lets in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The account.
    pub name: String,
    /// Its password, or a token.
    pub secret: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, …)", self.name)
    }
}

/// How much a host takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub at_once: Option<Limit>,
    /// Connections in a time.
    pub connections: Vec<Limit>,
    /// Mails in a time.
    pub mails: Vec<Limit>,
    /// Mails on one connection.
    pub per_connection: Option<Limit>,
    /// Recipients of one mail.
    pub recipients: Option<Limit>,
    /// How long after it was heard of first a sender and recipient are taken.
    pub greylist: Option<Limit>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many; of the greylist it has no meaning.
    pub most: u64,
    /// In so long, where time counts.
    pub within: Duration,
    /// What is said to more.
    pub reply: String,
}

/// Where in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The connection is there.
    Connect,
    /// The handshake of TLS.
    Handshake,
    /// The first words.
    Greeting,
    /// EHLO, HELO and LHLO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH, once its exchange is over.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// While content comes.
    Content,
    /// A chunk that is not the last.
    Chunk,
    /// The content is complete.
    End,
    /// RSET.
    Reset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// Any other command.
    Other,
}

impl Stage {
    /// All, in the order of a conversation.
    pub const ALL: [Self; 16] = [
        Self::Connect,
        Self::Handshake,
        Self::Greeting,
        Self::Hello,
        Self::StartTls,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Content,
        Self::Chunk,
        Self::End,
        Self::Reset,
        Self::Noop,
        Self::Quit,
        Self::Other,
    ];

    /// The word of scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Greeting => "greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Content => "content",
            Self::Chunk => "BDAT",
            Self::End => "end",
            Self::Reset => "RSET",
            Self::Noop => "NOOP",
            Self::Quit => "QUIT",
            Self::Other => "other",
        }
    }
}

/// What is done when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its line in the script.
    pub line: usize,
    /// Where.
    pub stage: Stage,
    /// When.
    pub when: When,
    /// What, one after the other.
    pub actions: Vec<Action>,
}

/// When a rule fits; what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// A recipient.
    pub to: Option<Pattern>,
    /// The sender.
    pub from: Option<Pattern>,
    /// Which connection.
    pub connection: Option<Range>,
    /// Which mail.
    pub mail: Option<Range>,
    /// Which time.
    pub time: Option<Range>,
    /// Octets of content that have come.
    pub after: Option<u64>,
    /// Under TLS, or not.
    pub tls: Option<bool>,
    /// Logged in, or not.
    pub login: Option<bool>,
    /// In so many of a hundred cases.
    pub chance: Option<u8>,
}

/// Numbers from one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Range {
    /// Whether the number is one of them.
    pub const fn contains(self, number: u64) -> bool {
        self.first <= number && number <= self.last
    }
}

/// An address in which `*` stands for any text. Case does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub String);

impl Pattern {
    /// Whether the text is like this.
    pub fn fits(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let pattern = self.0.to_lowercase();
        let Some((first, rest)) = pattern.split_once('*') else {
            return pattern == text;
        };
        let Some(mut left) = text.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            match left.split_once(part) {
                Some((_, after)) => left = after,
                None => return false,
            }
        }
        left.ends_with(last)
    }
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Says a line.
    Say(String),
    /// What a good host does.
    Well,
    /// Nothing for so long.
    Wait(Duration),
    /// Nothing any more.
    Silence,
    /// Nothing any more, not even reading.
    Deaf,
    /// Says a line, an octet at a time.
    Drip(Duration, String),
    /// Says half of a line.
    Half(String),
    /// Octets of no meaning.
    Garbage(usize),
    /// These octets.
    Octets(Vec<u8>),
    /// Takes the mail.
    Keep,
    /// Ends the connection.
    Close,
    /// Ends it by RST.
    Reset,
    /// Goes on without TLS.
    Plain,
    /// Shows this certificate.
    Show(CertificateKind),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let fits = |pattern: &str, text| Pattern(pattern.to_owned()).fits(text);
        assert!(fits("full@peer.test", "Full@PEER.test"));
        assert!(fits("full@*", "full@peer.test") && fits("*@peer.test", "a@peer.test"));
        assert!(fits("*", "") && fits("a*b*c", "a-b-b-c") && fits("**", "x"));
        assert!(!fits("full@*", "empty@peer.test") && !fits("a*b*c", "a-c"));
        assert!(!fits("ab*ba", "aba"), "no octet is used twice");
    }
}
