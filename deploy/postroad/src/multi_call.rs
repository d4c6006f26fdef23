//! One program under several names: called by the name of an agent it is that agent, as sendmail it takes mail from programs. The image has room for one program only.

use std::ffi::{OsStr, OsString};
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

/// The command line that one of the names of sendmail stands for, so that `/usr/sbin/sendmail` can be a link to this program.
pub fn sendmail(called: impl IntoIterator<Item = OsString>) -> Option<Vec<OsString>> {
    let mut called = called.into_iter();
    let program = called.next()?;
    let flag = match Path::new(&program).file_name()?.to_str()? {
        "sendmail" => None,
        "mailq" => Some("-bp"),
        "newaliases" => Some("-bi"),
        _ => return None,
    };
    let words = ["postroad", "sendmail"].into_iter().chain(flag);
    Some(words.map(Into::into).chain(called).collect())
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

    #[test]
    fn sendmail_and_its_kin_are_a_verb() {
        let words = |line: &str| sendmail(line.split(' ').map(Into::into));
        let wanted = |line: &str| line.split(' ').map(Into::into).collect::<Vec<OsString>>();
        assert_eq!(
            words("/usr/sbin/sendmail -t -i"),
            Some(wanted("postroad sendmail -t -i"))
        );
        assert_eq!(words("mailq"), Some(wanted("postroad sendmail -bp")));
        assert_eq!(
            words("/usr/bin/newaliases"),
            Some(wanted("postroad sendmail -bi"))
        );
        assert_eq!(words("/usr/bin/postroad sendmail"), None);
    }
}
