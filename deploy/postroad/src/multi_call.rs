//! One program under five names: called by the name of an agent it is that agent. The image has room for one program only.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use postroad_daemon::run_main;

/// The main of an agent.
type Main = fn() -> ExitCode;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the process was called by; `None` for any name but an agent's.
pub fn agent(called: Option<&OsStr>) -> Option<Main> {
    let main: Main = match Path::new(called?).file_name()?.to_str()? {
        "postroad-queued" => || run_main("queued", VERSION, postroad_queued::run),
        "postroad-msa" => || run_main("msa", VERSION, postroad_msa::run),
        "postroad-mta" => || run_main("mta", VERSION, postroad_mta::run),
        "postroad-mda" => || run_main("mda", VERSION, postroad_mda::run),
        _ => return None,
    };
    Some(main)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::AGENTS;

    #[test]
    fn every_agent_answers_to_its_name_and_no_other_name_is_an_agent() {
        for name in AGENTS {
            let called = format!("/usr/bin/postroad-{name}");
            assert!(agent(Some(called.as_ref())).is_some(), "{name}");
        }
        for other in [
            "postroad",
            "/usr/bin/postroad",
            "msa",
            "postroad-msa.old",
            "",
        ] {
            assert!(agent(Some(other.as_ref())).is_none(), "{other:?}");
        }
        assert!(agent(None).is_none());
    }
}
