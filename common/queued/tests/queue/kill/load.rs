//! Those who submit, and those who take what is given out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use postroad_address::ReversePath;
use postroad_envelope::{
    Envelope, LeaseRef, Notify, Outcome, QueueId, RecipientIndex, RouteClass, Timestamp,
};
use postroad_queue_client::{HandBack, QueueError, SettleResult, WorkUp};
use rand::{RngExt, rngs::StdRng};

use super::{
    check,
    life::{Life, complain, refused},
    told::{Told, content_of, say},
};
use crate::setup::{Worker, delayed, delivered, failed, mail, relayed, submit};

/// The index of a recipient is its place here.
pub const ADDRESSES: [&str; 8] = [
    "bob@local.test",
    "x@far.test",
    "y@far.test",
    "z@other.test",
    "alice@local.test",
    "h@kept.test",
    "d@gone.test",
    "r@ruled.test",
];
pub const HELD_BY_ROUTE: u32 = 1 << 5;
const DISCARDED: u32 = 1 << 6;
/// Those of whose success some senders want to hear (RFC 3461); a host that took their mail over reports it, or does not.
const ASKED_FOR: u32 = 0b1110;
const ASKS: Notify = Notify::On {
    success: true,
    failure: true,
    delay: true,
};
/// Held by a standing rule while there is one.
pub const RULED: u32 = 1 << 7;
pub const RULED_DOMAIN: &str = "ruled.test";
pub const CLASSES: &[RouteClass] = &[RouteClass::Local, RouteClass::Relay, RouteClass::Lmtp];
/// Recipients that are open at once, more or less.
const OPEN: i64 = 200;
/// Mails that each of those who submit offers before what is there has been looked at.
const EARLY: usize = 6;

/// All of a mail but its content follows from these.
/// Whose mail it is.
pub const ACCOUNT: &str = "sender@away.test";

fn envelope_of(id: QueueId, set: u32) -> Envelope {
    let slots: Vec<u32> = (0..32).filter(|slot| set & 1 << slot != 0).collect();
    let to: Vec<&str> = slots.iter().map(|slot| ADDRESSES[*slot as usize]).collect();
    let mut envelope = mail("", &to);
    envelope.queue_id = id;
    envelope.account = Some(ACCOUNT.to_owned());
    for (recipient, slot) in envelope.recipients.iter_mut().zip(&slots) {
        recipient.index = RecipientIndex(*slot);
    }
    let [.., last] = id.to_bytes();
    if last & 1 == 1 {
        let sender = format!("{id}@away.test");
        envelope.reverse_path = ReversePath::parse(&sender).unwrap();
    }
    if last & 3 == 3 {
        let abroad = envelope.recipients.iter_mut();
        abroad
            .filter(|to| ASKED_FOR & 1 << to.index.0 != 0)
            .for_each(|to| to.notify = ASKS);
    }
    envelope
}

pub async fn submit_for_ever(life: Arc<Life>, mut random: StdRng) {
    let mut looked_at = life.looked_at.subscribe();
    for count in 0_usize.. {
        if count >= EARLY {
            let _ = looked_at.wait_for(|done| *done).await;
        }
        let set: u32 = match random.random_range(0..4) {
            0 => random.random_range(1..1 << ADDRESSES.len()),
            _ => 1 << [0, 1, 2, 3, 4, 7][random.random_range(0..6)],
        };
        let id = mail("", &[]).queue_id;
        let mut envelope = envelope_of(id, set);
        say(format_args!("offered {id} {set}"));
        let mut trying = set & DISCARDED;
        if random.random_range(0..20) == 0 {
            let soon = Timestamp::from(SystemTime::now());
            envelope.expires_at = Some(soon.plus(Duration::from_millis(100)));
            trying = set;
        }
        if random.random_range(0..10) == 0 {
            let now = Timestamp::from(SystemTime::now());
            envelope.not_before = Some(now.plus(Duration::from_millis(200)));
        }
        if trying != 0 {
            say(format_args!("trying {id} {trying}"));
        }
        if offer(&life, &envelope, set, true).await {
            complain(&format!("{id} is known already"));
        }
        if random.random_range(0..10) == 0 && !offer_known(&life, id, set).await {
            // Nobody heard the answer.
            complain(&format!("{id} was accepted twice"));
        }
        let pause = Duration::from_millis(random.random_range(0..8));
        tokio::time::sleep(pause).await;
        while life.open.load(Ordering::Relaxed) > OPEN {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Offers a mail until it is taken; tells whether it was there already. One that is not offered for the first time may have
/// been accepted before there was a rule.
async fn offer(life: &Life, envelope: &Envelope, set: u32, is_first: bool) -> bool {
    let id = envelope.queue_id;
    let rule = life.rule.read().await;
    let is_ruled = set & RULED != 0 && *rule;
    let ruled = || {
        life.seen().ruled.insert(id);
        say(format_args!("ruled {id} 0"));
    };
    if is_ruled && is_first {
        ruled();
    }
    let content = content_of(id);
    let accepted = loop {
        let is_level = life.is_level.load(Ordering::Relaxed);
        match submit(&life.queue, envelope, &content).await {
            Ok(accepted) => break accepted,
            // Only the index knows, and it is not there yet.
            Err(QueueError::Unavailable(_)) if !is_level => {}
            Err(error) => complain(&format!("{id} was refused: {error:?}")),
        }
    };
    if is_ruled && !is_first && !accepted.duplicate {
        ruled();
    }
    drop(rule);
    say(format_args!("acknowledged {id} {set}"));
    if accepted.duplicate {
        return true;
    }
    if set & DISCARDED != 0 {
        say(format_args!("ended {id} {DISCARDED}"));
    }
    if content.len() > 256 << 10 {
        say(format_args!("met large"));
    }
    if !life.is_level.load(Ordering::Relaxed) {
        say(format_args!("met accepted-early"));
        life.seen().early.push((id, set));
    }
    life.submitted(id, set);
    false
}

/// Whoever got no answer sends again, some before the index is there, others after; so do a few whose answer was lost.
pub async fn send_again(life: &Life, told: &Told, is_level: bool, random: &mut StdRng) {
    let unanswered = told.mails.iter().filter(|(id, mail)| {
        let [.., byte, _] = id.to_bytes();
        mail.all != 0 && mail.acknowledged == 0 && (byte & 1 == 1) == is_level
    });
    for (id, mail) in unanswered {
        if mail.ruled && !*life.rule.read().await {
            life.seen().ruled.remove(id);
            say(format_args!("releasing {id} 0"));
        }
        match offer(life, &envelope_of(*id, mail.all), mail.all, false).await {
            true => say(format_args!("met killed-accepted")),
            false => say(format_args!("met killed-receiving")),
        }
    }
    let answered = told.mails.iter().filter(|(_, mail)| mail.acknowledged != 0);
    let mut lost: Vec<_> = answered.map(|(id, mail)| (*id, mail.all)).collect();
    if is_level {
        lost = std::mem::take(&mut life.seen().early);
    }
    for _ in 0..3.min(lost.len()) {
        let (id, set) = lost.swap_remove(random.random_range(0..lost.len()));
        if !offer_known(life, id, set).await {
            complain(&format!("{id} was accepted twice"));
        }
        say(format_args!(
            "met {}",
            if is_level {
                "again-across"
            } else {
                "again-early"
            }
        ));
    }
}

/// As [`offer`], of a mail that was acknowledged: no rule is asked any more.
async fn offer_known(life: &Life, id: QueueId, set: u32) -> bool {
    let (envelope, content) = (envelope_of(id, set), content_of(id));
    loop {
        match submit(&life.queue, &envelope, &content).await {
            Ok(accepted) => return accepted.duplicate,
            Err(QueueError::Unavailable(_)) => {}
            Err(error) => complain(&format!("{id} was refused: {error:?}")),
        }
    }
}

pub async fn settle_for_ever(life: Arc<Life>, mut random: StdRng) {
    let mut worker = Worker::connect(&life.queue, CLASSES).await;
    loop {
        let lease = worker.lease().await;
        let id = lease.lease.job.queue_id;
        // Told before the lease is: else a life that ends in between leaves a lease that the next one settles unread.
        if let Some((about, set)) = check::report_in(&life.queue, &lease).await {
            say(format_args!("report {about} {set} {id}"));
            let owed = life.owed.get(&about).copied().unwrap_or_default();
            if owed & set != 0 && id.minted_at() >= life.born {
                say(format_args!("met killed-owing"));
            }
        }
        life.received(lease.lease);
        if lease.route.destination == RULED_DOMAIN && life.seen().ruled.contains(&id) {
            complain(&format!(
                "{id} was given to a worker though a rule holds it"
            ));
        }
        match random.random_range(0..40) {
            0..3 => {
                life.let_go(lease.lease);
                let back = HandBack {
                    touch: postroad_queue_client::Touch::Unclear,
                    lease: lease.lease,
                    delay: Duration::from_millis(20),
                    reason: "limited".to_owned(),
                };
                worker.say(WorkUp::HandBack(back)).await;
                say(format_args!("met handed-back"));
                continue;
            }
            // It loses its stream, and comes back with what it held, perhaps too late.
            3 | 4 => {
                drop(worker);
                say(format_args!("met stream-lost"));
                let pause = random.random_range(0..350);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                worker = Worker::reconnect(&life.queue, CLASSES, &[lease.lease]).await;
                match worker.resumed.first() {
                    Some((_, Some(new))) => {
                        let new = *new;
                        life.received(new);
                        settle(&life, &mut worker, new, &lease.envelope, &mut random).await;
                        say(format_args!("met resumed"));
                    }
                    _ => refused(&mut worker, lease.lease).await,
                }
                continue;
            }
            // It sleeps beyond its deadline.
            5 => tokio::time::sleep(Duration::from_millis(450)).await,
            6 | 7 => {
                worker.say(WorkUp::Extend(vec![lease.lease])).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(random.random_range(0..10))).await,
        }
        let name = lease.lease;
        settle(&life, &mut worker, name, &lease.envelope, &mut random).await;
    }
}

async fn settle(
    life: &Life,
    worker: &mut Worker,
    lease: LeaseRef,
    envelope: &Envelope,
    random: &mut StdRng,
) {
    let is_report = envelope.listener == "report";
    let (mut ending, mut failing) = (0_u32, 0_u32);
    let mut reporting = Vec::new();
    let outcomes = envelope.recipients.iter().map(|to| {
        let bit = 1 << to.index.0;
        let outcome: Outcome = match random.random_range(0..100) {
            0..15 => delayed(),
            15..30 if !is_report => failed(),
            30..50 if to.notify == ASKS => {
                reporting.push(to.index);
                relayed()
            }
            _ if to.notify == ASKS => {
                say(format_args!("met relayed"));
                relayed()
            }
            _ => delivered(),
        };
        let is_owed = match &outcome {
            Outcome::Failed(_) => true,
            Outcome::Relayed(_) => !reporting.contains(&to.index),
            _ => false,
        };
        if outcome.is_final() {
            ending |= bit;
        }
        if is_owed {
            failing |= bit;
        }
        (to.index, outcome)
    });
    let outcomes = outcomes.collect();
    let id = lease.job.queue_id;
    if ending != 0 && !is_report {
        say(format_args!("trying {id} {ending}"));
    }
    let is_newest = life.is_newest(lease);
    say(format_args!("settling {id} {}", lease.job.number));
    let result = worker.settle_reporting(lease, outcomes, reporting).await;
    say(format_args!("answered {id} {}", lease.job.number));
    if result != SettleResult::Durable {
        say(format_args!("met late"));
        return;
    }
    if !is_newest {
        complain(&format!("two valid leases: {lease:?} and a newer one"));
    }
    life.let_go(lease);
    if is_report {
        return;
    }
    life.open
        .fetch_sub(i64::from(ending.count_ones()), Ordering::Relaxed);
    if ending != 0 {
        say(format_args!("ended {id} {ending}"));
    }
    if failing != 0 && !envelope.reverse_path.is_null() {
        say(format_args!("failed {id} {failing}"));
    }
}
