//! What sites of mail hosts take, and how they stand.

use clap::Args;
use comfy_table::Cell;
use postroad_queue_client::{QueueAdmin, SiteDetails, SitesQuery};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::terminal::{Terminal, lines, local_time, number, one_line, table, utc_time};

/// What to show.
#[derive(Debug, Args)]
pub struct SitesArguments {
    /// Only this site, or the site of this recipient domain
    #[arg(value_name = "SITE|DOMAIN")]
    name: Option<String>,
    /// Most lines; those that are not simply open come first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// `postroad queue sites`.
pub async fn sites(
    admin: &dyn QueueAdmin,
    arguments: SitesArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let named = arguments.name.is_some();
    let query = SitesQuery {
        name: arguments.name,
        limit: arguments.limit,
    };
    let list = admin.sites(query).await?;
    if named && list.sites.is_empty() {
        return Err(Fault::NoMatch(
            "nothing was sent to such a site since the queue began".to_owned(),
        ));
    }
    if terminal.wants_json() {
        let sites: Vec<Value> = list.sites.iter().map(site_json).collect();
        terminal.object(json!({ "sites": sites, "total": list.total }));
        return Ok(());
    }
    if list.sites.is_empty() {
        terminal.say("nothing was sent to other hosts since the queue began");
        return Ok(());
    }
    let headings = [
        "SITE", "DOMAINS", "STATE", "NEXT", "BUSY", "PER MIN", "TAKEN", "REFUSED", "REASON",
    ];
    let mut rows = table(headings);
    for site in &list.sites {
        let rate = site.per_minute.map(|rate| format!("{rate:.1}"));
        rows.add_row([
            Cell::new(one_line(&site.site, 50)),
            Cell::new(domains(site)),
            Cell::new(one_line(&site.state, 20)),
            Cell::new(site.until.map(local_time).unwrap_or_default()),
            number(busy(site)),
            number(rate.unwrap_or_default()),
            number(site.taken),
            number(site.refused),
            Cell::new(one_line(&site.reason, 60)),
        ]);
    }
    terminal.line(lines(&rows));
    let shown = u64::try_from(list.sites.len()).unwrap_or(u64::MAX);
    let left = list.total.saturating_sub(shown);
    if left > 0 {
        terminal.say(format_args!("{left} more; see --limit"));
    }
    Ok(())
}

/// `postroad queue lift`.
pub async fn lift(
    admin: &dyn QueueAdmin,
    name: &str,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let lifted = admin.lift_site(name, "").await?;
    if lifted == 0 {
        return Err(Fault::NoMatch("there is no such site".to_owned()));
    }
    match terminal.wants_json() {
        true => terminal.object(json!({ "sites": lifted })),
        false => terminal.line(format_args!("{} is tried now", one_line(name, 200))),
    }
    Ok(())
}

/// Mails on their way, of as many as may be.
fn busy(site: &SiteDetails) -> String {
    match site.connections {
        u32::MAX => site.in_use.to_string(),
        most => format!("{}/{most}", site.in_use),
    }
}

/// The first of them, and how many more.
fn domains(site: &SiteDetails) -> String {
    let Some(first) = site.domains.first() else {
        return String::new();
    };
    match site.domain_count.saturating_sub(1) {
        0 => one_line(first, 40),
        more => format!("{} +{more}", one_line(first, 40)),
    }
}

fn site_json(site: &SiteDetails) -> Value {
    json!({
        "site": site.site,
        "domains": site.domains,
        "domain_count": site.domain_count,
        "state": site.state,
        "until": site.until.map(utc_time),
        "in_use": site.in_use,
        "connections": Some(site.connections).filter(|most| *most != u32::MAX),
        "per_minute": site.per_minute,
        "limits": site.limits,
        "waiting_destinations": site.waiting,
        "taken": site.taken,
        "refused": site.refused,
        "reason": site.reason,
        "reason_at": site.reason_at.map(utc_time),
    })
}
