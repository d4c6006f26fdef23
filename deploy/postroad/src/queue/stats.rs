//! What waits for each destination, or for each site behind them.

use comfy_table::Cell;
use postroad_envelope::Timestamp;
use postroad_queue_client::{DestinationStats, QueueAdmin as _, QueueStats, SiteStats};
use serde_json::{Value, json};

use super::Admin;
use super::nodes::sum_of;
use crate::fault::Fault;
use crate::terminal::{Terminal, lines, local_time, number, one_line, table, utc_time};

/// What the queue is asked for, so that the last line counts all of it.
const ALL: u32 = 10_000;

/// `postroad queue stats`.
pub async fn stats(
    admin: &Admin,
    limit: u32,
    by_site: bool,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let told = admin.of_each(|node| node.stats(ALL)).await?;
    let nodes = told
        .iter()
        .map(|(node, stats)| Counts::of_node(node, stats));
    let nodes: Vec<Counts> = nodes.filter(|_| admin.is_several()).collect();
    let stats = sum_of(told.into_iter().map(|(_, stats)| stats));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if terminal.wants_json() {
        let mut object = stats_json(&stats, limit);
        if admin.is_several() {
            object["nodes"] = nodes.iter().map(node_json).collect();
        }
        terminal.object(object);
        return Ok(());
    }
    if stats.destinations.is_empty() {
        terminal.say("the queue is empty");
        return Ok(());
    }
    if by_site {
        tell_sites(&stats.sites, limit, terminal);
        tell_nodes(&nodes, terminal);
        return Ok(());
    }
    let all: Vec<Counts> = stats.destinations.iter().map(Counts::from).collect();
    tell("DESTINATION", &all, limit, terminal);
    let unseen = stats.total.saturating_sub(length(&all));
    if unseen > 0 {
        terminal.say(format_args!(
            "the last line is of the {} destinations with the most mail; {unseen} more are not counted",
            all.len()
        ));
    }
    tell_nodes(&nodes, terminal);
    Ok(())
}

/// Where it waits, if there are several.
fn tell_nodes(nodes: &[Counts], terminal: &mut Terminal<'_>) {
    if !nodes.is_empty() {
        terminal.line("");
        tell("NODE", nodes, nodes.len(), terminal);
    }
}

fn tell_sites(sites: &[SiteStats], limit: usize, terminal: &mut Terminal<'_>) {
    if sites.is_empty() {
        terminal.say("no site is known: none of this mail was tried since the queue started");
        return;
    }
    let all: Vec<Counts> = sites.iter().map(Counts::from).collect();
    tell("SITE", &all, limit, terminal);
    terminal.say("destinations that were not tried since the queue started are not among them");
}

/// A line of either table.
struct Counts {
    name: String,
    /// Due, delayed, leased, held.
    jobs: [u64; 4],
    oldest: Option<Timestamp>,
    last_reply: String,
}

impl Counts {
    /// All of a node.
    fn of_node(node: &str, stats: &QueueStats) -> Self {
        let all: Vec<Self> = stats.destinations.iter().map(Self::from).collect();
        total(node, &all)
    }
}

impl From<&DestinationStats> for Counts {
    fn from(one: &DestinationStats) -> Self {
        Self {
            name: one.destination.clone(),
            jobs: [one.due, one.delayed, one.leased, one.held],
            oldest: one.oldest,
            last_reply: one.last_reply.clone(),
        }
    }
}

impl From<&SiteStats> for Counts {
    fn from(one: &SiteStats) -> Self {
        Self {
            name: one.site.clone(),
            jobs: [one.due, one.delayed, one.leased, one.held],
            oldest: one.oldest,
            last_reply: one.last_reply.clone(),
        }
    }
}

fn tell(what: &str, all: &[Counts], limit: usize, terminal: &mut Terminal<'_>) {
    let mut rows = table([
        what,
        "DUE",
        "DELAYED",
        "LEASED",
        "HELD",
        "OLDEST",
        "LAST REPLY",
    ]);
    let rest = total("others", all.get(limit..).unwrap_or_default());
    let has_rest = all.len() > limit;
    let sum = total("all", all);
    let others = has_rest.then_some(&rest);
    for one in all.iter().take(limit).chain(others).chain([&sum]) {
        let [due, delayed, leased, held] = one.jobs;
        rows.add_row([
            Cell::new(one_line(&one.name, 50)),
            number(due),
            number(delayed),
            number(leased),
            number(held),
            Cell::new(one.oldest.map_or_else(String::new, local_time)),
            Cell::new(one_line(&one.last_reply, 60)),
        ]);
    }
    terminal.line(lines(&rows));
    if has_rest {
        let more = all.len().saturating_sub(limit);
        terminal.say(format_args!(
            "others: {more} with less mail; see them with --limit"
        ));
    }
}

fn total(name: &str, of: &[Counts]) -> Counts {
    let mut jobs = [0_u64; 4];
    for one in of {
        for (sum, part) in jobs.iter_mut().zip(one.jobs) {
            *sum = sum.saturating_add(part);
        }
    }
    Counts {
        name: name.to_owned(),
        jobs,
        oldest: of.iter().filter_map(|one| one.oldest).min(),
        last_reply: String::new(),
    }
}

fn stats_json(stats: &QueueStats, limit: usize) -> Value {
    let all: Vec<Counts> = stats.destinations.iter().map(Counts::from).collect();
    let sum = total("all", &all);
    let [due, delayed, leased, held] = sum.jobs;
    let destinations = stats.destinations.iter().take(limit);
    let sites = stats.sites.iter().take(limit);
    json!({
        "destinations": destinations.map(destination_json).collect::<Vec<_>>(),
        "sites": sites.map(site_json).collect::<Vec<_>>(),
        "total": stats.total,
        "sum": {
            "destinations": all.len(),
            "due": due,
            "delayed": delayed,
            "leased": leased,
            "held": held,
            "oldest": sum.oldest.map(utc_time),
        },
    })
}

fn length(all: &[Counts]) -> u64 {
    u64::try_from(all.len()).unwrap_or(u64::MAX)
}

fn destination_json(one: &DestinationStats) -> Value {
    json!({
        "destination": one.destination,
        "site": one.site,
        "due": one.due,
        "delayed": one.delayed,
        "leased": one.leased,
        "held": one.held,
        "oldest": one.oldest.map(utc_time),
        "last_reply": one.last_reply,
    })
}

fn node_json(one: &Counts) -> Value {
    let [due, delayed, leased, held] = one.jobs;
    json!({
        "node": one.name,
        "due": due,
        "delayed": delayed,
        "leased": leased,
        "held": held,
        "oldest": one.oldest.map(utc_time),
    })
}

fn site_json(one: &SiteStats) -> Value {
    json!({
        "site": one.site,
        "destinations": one.destinations,
        "due": one.due,
        "delayed": one.delayed,
        "leased": one.leased,
        "held": one.held,
        "oldest": one.oldest.map(utc_time),
        "last_reply": one.last_reply,
    })
}
