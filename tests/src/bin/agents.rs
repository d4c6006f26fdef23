//! All agents in one program, chosen by the name it is called by: `postroad-queued`, `postroad-msa` and so on, or
//! `postroad` for all in one process.
//!
//! Journeys start it, so that `cargo test --workspace` never runs a stale or missing binary. It ends when its standard
//! input does: a test that is killed leaves no process behind. Called `postroad-verb` it is `postroad` for one verb, whose standard
//! input is its own.
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Read as _, Write as _},
    path::Path,
    process::{self, ExitCode},
    thread,
};

use postroad_daemon::run_main;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let name = env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default();
    if name == "postroad-verb" {
        return postroad::main();
    }
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(70);
    });
    match name.to_str() {
        Some("postroad-queued") => run_main("queued", VERSION, postroad_queued::run),
        Some("postroad-msa") => run_main("msa", VERSION, postroad_msa::run),
        Some("postroad-mta") => run_main("mta", VERSION, postroad_mta::run),
        Some("postroad-mda") => run_main("mda", VERSION, postroad_mda::run),
        Some("postroad") => postroad::main(),
        _ => {
            let _ = writeln!(
                io::stderr(),
                "call it postroad-queued, postroad-msa, postroad-mta, postroad-mda or postroad"
            );
            ExitCode::from(2)
        }
    }
}
