//! A mail as it comes in: what its client hears, and what the queue would have.

use std::sync::Arc;

use postroad_accounts::Accounts;
use postroad_address::{ForwardPath, Mailbox};
use postroad_directory::{Directory, DirectoryHandle, Resolution};
use postroad_envelope::{Envelope, QueueId, Recipient, RecipientIndex};
use postroad_metrics::Metrics;
use postroad_mta::explain as mta;
use postroad_net::PeerRole;
use postroad_queue_client::QueueError;
use postroad_smtp_session::{RecipientResult, Stage};
use postroad_smtpd::Smtpd;

use super::ask::{Question, Way};
use super::door::{DryQueue, converse, peer};
use super::{Case, now};
use crate::fault::Fault;

/// A mail that came in, or did not.
pub struct Came {
    /// How it came, in words.
    pub way: String,
    /// As the queue has it, or as much as is known.
    pub envelope: Envelope,
    /// Of each that was named; none: nobody was asked.
    pub answers: Vec<Answer>,
    /// Why the queue would not have it.
    pub by_queue: Option<QueueError>,
}

/// What a client hears of one recipient.
#[derive(Clone)]
pub struct Answer {
    /// It is taken.
    pub taken: bool,
    /// It is refused for what it is.
    at_rcpt: bool,
    /// In what words.
    pub words: String,
}

impl Answer {
    fn refused(words: String) -> Self {
        Self {
            taken: false,
            at_rcpt: false,
            words,
        }
    }

    fn of(result: &RecipientResult) -> Self {
        match result {
            RecipientResult::Accepted(reply) => {
                // The id in its text is of no mail.
                let enhanced = reply.enhanced().map(|enhanced| enhanced.to_string());
                let words = format!("{} {}", reply.code().value(), enhanced.unwrap_or_default());
                Self {
                    taken: true,
                    at_rcpt: false,
                    words: words.trim_end().to_owned(),
                }
            }
            RecipientResult::Refused { stage, reply } => Self {
                at_rcpt: *stage == Stage::Rcpt,
                ..Self::refused(format!("{reply} (to {})", command(*stage)))
            },
            RecipientResult::Unfit { status, text } => Self::refused(format!("{status} {text}")),
        }
    }
}

/// What a refusal answers.
fn command(stage: Stage) -> &'static str {
    match stage {
        Stage::Mail => "MAIL",
        Stage::Rcpt => "RCPT",
        Stage::Data => "DATA",
        Stage::Content | Stage::End => "the content",
        _ => "the client",
    }
}

impl Came {
    /// Those that a named one leads to.
    pub fn of(&self, to: &ForwardPath, alone: bool) -> Vec<&Recipient> {
        let is_named = |said: &Mailbox| match to.mailbox() {
            Some(named) => named.folded() == said.folded(),
            None => said.local_part().folded() == "postmaster",
        };
        let all = self.envelope.recipients.iter();
        all.filter(|recipient| {
            alone || is_named(recipient.original.as_ref().unwrap_or(&recipient.address))
        })
        .collect()
    }
}

impl Case {
    /// Rehearses how the mail comes in.
    pub async fn receive(&self, question: &Question) -> Result<Came, Fault> {
        let (role, way) = match &question.way {
            Way::Report => return Ok(self.report(question)),
            Way::Account(account) => (PeerRole::Msa, format!("submitted by {account}")),
            Way::World => (PeerRole::Mta, "from the world".to_owned()),
        };
        let dry = DryQueue::new(&self.queue, role);
        let (server, listener) = self.server(question, &dry)?;
        let (mail, client) = (question.outgoing(), peer(question.ip));
        let conversation = converse(&server, client, mail, &question.content).await?;
        let seen = dry.take();
        let answers = match conversation {
            Ok(results) => results.iter().map(Answer::of).collect(),
            Err(words) => vec![Answer::refused(words); question.to.len()],
        };
        let way = match question.ip {
            Some(ip) => format!("{way}, from {ip}"),
            None => way,
        };
        let envelope = seen.envelope.unwrap_or_else(|| Envelope {
            listener,
            ..bare(question)
        });
        Ok(Came {
            way,
            envelope: given(envelope, question),
            answers,
            by_queue: seen.refused,
        })
    }

    /// What the queue itself sends goes by no listener.
    fn report(&self, question: &Question) -> Came {
        let mut envelope = bare(question);
        let mailboxes = question.to.iter().filter_map(ForwardPath::mailbox);
        envelope.recipients = (0..)
            .zip(mailboxes)
            .map(|(at, to)| Recipient::new(RecipientIndex(at), to.clone()))
            .collect();
        Came {
            way: "a report of the queue".to_owned(),
            envelope: given(envelope, question),
            answers: Vec::new(),
            by_queue: None,
        }
    }

    /// The server of the listener that is meant, and its name.
    fn server(&self, question: &Question, dry: &DryQueue) -> Result<(Smtpd, String), Fault> {
        let common = &self.home.common;
        let metrics = Metrics::new("explain");
        let directory = Directory::load(&common.directory)?;
        let accounts = Accounts::of_file(DirectoryHandle::from_directory(directory), &metrics);
        let named = question.given.listener.clone();
        let (server, listener, all) = match &question.way {
            Way::Account(account) => {
                let all = postroad_msa::explain::listeners(&self.msa);
                let listener = named.or_else(|| all.first().cloned()).unwrap_or_default();
                let dependencies = postroad_msa::Dependencies {
                    queue: Arc::new(dry.clone()),
                    accounts,
                    resolver: Arc::clone(&self.resolver),
                    metrics,
                };
                let server = postroad_msa::explain::server(
                    &self.msa,
                    common,
                    &dependencies,
                    &listener,
                    account,
                );
                (server, listener, all)
            }
            Way::World | Way::Report => {
                let all: Vec<String> = self.mta.inbound.listeners.keys().cloned().collect();
                let listener = named.or_else(|| all.first().cloned()).unwrap_or_default();
                let dependencies = postroad_mta::Dependencies {
                    queue: Arc::new(dry.clone()),
                    accounts,
                    resolver: Arc::clone(&self.resolver),
                    metrics,
                };
                let server = mta::server(&self.mta, common, &dependencies, &listener);
                (server.transpose().map_err(Fault::not_done)?, listener, all)
            }
        };
        let server = server.map(|server| (server, listener));
        server.ok_or_else(|| {
            Fault::NoMatch(format!(
                "there is no such listener; there are: {} (--listener; with --account those of msa, else those of mta.inbound)",
                all.join(", ")
            ))
        })
    }

    /// What to do so that a mail is taken that is not.
    pub fn remedy(
        &self,
        came: &Came,
        answer: &Answer,
        question: &Question,
        to: &ForwardPath,
    ) -> Option<String> {
        match &came.by_queue {
            Some(QueueError::NotAllowed(why)) => {
                return Some(format!(
                    "the queue does not take it: {why}; a client that may relay is to be in both lists: {}; {}",
                    self.place("queued.relay_networks"),
                    self.place("mta.inbound.relay_networks"),
                ));
            }
            Some(error) => return Some(error.to_string()),
            None if !answer.at_rcpt => return None,
            None => {}
        }
        let directory = self.home.common.directory.display();
        match self.queue.directory().resolve(to) {
            Resolution::ForeignDomain if question.way == Way::World => Some(format!(
                "port 25 takes mail for our own domains ({directory}), and for others from listed networks alone ({}); --account asks for mail of an account",
                self.place("mta.inbound.relay_networks"),
            )),
            Resolution::UnknownRecipient => Some(format!(
                "add it to {directory} as account (`postroad account add`) or alias, or give its domain a catch_all"
            )),
            Resolution::Disabled => Some(format!("its entry in {directory} says `disabled`")),
            Resolution::AliasLoop | Resolution::TooManyTargets => {
                Some(format!("mend the alias in {directory}"))
            }
            Resolution::ForeignDomain | Resolution::Local(_) => None,
        }
    }
}

/// As much as is known of a mail that nobody took.
fn bare(question: &Question) -> Envelope {
    let id = QueueId::mint(now(), rand::random());
    Envelope {
        account: match &question.way {
            Way::Account(account) => Some(account.clone()),
            Way::World | Way::Report => None,
        },
        ..Envelope::new(id, question.from.clone(), now())
    }
}

fn given(mut envelope: Envelope, question: &Question) -> Envelope {
    let given = &question.given;
    if let Some(tenant) = &given.tenant {
        envelope.tenant.clone_from(tenant);
    }
    if let Some(listener) = &given.listener {
        envelope.listener.clone_from(listener);
    }
    envelope.tags.extend(given.tags.iter().cloned());
    envelope.facts.extend(given.facts.clone());
    envelope.requiretls |= given.requiretls;
    envelope
}
