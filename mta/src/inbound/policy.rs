//! Who may send what to whom.
//!
//! | recipient | answer |
//! |---|---|
//! | an account or alias of ours, `<postmaster>` | taken; aliases expand |
//! | unknown in a domain of ours | 550 5.1.1 |
//! | disabled | 550 5.2.1 |
//! | an alias that leads in a circle or to too many | 451 4.3.5, and an ERROR for the operator |
//! | any other domain | 550 5.7.1, but for clients in `relay_networks` taken |

use async_trait::async_trait;
use postroad_address::ForwardPath;
use postroad_directory::{DirectoryHandle, Expanded, Resolution};
use postroad_message::HeaderBlock;
use postroad_net::Networks;
use postroad_reply::{
    BAD_MAILBOX_5_1_1, EnhancedStatusCode, INVALID_COMMAND_5_5_1, LOCAL_ERROR_451,
    MAILBOX_DISABLED_5_2_1, MAILBOX_UNAVAILABLE_550, MISCONFIGURED_4_3_5, NOT_AUTHORIZED_5_7_1,
    NOT_IMPLEMENTED_502, Reply, ReplyCode,
};
use postroad_sasl::Credentials;
use postroad_smtp_session::{MailRequest, PolicyReply, RcptRequest};
use postroad_smtpd::{
    AuthDecision, ClientFacts, HeaderTerms, MailTerms, Policy, RecipientDraft, TransactionFacts,
};

use crate::config::InboundConfig;

/// The decisions of port 25.
pub struct InboundPolicy {
    directory: DirectoryHandle,
    relay_networks: Networks,
}

impl InboundPolicy {
    /// Decides by this directory.
    pub fn new(config: &InboundConfig, directory: DirectoryHandle) -> Self {
        Self {
            directory,
            relay_networks: config.relay_networks.clone(),
        }
    }

    fn foreign(&self, client: &ClientFacts, path: &ForwardPath) -> Result<RecipientDraft, Reply> {
        match path.mailbox() {
            Some(mailbox) if self.relay_networks.contains(client.peer.ip()) => {
                Ok(RecipientDraft::new(mailbox.clone()))
            }
            _ => Err(refusal(
                NOT_AUTHORIZED_5_7_1,
                "relaying denied, that domain is not ours",
            )),
        }
    }
}

#[async_trait]
impl Policy for InboundPolicy {
    async fn connect(&self, _client: &ClientFacts) -> PolicyReply {
        PolicyReply::Accept
    }

    /// AUTH is not offered here, so this is never asked.
    async fn auth(&self, _client: &ClientFacts, _credentials: &Credentials) -> AuthDecision {
        let text = "AUTH is not offered";
        AuthDecision::Refuse(reply(NOT_IMPLEMENTED_502, INVALID_COMMAND_5_5_1, text))
    }

    async fn mail(&self, _client: &ClientFacts, _mail: &MailRequest) -> Result<MailTerms, Reply> {
        Ok(MailTerms::default())
    }

    async fn rcpt(
        &self,
        client: &ClientFacts,
        transaction: &TransactionFacts,
        rcpt: &RcptRequest,
    ) -> Result<Vec<RecipientDraft>, Reply> {
        let path = &rcpt.forward_path;
        let broken = |problem: &str| {
            tracing::error!(
                event = "fault",
                queue_id = %transaction.queue_id,
                rcpt_to = %path,
                remedy = "mend the alias in the directory",
                "{problem}"
            );
            let text = "the address cannot be resolved now, please try again later";
            reply(LOCAL_ERROR_451, MISCONFIGURED_4_3_5, text)
        };
        match self.directory.current().resolve(path) {
            Resolution::Local(expanded) => Ok(expanded.into_iter().map(draft).collect()),
            Resolution::ForeignDomain => self.foreign(client, path).map(|draft| vec![draft]),
            Resolution::UnknownRecipient => Err(refusal(BAD_MAILBOX_5_1_1, "no such mailbox here")),
            Resolution::Disabled => Err(refusal(
                MAILBOX_DISABLED_5_2_1,
                "the mailbox is disabled and takes no mail",
            )),
            Resolution::AliasLoop => Err(broken("aliases lead in a circle")),
            Resolution::TooManyTargets => Err(broken("an alias leads to too many addresses")),
        }
    }

    async fn header(
        &self,
        _client: &ClientFacts,
        _transaction: &TransactionFacts,
        _header: &HeaderBlock,
    ) -> Result<HeaderTerms, Reply> {
        Ok(HeaderTerms::default())
    }
}

fn draft(expanded: Expanded) -> RecipientDraft {
    RecipientDraft {
        original: expanded.original,
        ..RecipientDraft::new(expanded.address)
    }
}

fn refusal(enhanced: EnhancedStatusCode, text: &str) -> Reply {
    reply(MAILBOX_UNAVAILABLE_550, enhanced, text)
}

fn reply(code: ReplyCode, enhanced: EnhancedStatusCode, text: &str) -> Reply {
    Reply::new(code, enhanced, text)
}
