//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

use crate::registry::Number;
use crate::{METRICS, Metric, Metrics};

/// Of what [`page`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that these agents count, as Prometheus reads it.
pub fn page(agents: &[&Metrics]) -> String {
    let mut page = String::new();
    for metric in METRICS {
        let mut begun = false;
        for agent in agents {
            let families = agent.families();
            for (labels, number) in families.get(metric.name).into_iter().flatten() {
                // Writing to a String cannot fail.
                if !std::mem::replace(&mut begun, true) {
                    let kind = metric.kind.text();
                    let _ = writeln!(page, "# HELP {} {}", metric.name, metric.meaning);
                    let _ = writeln!(page, "# TYPE {} {kind}", metric.name);
                }
                write_number(
                    &mut page,
                    metric,
                    &of(metric, agent.agent(), labels),
                    number,
                );
            }
        }
    }
    page
}

/// `agent="mta",listener="smtp"`.
fn of(metric: &Metric, agent: &str, labels: &[String]) -> String {
    let mut text = format!("agent=\"{agent}\"");
    for (label, value) in metric.labels.iter().zip(labels) {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = write!(text, ",{}=\"{value}\"", label.name);
    }
    text
}

fn write_number(page: &mut String, metric: &Metric, labels: &str, number: &Number) {
    let name = metric.name;
    let _ = match number {
        Number::Counter(counter) => writeln!(page, "{name}{{{labels}}} {}", counter.value()),
        Number::Gauge(gauge) => writeln!(page, "{name}{{{labels}}} {}", gauge.value()),
        Number::Read(read) => match read() {
            Some(value) => writeln!(page, "{name}{{{labels}}} {value}"),
            None => Ok(()),
        },
        Number::Histogram(histogram) => {
            let (up_to, sum, all) = histogram.read();
            for (bound, count) in up_to {
                let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(page, "{name}_bucket{{{labels},le=\"+Inf\"}} {all}");
            let _ = writeln!(page, "{name}_sum{{{labels}}} {sum}");
            writeln!(page, "{name}_count{{{labels}}} {all}")
        }
    };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::labels::{Outcome, Route, Rule, Tls};
    use crate::list::{
        ACCEPT_TIME, ATTEMPTS, CONNECTIONS, CONNECTIONS_OPEN, CONNECTIONS_REFUSED, CPU, MAIL_SIZE,
        QUEUE_OLDEST_DUE,
    };

    #[test]
    fn every_kind_of_number_is_told_as_the_format_wants_it() {
        let metrics = Metrics::new("mta");
        let open = metrics.gauge(&CONNECTIONS_OPEN, &["smtp"]);
        let refused = metrics.counters::<Rule>(&CONNECTIONS_REFUSED, &["a \"b\"\\\n"]);
        refused.add(Rule::MaxConnectionsPerIp, 3);
        let (one, two) = (open.hold(), open.hold());
        drop(one);
        metrics.read(&CPU, &[], || Some(1.25));
        metrics.read(&QUEUE_OLDEST_DUE, &[], || None);
        let expected = "\
# HELP process_cpu_seconds_total Processor time of the process, its own and the system's for it, in seconds.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total{agent=\"mta\"} 1.25
# HELP postroad_connections_open Connections that are open now.
# TYPE postroad_connections_open gauge
postroad_connections_open{agent=\"mta\",listener=\"smtp\"} 1
# HELP postroad_connections_refused_total Connections turned away, since there were too many.
# TYPE postroad_connections_refused_total counter
postroad_connections_refused_total{agent=\"mta\",listener=\"a \\\"b\\\"\\\\\\n\",rule=\"max_connections\"} 0
postroad_connections_refused_total{agent=\"mta\",listener=\"a \\\"b\\\"\\\\\\n\",rule=\"max_connections_per_ip\"} 3
# HELP postroad_queue_oldest_due_seconds For how long the job that waits longest for a worker is due, in seconds; 0 if none waits. With many jobs it is some seconds late.
# TYPE postroad_queue_oldest_due_seconds gauge
";
        assert_eq!(page(&[&metrics]), expected);
        drop(two);
        assert_eq!(open.value(), 0);
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let metrics = Metrics::new("msa");
        let time = metrics.histogram(&ACCEPT_TIME, &["submission"]);
        for millis in [1, 2, 3, 45_000] {
            time.took(Duration::from_millis(millis));
        }
        metrics.histogram(&MAIL_SIZE, &["submission"]).observe(1024);
        let page = page(&[&metrics]);
        for line in [
            "postroad_accept_seconds_bucket{agent=\"msa\",listener=\"submission\",le=\"0.0005\"} 0\n",
            "postroad_accept_seconds_bucket{agent=\"msa\",listener=\"submission\",le=\"0.001\"} 1\n",
            "postroad_accept_seconds_bucket{agent=\"msa\",listener=\"submission\",le=\"0.005\"} 3\n",
            "postroad_accept_seconds_bucket{agent=\"msa\",listener=\"submission\",le=\"30\"} 3\n",
            "postroad_accept_seconds_bucket{agent=\"msa\",listener=\"submission\",le=\"+Inf\"} 4\n",
            "postroad_accept_seconds_sum{agent=\"msa\",listener=\"submission\"} 45.006\n",
            "postroad_accept_seconds_count{agent=\"msa\",listener=\"submission\"} 4\n",
            "postroad_mail_size_bytes_bucket{agent=\"msa\",listener=\"submission\",le=\"1024\"} 1\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }

    #[test]
    fn a_table_has_a_series_for_each_value_that_can_be() {
        let metrics = Metrics::new("mta");
        let table = metrics.counters_of::<(Route, Outcome, Tls)>(&ATTEMPTS, &[], |(route, ..)| {
            route == Route::Lmtp
        });
        table.count((Route::Lmtp, Outcome::Failed, Tls::Tls13));
        table.count((Route::Local, Outcome::Failed, Tls::Tls13));
        let page = page(&[&metrics]);
        let series = page.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(series.clone().count(), 15);
        let counted: Vec<_> = series.filter(|line| !line.ends_with(" 0")).collect();
        let one = "postroad_attempts_total{agent=\"mta\",route=\"lmtp\",outcome=\"failed\",tls=\"TLS1.3\"} 1";
        assert_eq!(counted, [one]);
    }

    #[test]
    fn agents_of_one_process_share_the_head_of_a_metric() {
        let (msa, mta) = (Metrics::new("msa"), Metrics::new("mta"));
        let first = msa.counter(&CONNECTIONS, &["submission"]);
        mta.counter(&CONNECTIONS, &["smtp"]).count();
        // A part that starts anew counts on.
        first.count();
        msa.counter(&CONNECTIONS, &["submission"]).count();
        let page = page(&[&msa, &mta]);
        assert_eq!(page.matches("# TYPE").count(), 1);
        assert!(
            page.contains("{agent=\"msa\",listener=\"submission\"} 2\n"),
            "{page}"
        );
        assert!(
            page.contains("{agent=\"mta\",listener=\"smtp\"} 1\n"),
            "{page}"
        );
    }

    #[test]
    #[should_panic(expected = "rule=\"example.org\"")]
    fn a_value_that_is_not_in_the_closed_set_is_a_fault_of_ours() {
        Metrics::new("mta").counter(&CONNECTIONS_REFUSED, &["smtp", "example.org"]);
    }
}
