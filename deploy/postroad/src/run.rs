//! `postroad run`: everything in one process.

use std::path::Path;

use postroad_daemon::{Daemon, Share, init_logging, prepare_process, runtime};
use tracing::info;

use crate::all_in_one::Whole;
use crate::cli::RunArguments;
use crate::demo;
use crate::fault::Fault;
use crate::home::choose;
use crate::terminal::Terminal;

/// Carries out the verb.
pub fn carry_out(
    arguments: &RunArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    if arguments.demo {
        if config.is_some() {
            return Err(Fault::Usage(
                "--demo writes a configuration of its own; leave out --config".to_owned(),
            ));
        }
        return demo::carry_out(arguments, terminal);
    }
    let (path, _) = choose(config, None);
    let whole = Whole::load(&path)?;
    let log = init_logging(&whole.common.log, "postroad")?;
    prepare(terminal);
    terminal.say("postroad: all agents run in this one process, for trying and testing; in earnest each has a process of its own");
    info!(event = "config_loaded", path = %path.display(), version = env!("CARGO_PKG_VERSION"));
    let runtime = runtime(whole.common.threads, Share::Whole).map_err(Fault::not_done)?;
    let ended = runtime.block_on(async {
        let mut daemon = Daemon::new(whole.common.shutdown_grace.into());
        whole.start(&mut daemon, log).await?;
        info!(event = "ready");
        daemon.run().await
    });
    // Blocking calls that hang on a dead disk must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(ended?)
}

/// What a process asks of its system before it starts work.
pub fn prepare(terminal: &mut Terminal<'_>) {
    if rustix::process::getuid().is_root() {
        terminal.say("postroad: running as root; for trying this is all right, agents in earnest need no root");
    }
    prepare_process();
}
