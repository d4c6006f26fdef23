//! `postroad-mta`, the mail transfer agent as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    postroad_daemon::run_main("mta", env!("CARGO_PKG_VERSION"), postroad_mta::run)
}
