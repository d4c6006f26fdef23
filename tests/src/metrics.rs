//! What a process tells over HTTP, read as strictly as Prometheus does, and a little more.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::PATIENCE;

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

/// One answer to `/metrics`.
#[derive(Debug, Default)]
pub struct MetricsPage {
    /// The kind of each metric.
    pub kinds: BTreeMap<String, String>,
    /// Each series by its name and labels.
    pub series: BTreeMap<(String, Labels), f64>,
}

/// Asks by GET: the status and the body.
pub async fn http_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("no end of the head")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        anyhow::Ok((status, body.to_owned()))
    };
    timeout(PATIENCE, ask).await?
}

impl MetricsPage {
    /// Asks for it.
    pub async fn of(address: SocketAddr) -> Result<Self> {
        let (status, body) = http_get(address, "/metrics").await?;
        ensure!(status == 200, "{status}: {body}");
        Self::parse(&body)
    }

    /// Reads the text format, version 0.0.4; refuses what Prometheus would, samples without a type, and histograms that
    /// disagree with themselves.
    pub fn parse(text: &str) -> Result<Self> {
        let mut page = Self::default();
        let mut helped = BTreeSet::new();
        ensure!(text.ends_with('\n'), "the last line has no end");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, _) = help.split_once(' ').with_context(|| line.to_owned())?;
                ensure!(helped.insert(name.to_owned()), "twice: {line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').with_context(|| line.to_owned())?;
                ensure!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let before = page.kinds.insert(name.to_owned(), kind.to_owned());
                ensure!(before.is_none() && helped.contains(name), "{line}");
            } else {
                page.sample(line).with_context(|| line.to_owned())?;
            }
        }
        page.check_histograms()?;
        Ok(page)
    }

    fn sample(&mut self, line: &str) -> Result<()> {
        let (name, rest) = line.split_once('{').context("no labels")?;
        let (labels, rest) = labels(rest)?;
        let value: f64 = rest.strip_prefix(' ').context("no blank")?.parse()?;
        let family = self.family(name);
        ensure!(family.is_some(), "no TYPE before it");
        ensure!(labels.contains_key("agent"), "no agent");
        let before = self.series.insert((name.to_owned(), labels), value);
        ensure!(before.is_none(), "the series is there twice");
        Ok(())
    }

    /// The metric that a series is of, if it was told before.
    pub fn family<'a>(&self, series: &'a str) -> Option<&'a str> {
        let mut parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| {
            let name = series.strip_suffix(part)?;
            (self.kinds.get(name)? == "histogram").then_some(name)
        });
        let whole = self.kinds.get(series).filter(|kind| *kind != "histogram");
        whole.map(|_| series).or_else(|| parts.next_back())
    }

    fn check_histograms(&self) -> Result<()> {
        let mut counts: BTreeMap<(&str, Labels), Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), &value) in &self.series {
            let Some(metric) = name.strip_suffix("_bucket") else {
                continue;
            };
            let mut labels = labels.clone();
            let bound: f64 = labels
                .remove("le")
                .context("a bucket without le")?
                .parse()?;
            counts
                .entry((metric, labels))
                .or_default()
                .push((bound, value));
        }
        for ((metric, labels), mut buckets) in counts {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            ensure!(
                buckets.is_sorted_by(|a, b| a.1 <= b.1),
                "{metric}: {buckets:?}"
            );
            let all = self
                .series
                .get(&(format!("{metric}_count"), labels.clone()));
            let last = buckets.last().copied();
            ensure!(
                last == all.map(|all| (f64::INFINITY, *all)),
                "{metric}: {last:?} {all:?}"
            );
            ensure!(
                self.series.contains_key(&(format!("{metric}_sum"), labels)),
                "{metric}"
            );
        }
        Ok(())
    }

    /// The sum of all series of this name that have these labels; an error if there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let fits = |of: &Labels| {
            let mut wanted = labels.iter();
            wanted.all(|(label, value)| of.get(*label).is_some_and(|known| known == value))
        };
        let found: Vec<f64> = self
            .series
            .iter()
            .filter(|((known, of), _)| known == name && fits(of))
            .map(|(_, value)| *value)
            .collect();
        match found.as_slice() {
            [] => bail!("no series {name}{labels:?}"),
            found => Ok(found.iter().sum()),
        }
    }
}

/// Up to the closing brace, and what follows it.
fn labels(mut text: &str) -> Result<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        let (name, rest) = text.split_once("=\"").context("no value")?;
        let word = |c: char| c.is_ascii_lowercase() || c == '_';
        ensure!(
            !name.is_empty() && name.chars().all(word),
            "the label {name:?}"
        );
        let (mut value, mut end) = (String::new(), None);
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = Some(at + 1);
                    break;
                }
                '\\' => value.push(match chars.next().context("nothing is escaped")?.1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => bail!("{c:?} is escaped"),
                }),
                c => value.push(c),
            }
        }
        let rest = &rest[end.context("a value without an end")?..];
        ensure!(
            labels.insert(name.to_owned(), value).is_none(),
            "{name} twice"
        );
        match rest.strip_prefix(',') {
            Some(more) => text = more,
            None => {
                return Ok((
                    labels,
                    rest.strip_prefix('}').context("no end of the labels")?,
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_would_refuse_is_refused() {
        let head = "# HELP a_total x\n# TYPE a_total counter\n";
        let page = MetricsPage::parse(&format!("{head}a_total{{agent=\"m\",b=\"x\\\"\\n\"}} 2\n"));
        let page = page.unwrap();
        assert_eq!(page.value("a_total", &[("b", "x\"\n")]).unwrap(), 2.0);
        assert!(page.value("a_total", &[("b", "y")]).is_err());
        for bad in [
            "b_total{agent=\"m\"} 1",
            "a_total 1",
            "a_total{b=\"m\"} 1",
            "a_total{agent=\"m\"}1",
            "a_total{agent=\"m\"} x",
            "a_total{agent=\"m} 1",
            "a_total{agent=\"m\"} 1\na_total{agent=\"m\"} 1",
            "# TYPE a_total counter",
        ] {
            assert!(
                MetricsPage::parse(&format!("{head}{bad}\n")).is_err(),
                "{bad}"
            );
        }
        let head = "# HELP h x\n# TYPE h histogram\n";
        let with = |last: &str| {
            format!(
                "{head}h_bucket{{agent=\"m\",le=\"1\"}} 1\nh_bucket{{agent=\"m\",le=\"+Inf\"}} {last}\nh_sum{{agent=\"m\"}} 1\nh_count{{agent=\"m\"}} 2\n"
            )
        };
        assert!(MetricsPage::parse(&with("2")).is_ok());
        assert!(MetricsPage::parse(&with("3")).is_err());
        assert!(MetricsPage::parse(&with("0")).is_err());
    }
}
