//! The answer, as it is printed and as JSON has it.

use std::collections::BTreeMap;

use postroad_envelope::StatusReport;
use serde::Serialize;

/// What would become of a mail.
#[derive(Debug, Serialize)]
pub struct Told {
    /// What is known of it when it is in the queue.
    pub mail: Mail,
    /// Each that was named, in the order of the command line.
    pub recipients: Vec<Recipient>,
    /// What could not be found out, and what to do about it.
    pub notes: Vec<String>,
}

/// A mail as it comes in.
#[derive(Debug, Serialize)]
pub struct Mail {
    pub from: String,
    /// How it comes, in words.
    pub way: String,
    pub listener: Option<String>,
    pub account: Option<String>,
    pub tenant: String,
    pub tags: Vec<String>,
    pub facts: BTreeMap<String, String>,
    /// Octets, if the mail was given.
    pub size: Option<u64>,
    pub body: String,
    pub smtputf8: bool,
    pub requiretls: bool,
    pub hops: u32,
    pub priority: i8,
    /// Until then nothing of it is tried.
    pub rests_until: Option<String>,
}

/// One that was named.
#[derive(Debug, Serialize)]
pub struct Recipient {
    pub to: String,
    /// Whether it would be taken.
    pub taken: bool,
    /// In what words; none: nobody was asked.
    pub reply: Option<String>,
    /// What to do if it should be taken.
    pub remedy: Option<String>,
    /// What the directory says, address by address.
    pub directory: Vec<Step>,
    /// Where its mail goes.
    pub leads_to: Vec<Final>,
    /// How many more there are, that are not told.
    pub more: usize,
}

/// An address on the way through the directory.
#[derive(Debug, Serialize)]
pub struct Step {
    pub depth: usize,
    pub address: String,
    pub is: &'static str,
    pub place: Option<String>,
}

/// An address that mail goes to, and how.
#[derive(Debug, Serialize)]
pub struct Final {
    pub address: String,
    pub route: Route,
    /// Why it is not tried: it is on the suppression list.
    pub suppressed: Option<Report>,
    /// The standing rule of the running queue that holds it, and why.
    pub held: Option<String>,
    /// Jobs for the destination at one time.
    pub leases: Option<Limit>,
    pub retry: Option<Retry>,
    /// How it leaves; none: it stays.
    pub sending: Option<Sending>,
}

/// A route, and what chose it.
#[derive(Debug, Serialize)]
pub struct Route {
    pub class: String,
    pub destination: String,
    pub rule: String,
    /// File and line of what chose it.
    pub place: Option<String>,
    /// The store of local mail.
    pub store: Option<String>,
    /// Where it leads, if the rule says so.
    pub next_hops: Vec<String>,
    /// The pool of addresses to send from, and where it is written.
    pub source: Option<Written>,
}

/// A number, and where it is written.
#[derive(Debug, Serialize)]
pub struct Limit {
    /// None: any number.
    pub most: Option<u32>,
    pub place: String,
}

/// A text, and where it is written.
#[derive(Debug, Serialize)]
pub struct Written {
    pub text: String,
    pub place: String,
}

/// When it is tried again.
#[derive(Debug, Serialize)]
pub struct Retry {
    /// In seconds, without jitter.
    pub intervals: Vec<u64>,
    pub jitter_percent: u32,
    /// Seconds until it is given up.
    pub life: u64,
    /// Seconds until its sender is told that it waits.
    pub tell_after: Option<u64>,
    pub place: String,
    /// First intervals after failures of some causes.
    pub by_cause: Vec<ByCause>,
}

/// See [`Retry::by_cause`].
#[derive(Debug, Serialize)]
pub struct ByCause {
    pub cause: String,
    pub first: u64,
    pub place: String,
}

/// How it leaves.
#[derive(Debug, Serialize)]
pub struct Sending {
    /// The sender that hosts are told.
    pub mail_from: String,
    /// What a host must offer.
    pub needs: Vec<&'static str>,
    /// Jobs of the destination that one agent has under way.
    pub per_destination: Limit,
    /// Why nothing is tried.
    pub nowhere: Option<Report>,
    /// In the order of an attempt.
    pub places: Vec<Place>,
}

/// One place of a route.
#[derive(Debug, Serialize)]
pub struct Place {
    /// `mail hosts of example.net`, or a host that the rule names.
    pub aim: String,
    pub dns: Vec<Asked>,
    /// Why none of its hosts is tried.
    pub problem: Option<Report>,
    pub site: Option<Site>,
    /// What was left out.
    pub notes: Vec<String>,
    pub mta_sts: Option<MtaSts>,
    pub hosts: Vec<Host>,
}

/// A question to the DNS, and its answer.
#[derive(Debug, Serialize)]
pub struct Asked {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub records: Vec<String>,
    pub problem: Option<String>,
    /// DNSSEC vouches for it.
    pub secure: bool,
    /// Seconds for which it is remembered yet.
    pub ttl: Option<u64>,
}

/// The hosts of a place as one, and what they take.
#[derive(Debug, Serialize)]
pub struct Site {
    pub name: String,
    /// Whether mail waits for it (`queued.sites.enabled`).
    pub heeded: bool,
    pub connections: Option<u32>,
    pub messages_per: Option<String>,
    pub connections_per: Option<String>,
    pub first_connections: Option<u32>,
    pub place: String,
    /// What the running queue says of it.
    pub state: Option<String>,
}

/// What is known of a domain's policy.
#[derive(Debug, Serialize)]
pub struct MtaSts {
    /// The one that counts.
    pub policy: Option<String>,
    /// Whether it was kept here, and since when.
    pub fetched_at: Option<String>,
    pub problem: Option<String>,
}

/// One address to try.
#[derive(Debug, Serialize)]
pub struct Host {
    pub name: String,
    pub host: String,
    pub address: Option<String>,
    /// DNSSEC vouches for it.
    pub secure: bool,
    pub tls: Option<Tls>,
    /// Why it is not used.
    pub problem: Option<Report>,
    /// The address to connect from; none: the system chooses.
    pub from: Option<String>,
    pub ehlo: String,
    pub login: Option<String>,
}

/// How a connection is protected.
#[derive(Debug, Serialize)]
pub struct Tls {
    pub level: &'static str,
    pub why: String,
    pub place: String,
    pub certificate: String,
    pub implicit: bool,
    pub problem: Option<String>,
}

/// Why something is not tried.
#[derive(Debug, Serialize)]
pub struct Report {
    pub status: String,
    pub text: String,
    /// It is not tried again, and its sender is told at once.
    pub for_good: bool,
}

impl From<StatusReport> for Report {
    fn from(report: StatusReport) -> Self {
        Self {
            status: report.status.to_string(),
            text: report.text,
            for_good: report.status.class() == 5,
        }
    }
}

impl Told {
    /// Whether anybody would not get it: refused as it comes, failed, or without a host that could be tried now.
    pub fn is_refused(&self) -> bool {
        self.recipients.iter().any(Recipient::is_refused)
    }
}

impl Recipient {
    fn is_refused(&self) -> bool {
        !self.taken || self.leads_to.iter().any(Final::is_refused)
    }
}

impl Final {
    fn is_refused(&self) -> bool {
        self.suppressed.is_some() || self.sending.as_ref().is_some_and(Sending::is_stuck)
    }
}

impl Sending {
    /// Whether it fails before a host was spoken to, for good.
    pub fn fails(&self) -> bool {
        let for_good =
            |report: &Option<Report>| report.as_ref().is_some_and(|report| report.for_good);
        let dead = |place: &Place| for_good(&place.problem);
        let nowhere = !self.places.is_empty() && self.places.iter().all(dead);
        for_good(&self.nowhere) || nowhere
    }

    fn is_stuck(&self) -> bool {
        let usable = |place: &Place| place.hosts.iter().any(|host| host.problem.is_none());
        self.nowhere.is_some() || !self.places.iter().any(usable)
    }
}
