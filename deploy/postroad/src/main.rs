//! The command `postroad`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    postroad::main()
}
