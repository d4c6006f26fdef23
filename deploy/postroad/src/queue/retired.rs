//! Mails after their end.

use comfy_table::Cell;
use postroad_queue_client::MailSummary;
use serde_json::{Value, json};

use super::{Admin, recipients, sender};
use crate::terminal::{lines, local_time, number, one_line, table, utc_time};

/// A page of `postroad queue list --state retired`.
pub fn lines_of(admin: &Admin, mails: &[MailSummary]) -> String {
    let mut heads = vec![
        "ID", "OUTCOME", "ENDED", "FROM", "TO", "SIZE", "CONTENT", "REASON",
    ];
    heads.extend(admin.is_several().then_some("NODE"));
    let mut rows = table(heads);
    for mail in mails {
        let retired = mail.retired;
        let has_content = retired.is_some_and(|retired| retired.has_content);
        let mut cells = vec![
            Cell::new(mail.queue_id),
            Cell::new(retired.map_or("", |retired| retired.ending.as_str())),
            Cell::new(retired.map_or_else(String::new, |retired| local_time(retired.at))),
            Cell::new(one_line(sender(mail), 40)),
            Cell::new(recipients(mail)),
            number(mail.size),
            Cell::new(if has_content { "kept" } else { "" }),
            Cell::new(one_line(&mail.reason, 60)),
        ];
        cells.extend(admin.node_of(mail.queue_id).map(Cell::new));
        rows.add_row(cells);
    }
    lines(&rows)
}

/// What `--json` says of a retired mail besides.
pub fn add_facts(object: &mut Value, mail: &MailSummary) {
    let Some(retired) = mail.retired else { return };
    object["open_recipients"] = json!([]);
    object["recipients"] = json!(mail.open_recipients);
    object["retired_at"] = json!(utc_time(retired.at));
    object["outcome"] = json!(retired.ending.as_str());
    object["has_content"] = json!(retired.has_content);
}
