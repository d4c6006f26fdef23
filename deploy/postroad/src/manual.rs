//! Completions for shells, and manual pages: both made from what can be typed.

use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::cli::Cli;
use crate::fault::Fault;
use crate::terminal::Terminal;

/// The agents, and the programs they are.
const PROGRAMS: [(&str, &str); 4] = [
    ("queued", "postroad-queued"),
    ("msa", "postroad-msa"),
    ("mta", "postroad-mta"),
    ("mda", "postroad-mda"),
];

/// Prints the completions of `postroad` for a shell.
pub fn completions(shell: Shell, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "postroad", &mut script);
    terminal.octets(&script);
    Ok(())
}

/// Writes a page for `postroad`, each of its verbs and each agent; tells their files.
pub fn write(folder: &Path, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    // Named and numbered as `postroad-queue-list(1)`, beside `postroad-queued(1)`.
    clap_mangen::generate_to(Cli::command(), folder).map_err(Fault::not_done)?;
    for (agent, program) in PROGRAMS {
        let command: Command = postroad_daemon::command(agent, env!("CARGO_PKG_VERSION"));
        let mut page = Vec::new();
        clap_mangen::Man::new(command.name(program))
            .render(&mut page)
            .map_err(Fault::not_done)?;
        let path = folder.join(format!("{program}.1"));
        postroad_pki::write(&path, &String::from_utf8_lossy(&page), 0o644, None)?;
    }
    terminal.line(format_args!("The pages are in {}.", folder.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute;

    fn told(arguments: &[&str]) -> (u8, String) {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let all = ["postroad"].iter().chain(arguments).map(Into::into);
        let status = execute(all, &mut out, &mut talk);
        (status, String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_shell_learns_the_verbs() {
        for shell in ["bash", "zsh", "fish"] {
            let (status, script) = told(&["completions", shell]);
            assert_eq!(status, 0);
            for verb in ["reroute", "hold", "setup"] {
                assert!(script.contains(verb), "{shell}: {verb}");
            }
        }
        assert_eq!(told(&["completions", "csh"]).0, 2);
    }

    #[test]
    fn there_is_a_page_for_each_program_and_verb() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(told(&["man", path]).0, 0);
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page("postroad.1").contains("completions"));
        assert!(!page("postroad.1").contains("postroad\\-man"));
        assert!(page("postroad-queue-list.1").contains("\\-\\-destination"));
        for (_, program) in PROGRAMS {
            let page = page(&format!("{program}.1"));
            assert!(
                page.contains(".TH postroad-") && page.contains("\\-\\-check"),
                "{page}"
            );
        }
        assert_eq!(told(&["man", "/no/such/folder"]).0, 1);
    }
}
