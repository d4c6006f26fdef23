//! `postroad explain`: what would become of a mail, and why, with nothing sent and nothing kept.
//!
//! The agents' own code answers: a conversation with the listener's server before a queue that keeps nothing (`door`), the
//! queue's routing table and schedule ([`postroad_queued::explain`]), and what the MTA decides before it connects
//! ([`postroad_mta::explain`]). Here the answers are put together, with the places in the configuration that they follow from.

mod ask;
mod came;
mod door;
mod leaving;
mod live;
mod room;
mod told;
mod words;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use postroad_directory::Directory;
use postroad_dns::{Resolver, ResolverOptions};
use postroad_envelope::{BodyKind, Timestamp};
use postroad_mta::explain as mta;
use postroad_queued::explain as queued;

pub use self::ask::ExplainArguments;
use self::ask::Question;
use self::came::Came;
use self::live::Live;
use self::room::Whose;
use crate::fault::Fault;
use crate::home::Home;
use crate::runtime;
use crate::terminal::{Terminal, utc_time};

/// Addresses that are told of one recipient.
const MOST: usize = 25;

/// Carries out the verb.
pub fn carry_out(
    arguments: ExplainArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    let (fetch, ask_queue) = (arguments.fetch, !arguments.no_queue);
    let case = Case::open(home, fetch)?;
    let question = Question::read(arguments, case.queue.directory())?;
    let told = runtime()?.block_on(async {
        let live = match ask_queue {
            true => Live::ask(&case.home).await,
            false => Live::unasked(),
        };
        case.explain(&question, &live).await
    })?;
    if terminal.wants_json() {
        terminal.object(serde_json::to_value(&told).map_err(Fault::not_done)?);
    } else {
        words::tell(&told, terminal);
    }
    if told.is_refused() {
        return Err(Fault::Told);
    }
    Ok(())
}

/// An installation, ready to be asked.
struct Case {
    home: Home,
    queue: Arc<queued::Explainer>,
    outbound: mta::Explainer,
    msa: postroad_msa::Config,
    mta: postroad_mta::Config,
    resolver: Arc<dyn Resolver>,
}

impl Case {
    fn open(home: Home, fetch: bool) -> Result<Self, Fault> {
        let (file, common) = (&home.file, &home.common);
        let section: postroad_queued::Config = file.section("queued")?;
        let mta: postroad_mta::Config = file.section("mta")?;
        let directory = Directory::load(&common.directory).map_err(|error| {
            Fault::NotDone(format!(
                "{error}; the directory says which mail is ours: ask on the host of the queue, which reads it (common.directory)"
            ))
        })?;
        let queue = queued::Explainer::new(section, directory)
            .map_err(|error| Fault::NotDone(format!("{}: {error}", file.place(&error.key()))))?;
        let resolver = ResolverOptions::from(&common.dns).open();
        let resolver = resolver.map_err(Fault::not_done)?;
        let outbound = mta::Explainer::new(&mta, common, Arc::clone(&resolver), fetch);
        Ok(Self {
            queue: Arc::new(queue),
            outbound: outbound.map_err(|error| {
                Fault::NotDone(format!(
                    "{error}; `postroad check` says where and what to do"
                ))
            })?,
            msa: file.section("msa")?,
            mta,
            resolver,
            home,
        })
    }

    /// Where a key was written, for a person.
    fn place(&self, key: &str) -> String {
        match self.home.file.is_set(key) {
            true => format!("{key}, {}", self.home.file.place(key)),
            false => format!("{key}, default"),
        }
    }

    async fn explain(&self, question: &Question, live: &Live) -> Result<told::Told, Fault> {
        let came = self.receive(question).await?;
        let mut recipients = Vec::new();
        for (number, to) in question.to.iter().enumerate() {
            let (_, steps) = self.queue.directory().explain(to);
            let answer = came.answers.get(number);
            let mut told = told::Recipient {
                to: to.to_string(),
                taken: answer.is_none_or(|answer| answer.taken),
                reply: answer.map(|answer| answer.words.clone()),
                remedy: None,
                directory: steps.iter().map(|step| self.step(step)).collect(),
                leads_to: Vec::new(),
                more: 0,
            };
            if told.taken {
                let all = came.of(to, question.to.len() == 1);
                told.more = all.len().saturating_sub(MOST);
                for recipient in all.into_iter().take(MOST) {
                    let ending = self.ending(&came.envelope, recipient, question, live);
                    told.leads_to.push(ending.await);
                }
            } else {
                told.remedy = answer.and_then(|answer| self.remedy(&came, answer, question, to));
            }
            recipients.push(told);
        }
        Ok(told::Told {
            mail: self.mail(&came, question),
            notes: self.notes(question, &came, live, &recipients),
            recipients,
        })
    }

    fn notes(
        &self,
        question: &Question,
        came: &Came,
        live: &Live,
        recipients: &[told::Recipient],
    ) -> Vec<String> {
        let mut notes: Vec<String> = live.note().into_iter().collect();
        let mail = &came.envelope;
        let domains = mail
            .recipients
            .iter()
            .map(|to| to.address.domain().a_label());
        let whose = Whose {
            tenant: &mail.tenant,
            account: mail.account.as_deref(),
            domains: domains.collect(),
            size: if question.is_given { mail.size } else { 0 },
            ip: question.ip,
        };
        notes.extend(room::bans(live.bans(), &whose));
        notes.extend(room::quotas(live.usages(), &whose));
        if !question.is_given {
            let note = "no --eml was given: nothing is known of header, size and content";
            notes.push(note.to_owned());
        }
        let mut endings = recipients.iter().flat_map(|recipient| &recipient.leads_to);
        let leaves = endings.any(|ending| ending.sending.is_some());
        if leaves && !self.mta.outbound.enabled {
            notes.push(format!(
                "no mail leaves from this host ({}); what is said of hosts holds for an mta with the same configuration",
                self.place("mta.outbound.enabled")
            ));
        }
        notes
    }

    fn step(&self, step: &postroad_directory::Step) -> told::Step {
        let file = self.queue.directory_file();
        let place = |line| format!("{}:{line}", file.display());
        told::Step {
            depth: step.depth,
            address: step.address.to_string(),
            is: step.what.as_str(),
            place: step.line.map(place),
        }
    }

    fn mail(&self, came: &Came, question: &Question) -> told::Mail {
        let mail = &came.envelope;
        told::Mail {
            from: question.from.to_string(),
            way: came.way.clone(),
            listener: Some(mail.listener.clone()).filter(|name| !name.is_empty()),
            account: mail.account.clone(),
            tenant: mail.tenant.clone(),
            tags: mail.tags.clone(),
            facts: match question.is_given {
                true => mail.facts.clone(),
                false => question.given.facts.clone(),
            },
            size: question.is_given.then_some(mail.size),
            body: match mail.body {
                BodyKind::SevenBit => "7BIT",
                BodyKind::EightBitMime => "8BITMIME",
                BodyKind::BinaryMime => "BINARYMIME",
            }
            .to_owned(),
            smtputf8: mail.smtputf8,
            requiretls: mail.requiretls,
            hops: mail.hop_count,
            priority: mail.priority,
            rests_until: mail.not_before.map(utc_time),
        }
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
