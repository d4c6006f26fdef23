use std::fmt::Write as _;

use crate::{Kind, Label, METRICS, Unit};

/// The list as a page of reference.
pub fn metrics_reference() -> String {
    let mut page = String::from(
        "# Metrics reference\n\n\
         Each process tells its metrics in the text format of Prometheus at `/metrics` of the address that `http.listen` in its\n\
         section names: `[queued.http]`, `[msa.http]`, `[mta.http]`, `[mda.http]`. The same address answers `/healthz` (200 while\n\
         the process lives) and `/readyz` (200, or 503 while a check is not ready; a line for each check).\n\n\
         Every series has the label `agent`: `queued`, `msa`, `mta`, `mda`; where all run in one process, what is of the process has\n\
         `postroad`. Names, labels and values are only added. No label has a domain, an address or an account, so their number does not\n\
         depend on what comes from outside.\n\n\
         A dashboard for Grafana, alert rules and the configuration of a Prometheus are in [deploy/docker](../docker).\n\n\
         ## Metrics\n\n\
         | metric | kind | labels | agents | meaning |\n|---|---|---|---|---|\n",
    );
    // Writing to a String cannot fail.
    for metric in METRICS {
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{}`", label.name))
            .collect();
        let agents = match metric.agents.len() {
            4 => "all".to_owned(),
            _ => metric.agents.join(", "),
        };
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {agents} | {} |",
            metric.name,
            metric.kind.text(),
            labels.join(", "),
            metric.meaning
        );
    }
    page.push_str("\n## Labels\n\n| label | of | meaning |\n|---|---|---|\n");
    for (label, metrics) in labels() {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} |",
            label.name,
            metrics.join(", "),
            told(label)
        );
    }
    page.push_str("\n## Bounds of histograms\n\n| metric | bounds |\n|---|---|\n");
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            let bounds = buckets.bounds.iter().map(|&bound| match buckets.unit {
                Unit::Seconds => format!("{}", bound as f64 / 1e6),
                Unit::Bytes | Unit::Ones => bound.to_string(),
            });
            let bounds = bounds.collect::<Vec<_>>().join(", ");
            let _ = writeln!(page, "| `{}` | {bounds} |", metric.name);
        }
    }
    page
}

/// Each label once, with the metrics it is of.
fn labels() -> Vec<(&'static Label, Vec<String>)> {
    let mut all: Vec<(&'static Label, Vec<String>)> = Vec::new();
    for metric in METRICS {
        for label in metric.labels {
            let name = format!("`{}`", metric.name);
            match all
                .iter_mut()
                .find(|(known, _)| std::ptr::eq(*known, *label))
            {
                Some((_, metrics)) => metrics.push(name),
                None => all.push((label, vec![name])),
            }
        }
    }
    all
}

fn told(label: &Label) -> String {
    let mut text = label.meaning.to_owned();
    for (word, meaning) in label.words.into_iter().flatten() {
        let _ = write!(text, "<br>`{word}`: {meaning}");
    }
    text
}
