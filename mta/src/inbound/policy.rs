//! Who may send what to whom.
//!
//! | recipient | answer |
//! |---|---|
//! | an account or alias of ours, `<postmaster>` | taken; aliases expand |
//! | unknown in a domain of ours | 550 5.1.1 |
//! | disabled | 550 5.2.1 |
//! | an alias that leads in a circle or to too many | 451 4.3.5, and an ERROR for the operator |
//! | any other domain | 550 5.7.1, but for clients in `relay_networks` taken, and for those a listener knows by their certificates |
//! | a signed bounce address of ours | as the address below it |
//! | an address of one recipient, of `verp_senders` | as the sender in it; a field of the header names the recipient |
//! | one that was not signed here, or whose time is over | 550 5.1.1 |
//! | an unsigned one of `bounces_only_signed`, for mail without a sender | 550 5.7.1 |
//! | one that cannot be looked up now | 451 4.3.0 |
//!
//! On a listener for known clients there is more at MAIL: 530 5.7.0 without TLS or without a certificate, and 454 4.7.5 for one that
//! does not count. That one was to be known: while somebody mends it, its mail waits at its end and does not bounce.

use async_trait::async_trait;
use postroad_accounts::Accounts;
use postroad_address::Mailbox;
use postroad_directory::Resolution;
use postroad_envelope::{EditPlace, HeaderEdit};
use postroad_message::HeaderBlock;
use postroad_net::{Networks, PeerCertificate};
use postroad_reply::{
    AUTH_REQUIRED_530, CRYPTOGRAPHY_4_7_5, MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, Reply,
    SECURITY_5_7_0, TEMPORARY_AUTH_FAILURE_454,
};
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::{
    ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, TransactionFacts,
};

use crate::bounces::Bounces;
use crate::config::{InboundConfig, ListenerConfig};

/// The field that names the recipient whose mail came back.
const BOUNCE_OF: &str = "X-Postroad-Bounce-Of";

/// The decisions of port 25.
#[derive(Clone)]
pub struct InboundPolicy {
    accounts: Accounts,
    relay_networks: Networks,
    bounces: Bounces,
    /// The listener is for clients alone that prove who they are.
    known_clients: bool,
}

impl InboundPolicy {
    /// Decides by these accounts.
    pub fn new(config: &InboundConfig, accounts: Accounts, bounces: Bounces) -> Self {
        Self {
            accounts,
            relay_networks: config.relay_networks.clone(),
            bounces,
            known_clients: false,
        }
    }

    /// The same at one listener.
    pub fn of(&self, listener: &ListenerConfig) -> Self {
        Self {
            known_clients: listener.is_for_known_clients(),
            ..self.clone()
        }
    }

    /// The same under another configuration.
    pub fn successor(&self, config: &InboundConfig) -> Self {
        // Keys that cannot be used were refused before; those of now are better than none.
        let bounces = Bounces::inbound(config).unwrap_or_else(|_| self.bounces.clone());
        Self::new(config, self.accounts.clone(), bounces)
    }

    fn foreign(&self, client: &ClientFacts, mailbox: &Mailbox) -> Result<RecipientDraft, Reply> {
        let known = self.known_clients && client.verified().is_some();
        if known || self.relay_networks.contains(client.peer.ip()) {
            return Ok(RecipientDraft::new(mailbox.clone()));
        }
        Err(Reply::new(
            MAILBOX_UNAVAILABLE_550,
            NOT_AUTHORIZED_5_7_1,
            "relaying denied, that domain is not ours",
        ))
    }
}

/// Says whom a mail to an address of one recipient is about; what the client says of it counts for nothing.
fn bounce_of(transaction: &TransactionFacts) -> Vec<HeaderEdit> {
    if transaction.bounces_of.is_empty() {
        return Vec::new();
    }
    let removed = HeaderEdit::Remove {
        name: BOUNCE_OF.to_owned(),
        occurrence: None,
    };
    let mut edits = vec![removed];
    for of in &transaction.bounces_of {
        tracing::info!(
            event = "bounce_came",
            queue_id = %transaction.queue_id,
            mail_from = %transaction.mail.reverse_path,
            bounce_of = %of
        );
        edits.push(HeaderEdit::Add {
            place: EditPlace::Top,
            field: format!("{BOUNCE_OF}: {of}\r\n").into_bytes(),
        });
    }
    edits
}

/// Whether a client of a listener for known clients is one.
fn known(client: &ClientFacts) -> Result<(), Reply> {
    match &client.certificate {
        PeerCertificate::Verified => Ok(()),
        PeerCertificate::Absent => Err(Reply::new(
            AUTH_REQUIRED_530,
            SECURITY_5_7_0,
            "this listener is for servers that show a certificate known here, and you showed none",
        )),
        PeerCertificate::Unverified(reason) => Err(Reply::new(
            TEMPORARY_AUTH_FAILURE_454,
            CRYPTOGRAPHY_4_7_5,
            format!("the certificate you showed {reason}"),
        )),
    }
}

#[async_trait]
impl Policy for InboundPolicy {
    async fn connect(&self, _client: &ClientFacts) -> PolicyReply {
        PolicyReply::Accept
    }

    async fn mail(&self, client: &ClientFacts, _mail: &MailRequest) -> Result<MailTerms, Reply> {
        if self.known_clients {
            known(client)?;
        }
        Ok(MailTerms::default())
    }

    async fn rcpt(
        &self,
        client: &ClientFacts,
        transaction: &TransactionFacts,
        rcpt: &RcptRequest,
    ) -> Result<Vec<RecipientDraft>, Reply> {
        let has_sender = !transaction.mail.reverse_path.is_null();
        let behind = self.bounces.read(&rcpt.forward_path, has_sender)?;
        let path = behind.as_ref().map_or(&rcpt.forward_path, |b| &b.path);
        let resolved = self.accounts.resolve(path).await?;
        let mut drafts = match (path.mailbox(), &resolved.resolution) {
            (Some(mailbox), Resolution::ForeignDomain) => vec![self.foreign(client, mailbox)?],
            _ => RecipientDraft::local(resolved, transaction, path)?,
        };
        if let Some((own, of)) = behind.as_ref().and_then(|behind| behind.verp.as_ref()) {
            for draft in &mut drafts {
                draft.original.get_or_insert_with(|| own.clone());
                draft.bounce_of = Some(of.clone());
            }
        }
        Ok(drafts)
    }

    async fn header(
        &self,
        _client: &ClientFacts,
        transaction: &TransactionFacts,
        _header: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply> {
        Ok(HeaderTerms {
            edits: bounce_of(transaction),
            ..HeaderTerms::default()
        })
    }
}
