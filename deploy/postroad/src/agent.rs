//! `postroad agent …`: who takes mail from the queue.

use std::path::Path;

use comfy_table::Cell;
use postroad_queue_client::{AgentDetails, QueueAdmin, QueueError};
use serde_json::{Value, json};

use crate::cli::AgentVerb;
use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::{Terminal, lines, local_time, number, one_line, table, utc_time};
use crate::{queue, runtime};

/// Carries out the verb.
pub fn carry_out(
    verb: AgentVerb,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    let endpoint = queue::endpoint(&home)?;
    let carried_out = runtime()?.block_on(async {
        let admin = queue::connect(&home, &endpoint)?;
        match verb {
            AgentVerb::List => list(&admin, terminal).await,
            AgentVerb::Drain { name } => drain(&admin, &name, terminal).await,
        }
    });
    carried_out.map_err(|fault| fault.at(&endpoint))
}

async fn list(admin: &dyn QueueAdmin, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let agents = admin.agents().await?;
    if terminal.wants_json() {
        let agents: Vec<Value> = agents.iter().map(agent_json).collect();
        terminal.object(json!({ "agents": agents }));
        return Ok(());
    }
    if agents.is_empty() {
        terminal.say("no agent takes mail from the queue");
        return Ok(());
    }
    let mut rows = table([
        "NAME",
        "ROUTES",
        "HOST",
        "VERSION",
        "LEASES",
        "SETTLED",
        "LAST MINUTE",
        "CONNECTED",
        "STATE",
    ]);
    for agent in &agents {
        rows.add_row([
            Cell::new(one_line(&agent.name, 50)),
            Cell::new(classes(agent).join(",")),
            Cell::new(one_line(&agent.host, 40)),
            Cell::new(one_line(&agent.version, 20)),
            number(agent.leases),
            number(agent.settled),
            number(agent.settled_last_minute),
            Cell::new(local_time(agent.connected_at)),
            Cell::new(state(agent)),
        ]);
    }
    terminal.line(lines(&rows));
    Ok(())
}

async fn drain(
    admin: &dyn QueueAdmin,
    name: &str,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let workers = match admin.drain_agent(name, "").await {
        Err(QueueError::NotFound) => {
            return Err(Fault::NoMatch(format!("no agent {name} is connected")));
        }
        answer => answer?,
    };
    if terminal.wants_json() {
        terminal.object(json!({ "name": name, "workers": workers }));
    } else {
        terminal.line(format_args!(
            "{name} gets no more mail until it connects again"
        ));
    }
    Ok(())
}

fn classes(agent: &AgentDetails) -> Vec<&'static str> {
    agent.classes.iter().map(|class| class.as_str()).collect()
}

const fn state(agent: &AgentDetails) -> &'static str {
    match (agent.draining, agent.leases) {
        (false, _) => "working",
        (true, 0) => "drained",
        (true, _) => "draining",
    }
}

fn agent_json(agent: &AgentDetails) -> Value {
    json!({
        "name": agent.name,
        "routes": classes(agent),
        "host": agent.host,
        "version": agent.version,
        "leases": agent.leases,
        "settled": agent.settled,
        "settled_last_minute": agent.settled_last_minute,
        "connected_at": utc_time(agent.connected_at),
        "state": state(agent),
    })
}
