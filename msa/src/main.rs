//! `postroad-msa`, the mail submission agent as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    postroad_daemon::run_main("msa", env!("CARGO_PKG_VERSION"), postroad_msa::run)
}
