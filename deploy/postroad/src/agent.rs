//! `postroad agent …`: who takes mail from the queue.

use std::path::Path;

use comfy_table::Cell;
use postroad_queue_client::{AgentDetails, QueueAdmin as _, QueueError, RemoteAdmin};
use serde_json::{Value, json};

use crate::cli::AgentVerb;
use crate::fault::Fault;
use crate::home::Home;
use crate::queue::Admin;
use crate::runtime;
use crate::terminal::{Terminal, lines, local_time, number, one_line, table, utc_time};

/// Carries out the verb.
pub fn carry_out(
    verb: AgentVerb,
    node: Option<&str>,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    runtime()?.block_on(async {
        let admin = Admin::open(&home, node)?;
        let carried_out = match verb {
            AgentVerb::List => list(&admin, terminal).await,
            AgentVerb::Drain { name } => drain(&admin, &name, terminal).await,
        };
        admin.end(carried_out, terminal)
    })
}

async fn list(admin: &Admin, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let told = admin.of_each(RemoteAdmin::agents).await?;
    let agents = told.iter().flat_map(|(node, agents)| {
        let node = admin.is_several().then_some(*node);
        agents.iter().map(move |agent| (node, agent))
    });
    let agents: Vec<(Option<&str>, &AgentDetails)> = agents.collect();
    if terminal.wants_json() {
        let agents = agents.iter().map(|(node, agent)| agent_json(*node, agent));
        let agents: Vec<Value> = agents.collect();
        terminal.object(json!({ "agents": agents }));
        return Ok(());
    }
    if agents.is_empty() {
        terminal.say("no agent takes mail from the queue");
        return Ok(());
    }
    let mut heads = vec![
        "NAME",
        "ROUTES",
        "STORE",
        "HOST",
        "VERSION",
        "LEASES",
        "SETTLED",
        "LAST MINUTE",
        "CONNECTED",
        "STATE",
    ];
    heads.extend(admin.is_several().then_some("NODE"));
    let mut rows = table(heads);
    for (node, agent) in agents {
        let mut cells = vec![
            Cell::new(one_line(&agent.name, 50)),
            Cell::new(classes(agent).join(",")),
            Cell::new(one_line(&stores(agent).join(","), 40)),
            Cell::new(one_line(&agent.host, 40)),
            Cell::new(one_line(&agent.version, 20)),
            number(agent.leases),
            number(agent.settled),
            number(agent.settled_last_minute),
            Cell::new(local_time(agent.connected_at)),
            Cell::new(state(agent)),
        ];
        cells.extend(node.map(Cell::new));
        rows.add_row(cells);
    }
    terminal.line(lines(&rows));
    Ok(())
}

async fn drain(admin: &Admin, name: &str, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
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

/// Of local mail; none of other mail.
fn stores(agent: &AgentDetails) -> Vec<&str> {
    agent.stores.iter().map(|store| store.as_str()).collect()
}

const fn state(agent: &AgentDetails) -> &'static str {
    match (agent.draining, agent.leases) {
        (false, _) => "working",
        (true, 0) => "drained",
        (true, _) => "draining",
    }
}

fn agent_json(node: Option<&str>, agent: &AgentDetails) -> Value {
    let mut object = json!({
        "name": agent.name,
        "routes": classes(agent),
        "stores": stores(agent),
        "host": agent.host,
        "version": agent.version,
        "leases": agent.leases,
        "settled": agent.settled,
        "settled_last_minute": agent.settled_last_minute,
        "connected_at": utc_time(agent.connected_at),
        "state": state(agent),
    });
    if let Some(node) = node {
        object["node"] = node.into();
    }
    object
}
