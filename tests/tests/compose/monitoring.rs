//! The profile `monitoring`, with the Prometheus of Debian. Its Grafana is in no package of Debian; of that the expressions of the dashboard are tried.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    docker::{docker, docker_octets, looking, outcome_of, source},
    elsewhere,
    journey::Journey,
};

/// As an image for this profile must be: it begins by itself, and its user owns /prometheus.
pub const TAG: &str = "postroad-prometheus:journey";
const START: &str = "\
ENTRYPOINT [\"prometheus\", \"--config.file=/etc/prometheus/prometheus.yml\", \"--storage.tsdb.path=/prometheus\"]
RUN install -d -o nobody -g nogroup /prometheus
";
const SERVER: &str = "http://127.0.0.1:9090";
/// How many of each there are.
const TARGETS: [(&str, usize); 4] = [("queued", 1), ("msa", 2), ("mta", 2), ("mda", 1)];
/// Something that only this process counts.
const OWN: [(&str, &str); 4] = [
    ("queued", "postroad_queue_mails_total"),
    ("msa", "postroad_logins_total"),
    ("mta", "postroad_outbound_connections_total"),
    ("mda", "postroad_attempts_total{route=\"local\"}"),
];
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn make_image() -> Result<()> {
    let recipe = format!("FROM {}\n{START}", elsewhere::TAG);
    docker_octets(&["build", "--quiet", "--tag", TAG, "-"], recipe.as_bytes()).await?;
    Ok(())
}

/// Every copy of every process is found and asked, and its numbers come.
pub async fn prometheus_asks_every_process(on: &Journey) -> Result<()> {
    let up = ["--profile", "monitoring", "up", "-d", "--no-build"];
    on.copies
        .run(&[&up[..], &["--no-deps", "prometheus"]].concat())
        .await?;
    looking("all targets up", async || {
        let found = query(on, "count by (job) (up == 1)").await.ok()?;
        let wanted = TARGETS.map(|(job, count)| (job.to_owned(), count.to_string()));
        (found == BTreeMap::from(wanted)).then_some(())
    })
    .await?;
    for (job, metric) in OWN {
        let found = query(on, &format!("sum by (job) ({metric}) > 0")).await?;
        ensure!(found.contains_key(job), "no {metric} of {job}: {found:?}");
    }
    Ok(())
}

/// What the files say is understood: the configuration, each rule, each expression of the dashboard.
pub async fn rules_and_dashboard_are_understood(on: &Journey) -> Result<()> {
    let check = ["promtool", "check", "config"];
    let file = "/etc/prometheus/prometheus.yml";
    let said = on
        .copies
        .exec("prometheus", &[&check[..], &[file]].concat())
        .await?;
    ensure!(said.contains("rules found"), "{said}");

    // A rule that was never evaluated is "unknown".
    looking("all rules evaluated without an error", async || {
        let rules = rules(on).await.ok()?;
        let well = |rule: &Value| rule["health"] == "ok";
        (rules.len() > 5 && rules.iter().all(well)).then_some(())
    })
    .await?;
    let alerts = query(on, "ALERTS{alertstate=\"firing\"}").await?;
    ensure!(alerts.is_empty(), "{alerts:?}");

    let board = fs::read_to_string(source().join("deploy/docker/grafana/postroad.json"))?;
    let board: Value = serde_json::from_str(&board)?;
    let panels = board["panels"].as_array().context("no panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let expressions: Vec<String> = targets
        .flatten()
        .filter_map(|target| target["expr"].as_str())
        .map(|expression| expression.replace("$__rate_interval", "1m"))
        .collect();
    ensure!(expressions.len() > 30, "{} found", expressions.len());
    let prometheus = on.copies.container("prometheus").await?;
    // One call for all: each line is an expression, and what is refused is shown.
    let script = format!(
        "while read -r line; do promtool query instant {SERVER} \"$line\" >/dev/null || echo \"refused: $line\"; done"
    );
    let mut command = Command::new("docker");
    command.args(["exec", "-i", &prometheus, "bash", "-c", &script]);
    let lines = expressions.join("\n") + "\n";
    let outcome = outcome_of(&mut command, lines.as_bytes(), PATIENCE).await?;
    let said = [outcome.stdout, outcome.stderr].concat();
    ensure!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    println!("{} expressions of the dashboard", expressions.len());
    Ok(())
}

/// The values of a vector, by the label `job` or else all labels.
async fn query(on: &Journey, expression: &str) -> Result<BTreeMap<String, String>> {
    let ask = ["promtool", "query", "instant", "-o", "json", SERVER];
    let words = [&ask[..], &[expression]].concat();
    let told = on.copies.exec("prometheus", &words).await?;
    let told: Value = serde_json::from_str(&told)?;
    let samples = told.as_array().context("no vector")?;
    let mut values = BTreeMap::new();
    for sample in samples {
        let labels = &sample["metric"];
        let name = labels["job"].as_str().map(ToOwned::to_owned);
        let value = sample["value"][1].as_str().context("no value")?;
        let name = name.unwrap_or_else(|| labels.to_string());
        values.insert(name, value.to_owned());
    }
    Ok(values)
}

async fn rules(on: &Journey) -> Result<Vec<Value>> {
    let prometheus = on.copies.container("prometheus").await?;
    let ask = "exec 3<>/dev/tcp/127.0.0.1/9090; printf 'GET /api/v1/rules HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let told = docker(&["exec", &prometheus, "bash", "-c", ask]).await?;
    let Some((_, body)) = told.split_once("\r\n\r\n") else {
        bail!("no answer: {told}");
    };
    let body: Value = serde_json::from_str(body)?;
    let groups = body["data"]["groups"].as_array().context("no groups")?;
    let rules = groups.iter().filter_map(|group| group["rules"].as_array());
    Ok(rules.flatten().cloned().collect())
}
