//! Reports to senders (RFC 3461, RFC 3464). What a sender is owed is durable state of the jobs; here the debt is read, the
//! report is built off the committer, and report and end of debt are one commit. A crash in between leaves the debt.

use std::{fmt::Display, sync::Arc};

use postroad_address::ForwardPath;
use postroad_directory::Resolution;
use postroad_dsn::{
    Owed, RETURN_LIMIT, RecipientStatus, Report, ReportKind, Returned, Trace, decide,
};
use postroad_envelope::{
    Envelope, EventKind, HeaderEdit, Notify, Outcome, QueueId, Recipient, RecipientIndex, Ret,
    StatusReport,
};
use postroad_message::{MessageId, apply_edits, split};
use postroad_metrics::labels::{self, Source};
use postroad_queue::{Admission, Content, DOUBLE_BOUNCE, Debt, Prepared, Queue, QueueError};
use postroad_reply::SUCCESS_2_0_0;
use tokio::{sync::mpsc, task::spawn_blocking};
use tracing::{error, info};

use crate::{
    accepted::AcceptedFacts,
    clock,
    core::{Core, ReadError},
};

/// Makes the reports that are named, until the dispatcher has ended.
pub(crate) async fn run(core: Arc<Core>, mut due: mpsc::Receiver<QueueId>) {
    while let Some(id) = due.recv().await {
        if let Err(failed) = pay(&core, id).await {
            // The debt stays, and the schedule names it again.
            error!(event = "fault", queue_id = %id, error = failed, "a report could not be made");
        }
    }
}

/// A report, built.
struct Built {
    id: QueueId,
    kind: ReportKind,
    word: &'static str,
    envelope: Envelope,
    content: Content,
}

async fn pay(core: &Arc<Core>, id: QueueId) -> Result<(), String> {
    let building = Arc::clone(core);
    let built = spawn_blocking(move || build(&building, id)).await;
    let built = built.map_err(|error| error.to_string())?;
    let Some((debt, reports)) = built.map_err(|error| error.to_string())? else {
        return Ok(());
    };
    let sent: Vec<(QueueId, (ReportKind, &str), String, AcceptedFacts)> = reports
        .iter()
        .map(|report| {
            let text = format!("made here: report about {id}");
            let facts = AcceptedFacts::of(core, &report.envelope, Source::Report, text);
            (
                report.id,
                (report.kind, report.word),
                to_of(&report.envelope),
                facts,
            )
        })
        .collect();
    let told = debt.recipients.iter().map(|(index, _)| *index);
    let mut recipients: Vec<RecipientIndex> = told.chain(debt.expanded.iter().copied()).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let committing = Arc::clone(core);
    let prepare = move |queue: &Queue, now| {
        let prepared = prepare(&committing, queue, &debt, reports, now)?;
        let paid = prepared.is_some();
        Ok((prepared, paid))
    };
    let committed = core
        .committer
        .commit(prepare)
        .await
        .map_err(|error| error.to_string())?;
    if !committed.value {
        // It has changed since; the schedule names it again.
        return Ok(());
    }
    for (report, (kind, word), to, facts) in sent {
        core.counts.reports.count(label(kind));
        info!(
            event = "dsn_sent", queue_id = %id, report = %report, rcpt_to = to, outcome = word,
            recipients = recipients.len()
        );
        let text = format!("report {report} to {to}: {word}");
        let fields = [
            ("report", &report as &dyn Display),
            ("rcpt_to", &to),
            ("outcome", &word),
        ];
        core.tell(id, EventKind::DsnSent, &recipients, text, fields);
        facts.record(core);
    }
    Ok(())
}

/// The reports a debt asks for; none if there is no debt. Blocks.
fn build(core: &Core, id: QueueId) -> Result<Option<(Debt, Vec<Built>)>, ReadError> {
    let Some(debt) = core.queue.debt(id)? else {
        return Ok(None);
    };
    let record = core.record_of(&debt.mail)?;
    let envelope = &record.envelope;
    // The report must fit into a record itself.
    let limit = u64::try_from(RETURN_LIMIT.min(core.inline_limit)).unwrap_or(u64::MAX);
    let content = as_sent(
        &core.content_of(&record.content, limit)?,
        &envelope.header_edits,
    );
    let complete = record.content.len() <= limit;
    let mut owed: Vec<(ReportKind, Vec<RecipientStatus>)> = Vec::new();
    let to = match envelope.reverse_path.mailbox() {
        Some(sender) => Some(sender.clone()),
        None => core.config().dsn.double_bounce_to.clone(),
    };
    let traced: Vec<RecipientIndex> = debt.traced.iter().map(|(index, _)| *index).collect();
    let wanted = match envelope.reverse_path.is_null() {
        true => double_bounce(envelope, &debt),
        false => decide(envelope, &debt.recipients, &traced),
    };
    for Owed { kind, recipients } in wanted {
        let about = debt
            .recipients
            .iter()
            .filter(|(index, _)| recipients.contains(index));
        let statuses = about.filter_map(|(index, outcome)| {
            let status = RecipientStatus::new(envelope.recipient(*index)?, outcome.clone());
            Some(RecipientStatus {
                will_retry_until: envelope.expires_at,
                trace: trace_of(&debt, *index),
                ..status
            })
        });
        owed.push((kind, statuses.collect()));
    }
    let of_aliases: Vec<RecipientStatus> = expansions(envelope, &debt).collect();
    if !of_aliases.is_empty() {
        match owed
            .iter_mut()
            .find(|(kind, _)| *kind == ReportKind::Succeeded)
        {
            Some((_, statuses)) => statuses.splice(..0, of_aliases).for_each(drop),
            None => owed.push((ReportKind::Succeeded, of_aliases)),
        }
    }
    let reports = owed.into_iter().filter_map(|(kind, recipients)| {
        // RFC 8689 §5: what was to travel under TLS alone is not told in the clear, and of it no more than the header.
        let ret = match envelope.requiretls {
            true => Some(Ret::Headers),
            false => envelope.ret,
        };
        let returned = Returned::choose(kind, ret, &content, complete);
        let host = core.hostname.clone();
        let report = Report::to(to.clone()?, envelope, host, kind, recipients, returned)?;
        let mut built = write(core, kind, &report);
        built.envelope.requiretls = envelope.requiretls;
        Some(built)
    });
    let reports = reports.collect();
    Ok(Some((debt, reports)))
}

/// Of a mail without a sender failures alone are told, to whom the configuration names. What tells of one owes nothing when it fails
/// itself, so this ends here.
fn double_bounce(envelope: &Envelope, debt: &Debt) -> Vec<Owed> {
    let failed = |(_, outcome): &&(RecipientIndex, Outcome)| matches!(outcome, Outcome::Failed(_));
    let failed = debt.recipients.iter().filter(failed);
    let recipients: Vec<RecipientIndex> = failed.map(|(index, _)| *index).collect();
    match recipients.is_empty() || envelope.facts.contains_key(DOUBLE_BOUNCE) {
        true => Vec::new(),
        false => vec![Owed {
            kind: ReportKind::Failed,
            recipients,
        }],
    }
}

fn trace_of(debt: &Debt, index: RecipientIndex) -> Option<Trace> {
    let of_it = debt.traced.iter().find(|(known, _)| *known == index);
    of_it.map(|(_, trace)| match trace.untimed {
        true => Trace::Lost,
        false => Trace::Told,
    })
}

/// The mail as others have it, with what was added and taken out: by its Message-ID its sender's program knows which it was.
fn as_sent(content: &[u8], edits: &[HeaderEdit]) -> Vec<u8> {
    let (header, body) = split(content);
    let mut sent = apply_edits(header, edits);
    sent.extend_from_slice(body);
    sent
}

/// RFC 3461 §5.2.7.3: the address that the sender named is what a report on its expansion is about, not where it led to.
fn expansions<'a>(
    envelope: &'a Envelope,
    debt: &'a Debt,
) -> impl Iterator<Item = RecipientStatus> + 'a {
    debt.expanded.iter().filter_map(|index| {
        let recipient = envelope.recipient(*index)?;
        let address = recipient.original.as_ref()?;
        let of_it = |r: &&Recipient| r.original.as_ref() == Some(address);
        let count = envelope.recipients.iter().filter(of_it).count();
        let text = format!("{address} stands for {count} others; it went on to them");
        let named = Recipient {
            address: address.clone(),
            original: None,
            ..recipient.clone()
        };
        let report = StatusReport::local(SUCCESS_2_0_0, text);
        Some(RecipientStatus::new(&named, Outcome::Expanded(report)))
    })
}

fn write(core: &Core, kind: ReportKind, report: &Report) -> Built {
    let (id, now) = (clock::fresh_id(), clock::now());
    let message_id = MessageId::generate(now, rand::random(), &core.hostname);
    // Random, so that no returned content can hold it.
    let boundary = format!("report-{}", clock::fresh_id());
    let mail = report.to_mail(now, &message_id, &boundary);
    let mut envelope = mail.envelope(id, now);
    expand(core, &mut envelope);
    envelope.listener = "report".to_owned();
    if !report.has_sender {
        let fact = (DOUBLE_BOUNCE.to_owned(), report.queue_id.to_string());
        envelope.facts.extend([fact]);
    }
    envelope
        .facts
        .insert("message_id".to_owned(), message_id.to_string());
    Built {
        id,
        kind,
        word: word(report),
        envelope,
        content: Content::Inline(mail.content.into()),
    }
}

/// A report is mail that enters here, so aliases are expanded here.
fn expand(core: &Core, envelope: &mut Envelope) {
    let Some(to) = envelope
        .recipients
        .first()
        .map(|recipient| recipient.address.clone())
    else {
        return;
    };
    let directory = core.directory.current();
    if let Resolution::Local(all) = directory.resolve(&ForwardPath::Mailbox(to)) {
        let recipients = (0..).zip(all).map(|(index, expanded)| Recipient {
            notify: Notify::Never,
            original: expanded.original,
            target_folder: None,
            ..Recipient::new(RecipientIndex(index), expanded.address)
        });
        envelope.recipients = recipients.collect();
    }
}

/// All reports and the end of the debt, or nothing.
fn prepare(
    core: &Core,
    queue: &Queue,
    debt: &Debt,
    reports: Vec<Built>,
    now: postroad_envelope::Timestamp,
) -> Result<Option<Prepared>, QueueError> {
    let route = core.routes();
    let mut reports = reports
        .into_iter()
        .map(|report| (report.envelope, report.content));
    let Some(mut all) = queue.prepare_report(debt, reports.next(), now, &route)? else {
        return Ok(None);
    };
    for (envelope, content) in reports {
        match queue.prepare_own(envelope, content, now, &route) {
            Ok(Admission::New(prepared)) => all = all.and(prepared),
            // Without this report the debt is not paid.
            other => {
                queue.abandon(all);
                return other.map(|_| None);
            }
        }
    }
    Ok(Some(all))
}

fn to_of(envelope: &Envelope) -> String {
    envelope
        .recipients
        .iter()
        .map(|to| to.address.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

fn label(kind: ReportKind) -> labels::Report {
    match kind {
        ReportKind::Failed => labels::Report::Failed,
        ReportKind::Delayed => labels::Report::Delayed,
        ReportKind::Succeeded => labels::Report::Delivered,
    }
}

/// What the report says of all its recipients; where that differs, the least that is true of each.
fn word(report: &Report) -> &'static str {
    let mut actions = report.recipients.iter().map(|one| one.outcome.action());
    let first = actions.next().unwrap_or_default();
    match report.kind {
        ReportKind::Succeeded if !actions.all(|action| action == first) => "relayed",
        _ => first,
    }
}
