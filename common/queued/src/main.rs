//! `postroad-queued`, the queue agent as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    postroad_daemon::run_main("queued", env!("CARGO_PKG_VERSION"), postroad_queued::run)
}
