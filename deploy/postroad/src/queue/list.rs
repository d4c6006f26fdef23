//! `postroad queue list`: rows as they are found.

use std::time::{Duration, Instant};

use comfy_table::{Cell, ColumnConstraint, Width};
use postroad_envelope::{Filter, MailState};
use postroad_queue_client::{ListQuery, MailSummary, QueueAdmin as _};
use serde_json::{Value, json};

use super::{Admin, find, recipients, retired, sender, summary_json};
use crate::cli::ListArguments;
use crate::fault::Fault;
use crate::terminal::{Terminal, lines, local_time, number, one_line, table};

/// Most mails asked for at one time.
const PAGE: u32 = 1000;
/// A search that takes longer tells how far it is.
const SOON: Duration = Duration::from_secs(1);

/// Lists what fits, until there are enough or no more.
pub async fn list(
    admin: &Admin,
    arguments: ListArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let after = match &arguments.after {
        Some(text) => Some(find(admin, text).await?),
        None => None,
    };
    let filter = Filter {
        all: true,
        ..arguments.which.filter()
    };
    let mut query = ListQuery {
        after,
        newest_first: arguments.newest_first,
        ..filter.into()
    };
    let of_retired = query.filter.state == Some(MailState::Retired);
    let begun = Instant::now();
    let (mut rows, mut found, mut scanned) = (Rows::default(), Vec::new(), 0_u64);
    let mut count = 0_u32;
    loop {
        query.limit = PAGE.min(arguments.limit.saturating_sub(count));
        let page = admin.list(query.clone()).await?;
        scanned = scanned.saturating_add(page.scanned);
        count = count.saturating_add(u32::try_from(page.mails.len()).unwrap_or(u32::MAX));
        if terminal.wants_json() {
            found.extend(page.mails.iter().map(|mail| summary_json(admin, mail)));
        } else if !page.mails.is_empty() {
            terminal.clear_progress();
            terminal.line(match of_retired {
                true => retired::lines_of(admin, &page.mails),
                false => rows.lines(&page.mails, |mail| admin.node_of(mail.queue_id)),
            });
        }
        query.after = page.next;
        if query.after.is_none() || count >= arguments.limit {
            break;
        }
        if begun.elapsed() > SOON {
            terminal.progress(format_args!("{count} found, {scanned} looked at"));
        }
    }
    terminal.clear_progress();
    let next = query.after;
    if terminal.wants_json() {
        let next = next.map(|id| id.to_string());
        let found: Vec<Value> = found;
        terminal.object(json!({ "mails": found, "next": next, "scanned": scanned }));
    } else if count == 0 {
        terminal.say("no mail fits");
    } else if let Some(next) = next {
        terminal.say(format_args!("there may be more; go on with --after {next}"));
    }
    Ok(())
}

/// A table whose later pages stand below the earlier ones.
#[derive(Default)]
struct Rows {
    widths: Vec<u16>,
}

impl Rows {
    /// The node stands behind the rest, where there are several.
    fn lines<'a>(
        &mut self,
        mails: &[MailSummary],
        node: impl Fn(&MailSummary) -> Option<&'a str>,
    ) -> String {
        let several = mails.iter().any(|mail| node(mail).is_some());
        let mut heads = vec![
            "ID",
            "STATE",
            "RECEIVED",
            "FROM",
            "TO",
            "SIZE",
            "NEXT ATTEMPT",
            "REASON",
        ];
        heads.extend(several.then_some("NODE"));
        let mut rows = table(heads);
        for mail in mails {
            let mut cells = vec![
                Cell::new(mail.queue_id),
                Cell::new(mail.state.as_str()),
                Cell::new(local_time(mail.received_at)),
                Cell::new(one_line(sender(mail), 40)),
                Cell::new(recipients(mail)),
                number(mail.size),
                Cell::new(mail.next_attempt.map_or_else(String::new, local_time)),
                Cell::new(one_line(&mail.reason, 60)),
            ];
            cells.extend(node(mail).map(Cell::new));
            rows.add_row(cells);
        }
        for (column, width) in rows.column_iter_mut().zip(&self.widths) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
        }
        let is_first = self.widths.is_empty();
        let now = rows.column_max_content_widths();
        let known = self.widths.iter().copied().chain(std::iter::repeat(0));
        // The boundary of a column counts its padding.
        self.widths = now
            .iter()
            .zip(known)
            .map(|(now, known)| (now + 2).max(known))
            .collect();
        let text = lines(&rows);
        match is_first {
            true => text,
            // The headings stand above the first page.
            false => text
                .split_once('\n')
                .map_or(String::new(), |(_, rest)| rest.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use postroad_envelope::{MailState, QueueId, Timestamp};

    use super::*;

    fn mail(sender: &str) -> MailSummary {
        MailSummary {
            queue_id: QueueId::from_bytes([7; 16]),
            received_at: Timestamp::from_millis(1_700_000_000_000),
            size: 5,
            sender: sender.to_owned(),
            open_recipients: vec!["x@far.example".to_owned()],
            state: MailState::Due,
            next_attempt: None,
            reason: String::new(),
            tenant: "default".to_owned(),
            account: None,
            tags: Vec::new(),
            retired: None,
        }
    }

    #[test]
    fn later_pages_stand_below_the_first_without_headings() {
        let mut rows = Rows::default();
        let first = rows.lines(&[mail("somebody@long.example")], |_| None);
        let second = rows.lines(&[mail("a@b")], |_| None);
        let lines: Vec<&str> = first.lines().chain(second.lines()).collect();
        assert_eq!(lines.len(), 3);
        let at = |line: &str| line.find("x@far.example");
        assert_eq!(at(lines[1]), at(lines[2]));
        assert!(lines[0].starts_with("ID"));
    }
    #[test]
    fn of_several_nodes_each_line_names_its_own() {
        let told = Rows::default().lines(&[mail("a@b")], |_| Some("q2.example.net"));
        let mut lines = told.lines();
        assert!(lines.next().unwrap().ends_with("NODE"), "{told}");
        assert!(lines.next().unwrap().ends_with("q2.example.net"), "{told}");
    }
}
