//! An operator at work while mail goes.

use std::{sync::Arc, time::Duration};

use postroad_envelope::{QueueId, RouteClass};
use postroad_queue_client::{Change, Changed, Filter, QueueAdmin, QueueError};
use rand::{RngExt, rngs::StdRng};

use super::{
    check,
    life::{HELD_BY_RULE, Life, complain},
    told::say,
};

pub async fn operate(life: Arc<Life>, mut random: StdRng) {
    loop {
        tokio::time::sleep(Duration::from_millis(random.random_range(1..12))).await;
        let known = life.seen().known.len();
        if known == 0 {
            continue;
        }
        let id = life.seen().known[random.random_range(0..known)];
        let Ok(details) = life.queue.show(id).await else {
            life.seen().known.retain(|other| *other != id);
            continue;
        };
        let open = check::open_recipients(&details);
        let wants_reports = !details.envelope.reverse_path.is_null();
        match random.random_range(0..20) {
            0..6 => hold(&life, id).await,
            6..10 => {
                life.seen().held.remove(&id);
                say(format_args!("releasing {id} 0"));
                met("released", order(&life, Change::Release, id).await);
            }
            10..12 => {
                if open & HELD_BY_RULE != 0 {
                    // Another route ends what its route held.
                    life.seen().held.remove(&id);
                    say(format_args!("releasing {id} 0"));
                }
                let change = Change::Reroute {
                    class: RouteClass::Lmtp,
                    next_hop: Some("lists.test:24".parse().unwrap()),
                };
                met("rerouted", order(&life, change, id).await);
            }
            12..14 => {
                let change = Change::Priority(random.random_range(-9..=9));
                met("priority", order(&life, change, id).await);
            }
            14 | 15 => met("retried", order(&life, Change::Retry, id).await),
            16 => end(&life, "fail", Change::Fail, id, (open, wants_reports)).await,
            17 => end(&life, "expire", Change::Expire, id, (open, wants_reports)).await,
            _ => {
                say(format_args!("dropping {id} {open}"));
                end(&life, "drop", Change::Drop, id, (open, false)).await;
            }
        }
    }
}

async fn order(life: &Life, change: Change, id: QueueId) -> Changed {
    let filter = Filter::of_ids(vec![id]);
    match life.queue.change(change, filter.into()).await {
        Ok(changed) => changed,
        // A worker holds it, or it has ended meanwhile.
        Err(QueueError::Conflict(_) | QueueError::NotFound) => Changed::default(),
        Err(error) => complain(&format!("{id} cannot be changed: {error:?}")),
    }
}

/// Whether all of the mail was changed.
fn whole(changed: Changed) -> bool {
    changed == Changed { mails: 1, busy: 0 }
}

fn met(what: &str, changed: Changed) {
    if whole(changed) {
        say(format_args!("met {what}"));
    }
}

async fn hold(life: &Life, id: QueueId) {
    if whole(order(life, Change::Hold, id).await) {
        life.seen().held.insert(id);
        say(format_args!("held {id} 0"));
    }
}

async fn end(life: &Life, verb: &str, change: Change, id: QueueId, about: (u32, bool)) {
    let (open, wants_reports) = about;
    // Then no worker can have been faster.
    let is_held = life.seen().held.contains(&id);
    say(format_args!("trying {id} {open}"));
    if whole(order(life, change, id).await) {
        life.ended(open);
        say(format_args!("ended {id} {open}"));
        if is_held && wants_reports {
            say(format_args!("failed {id} {open}"));
        }
        say(format_args!("met operator-{verb}"));
    }
}
