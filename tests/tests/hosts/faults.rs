//! The faults, one after the other, and what is felt of each.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use postroad_tests::Weather;
use tokio::time::sleep;

use crate::{
    arrivals::INTERVAL,
    network::{Harm, LOST_ONE_IN},
    site::{Queues, Site},
};

/// To and from the queue, or the world.
const FAR: Duration = Duration::from_millis(200);
/// After so many octets a connection is reset: handshake and a mail or two.
const TORN_AFTER: u64 = 12_000;
/// For all that was accepted to arrive: leases of the dead wait for 30 s, dead connections are noticed after 40.
const PATIENCE: Duration = Duration::from_secs(180);

/// Whom it befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Msa,
    Mta,
    Mda,
    Queued,
    /// The same where there is another.
    QueuedOfTwo,
    /// The mail host of a foreign domain, or the way to it.
    World,
}

/// What befalls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Stopped,
    Killed,
    CutOff,
    Lossy,
    Delayed,
    Stalled,
    Torn,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub victim: Victim,
    pub fault: Fault,
}

const fn case(victim: Victim, fault: Fault) -> Case {
    Case { victim, fault }
}

/// Each host and each fault. The world runs here, so what befalls it befalls its line.
pub const ALL: [Case; 39] = {
    use Fault::*;
    use Victim::*;
    [
        case(Msa, Stopped),
        case(Msa, Killed),
        case(Msa, CutOff),
        case(Msa, Lossy),
        case(Msa, Delayed),
        case(Msa, Stalled),
        case(Msa, Torn),
        case(Mta, Stopped),
        case(Mta, Killed),
        case(Mta, CutOff),
        case(Mta, Lossy),
        case(Mta, Delayed),
        case(Mta, Stalled),
        case(Mta, Torn),
        case(Mda, Stopped),
        case(Mda, Killed),
        case(Mda, CutOff),
        case(Mda, Lossy),
        case(Mda, Delayed),
        case(Mda, Stalled),
        case(Mda, Torn),
        case(Queued, Stopped),
        case(Queued, Killed),
        case(Queued, CutOff),
        case(Queued, Lossy),
        case(Queued, Delayed),
        case(Queued, Stalled),
        case(Queued, Torn),
        case(World, CutOff),
        case(World, Delayed),
        case(World, Stalled),
        case(World, Torn),
        case(QueuedOfTwo, Stopped),
        case(QueuedOfTwo, Killed),
        case(QueuedOfTwo, CutOff),
        case(QueuedOfTwo, Lossy),
        case(QueuedOfTwo, Delayed),
        case(QueuedOfTwo, Stalled),
        case(QueuedOfTwo, Torn),
    ]
};

/// What was felt.
#[derive(Clone, Copy, Debug)]
pub struct Effect {
    /// Mails accepted while it lasted, by whomever.
    pub accepted: usize,
    /// The longest time without one.
    pub pause: Duration,
    /// Mails filed while it lasted.
    pub filed: usize,
    /// Mails that reached the world.
    pub relayed: usize,
    /// From the end of the fault to the first mail accepted: by the victim, if it takes mail itself.
    pub again: Duration,
    /// From the end of the fault until all had arrived that was accepted before.
    pub all: Duration,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [pause, again, all] = [self.pause, self.again, self.all].map(|it| it.as_secs_f32());
        write!(
            f,
            "{} accepted, longest pause {pause:.1} s; {} filed, {} relayed; accepts after {again:.1} s, all arrived after {all:.1} s",
            self.accepted, self.filed, self.relayed
        )
    }
}

impl Victim {
    /// As the table calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Msa => "msa, one of two",
            Self::Mta => "mta, one of two",
            Self::Mda => "mda, one of two stores",
            Self::Queued => "queued",
            Self::QueuedOfTwo => "queued, one of two",
            Self::World => "the world",
        }
    }

    fn host(self) -> Option<&'static str> {
        match self {
            Self::Msa => Some("msa1"),
            Self::Mta => Some("mta1"),
            Self::Mda => Some("mda1"),
            Self::Queued | Self::QueuedOfTwo => Some("queue1"),
            Self::World => None,
        }
    }
}

impl Case {
    /// For arguments: `mta-killed`.
    pub fn name(self) -> String {
        format!("{:?}-{:?}", self.victim, self.fault).to_lowercase()
    }

    pub fn is_meant(self, words: &[String]) -> bool {
        let name = self.name();
        let all = |word: &String| "hosts".contains(word.as_str()) || name.contains(word.as_str());
        words.is_empty() || words.iter().any(all)
    }

    /// Where it happens.
    pub fn queues(self) -> Queues {
        match self.victim {
            Victim::QueuedOfTwo => Queues::Two,
            _ => Queues::One,
        }
    }

    /// The first two columns.
    pub fn told(self) -> [String; 2] {
        let of_world = self.victim == Victim::World;
        let fault = match self.fault {
            Fault::Stopped => "stopped: SIGTERM, later started".to_owned(),
            Fault::Killed => "killed: SIGKILL, later started".to_owned(),
            Fault::CutOff if of_world => "away: refuses connections".to_owned(),
            Fault::CutOff => "cut off: all its packets dropped (nft)".to_owned(),
            Fault::Lossy => format!("one packet in {LOST_ONE_IN} dropped (nft)"),
            Fault::Delayed => format!("{} ms farther, each way (proxy)", FAR.as_millis()),
            Fault::Stalled => "connections stall (proxy)".to_owned(),
            Fault::Torn => {
                format!("connections reset after {} kB (proxy)", TORN_AFTER / 1000)
            }
        };
        [self.victim.name().to_owned(), fault]
    }

    fn weather(self) -> Option<Weather> {
        match self.fault {
            Fault::CutOff if self.victim == Victim::World => Some(Weather::Cut),
            Fault::Delayed => Some(Weather::Far {
                there: FAR,
                back: FAR,
            }),
            Fault::Stalled => Some(Weather::Stalled),
            Fault::Torn => Some(Weather::Torn(TORN_AFTER)),
            _ => None,
        }
    }

    async fn begin(self, site: &mut Site) -> Result<()> {
        if let Some(weather) = self.weather() {
            site.turn(self.victim.host(), weather);
            return Ok(());
        }
        let name = self.victim.host().context("the world has no host")?;
        match self.fault {
            Fault::Stopped => site.host(name)?.stop().await,
            Fault::Killed => site.host(name)?.kill_nine(),
            Fault::CutOff => site.harm(name, Some(Harm::CutOff)).await,
            _ => site.harm(name, Some(Harm::Lossy)).await,
        }
    }

    async fn end(self, site: &mut Site) -> Result<()> {
        if self.weather().is_some() {
            site.turn(self.victim.host(), Weather::Clear);
            return Ok(());
        }
        let name = self.victim.host().context("the world has no host")?;
        match self.fault {
            Fault::Stopped | Fault::Killed => site.host(name)?.start(),
            _ => site.harm(name, None).await,
        }
    }
}

/// Lets it happen for so long, and sees how all come out of it.
pub async fn strike(site: &mut Site, case: Case, lasting: Duration) -> Result<Effect> {
    site.load.goes_on(4).await?;
    let began = Instant::now();
    case.begin(site).await?;
    watch(site, lasting).await?;
    case.end(site).await?;
    let ended = Instant::now();
    let before = site.load.sent();

    // The world is not asked whether mail for it is taken.
    let (door, copy) = (usize::from(case.victim == Victim::Mta), 0);
    site.load.probe(door, copy).await?;
    let again = ended.elapsed();
    loop {
        site.look()?;
        let missing = before.iter().find(|sent| !site.arrivals.has(sent));
        let Some(missing) = missing else { break };
        if ended.elapsed() > PATIENCE {
            let id = missing.queue_id().context("no id")?;
            let story = site.story(id).await?;
            bail!(
                "{missing:?} has not arrived {} s later:\n{story}",
                PATIENCE.as_secs()
            );
        }
        sleep(INTERVAL).await;
    }
    let all = ended.elapsed();
    let mut times: Vec<Instant> = before
        .iter()
        .map(|sent| sent.at)
        .filter(|at| *at >= began)
        .collect();
    times.sort();
    let (filed, relayed) = site.arrivals.between(began, ended);
    let edges = [&[began][..], &times, &[ended]].concat();
    let pauses = edges
        .windows(2)
        .map(|pair| pair[1].saturating_duration_since(pair[0]));
    Ok(Effect {
        accepted: times.len(),
        pause: pauses.max().unwrap_or_default(),
        filed,
        relayed,
        again,
        all,
    })
}

/// What arrives while a fault lasts.
async fn watch(site: &mut Site, lasting: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < lasting {
        site.look()?;
        sleep(INTERVAL).await;
    }
    site.look()
}
