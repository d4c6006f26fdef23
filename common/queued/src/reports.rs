//! Reports to senders (RFC 3461, RFC 3464). What a sender is owed is durable state of the jobs; here the debt is read, the
//! report is built off the committer, and report and end of debt are one commit. A crash in between leaves the debt.

use std::sync::Arc;

use postroad_address::ForwardPath;
use postroad_directory::Resolution;
use postroad_dsn::{RETURN_LIMIT, RecipientStatus, Report, ReportKind, Returned, decide};
use postroad_envelope::{Envelope, EventKind, Notify, QueueId, Recipient, RecipientIndex};
use postroad_message::MessageId;
use postroad_metrics::labels::{self, Source};
use postroad_queue::{Admission, Content, Debt, Prepared, Queue, QueueError};
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
    let sent: Vec<(QueueId, ReportKind, String, AcceptedFacts)> = reports
        .iter()
        .map(|report| {
            let facts = AcceptedFacts::of(core, &report.envelope);
            (report.id, report.kind, to_of(&report.envelope), facts)
        })
        .collect();
    let recipients: Vec<RecipientIndex> = debt.recipients.iter().map(|(index, _)| *index).collect();
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
    for (report, kind, to, facts) in sent {
        core.counts.reports.count(label(kind));
        let kind = word(kind);
        info!(
            event = "dsn_sent", queue_id = %id, report = %report, rcpt_to = to, outcome = kind,
            recipients = recipients.len()
        );
        let text = format!("report {report} to {to}: {kind}");
        let fields = [
            ("report", report.to_string()),
            ("rcpt_to", to.clone()),
            ("outcome", kind.to_owned()),
        ];
        core.tell(id, EventKind::DsnSent, recipients.clone(), text, fields);
        facts.record(
            core,
            Source::Report,
            format!("made here: report about {id}"),
        );
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
    let content = core.content_of(&record.content, limit)?;
    let complete = record.content.len() <= limit;
    let owed = decide(envelope, &debt.recipients);
    let reports = owed.into_iter().filter_map(|owed| {
        let about = debt
            .recipients
            .iter()
            .filter(|(index, _)| owed.recipients.contains(index));
        let recipients = about.filter_map(|(index, outcome)| {
            let recipient = envelope.recipient(*index)?;
            Some(RecipientStatus::new(recipient, outcome.clone()))
        });
        let returned = Returned::choose(owed.kind, envelope.ret, &content, complete);
        let host = core.hostname.clone();
        let report = Report::about(envelope, host, owed.kind, recipients.collect(), returned)?;
        Some(write(core, owed.kind, &report))
    });
    let reports = reports.collect();
    Ok(Some((debt, reports)))
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
    envelope
        .facts
        .insert("message_id".to_owned(), message_id.to_string());
    Built {
        id,
        kind,
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

fn word(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Failed => "failed",
        ReportKind::Delayed => "delayed",
        ReportKind::Succeeded => "delivered",
    }
}
