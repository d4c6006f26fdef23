//! `postroad health`: asks each agent how it stands.

use std::path::Path;
use std::time::Duration;

use comfy_table::Cell;
use postroad_daemon::{Health, health_socket, query_health};
use serde_json::json;

use crate::cli::HealthArguments;
use crate::fault::Fault;
use crate::home::Home;
use crate::runtime;
use crate::terminal::{Terminal, lines, one_line, table};

/// The agents of a whole Postroad.
pub const AGENTS: [&str; 4] = ["queued", "msa", "mta", "mda"];

/// Carries out the verb.
pub fn carry_out(
    arguments: &HealthArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    let agents = match arguments.agents.as_slice() {
        [] => AGENTS.map(str::to_owned).to_vec(),
        named => named.to_vec(),
    };
    let answers = runtime()?.block_on(async {
        let asked = agents.iter().map(async |agent| {
            let socket = health_socket(&home.common.run_dir, agent);
            let answer = query_health(&socket).await;
            (
                agent.clone(),
                answer.map_err(|error| format!("does not answer at {}: {error}", socket.display())),
            )
        });
        futures::future::join_all(asked).await
    });
    let ready = answers
        .iter()
        .all(|(_, answer)| answer.as_ref().is_ok_and(|health| health.ready));
    if terminal.wants_json() {
        let agents: serde_json::Map<_, _> = answers
            .iter()
            .map(|(agent, answer)| {
                let value = match answer {
                    Ok(health) => json!({
                        "ready": health.ready,
                        "checks": health.checks,
                        "certificates": health.certificates,
                    }),
                    Err(reason) => json!({ "ready": false, "reason": reason }),
                };
                (agent.clone(), value)
            })
            .collect();
        terminal.object(json!({ "ready": ready, "agents": agents }));
    } else {
        let mut rows = table(["AGENT", "STATE", "WHY"]);
        for (agent, answer) in &answers {
            let (state, why) = match answer {
                Ok(health) if health.ready => ("ready", parts(health)),
                Ok(health) => ("not ready", faults(health)),
                Err(reason) => ("away", reason.clone()),
            };
            rows.add_row([
                Cell::new(agent),
                Cell::new(state),
                Cell::new(one_line(&why, 120)),
            ]);
        }
        terminal.line(lines(&rows));
        let asked = answers
            .iter()
            .filter_map(|(_, answer)| answer.as_ref().ok());
        if let Some(line) = first_to_run_out(asked, home.common.certificate_warning.into()) {
            terminal.line(line);
        }
    }
    if ready { Ok(()) } else { Err(Fault::Told) }
}

/// Of all certificates the one that runs out first; whoever comes within `warning` of it should renew it.
fn first_to_run_out<'a>(
    agents: impl Iterator<Item = &'a Health>,
    warning: Duration,
) -> Option<String> {
    let all = agents.flat_map(|health| {
        let certificates = health.certificates.iter();
        certificates.map(|(what, left)| (*left, health.agent.as_str(), what.as_str()))
    });
    let (left, agent, what) = all.min()?;
    let seconds = left.unsigned_abs();
    let time = match seconds / 86_400 {
        0 => format!("{} hours", seconds / 3_600),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    Some(match left {
        ..0 => format!("the certificate of {agent} for {what} ran out {time} ago; renew it now"),
        0.. if seconds <= warning.as_secs() => {
            format!("the certificate of {agent} for {what} runs out in {time}; renew it")
        }
        0.. => {
            format!("certificates: the first to run out is that of {agent} for {what}, in {time}")
        }
    })
}

fn parts(health: &Health) -> String {
    let told = health
        .checks
        .iter()
        .map(|(name, check)| match &check.reason {
            Some(reason) => format!("{name}: {reason}"),
            None => name.clone(),
        });
    told.collect::<Vec<_>>().join(", ")
}

fn faults(health: &Health) -> String {
    let faulty = health.checks.iter().filter(|(_, check)| !check.ready);
    let told = faulty
        .map(|(name, check)| format!("{name}: {}", check.reason.as_deref().unwrap_or("not ready")));
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str, certificates: &[(&str, i64)]) -> Health {
        let certificates = certificates.iter();
        Health {
            schema: 1,
            agent: name.to_owned(),
            ready: true,
            checks: Default::default(),
            certificates: certificates
                .map(|(what, left)| ((*what).to_owned(), *left))
                .collect(),
        }
    }

    #[test]
    fn the_certificate_that_runs_out_first_is_told_and_when_to_renew_it() {
        const DAY: i64 = 86_400;
        let told = |left| {
            let agents = [
                agent("queued", &[]),
                agent("msa", &[("agents", 90 * DAY), ("listeners", left)]),
                agent("mta", &[("listeners", 80 * DAY)]),
            ];
            let warning = Duration::from_secs(14 * 86_400);
            first_to_run_out(agents.iter(), warning).unwrap()
        };
        assert_eq!(
            told(60 * DAY),
            "certificates: the first to run out is that of msa for listeners, in 60 days"
        );
        let mta = "certificates: the first to run out is that of mta for listeners, in 80 days";
        assert_eq!(told(85 * DAY), mta);
        let soon = "the certificate of msa for listeners runs out in 1 day; renew it";
        assert_eq!(told(DAY + 5), soon);
        let soon = "the certificate of msa for listeners runs out in 5 hours; renew it";
        assert_eq!(told(5 * 3_600), soon);
        let gone = "the certificate of msa for listeners ran out 2 days ago; renew it now";
        assert_eq!(told(-2 * DAY), gone);
        assert_eq!(
            first_to_run_out([agent("mda", &[])].iter(), Duration::ZERO),
            None
        );
    }
}
