//! Standing rules that hold mail as it comes.

use comfy_table::Cell;
use postroad_envelope::{Filter, MailState, Timestamp};
use postroad_queue_client::{
    HoldOrder, HoldRuleDetails, QueueAdmin as _, QueueError, RemoteAdmin, Removal,
};
use serde_json::{Value, json};

use super::Admin;
use crate::cli::{RuleArguments, RuleVerb};
use crate::fault::Fault;
use crate::terminal::{Terminal, lines, local_time, number, one_line, table, utc_time};

/// `postroad queue rule …`.
pub async fn carry_out(
    admin: &Admin,
    verb: RuleVerb,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    match verb {
        RuleVerb::Put(arguments) => put(admin, *arguments, terminal).await,
        RuleVerb::List => list(admin, terminal).await,
        RuleVerb::Remove {
            name,
            release,
            dry_run,
        } => {
            let removal = Removal {
                name,
                by: String::new(),
                release,
                dry_run,
            };
            remove(admin, removal, terminal).await
        }
    }
}

async fn put(
    admin: &Admin,
    arguments: RuleArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let order = HoldOrder {
        filter: Filter {
            all: arguments.all,
            ..arguments.parts.filter()
        },
        name: arguments.name,
        by: String::new(),
        reason: arguments.reason,
        also_present: arguments.also_present || arguments.dry_run,
        dry_run: arguments.dry_run,
    };
    let (name, dry_run) = (order.name.clone(), order.dry_run);
    let also_present = order.also_present;
    let changed = admin.put_hold_rule(order).await?;
    if terminal.wants_json() {
        let (held, busy) = (changed.mails, changed.busy);
        terminal.object(json!({ "rule": name, "mails": held, "busy": busy, "dry_run": dry_run }));
        return Ok(());
    }
    let would = if dry_run { "would hold" } else { "holds" };
    terminal.line(format_args!("rule {name} {would} mail from now on"));
    if also_present {
        terminal.line(format_args!(
            "{would} {} in the queue",
            mails(changed.mails)
        ));
    }
    if changed.busy > 0 {
        let busy = mails(changed.busy);
        terminal.say(format_args!(
            "{busy} with a worker now: put the rule again later"
        ));
    }
    Ok(())
}

async fn remove(admin: &Admin, removal: Removal, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let (name, release, dry_run) = (removal.name.clone(), removal.release, removal.dry_run);
    let changed = match admin.remove_hold_rule(removal).await {
        Err(QueueError::NotFound) => {
            return Err(Fault::NoMatch(format!("there is no hold rule {name}")));
        }
        changed => changed?,
    };
    if terminal.wants_json() {
        terminal.object(json!({ "rule": name, "mails": changed.mails, "dry_run": dry_run }));
        return Ok(());
    }
    if !dry_run {
        terminal.line(format_args!("rule {name} is gone"));
    }
    if release {
        let would = if dry_run { "would be " } else { "" };
        terminal.line(format_args!("{} {would}released", mails(changed.mails)));
    }
    Ok(())
}

async fn list(admin: &Admin, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let told = admin.of_each(RemoteAdmin::hold_rules).await?;
    let rules = told.iter().flat_map(|(node, rules)| {
        let node = admin.is_several().then_some(*node);
        rules.iter().map(move |rule| (node, rule))
    });
    let rules: Vec<(Option<&str>, &HoldRuleDetails)> = rules.collect();
    if terminal.wants_json() {
        let rules = rules.iter().map(|(node, rule)| rule_json(*node, rule));
        let rules: Vec<Value> = rules.collect();
        terminal.object(json!({ "rules": rules }));
        return Ok(());
    }
    if rules.is_empty() {
        terminal.say("there are no hold rules");
        return Ok(());
    }
    let mut heads = vec!["NAME", "HOLDS MAIL", "HELD", "SINCE", "BY", "REASON"];
    heads.extend(admin.is_several().then_some("NODE"));
    let mut rows = table(heads);
    for (node, rule) in rules {
        let mut cells = vec![
            Cell::new(&rule.name),
            Cell::new(one_line(&parts(&rule.filter).join(", "), 80)),
            number(rule.held),
            Cell::new(local_time(rule.created_at)),
            Cell::new(one_line(&rule.by, 30)),
            Cell::new(one_line(&rule.reason, 60)),
        ];
        cells.extend(node.map(Cell::new));
        rows.add_row(cells);
    }
    terminal.line(lines(&rows));
    Ok(())
}

fn mails(count: u64) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} mail{s}")
}

/// A filter in words.
fn parts(filter: &Filter) -> Vec<String> {
    let text = |name: &str, value: &Option<String>| {
        let value = value.as_deref()?;
        Some(format!(
            "{name} {}",
            if value.is_empty() { "<>" } else { value }
        ))
    };
    let size = |name: &str, value: Option<u64>| Some(format!("{name} {} octets", value?));
    let time = |name: &str, at: Option<Timestamp>| Some(format!("{name} {}", local_time(at?)));
    let all = [
        text("from", &filter.sender),
        text("to", &filter.destination),
        text("for recipients in", &filter.recipient_domain),
        text("of account", &filter.account),
        text("of tenant", &filter.tenant),
        text("with tag", &filter.tag),
        size("of at least", filter.size_at_least),
        size("of at most", filter.size_at_most),
        time("since", filter.received_after),
        time("until", filter.received_before),
        filter
            .state
            .map(|state: MailState| format!("in state {}", state.as_str())),
    ];
    let some: Vec<String> = all.into_iter().flatten().collect();
    match some.is_empty() {
        true => vec!["all".to_owned()],
        false => some,
    }
}

fn rule_json(node: Option<&str>, rule: &HoldRuleDetails) -> Value {
    let filter = &rule.filter;
    let mut object = json!({
        "name": rule.name,
        "by": rule.by,
        "reason": rule.reason,
        "created_at": utc_time(rule.created_at),
        "held": rule.held,
        "filter": {
            "mail_from": filter.sender,
            "destination": filter.destination,
            "recipient_domain": filter.recipient_domain,
            "account": filter.account,
            "tenant": filter.tenant,
            "tag": filter.tag,
            "size_at_least": filter.size_at_least,
            "size_at_most": filter.size_at_most,
            "received_after": filter.received_after.map(utc_time),
            "received_before": filter.received_before.map(utc_time),
            "all": filter.all,
        },
    });
    if let Some(node) = node {
        object["node"] = node.into();
    }
    object
}
