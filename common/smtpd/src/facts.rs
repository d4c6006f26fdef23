use std::net::{IpAddr, SocketAddr};

use postroad_address::Mailbox;
use postroad_envelope::{Origin, Protocol, QueueId, Recipient, TlsFacts};
use postroad_net::{Peer, PeerCertificate, TlsInfo};
use postroad_sasl::Identity;
use postroad_smtp::{ClientProtocol, Forwarded, HeloName};
use postroad_smtp_session::{Hello, HelloKind, MailRequest};

use crate::MailTerms;

/// What is known of a client by now.
///
/// A mail system in front of us is a client too. What is allowed goes by `peer`; what is thought of a mail goes by
/// `forwarded`, where that is there: it is hearsay, from somebody whom the operator believes.
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
    /// What its certificate was worth, where it was asked for one.
    pub certificate: PeerCertificate,
    /// What it calls itself.
    pub hello: Option<Hello>,
    /// Who it proved to be.
    pub identity: Option<Identity>,
    /// Whom it passes mail on for (XFORWARD), in this transaction.
    pub forwarded: Option<Forwarded>,
    /// Who it is known to be without AUTH.
    pub known: Option<String>,
    /// The proxy that speaks for it (XCLIENT), and what else that told.
    pub proxied: Option<Proxied>,
}

/// What a proxy told of the client for whom it speaks, beside its address and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// The proxy.
    pub by: Peer,
    /// What the client called itself to the proxy.
    pub helo: Option<HeloName>,
    /// Whether it said EHLO there.
    pub protocol: Option<ClientProtocol>,
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
    /// Whose mail came back, as far as addresses told (VERP), each once.
    pub bounces_of: Vec<Mailbox>,
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
        let proved = self.identity.as_ref();
        proved
            .map(|identity| &identity.account)
            .or(self.known.as_ref())
            .map(String::as_str)
    }

    /// What it calls itself.
    pub fn helo(&self) -> Option<&str> {
        let told = self.proxied.as_ref().and_then(|told| told.helo.as_ref());
        let own = || self.hello.as_ref().map(|hello| &hello.name);
        told.or_else(own).map(HeloName::as_str)
    }

    /// Version and cipher, for logs.
    pub fn tls_text(&self) -> Option<String> {
        self.tls
            .as_ref()
            .map(|tls| format!("{} {}", tls.version, tls.cipher))
    }

    /// The name for which its certificate was verified.
    pub fn verified(&self) -> Option<&str> {
        self.tls.as_ref()?.verified.as_deref()
    }

    /// The origin of a mail it sends now: the client behind it, if it told of one, and nothing of itself then but its
    /// address and how it spoke to us.
    pub fn origin(&self, smtputf8: bool) -> Origin {
        let own = self.own_origin(smtputf8);
        let Some(forwarded) = &self.forwarded else {
            return own;
        };
        Origin {
            client: forwarded.addr.map(|addr| client_of(forwarded, addr)),
            rdns: forwarded.name.clone(),
            helo: forwarded.helo.as_ref().map(ToString::to_string),
            peer: Some(self.peer.addr().unwrap_or((self.peer.ip(), 0).into())),
            ..own
        }
    }

    /// The same without hearsay.
    pub fn own_origin(&self, smtputf8: bool) -> Origin {
        Origin {
            // A proxy need not know the address of its client.
            client: self.peer.addr().filter(|addr| !addr.ip().is_unspecified()),
            rdns: self.rdns.clone(),
            helo: self.helo().map(str::to_owned),
            tls: self.tls.clone(),
            account: self.account().map(str::to_owned),
            protocol: self.protocol(smtputf8),
            peer: None,
        }
    }

    /// The client behind it, for logs.
    pub fn forwarded_client(&self) -> Option<String> {
        let forwarded = self.forwarded.as_ref()?;
        Some(Peer::new(client_of(forwarded, forwarded.addr?)).to_string())
    }

    /// The name of the client behind it.
    pub fn forwarded_name(&self) -> Option<&str> {
        self.forwarded.as_ref()?.name.as_deref()
    }

    /// What the client behind it calls itself.
    pub fn forwarded_helo(&self) -> Option<&str> {
        self.forwarded.as_ref()?.helo.as_ref().map(HeloName::as_str)
    }

    /// By what protocol the client behind it brought the mail.
    pub fn forwarded_protocol(&self) -> Option<&str> {
        self.forwarded.as_ref()?.proto.as_deref()
    }

    /// The mail's id at the neighbour.
    pub fn peer_queue_id(&self) -> Option<&str> {
        self.forwarded.as_ref()?.ident.as_deref()
    }

    /// RFC 3848, RFC 6531 §4.3.
    fn protocol(&self, utf8: bool) -> Protocol {
        let (tls, auth) = (self.tls.is_some(), self.account().is_some());
        let told = self.proxied.as_ref().and_then(|told| told.protocol);
        match self.hello.as_ref().map(|hello| hello.kind) {
            _ if told == Some(ClientProtocol::Smtp) => Protocol::Smtp,
            Some(HelloKind::Ehlo) => Protocol::Esmtp { tls, auth, utf8 },
            Some(HelloKind::Lhlo) => Protocol::Lmtp { tls, auth, utf8 },
            Some(HelloKind::Helo) | None => Protocol::Smtp,
        }
    }
}

/// Port 0: it was not told.
fn client_of(forwarded: &Forwarded, addr: IpAddr) -> SocketAddr {
    SocketAddr::new(addr, forwarded.port.unwrap_or(0))
}

pub(crate) fn tls_facts(info: &TlsInfo) -> TlsFacts {
    TlsFacts {
        version: info.version.as_str().to_owned(),
        cipher: info.cipher.clone(),
        verified: info.verified.clone(),
    }
}
