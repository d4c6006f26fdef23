//! Each event of the session, answered by policy and queue.

use std::collections::HashSet;

use bytes::Bytes;
use postroad_address::Mailbox;
use postroad_envelope::{Recipient, RecipientIndex};
use postroad_metrics::labels::{Login, Stage};
use postroad_queue_client::AdmitRequest;
use postroad_reply::*;
use postroad_sasl::{ContextCall, Credentials, Identity, Mechanism, SecretKind, SecretQuery};
use postroad_smtp_session::{Event, MailRequest, PolicyReply, RcptRequest};
use tokio::time::Instant;
use tracing::info;

use super::{Conversation, Mail, Next, mint};
use crate::{
    AuthDecision, RecipientDraft, TransactionFacts,
    intake::{Intake, Refusal, in_time},
};

impl Conversation<'_> {
    pub(super) async fn step(&mut self, event: Event) -> Next {
        match event {
            Event::Connected => {
                let answer = self.smtpd.policy.connect(&self.client).await;
                if let PolicyReply::Refuse(reply) | PolicyReply::Close(reply) = &answer {
                    self.log_rejected(Stage::Client, &reply.clone().into(), None, None);
                }
                self.session.answer(answer);
            }
            Event::Hello(hello) => {
                (self.mail, self.client.hello) = (None, Some(hello));
                self.client.forwarded = None;
                self.session.answer(PolicyReply::Accept);
            }
            Event::XClient(told) => self.xclient(&told).await,
            Event::StartTls => {
                self.mail = None;
                return Next::StartTls;
            }
            Event::Secret(query) => self.secret(&query).await,
            Event::Context(call) => self.context(call).await,
            Event::Authenticate(credentials) => self.auth(&credentials).await,
            Event::Mail(request) => self.mail(request).await,
            Event::Rcpt(request) => self.rcpt(&request).await,
            Event::Verify(name) => {
                let told = self.smtpd.policy.verify(&self.client, &name).await;
                self.session.answer(told_or_not(told));
            }
            Event::Expand(name) => {
                let told = self.smtpd.policy.expand(&self.client, &name).await;
                self.session.answer(told_or_not(told));
            }
            Event::Data => self.admit().await,
            Event::Content(piece) => self.content(piece).await,
            Event::ContentRefused(reply) => {
                let mail = self.mail.take();
                self.log_rejected(
                    Stage::Mail,
                    &reply.into(),
                    mail.as_ref().map(|mail| &mail.facts.mail),
                    None,
                );
            }
            Event::ContentEnd => {
                self.content_end().await;
                return Next::Write;
            }
            Event::Reset => (self.mail, self.client.forwarded) = (None, None),
            Event::Closed(reason) => return Next::End(reason),
        }
        Next::GoOn
    }

    async fn secret(&mut self, query: &SecretQuery) {
        match self.smtpd.policy.secret(&self.client, query).await {
            Ok(secret) => self.session.secret(&secret),
            Err(reply) => {
                let mechanism = match query.kind {
                    SecretKind::Scram(hash) => hash.as_str(),
                    SecretKind::Cram => Mechanism::CramMd5.as_str(),
                };
                self.refuse_auth(&query.name, mechanism, reply);
            }
        }
    }

    async fn context(&mut self, call: ContextCall) {
        let held = match call {
            // Another exchange that was given up leaves one behind.
            ContextCall::Begin(_) => None,
            _ => self.context.take(),
        };
        match self.smtpd.policy.context(&self.client, held, call).await {
            Ok((context, answer)) => {
                self.context = Some(context);
                self.session.context(answer);
            }
            Err(reply) => self.refuse_auth("", Mechanism::Gssapi.as_str(), reply),
        }
    }

    fn refuse_auth(&mut self, name: &str, mechanism: &str, reply: Reply) {
        self.log_auth_failed(name, mechanism, &reply);
        self.session.answer(match reply.code() {
            SERVICE_NOT_AVAILABLE_421 => PolicyReply::Close(reply),
            _ => PolicyReply::Refuse(reply),
        });
    }

    async fn auth(&mut self, credentials: &Credentials) {
        self.context = None;
        let (client, mechanism) = (&self.client, credentials.mechanism);
        // Of GSSAPI it is a principal, and the policy tells of that.
        let name = match mechanism {
            Mechanism::Gssapi => "",
            _ => &credentials.authcid,
        };
        match self.smtpd.policy.auth(client, credentials).await {
            AuthDecision::Accept { account } => {
                self.smtpd.counts.login(Login::Succeeded);
                info!(
                    event = "auth_succeeded",
                    session_id = client.session_id,
                    listener = client.listener,
                    peer = %client.peer,
                    account,
                    mechanism = %mechanism,
                );
                let identity = Identity { account, mechanism };
                self.client.identity = Some(identity.clone());
                let limit = self.smtpd.policy.size_limit(&self.client);
                self.session.set_size_limit(limit);
                self.session.authenticated(identity);
            }
            AuthDecision::Refuse(reply) => {
                self.log_auth_failed(name, mechanism.as_str(), &reply);
                self.session.answer(PolicyReply::Refuse(reply));
            }
            AuthDecision::Close(reply) => {
                self.log_auth_failed(name, mechanism.as_str(), &reply);
                self.session.answer(PolicyReply::Close(reply));
            }
        }
    }

    pub(super) fn log_auth_failed(&self, name: &str, mechanism: &str, reply: &Reply) {
        let client = &self.client;
        self.smtpd.counts.login(match reply.severity() {
            Severity::Permanent => Login::Failed,
            _ => Login::Postponed,
        });
        // People type their password where the name belongs; what is no address is not logged.
        let account = name.parse::<Mailbox>().ok();
        info!(
            event = "auth_failed",
            session_id = client.session_id,
            listener = client.listener,
            peer = %client.peer,
            account = account.map(|account| account.to_string()),
            mechanism,
            code = reply.code().value(),
            reply = reply.text(),
        );
    }

    async fn mail(&mut self, mail: MailRequest) {
        self.client.forwarded = self.session.forwarded().cloned();
        match self.smtpd.policy.mail(&self.client, &mail).await {
            Ok(terms) => {
                self.mail = Some(Mail {
                    facts: TransactionFacts {
                        queue_id: mint(),
                        mail,
                        terms,
                        recipients: Vec::new(),
                        bounces_of: Vec::new(),
                    },
                    addresses: HashSet::new(),
                    intake: Intake::new(self.smtpd.config.header_limit),
                });
                self.session.answer(PolicyReply::Accept);
            }
            Err(reply) => {
                self.log_rejected(Stage::Sender, &reply.clone().into(), Some(&mail), None);
                self.session.answer(PolicyReply::Refuse(reply));
            }
        }
    }

    async fn rcpt(&mut self, rcpt: &RcptRequest) {
        let answer = match self.resolve(rcpt).await {
            Ok(()) => PolicyReply::Accept,
            Err(reply) => {
                let mail = self.mail.as_ref().map(|mail| &mail.facts.mail);
                self.log_rejected(Stage::Recipient, &reply.clone().into(), mail, Some(rcpt));
                PolicyReply::Refuse(reply)
            }
        };
        self.session.answer(answer);
    }

    async fn resolve(&mut self, rcpt: &RcptRequest) -> Result<(), Reply> {
        let Some(mail) = &mut self.mail else {
            return Err(our_fault());
        };
        let (policy, limit) = (&self.smtpd.policy, self.smtpd.config.max_expanded);
        let drafts = policy.rcpt(&self.client, &mail.facts, rcpt).await?;
        if drafts.is_empty() {
            return Err(our_fault());
        }
        if mail.facts.recipients.len() + drafts.len() > limit {
            let text = "too many recipients, send the mail to the others again";
            return Err(Reply::new(
                INSUFFICIENT_STORAGE_452,
                TOO_MANY_RECIPIENTS_4_5_3,
                text,
            ));
        }
        add_recipients(mail, drafts, rcpt);
        Ok(())
    }

    async fn admit(&mut self) {
        let request = self.mail.as_ref().map(|mail| AdmitRequest {
            tenant: mail.facts.tenant().to_owned(),
            account: self.client.account().map(str::to_owned),
            size: mail.facts.mail.params.size,
            recipients: addresses(&mail.facts.recipients),
        });
        let admitted = match request {
            None => Err(our_fault().into()),
            Some(request) => in_time(self.smtpd, self.smtpd.queue.admit(request)).await,
        };
        // Asked last, since what is counted there is not given back.
        let admitted = match (admitted, &mut self.mail) {
            (Ok(()), Some(mail)) => {
                let asked = self.smtpd.policy.data(&self.client, &mail.facts);
                asked.await.map_err(Refusal::from)
            }
            (admitted, _) => admitted,
        };
        self.session.answer(match admitted {
            Ok(()) => PolicyReply::Accept,
            Err(refusal) => {
                let mail = self.mail.as_ref().map(|mail| &mail.facts.mail);
                self.log_rejected(Stage::Mail, &refusal, mail, None);
                PolicyReply::Refuse(refusal.reply)
            }
        });
    }

    async fn content(&mut self, piece: Bytes) {
        let Some(mail) = &mut self.mail else { return };
        let taken = mail
            .intake
            .push(self.smtpd, &self.client, &mail.facts, piece)
            .await;
        if let Err(refusal) = taken {
            // Dropping the submission leaves nothing in the queue.
            let mail = self.mail.take();
            let mail = mail.as_ref().map(|mail| &mail.facts.mail);
            self.log_rejected(Stage::Mail, &refusal, mail, None);
            self.session.refuse_content(refusal.reply);
        }
    }

    async fn content_end(&mut self) {
        let answer = match self.mail.take() {
            None => PolicyReply::Refuse(our_fault()),
            Some(Mail { facts, intake, .. }) => {
                let began = Instant::now();
                match intake.finish(self.smtpd, &self.client, &facts).await {
                    Ok((accepted, rests_until)) => {
                        self.smtpd.counts.times.took(began.elapsed());
                        self.accepted += 1;
                        let id = accepted.queue_id;
                        let text = match rests_until {
                            None => format!("{id} queued"),
                            Some(until) => format!("{id} queued, rests until {until}"),
                        };
                        PolicyReply::AcceptWith(Reply::new(OK_250, SUCCESS_2_0_0, text))
                    }
                    Err(refusal) => {
                        self.log_rejected(Stage::Mail, &refusal, Some(&facts.mail), None);
                        PolicyReply::Refuse(refusal.reply)
                    }
                }
            }
        };
        self.session.answer(answer);
    }

    pub(super) fn log_early(&self, reply: &Reply) {
        self.log_rejected(Stage::Client, &reply.clone().into(), None, None);
    }

    fn log_rejected(
        &self,
        stage: Stage,
        refusal: &Refusal,
        mail: Option<&MailRequest>,
        rcpt: Option<&RcptRequest>,
    ) {
        let (client, reply) = (&self.client, &refusal.reply);
        self.smtpd.counts.refused(stage, reply);
        info!(
            event = "rejected",
            session_id = client.session_id,
            listener = client.listener,
            peer = %client.peer,
            helo = client.helo(),
            account = client.account(),
            client = client.forwarded_client(),
            client_name = client.forwarded_name(),
            client_helo = client.forwarded_helo(),
            peer_queue_id = client.peer_queue_id(),
            mail_from = mail.map(|mail| mail.reverse_path.to_string()),
            rcpt_to = rcpt.map(|rcpt| rcpt.forward_path.to_string()),
            code = reply.code().value(),
            enhanced = reply.enhanced().map(|enhanced| enhanced.to_string()),
            reply = reply.text(),
            error = refusal.cause,
        );
    }
}

fn told_or_not(told: Option<Reply>) -> PolicyReply {
    match told {
        None => PolicyReply::Accept,
        Some(reply) if reply.severity() == Severity::Completion => PolicyReply::AcceptWith(reply),
        Some(reply) => PolicyReply::Refuse(reply),
    }
}

/// Each final address once, the first mention counts.
fn add_recipients(mail: &mut Mail, drafts: Vec<RecipientDraft>, rcpt: &RcptRequest) {
    let TransactionFacts {
        recipients,
        terms,
        bounces_of,
        ..
    } = &mut mail.facts;
    for draft in drafts {
        if let Some(of) = draft.bounce_of.filter(|of| !bounces_of.contains(of)) {
            bounces_of.push(of);
        }
        terms.tenant = terms.tenant.take().or(draft.tenant);
        let index = RecipientIndex(u32::try_from(recipients.len()).unwrap_or(u32::MAX));
        let recipient = Recipient {
            original: draft.original,
            notify: rcpt.params.notify.unwrap_or_default(),
            orcpt: rcpt.params.orcpt.clone(),
            route_override: draft.route_override,
            target_folder: draft.target_folder,
            ..Recipient::new(index, draft.address)
        };
        if mail.addresses.insert(identity(&recipient)) {
            recipients.push(recipient);
        }
    }
}

/// The domain in any form, the local part as written: whether case matters there is its host's to say.
fn identity(recipient: &Recipient) -> String {
    let address = &recipient.address;
    format!("{}@{}", address.local_part(), address.domain().a_label())
}

fn addresses(recipients: &[Recipient]) -> Vec<Mailbox> {
    recipients
        .iter()
        .map(|recipient| recipient.address.clone())
        .collect()
}

fn our_fault() -> Reply {
    let text = "local error, please try again later";
    Reply::new(LOCAL_ERROR_451, SYSTEM_4_3_0, text)
}
