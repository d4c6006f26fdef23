use postroad_envelope::{Origin, Protocol, QueueId, Recipient, TlsFacts};
use postroad_net::{Peer, TlsInfo};
use postroad_sasl::Identity;
use postroad_smtp_session::{Hello, HelloKind, MailRequest};

use crate::MailTerms;

/// What is known of a client by now.
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// This conversation, for logs.
    pub session_id: String,
    /// The listener's name.
    pub listener: String,
    /// Its address.
    pub peer: Peer,
    /// Its name by reverse DNS, confirmed by a forward look-up.
    pub rdns: Option<String>,
    /// How the connection is encrypted.
    pub tls: Option<TlsFacts>,
    /// What it calls itself.
    pub hello: Option<Hello>,
    /// Who it proved to be.
    pub identity: Option<Identity>,
}

/// A transaction under way.
#[derive(Debug, Clone)]
pub struct TransactionFacts {
    /// The id its mail will have.
    pub queue_id: QueueId,
    /// MAIL.
    pub mail: MailRequest,
    /// What the policy said to MAIL.
    pub terms: MailTerms,
    /// The recipients so far, after expansion, each address once.
    pub recipients: Vec<Recipient>,
}

impl TransactionFacts {
    /// Whose mail it is, as far as is known.
    pub fn tenant(&self) -> &str {
        self.terms.tenant.as_deref().unwrap_or("default")
    }
}

impl ClientFacts {
    /// The account it proved to be.
    pub fn account(&self) -> Option<&str> {
        self.identity
            .as_ref()
            .map(|identity| identity.account.as_str())
    }

    /// What it calls itself.
    pub fn helo(&self) -> Option<&str> {
        self.hello.as_ref().map(|hello| hello.name.as_str())
    }

    /// Version and cipher, for logs.
    pub fn tls_text(&self) -> Option<String> {
        self.tls
            .as_ref()
            .map(|tls| format!("{} {}", tls.version, tls.cipher))
    }

    /// The origin of a mail it sends now.
    pub fn origin(&self, smtputf8: bool) -> Origin {
        Origin {
            client: self.peer.addr(),
            rdns: self.rdns.clone(),
            helo: self.helo().map(str::to_owned),
            tls: self.tls.clone(),
            account: self.account().map(str::to_owned),
            protocol: self.protocol(smtputf8),
            peer: None,
        }
    }

    /// RFC 3848, RFC 6531 §4.3.
    fn protocol(&self, utf8: bool) -> Protocol {
        let (tls, auth) = (self.tls.is_some(), self.identity.is_some());
        match self.hello.as_ref().map(|hello| hello.kind) {
            Some(HelloKind::Ehlo) => Protocol::Esmtp { tls, auth, utf8 },
            Some(HelloKind::Lhlo) => Protocol::Lmtp { tls, auth, utf8 },
            Some(HelloKind::Helo) | None => Protocol::Smtp,
        }
    }
}

pub(crate) fn tls_facts(info: &TlsInfo) -> TlsFacts {
    TlsFacts {
        version: info.version.as_str().to_owned(),
        cipher: info.cipher.clone(),
        verified: None,
    }
}
