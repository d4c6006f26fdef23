//! `postroad run --demo`: a folder with a configuration, then what `postroad run` does, then a first mail.

mod certificate;
mod folder;
mod story;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postroad_daemon::{Daemon, LogControl, Share, init_logging, runtime};

use crate::all_in_one::Whole;
use crate::cli::RunArguments;
use crate::fault::Fault;
use crate::home::{DemoCard, DemoPorts, demo_folder, remember_demo};
use crate::run::prepare;
use crate::terminal::Terminal;
use folder::Plan;

/// Carries out the verb.
pub fn carry_out(arguments: &RunArguments, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    prepare(terminal);
    let folder = match &arguments.data {
        Some(folder) => std::path::absolute(folder).map_err(Fault::not_done)?,
        None => demo_folder().map_err(Fault::not_done)?,
    };
    refuse_second(&folder)?;
    let ports = ports(arguments.port_base);
    let ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    refuse_busy(ports, ipv6, arguments.port_base)?;
    let plan = Plan {
        folder,
        ports,
        ipv6,
        relay: arguments.relay,
    };
    let card = folder::write(&plan)?;
    if let Err(error) = remember_demo(&plan.folder) {
        terminal.say(format_args!(
            "postroad: the other verbs will need --config {}: {error}",
            card.config.display()
        ));
    }
    let whole = Whole::load(&card.config)?;
    let log = init_logging(&whole.common.log, "postroad")?;
    let runtime = runtime(whole.common.threads, Share::Whole).map_err(Fault::not_done)?;
    let ended = runtime.block_on(run((whole, log), &plan, &card, arguments, terminal));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn run(
    (whole, log): (Whole, LogControl),
    plan: &Plan,
    card: &DemoCard,
    arguments: &RunArguments,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let mut daemon = Daemon::new(whole.common.shutdown_grace.into());
    let slot = whole.start(&mut daemon, log).await?;
    let shutdown = daemon.shutdown();
    let telling = async {
        let told = tokio::select! {
            told = story::tell(plan, card, &slot, arguments.exit_after_first_mail, terminal) => told,
            () = shutdown.requested() => Ok(()),
        };
        shutdown.request();
        told
    };
    let (ended, told) = tokio::join!(daemon.run(), telling);
    told?;
    Ok(ended?)
}

fn ports(base: u16) -> DemoPorts {
    DemoPorts {
        smtp: base + 25,
        submission: base + 587,
        submissions: base + 465,
        lmtp: base + 24,
    }
}

/// Two processes on one folder would both fail later, and less clearly.
fn refuse_second(folder: &Path) -> Result<(), Fault> {
    let Ok(card) = DemoCard::read(folder) else {
        return Ok(());
    };
    let runs = card
        .queue
        .strip_prefix("unix:")
        .is_some_and(|path| UnixStream::connect(path).is_ok());
    match runs {
        false => Ok(()),
        true => Err(Fault::NotDone(format!(
            "the demo in {} runs already; use it from here (`postroad send`, `postroad mailbox list bob`), or start \
             another with --data DIR and --port-base N",
            folder.display()
        ))),
    }
}

fn refuse_busy(ports: DemoPorts, ipv6: bool, base: u16) -> Result<(), Fault> {
    for port in [ports.lmtp, ports.smtp, ports.submissions, ports.submission] {
        for address in listeners(port, ipv6) {
            if let Err(error) = TcpListener::bind(address) {
                return Err(Fault::NotDone(busy(address, &error, base)));
            }
        }
    }
    Ok(())
}

fn busy(address: SocketAddr, error: &io::Error, base: u16) -> String {
    let port = address.port();
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {port} is in use by another program"),
        io::ErrorKind::PermissionDenied => format!("port {port} is not for this user"),
        _ => format!("port {port} cannot be had on {}: {error}", address.ip()),
    };
    let other = if base < 20_000 { base + 10_000 } else { 2000 };
    format!("{why}; choose other ports with --port-base, for example --port-base {other}")
}

/// Loopback and nothing else.
fn listeners(port: u16, ipv6: bool) -> Vec<SocketAddr> {
    let mut addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    if ipv6 {
        addresses.push(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    }
    addresses
}

/// How this command is typed in another shell.
fn command() -> String {
    let Ok(own) = std::env::current_exe() else {
        return "postroad".to_owned();
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("postroad"))
        .find(|file| file.is_file());
    if found.and_then(|file| file.canonicalize().ok()) == own.canonicalize().ok() {
        return "postroad".to_owned();
    }
    let here = std::env::current_dir()
        .ok()
        .and_then(|here| own.strip_prefix(here).map(PathBuf::from).ok());
    folder::shell(&here.unwrap_or(own).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_named_with_the_way_out() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let ports = DemoPorts {
            smtp: port,
            submission: port,
            submissions: port,
            lmtp: port,
        };
        assert_eq!(
            refuse_busy(ports, false, 2000).unwrap_err().to_string(),
            format!(
                "port {port} is in use by another program; choose other ports with --port-base, for example \
                 --port-base 12000"
            )
        );
    }
}
