//! `postroad rehearse peer SCRIPT`: a mail host that does as a script says, to send mail to.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use postroad_daemon::Interval;
use postroad_rehearsal::{Event, EventKind, Keep, Options, Peer, Place, Script};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::fault::Fault;
use crate::runtime;
use crate::terminal::{Terminal, one_line};

/// Characters of an event on a terminal.
const WIDTH: usize = 300;
/// "Until interrupted", for a timer.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the script may say, for `--help`.
pub const LANGUAGE: &str = "\
The script is a text of settings and rules; the first rule that fits is followed, and without one the host does well:

    name: mx.peer.test
    offers: PIPELINING, 8BITMIME, SIZE 10485760
    connections: 5 else 421 4.7.0 too many connections
    mails per 1m: 100 else 451 4.7.1 slow down

    on RCPT to full@*: 452 4.2.2 mailbox full
    on end mail 1:
        keep
        wait 2s
        reset

Settings: name, names, speaks (smtp, lmtp), tls (starttls, at once, none), certificate (good, expired, for another name,
of an unknown authority, files CERT KEY), offers, offers under tls, login, size, door (open, shut, deaf), seed; limits:
connections, connections per TIME, mails per TIME, mails per connection, recipients per mail, greylist.
Stages: connect, handshake, greeting, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, content, BDAT, end, RSET, NOOP, QUIT, other.
Conditions: to ADDRESS, from ADDRESS, connection N, mail N..M, time N..M, chance N%, with tls, without login; of content
after SIZE.
Actions: a reply, ok, wait TIME, silence, deaf, drip TIME REPLY, half REPLY, garbage N, octets TEXT, keep, close, reset;
of the handshake plain and certificate.
All of it, with examples: rehearse.md of the guides.";

/// `postroad rehearse peer`.
#[derive(Debug, Args)]
pub struct PeerArguments {
    /// What it does; "-" reads standard input
    #[arg(value_name = "SCRIPT")]
    script: PathBuf,
    /// Where it listens: an address of loopback, whose port 0 is any free one, or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = place)]
    listen: Place,
    /// Keep each mail it takes there, as a file, and its envelope as another
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Where its certificates are, with the authority to be trusted in ca/ca.pem; without it they are made anew each time
    #[arg(long, value_name = "DIR")]
    certificates: Option<PathBuf>,
    /// Tell each line that is said, too
    #[arg(long)]
    talk: bool,
    /// End after so long [default: when interrupted]
    #[arg(long, value_name = "TIME", value_parser = time)]
    end_after: Option<Duration>,
    /// End once so many mails are taken
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    end_after_mails: Option<u64>,
    /// Only see whether the script can be followed
    #[arg(long)]
    check: bool,
}

fn place(text: &str) -> Result<Place, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Place::Unix(path.into()));
    }
    let address: Result<SocketAddr, _> = text.parse();
    let address = address.map_err(|_| "write such as 127.0.0.1:2525, [::1]:0 or unix:/run/x.sock");
    Ok(Place::Tcp(address?))
}

fn time(text: &str) -> Result<Duration, String> {
    let interval: Result<Interval, _> = text.parse();
    Ok(interval.map_err(|error| error.to_string())?.as_duration())
}

/// Carries out the verb.
pub fn carry_out(arguments: &PeerArguments, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let script = read(&arguments.script)?;
    if arguments.check {
        match terminal.wants_json() {
            true => terminal.object(json!({ "rules": script.rules.len() })),
            false => terminal.line(format_args!(
                "the script can be followed: {} rules",
                script.rules.len()
            )),
        }
        return Ok(());
    }
    runtime()?.block_on(run(arguments, script, terminal))
}

fn read(path: &Path) -> Result<Script, Fault> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        false => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|error| Fault::not_done(format_args!("{}: {error}", path.display())))?;
    Script::parse(&text).map_err(|bad| {
        let name = path.display();
        let faults = bad
            .0
            .iter()
            .map(|fault| format!("{name}:{}: {}; {}", fault.line, fault.problem, fault.remedy));
        Fault::not_done(faults.collect::<Vec<_>>().join("\n"))
    })
}

async fn run(
    arguments: &PeerArguments,
    script: Script,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let options = Options {
        keep: arguments.into.clone().map_or(Keep::Nothing, Keep::In),
        certificates: arguments.certificates.clone(),
        talk: arguments.talk,
    };
    let started = Peer::start(script, arguments.listen.clone(), options).await;
    let (peer, events) = started.map_err(Fault::not_done)?;
    let (place, authority) = (peer.place().to_string(), peer.authority_file());
    match terminal.wants_json() {
        true => terminal.object(json!({
            "event": "listening", "address": place, "authority_file": authority,
        })),
        false => terminal.line(format_args!(
            "listening on {place}; its certificates are vouched for by {}",
            authority.display()
        )),
    }
    watch(arguments, events, terminal).await?;
    let totals = peer.totals();
    peer.stop().await;
    match terminal.wants_json() {
        true => terminal.object(json!({
            "event": "ended", "connections": totals.connections, "mails": totals.mails,
            "taken": totals.taken,
        })),
        false => terminal.line(format_args!(
            "{} connections, {} mails begun, {} taken",
            totals.connections, totals.mails, totals.taken
        )),
    }
    Ok(())
}

/// Tells what happens until it is enough.
async fn watch(
    arguments: &PeerArguments,
    mut events: mpsc::Receiver<Event>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let mut terminated = signal(SignalKind::terminate()).map_err(Fault::not_done)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Fault::not_done)?;
    let end = sleep(arguments.end_after.unwrap_or(FOR_EVER));
    tokio::pin!(end);
    let (mut taken, mut last) = (0, None);
    loop {
        let event = tokio::select! {
            _ = terminated.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
            () = &mut end => return Ok(()),
            event = events.recv() => event,
        };
        let Some(event) = event else {
            return Ok(());
        };
        match terminal.wants_json() {
            true => terminal.object(event.to_json()),
            false => terminal.line(one_line(&event.to_string(), WIDTH)),
        }
        match event.kind {
            EventKind::Taken(_) => {
                taken += 1;
                if arguments.end_after_mails.is_some_and(|most| taken >= most) {
                    last = Some(event.connection);
                }
            }
            // The client of the last mail is to hear that it was taken.
            EventKind::Closed(_) if last == Some(event.connection) => return Ok(()),
            _ => {}
        }
    }
}
