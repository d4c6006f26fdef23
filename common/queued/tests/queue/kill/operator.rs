//! An operator at work while mail goes.

use std::{sync::Arc, time::Duration};

use postroad_envelope::{QueueId, RouteClass};
use postroad_queue_client::{
    Change, Changed, Filter, HoldOrder, QueueAdmin, QueueError, QueueService as _, Removal,
    Withdrawn,
};
use rand::{RngExt, rngs::StdRng};

use super::{
    check,
    life::{Life, complain},
    load::{ACCOUNT, HELD_BY_ROUTE, RULED, RULED_DOMAIN},
    told::{Rule, say},
};

/// For ever.
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
        match random.random_range(0..26) {
            22.. => withdraw(&life, id, open).await,
            20 => put_rule(&life, random.random()).await,
            21 => remove_rule(&life, random.random()).await,
            // What a rule holds is released with it, so a hold of ours would not be all that counts.
            0..6 if open & RULED == 0 => hold(&life, id).await,
            0..6 => {}
            6..10 => {
                life.seen().held.remove(&id);
                life.seen().ruled.remove(&id);
                say(format_args!("releasing {id} 0"));
                met("released", order(&life, Change::Release, id).await);
            }
            10..12 => {
                if open & HELD_BY_ROUTE != 0 {
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

/// Its account takes a mail back: all of it and for ever, or nothing.
async fn withdraw(life: &Life, id: QueueId, open: u32) {
    say(format_args!("regretting {id} {open}"));
    match life.queue.withdraw(id, ACCOUNT).await {
        Ok(Withdrawn::Done) => {
            life.ended(open);
            say(format_args!("ended {id} {open}"));
            say(format_args!("met withdrawn"));
        }
        Ok(Withdrawn::TooLate) => say(format_args!("too-late {id} 0")),
        // It has ended meanwhile, or changes all the time.
        Ok(Withdrawn::Unknown) | Err(QueueError::Unavailable(_)) => {}
        Err(error) => complain(&format!("{id} cannot be taken back: {error:?}")),
    }
}

const RULE: &str = "of-the-test";

/// What was told of the rule holds; from now on it is known.
pub async fn look_at_rule(life: &Life, told: Rule) {
    let rules = life.queue.hold_rules().await;
    let rules = rules.unwrap_or_else(|error| complain(&format!("no rules: {error:?}")));
    let is_there = !rules.is_empty();
    if told != Rule::Unsure && is_there != (told == Rule::In) {
        complain(&format!("the rule was told to be {told:?}: {rules:?}"));
    }
    *life.rule.write().await = is_there;
    say(format_args!("rule {}", if is_there { "in" } else { "out" }));
}

async fn put_rule(life: &Life, also_present: bool) {
    let mut is_there = life.rule.write().await;
    if *is_there {
        return;
    }
    say(format_args!("rule unsure"));
    let order = HoldOrder {
        name: RULE.to_owned(),
        filter: Filter::to(RULED_DOMAIN),
        also_present,
        ..HoldOrder::default()
    };
    if let Err(error) = life.queue.put_hold_rule(order).await {
        complain(&format!("the rule cannot be put: {error:?}"));
    }
    *is_there = true;
    say(format_args!("rule in"));
    say(format_args!("met rule-put"));
}

async fn remove_rule(life: &Life, release: bool) {
    let mut is_there = life.rule.write().await;
    if !*is_there {
        return;
    }
    say(format_args!("rule unsure"));
    if release {
        life.seen().ruled.clear();
        say(format_args!("rule freeing"));
    }
    let removal = Removal {
        name: RULE.to_owned(),
        release,
        ..Removal::default()
    };
    if let Err(error) = life.queue.remove_hold_rule(removal).await {
        complain(&format!("the rule cannot be removed: {error:?}"));
    }
    *is_there = false;
    say(format_args!("rule out"));
    say(format_args!("met rule-removed"));
}
