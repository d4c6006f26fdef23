//! Mail to neighbours as they are met in the world: Postfix and Exim with the settings that a sender notices.
//!
//! [`table::neighbours`] says of each how it is set up and what becomes of which mail. All mails go to all of them at once, from one stack;
//! then each recipient's timeline, the mailboxes of the neighbours and the sender's inbox are compared with the table. Nothing is lost,
//! nothing arrives twice, and nobody is told of a failure that was none.

mod greylist;
mod judge;
mod mails;
mod servers;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postroad_queue_client::QueueAdmin as _;
use postroad_tests::{Agent, Client, Stack, stack, wait_for_within};

use self::{
    judge::{Course, judge},
    mails::{Kind, SENDER, Sent},
    servers::Servers,
    table::{Fate, Neighbour, Shape, neighbours},
};
use crate::world::World;

/// For what comes after all mail has left: so short that several problems are told before the scenario's time is over.
const SOON: Duration = Duration::from_secs(20);
/// Connections that wait end soon, so that the neighbours' logs say how they went; one domain's mail lives shortly.
const SETTINGS: &str = "
[mta.outbound.reuse]
idle = \"1s\"

[queued.retry]
cases = [{ domains = [\"soft.test\"], give_up_after = \"2s\" }]
";

pub async fn of_postfix_and_exim(world: &World) -> Result<()> {
    let place = world.place("neighbours");
    crate::foreign::folder(&place)?;
    let neighbours = neighbours();
    let authority = place.join("ca.pem");
    let zone: String = neighbours.iter().map(Neighbour::zone).collect();
    let stack = stack!()
        .settings(SETTINGS)
        .settings(&format!("[mta.outbound]\nca_file = {authority:?}\n"))
        .zone(&zone);
    let mut stack = stack.prepare()?;
    stack.configure("levels", &levels(&neighbours))?;
    let servers = Servers::start(&place, &neighbours, stack.ports).await?;
    stack.start_all().await?;

    // The one connection that this neighbour takes is ours, until it has told somebody so.
    let few = neighbours
        .iter()
        .find(|one| one.name == "few-connections")
        .context("no neighbour with few connections")?;
    let (occupant, _) = Client::connect(few.address(stack.ports.world)).await?;
    let sent = send_all(&stack, &neighbours).await?;
    wait_for_delay(&stack, few.name).await?;
    drop(occupant);

    for mail in &sent {
        if let Fate::Waits(_) = mail.neighbour.fate(mail.kind, "friend") {
            wait_for_delay(&stack, mail.neighbour.name).await?;
            ensure!(
                servers.copies(mail)?.is_empty(),
                "{} did not wait",
                mail.name()
            );
        }
    }
    // They wait for nothing but that we ask for less.
    stack.configure("levels", "")?;
    let line = stack.reload(Agent::Mta).await?;
    ensure!(line.contains("\"event\":\"reloaded\""), "{line}");
    stack.wait_for_empty_queue().await?;

    let problems = look(&stack, &servers, &neighbours, &sent).await?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    servers.stop()?;
    stack.end().await
}

/// `mta.outbound.tls_policies`, as the table wants it in the beginning.
fn levels(neighbours: &[Neighbour]) -> String {
    let mut toml = "[mta.outbound.tls_policies]\n".to_owned();
    for one in neighbours {
        let _ = writeln!(toml, "\"{}\" = \"{}\"", one.domain(), one.level);
    }
    toml
}

async fn send_all<'a>(stack: &Stack, neighbours: &'a [Neighbour]) -> Result<Vec<Sent<'a>>> {
    let mut client = stack.login(SENDER).await?;
    let mut sent = Vec::new();
    for neighbour in neighbours {
        for &kind in neighbour.kinds() {
            let mail = Sent::submit(&mut client, neighbour, kind).await;
            sent.push(mail.with_context(|| format!("{kind:?} to {}", neighbour.name))?);
        }
    }
    Ok(sent)
}

/// Waits until mail to a neighbour was put off.
async fn wait_for_delay(stack: &Stack, name: &str) -> Result<()> {
    let to = format!("@{name}.test\"");
    let words = ["\"event\":\"attempt\"", "\"outcome\":\"delayed\"", &to];
    stack.wait_for_log(Agent::Mta, &words).await?;
    Ok(())
}

/// All that is not as the table says.
async fn look(
    stack: &Stack,
    servers: &Servers,
    neighbours: &[Neighbour],
    sent: &[Sent<'_>],
) -> Result<Vec<String>> {
    let admin = stack.admin()?;
    let mut problems = Vec::new();
    let mut delays: BTreeMap<&str, usize> = BTreeMap::new();
    for mail in sent {
        let courses = wait_for_within(
            SOON,
            &format!("whole timeline of {}", mail.name()),
            async || {
                let events = admin.trace(mail.id).await.ok()?;
                let courses = mail
                    .recipients()
                    .iter()
                    .zip(0..)
                    .map(|(_, index)| Course::of(&events, index));
                courses.collect::<Option<Vec<Course>>>()
            },
        )
        .await?;
        *delays.entry(mail.neighbour.name).or_default() +=
            courses.iter().filter(|course| course.was_delayed()).count();
        let name = mail.name();
        let mut found = judge(mail, &courses);
        let wanted = courses.iter().filter(|course| course.relayed()).count();
        found.extend(servers.compare(mail, wanted).await.err().map(text));
        found.extend(compare_reports(stack, mail).await.err().map(text));
        if !found.is_empty() {
            problems.push(format!("{name}: {}; {courses:?}", found.join("; ")));
        }
    }
    for mail in sent {
        let (neighbour, eventually) = (mail.neighbour, |mail: &Sent<'_>| {
            matches!(
                mail.neighbour.fate(mail.kind, "friend"),
                Fate::Eventually(_)
            )
        });
        if eventually(mail) && delays.get(neighbour.name) == Some(&0) {
            problems.push(format!("{} never said no", neighbour.name));
            delays.insert(neighbour.name, 1);
        }
    }
    problems.extend(servers.unsaid(neighbours).await);
    Ok(problems)
}

fn text(error: anyhow::Error) -> String {
    format!("{error:#}")
}

/// The sender hears of each failure once, of a success that it asked for once, and of nothing else.
async fn compare_reports(stack: &Stack, mail: &Sent<'_>) -> Result<()> {
    let mut wanted: Vec<(String, String, Shape)> = Vec::new();
    for name in mail.recipients() {
        let address = mail.neighbour.address_of(name);
        match mail.neighbour.fate(mail.kind, name) {
            Fate::Bounced(status, _) | Fate::GivenUp(status, _) => {
                wanted.push((address, (*status).to_owned(), Shape::Ours));
            }
            _ if mail.kind == Kind::Asked => {
                let status = "2.".to_owned();
                wanted.push((address, status, mail.neighbour.success));
            }
            _ => {}
        }
    }
    let wanted_count = wanted.len();
    let reports = wait_for_within(SOON, "report", async || {
        let reports = judge::reports(stack, mail).ok()?;
        (reports.len() >= wanted_count).then_some(reports)
    });
    let reports = reports.await?;
    ensure!(
        reports.len() == wanted_count,
        "{wanted_count} reports are due: {reports:?}"
    );
    for (address, status, by) in wanted {
        let about = reports.iter().find(|one| one.recipient == address);
        let about = about.with_context(|| format!("nothing about {address}: {reports:?}"))?;
        ensure!(
            about.status.starts_with(&status),
            "not {status}: {reports:?}"
        );
        ensure!(
            (about.by == "dns; mx.demo.test") == (by == Shape::Ours),
            "from whom? {reports:?}"
        );
    }
    Ok(())
}
