//! `main`, apart from the work.

use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use postroad_metrics::{Metrics, list};
use serde::de::DeserializeOwned;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::common::CommonConfig;
use crate::config::{ConfigFile, DEFAULT_CONFIG_FILE};
use crate::daemon::Daemon;
use crate::error::DaemonError;
use crate::health::{HealthState, health_socket, serve_health};
use crate::http::{AgentConfig, HttpServer, Observed};
use crate::logging::{LogControl, complaint, init_logging};
use crate::process;
use crate::reload::Reload;
use crate::runtime::{Share, runtime};
use crate::shutdown::Shutdown;

/// What an agent starts with.
pub struct Start<C> {
    /// `[common]`.
    pub common: CommonConfig,
    /// The agent's own section.
    pub config: C,
    /// The whole file, to say where a value was written.
    pub file: ConfigFile,
    /// When to stop.
    pub shutdown: Shutdown,
    /// Where the agent tells what works; once all its own checks are ready the supervisor is told.
    pub health: HealthState,
    /// Where the agent counts.
    pub metrics: Metrics,
    /// To be served with the agent's part, so that SIGHUP is heeded.
    pub reload: Reload,
}

/// The whole of an agent's `main`: arguments (`--config`, `--check`, `--version`), configuration
/// (`[common]` and the section `agent`), logs, signals, health socket, and the exit status - 0 done,
/// 2 usage, 70 our fault, 75 try again, 78 configuration.
pub fn run_main<C, S, F>(agent: &'static str, version: &'static str, serve: S) -> ExitCode
where
    C: DeserializeOwned + AgentConfig,
    S: FnOnce(Start<C>) -> F,
    F: Future<Output = Result<(), DaemonError>> + Send + 'static,
{
    let arguments = match command(agent, version).try_get_matches() {
        Ok(arguments) => arguments,
        Err(usage) => usage.exit(),
    };
    let ready = match prepare::<C>(agent, &arguments) {
        Ok(Some(ready)) => ready,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            // Logs have not begun.
            let line = complaint(format_args!("postroad-{agent}: {error}"));
            let _ = std::io::stderr().write_all(line.as_bytes());
            return ExitCode::from(&error);
        }
    };
    match run(agent, version, ready, serve) {
        Ok(()) => {
            info!(event = "stopped", status = 0);
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(event = "stopped", status = error.status(), %error);
            ExitCode::from(&error)
        }
    }
}

struct Ready<C> {
    common: CommonConfig,
    config: C,
    file: ConfigFile,
    log: LogControl,
}

/// The command line of every agent, also for its manual page.
pub fn command(agent: &'static str, version: &'static str) -> Command {
    let name = format!("postroad-{agent}");
    Command::new("postroad")
        .display_name(name.clone())
        .bin_name(name)
        .version(version)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .default_value(DEFAULT_CONFIG_FILE)
                .help("Configuration file; conf.d/*.toml beside it is read too"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Check [common] and the agent's section of the configuration, and exit"),
        )
}

/// Reads the configuration and begins the logs; `None` if checking it was all that was asked for.
fn prepare<C: DeserializeOwned>(
    agent: &str,
    arguments: &ArgMatches,
) -> Result<Option<Ready<C>>, DaemonError> {
    let path = arguments
        .get_one::<PathBuf>("config")
        .map_or(Path::new(DEFAULT_CONFIG_FILE), PathBuf::as_path);
    let file = ConfigFile::load(path)?;
    let common = file.common()?;
    let config = file.section(agent)?;
    if arguments.get_flag("check") {
        return Ok(None);
    }
    process::refuse_root(&file, &common)?;
    let log = init_logging(&common.log, agent)?;
    Ok(Some(Ready {
        common,
        config,
        file,
        log,
    }))
}

fn run<C, S, F>(
    agent: &'static str,
    version: &'static str,
    ready: Ready<C>,
    serve: S,
) -> Result<(), DaemonError>
where
    C: AgentConfig,
    S: FnOnce(Start<C>) -> F,
    F: Future<Output = Result<(), DaemonError>> + Send + 'static,
{
    info!(event = "config_loaded", path = %ready.file.path().display(), version);
    if process::is_root() {
        warn!("runs as root, as common.allow_root permits");
    }
    process::prepare_process();
    let run_dir = &ready.common.run_dir;
    if let Err(error) = process::make_run_dir(run_dir) {
        warn!(path = %run_dir.display(), %error, "cannot create the folder of sockets");
    }
    let runtime = runtime(ready.common.threads, Share::Agent).map_err(DaemonError::temporary)?;
    let metrics = counted(agent, version);
    let result = runtime.block_on(supervise(agent, metrics, ready, serve));
    // Blocking calls that hang on a dead disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// What every process counts.
pub fn counted(agent: &'static str, version: &str) -> Metrics {
    let metrics = Metrics::new(agent);
    metrics.gauge(&list::BUILD, &[version]).set(1);
    process::count_process(&metrics);
    metrics
}

async fn supervise<C, S, F>(
    agent: &'static str,
    metrics: Metrics,
    ready: Ready<C>,
    serve: S,
) -> Result<(), DaemonError>
where
    C: AgentConfig,
    S: FnOnce(Start<C>) -> F,
    F: Future<Output = Result<(), DaemonError>> + Send + 'static,
{
    let mut daemon = Daemon::new(ready.common.shutdown_grace.into());
    let reload = Reload::new(ready.file.clone(), ready.log)?;
    let health = HealthState::new();
    if let Some(address) = ready.config.http().listen.0 {
        // Before the work begins: what cannot be watched as it was configured does not start.
        let server = HttpServer::bind(address).await?;
        let observed = Observed {
            health: health.clone(),
            metrics: metrics.clone(),
        };
        daemon.spawn_support("http", async move |stop| {
            server.serve(vec![observed], None, stop).await;
            Ok(())
        });
    }
    let socket = health_socket(&ready.common.run_dir, agent);
    let observed = Observed {
        health: health.clone(),
        metrics: metrics.clone(),
    };
    daemon.spawn_support("health", async move |stop| {
        let served = serve_health(&socket, observed, stop.clone()).await;
        if let Err(error) = served {
            // Without it nobody can ask, but the mail goes on.
            warn!(path = %socket.display(), %error, "cannot serve the health socket");
            stop.requested().await;
        }
        Ok(())
    });
    let (state, stopping) = (health.clone(), daemon.shutdown());
    daemon.spawn_support("readiness", async move |_| {
        tokio::select! {
            () = state.started() => {
                info!(event = "ready");
                tell("READY=1");
                stopping.requested().await;
            }
            () = stopping.requested() => {}
        }
        tell("STOPPING=1");
        Ok(())
    });
    if let Some(every) = process::watchdog_interval() {
        daemon.spawn_support("watchdog", async move |stop| {
            // On the threads that do the work: where those are stuck, nothing is told, and the supervisor acts.
            let mut turns = tokio::time::interval(every);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = turns.tick() => tell("WATCHDOG=1"),
                    () = stop.requested() => return Ok(()),
                }
            }
        });
    }
    daemon.spawn("serve", |shutdown| {
        serve(Start {
            common: ready.common,
            config: ready.config,
            file: ready.file,
            shutdown,
            health,
            metrics,
            reload,
        })
    });
    daemon.run().await
}

fn tell(state: &str) {
    if let Err(error) = process::notify_supervisor(state) {
        warn!(%error, "cannot tell the supervisor {state}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_every_agent() {
        command("msa", "1.2.3").debug_assert();
        let parse = |args: &[&str]| command("msa", "1.2.3").try_get_matches_from(args);
        let given = parse(&["postroad-msa", "--config", "/x", "--check"]).unwrap();
        assert_eq!(given.get_one::<PathBuf>("config").unwrap(), Path::new("/x"));
        assert!(given.get_flag("check"));
        assert_eq!(
            parse(&["postroad-msa", "--conf"]).unwrap_err().exit_code(),
            2
        );
        let version = parse(&["postroad-msa", "--version"]).unwrap_err();
        assert_eq!(
            (version.to_string(), version.exit_code()),
            ("postroad-msa 1.2.3\n".into(), 0)
        );
    }
}
