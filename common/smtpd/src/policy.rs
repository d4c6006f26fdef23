use std::collections::BTreeMap;

use async_trait::async_trait;
use postroad_address::{ForwardPath, Mailbox};
use postroad_directory::{Resolution, Resolved};
use postroad_envelope::{HeaderEdit, RouteOverride, Timestamp};
use postroad_message::HeaderBlock;
use postroad_reply::{INVALID_COMMAND_5_5_1, NOT_IMPLEMENTED_502, Reply};
use postroad_sasl::{
    ContextAnswer, ContextCall, Credentials, Secret, SecretQuery, SecurityContext,
};
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};

use crate::{ClientFacts, TransactionFacts};

/// What an agent decides. A refusal carries the reply; its cause is the policy's to log.
#[async_trait]
pub trait Policy: Send + Sync + 'static {
    /// Whether this client is served at all.
    async fn connect(&self, client: &ClientFacts) -> PolicyReply;

    /// What a mechanism has to know of an account to verify a proof. Of an account that cannot log in so, something that looks alike.
    async fn secret(&self, _: &ClientFacts, _: &SecretQuery) -> Result<Secret, Reply> {
        Err(not_here())
    }

    /// Has a security context (GSSAPI) do this: `held` is the one of this exchange, none at its first call. It comes back with what it made
    /// of it.
    async fn context(
        &self,
        _: &ClientFacts,
        _held: Option<Box<dyn SecurityContext>>,
        _: ContextCall,
    ) -> Result<(Box<dyn SecurityContext>, ContextAnswer), Reply> {
        Err(not_here())
    }

    /// Whether these credentials are true.
    async fn auth(&self, _: &ClientFacts, _: &Credentials) -> AuthDecision {
        AuthDecision::Refuse(not_here())
    }

    /// Whether the account that a proxy names is one (LOGIN of XCLIENT); asked only where it is believed.
    async fn vouched(&self, _: &ClientFacts, _: &str) -> AuthDecision {
        AuthDecision::Refuse(not_here())
    }

    /// Octets of the largest mail this client may send, now that it has proved who it is; none: as everybody.
    fn size_limit(&self, _: &ClientFacts) -> Option<u64> {
        None
    }

    /// Whether mail from this sender is taken.
    async fn mail(&self, client: &ClientFacts, mail: &MailRequest) -> Result<MailTerms, Reply>;

    /// Whether this recipient is taken. Aliases expand here: one RCPT may become many recipients.
    async fn rcpt(
        &self,
        client: &ClientFacts,
        transaction: &TransactionFacts,
        rcpt: &RcptRequest,
    ) -> Result<Vec<RecipientDraft>, Reply>;

    /// Whether content may come, now that all recipients are known and the queue has room.
    async fn data(&self, _: &ClientFacts, _: &TransactionFacts) -> Result<(), Reply> {
        Ok(())
    }

    /// Whether content of so many octets, all of it there, is taken: asked last, right before it is committed.
    async fn content(&self, _: &ClientFacts, _: &TransactionFacts, _: u64) -> Result<(), Reply> {
        Ok(())
    }

    /// VRFY of a client that logged in: what it is told, or nothing (252).
    async fn verify(&self, _: &ClientFacts, _: &str) -> Option<Reply> {
        None
    }

    /// EXPN likewise.
    async fn expand(&self, _: &ClientFacts, _: &str) -> Option<Reply> {
        None
    }

    /// What is to be changed now that the whole header is known. Received is added without being asked.
    async fn header(
        &self,
        client: &ClientFacts,
        transaction: &TransactionFacts,
        header: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply>;
}

/// For policies of listeners that offer no AUTH: nobody gets as far as this.
fn not_here() -> Reply {
    let text = "authentication is not offered";
    Reply::new(NOT_IMPLEMENTED_502, INVALID_COMMAND_5_5_1, text)
}

/// The answer to credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthDecision {
    /// They are true, and belong to this account.
    Accept {
        /// Its name.
        account: String,
    },
    /// They are not, or it cannot be told now.
    Refuse(Reply),
    /// Nobody looks at them, and the conversation ends (421).
    Close(Reply),
}

/// Under what terms a sender's mail is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailTerms {
    /// The tenant, if the sender decides it; otherwise the first recipient that has one does.
    pub tenant: Option<String>,
    /// Tags for later selection.
    pub tags: Vec<String>,
    /// See [`Envelope::priority`](postroad_envelope::Envelope::priority).
    pub priority: i8,
}

/// A recipient as the policy resolved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientDraft {
    /// Where the mail goes.
    pub address: Mailbox,
    /// What RCPT said, if an alias or a rule changed it.
    pub original: Option<Mailbox>,
    /// The tenant of its domain, if that is ours.
    pub tenant: Option<String>,
    /// A route of its own.
    pub route_override: Option<RouteOverride>,
    /// The folder below the mailbox.
    pub target_folder: Option<String>,
    /// The recipient whose mail came back, if the address told (VERP).
    pub bounce_of: Option<Mailbox>,
}

impl RecipientDraft {
    /// A recipient as the client named it.
    pub fn new(address: Mailbox) -> Self {
        Self {
            address,
            original: None,
            tenant: None,
            route_override: None,
            target_folder: None,
            bounce_of: None,
        }
    }

    /// The recipients an address of ours stands for, as it was resolved; aliases that cannot be followed are the operator's to mend.
    pub fn local(
        resolved: Resolved,
        transaction: &TransactionFacts,
        path: &ForwardPath,
    ) -> Result<Vec<Self>, Reply> {
        let Resolved { resolution, tenant } = resolved;
        if matches!(
            resolution,
            Resolution::AliasLoop | Resolution::TooManyTargets
        ) {
            tracing::error!(
                event = "fault",
                queue_id = %transaction.queue_id,
                rcpt_to = %path,
                remedy = "mend the alias in the directory",
                "an alias leads in a circle or to too many addresses"
            );
        }
        let targets = resolution.into_local()?.into_iter();
        let drafts = targets.map(|target| Self {
            original: target.original,
            tenant: tenant.clone(),
            ..Self::new(target.address)
        });
        Ok(drafts.collect())
    }
}

/// What follows from the header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderTerms {
    /// Edits after our Received, such as a missing Date or Message-ID.
    pub edits: Vec<HeaderEdit>,
    /// Results of checks by name.
    pub verdicts: BTreeMap<String, String>,
    /// Facts for the envelope; `message_id` is there without being asked.
    pub facts: BTreeMap<String, String>,
    /// The mail rests until then before anything of it is tried.
    pub not_before: Option<Timestamp>,
}
