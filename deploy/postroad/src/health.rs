//! `postroad health`: asks each agent how it stands.

use std::path::Path;

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
                    Ok(health) => json!({ "ready": health.ready, "checks": health.checks }),
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
    }
    if ready { Ok(()) } else { Err(Fault::Told) }
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
