//! What tenants, accounts and recipient domains have in the queue.

use comfy_table::Cell;
use postroad_queue_client::{QueueAdmin as _, Usage, UsageQuery, UsageScope};
use serde_json::{Value, json};

use super::Admin;
use crate::fault::Fault;
use crate::terminal::{Terminal, lines, number, one_line, table};

/// What to show.
#[derive(Debug, clap::Args)]
pub struct UsageArguments {
    /// Tenants only
    #[arg(long, conflicts_with_all = ["account", "domain"])]
    tenant: bool,
    /// Accounts only
    #[arg(long, conflicts_with = "domain")]
    account: bool,
    /// Recipient domains only
    #[arg(long)]
    domain: bool,
    /// Most lines of each; the fullest come first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl UsageArguments {
    fn query(&self) -> UsageQuery {
        let scope = match (self.tenant, self.account, self.domain) {
            (true, ..) => Some(UsageScope::Tenant),
            (_, true, _) => Some(UsageScope::Account),
            (.., true) => Some(UsageScope::Domain),
            _ => None,
        };
        UsageQuery {
            scope,
            limit: self.limit,
        }
    }
}

/// `postroad queue usage`.
pub async fn usage(
    admin: &Admin,
    arguments: &UsageArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let query = arguments.query();
    let told = admin.of_each(|node| node.usage(query)).await?;
    let usages = told.iter().flat_map(|(node, usages)| {
        let node = admin.is_several().then_some(*node);
        usages.iter().map(move |usage| (node, usage))
    });
    let usages: Vec<(Option<&str>, &Usage)> = usages.collect();
    if terminal.wants_json() {
        let usages = usages.iter().map(|(node, usage)| usage_json(*node, usage));
        let usages: Vec<Value> = usages.collect();
        terminal.object(json!({ "usages": usages }));
        return Ok(());
    }
    if usages.is_empty() {
        terminal.say("nobody has mail in the queue");
        return Ok(());
    }
    let mut heads = vec!["", "NAME", "MAILS", "OF", "SIZE", "OF", "FULL"];
    heads.extend(admin.is_several().then_some("NODE"));
    let mut rows = table(heads);
    for (node, one) in usages {
        let or_none = |most: Option<String>| most.unwrap_or_default();
        let mut cells = vec![
            Cell::new(one.scope.as_str()),
            Cell::new(one_line(&one.name, 50)),
            number(one.mails),
            number(or_none(one.most_mails.map(|most| most.to_string()))),
            number(size(one.octets)),
            number(or_none(one.most_octets.map(size))),
            number(or_none(one.percent().map(|part| format!("{part} %")))),
        ];
        cells.extend(node.map(Cell::new));
        rows.add_row(cells);
    }
    terminal.line(lines(&rows));
    Ok(())
}

/// To one place, rounded up: `0.1 KiB`, `3.5 MiB`.
fn size(octets: u64) -> String {
    let (unit, name) = match octets {
        0..0x0010_0000 => (1 << 10, "KiB"),
        0x0010_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    let tenths = octets.saturating_mul(10).div_ceil(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

fn usage_json(node: Option<&str>, one: &Usage) -> Value {
    let mut object = json!({
        "scope": one.scope.as_str(),
        "name": one.name,
        "mails": one.mails,
        "size": one.octets,
        "most_mails": one.most_mails,
        "most_size": one.most_octets,
        "percent": one.percent(),
    });
    if let Some(node) = node {
        object["node"] = node.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_to_one_place() {
        for (octets, told) in [
            (0, "0.0 KiB"),
            (1, "0.1 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) + 1, "1.1 MiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(size(octets), told);
        }
    }
}
