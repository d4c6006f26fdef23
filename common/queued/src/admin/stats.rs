//! What waits for each destination, and for each site behind them.

use std::{collections::HashMap, sync::Arc};

use postroad_queue::DestinationStats as Found;
use postroad_queue_client::{DestinationStats, QueueError, QueueStats, SiteStats};

use super::{failed, view::limited};
use crate::{clock, core::Core};

const DEFAULT: usize = 1000;
const LONGEST: usize = 10_000;
/// Destinations of a site, those with the most mail, that are looked at for a last reply.
const LOOKED_AT: usize = 3;

pub(super) fn stats(core: &Core, limit: u32) -> Result<QueueStats, QueueError> {
    let found = core.queue.destinations(clock::now());
    let limit = limited(limit, DEFAULT, LONGEST);
    let shown = found.iter().take(limit).map(|one| {
        Ok::<_, QueueError>(DestinationStats {
            destination: one.destination.clone(),
            site: core.sites.of(&one.destination).map(|site| site.to_string()),
            due: count(one.due),
            delayed: count(one.delayed),
            leased: count(one.leased),
            held: count(one.held),
            oldest: Some(one.oldest.minted_at()),
            last_reply: last_reply(core, one)?,
        })
    });
    Ok(QueueStats {
        destinations: shown.collect::<Result<_, _>>()?,
        total: count(found.len()),
        sites: sites(core, &found, limit)?,
    })
}

/// The sites that are known, those with the most mail first.
fn sites(core: &Core, found: &[Found], limit: usize) -> Result<Vec<SiteStats>, QueueError> {
    let mut by_site: HashMap<Arc<str>, Vec<&Found>> = HashMap::new();
    for one in found {
        if let Some(site) = core.sites.of(&one.destination) {
            by_site.entry(site).or_default().push(one);
        }
    }
    let mut all: Vec<(Arc<str>, Vec<&Found>)> = by_site.into_iter().collect();
    let jobs = |of: &[&Found]| of.iter().map(|one| one.jobs()).sum::<usize>();
    all.sort_by_cached_key(|(site, of)| (std::cmp::Reverse(jobs(of)), Arc::clone(site)));
    let shown = all.into_iter().take(limit).map(|(site, of)| {
        let sum = |part: fn(&Found) -> usize| count(of.iter().map(|one| part(one)).sum());
        let mut reply = String::new();
        for one in of.iter().take(LOOKED_AT) {
            if reply.is_empty() {
                reply = last_reply(core, one)?;
            }
        }
        Ok(SiteStats {
            site: site.to_string(),
            destinations: count(of.len()),
            due: sum(|one| one.due),
            delayed: sum(|one| one.delayed),
            leased: sum(|one| one.leased),
            held: sum(|one| one.held),
            oldest: of.iter().map(|one| one.oldest.minted_at()).min(),
            last_reply: reply,
        })
    });
    shown.collect()
}

fn last_reply(core: &Core, one: &Found) -> Result<String, QueueError> {
    let sample = core.queue.show(one.sample.queue_id).map_err(failed)?;
    let mut jobs = sample.iter().flat_map(|mail| &mail.jobs);
    let job = jobs.find(|job| job.state.key == one.sample);
    Ok(job.and_then(|job| core.reason_of(job)).unwrap_or_default())
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
