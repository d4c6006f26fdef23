//! What is counted and what the house says is counted are the same: the list in `postroad_metrics::list`, the page made from
//! it (`UPDATE_GENERATED=1 cargo test -p postroad-tests --test metric_names` writes the page), the dashboard and the alerts.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use postroad_metrics::{METRICS, metrics_reference};

const PAGE: &str = "deploy/guide/metrics.md";
const LIST: &str = "common/metrics/src/list.rs";
/// Where the program's own sources are.
const FOLDERS: [&str; 5] = ["common", "msa", "mta", "mda", "deploy"];
/// What speaks of metrics by their names.
const READERS: [&str; 2] = [
    "deploy/docker/grafana/postroad.json",
    "deploy/docker/alerts.yml",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_page_is_fresh() {
    let page = root().join(PAGE);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&page, metrics_reference()).expect("the page can be written");
    }
    assert!(
        fs::read_to_string(&page).unwrap_or_default() == metrics_reference(),
        "{PAGE} is not what the list says; \
         run: UPDATE_GENERATED=1 cargo test -p postroad-tests --test metric_names"
    );
}

/// That nothing else is counted needs no test: only what is listed can be made.
#[test]
fn what_is_listed_is_counted() {
    let list = read(LIST);
    let constants: Vec<&str> = list.lines().filter_map(constant).collect();
    assert_eq!(constants.len(), METRICS.len(), "the scan of {LIST}");
    let mut sources = Vec::new();
    FOLDERS
        .iter()
        .for_each(|folder| gather(&root().join(folder), &mut sources));
    let own = root().join("common/metrics");
    sources.retain(|source| !source.starts_with(&own));
    let text: String = sources
        .iter()
        .map(|source| fs::read_to_string(source).expect("a source can be read"))
        .collect();
    let words = words(&text);
    let unused: Vec<_> = constants
        .iter()
        .filter(|name| !words.contains(&format!("list::{name}")))
        .collect();
    assert!(
        unused.is_empty(),
        "nobody counts {unused:?}; count it, or take it off the list"
    );
}

/// `NAME "postroad_…" …` of the macro.
fn constant(line: &str) -> Option<&str> {
    let (name, rest) = line.trim_start().split_once(' ')?;
    let listed = rest.starts_with("\"postroad_") || rest.starts_with("\"process_");
    listed.then_some(name)
}

fn words(text: &str) -> BTreeSet<String> {
    let part = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    text.split(part).map(str::to_owned).collect()
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match path.is_dir() {
            true if matches!(&*name, "tests" | "target") => {}
            true => gather(&path, found),
            false if name.ends_with(".rs") && name != "tests.rs" => found.push(path),
            false => {}
        }
    }
}

#[test]
fn dashboard_and_alerts_name_only_what_is_listed() {
    let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    for reader in READERS {
        let text = read(reader);
        let used: Vec<String> = words(&text)
            .into_iter()
            .filter(|word| is_metric(word))
            .collect();
        assert!(used.len() > 5, "the scan of {reader} finds {used:?}");
        for word in used {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|part| {
                let name = word.strip_suffix(part)?;
                let metric = METRICS.iter().find(|metric| metric.name == name)?;
                matches!(metric.kind, postroad_metrics::Kind::Histogram(_)).then_some(name)
            });
            let known = names.contains(&*word) || of_histogram.count() > 0;
            assert!(known, "{reader}: there is no {word}");
        }
    }
}

fn is_metric(word: &str) -> bool {
    let listed = |start| word.starts_with(start) && !word.contains(':');
    listed("postroad_") || (listed("process_") && word.contains("_"))
}

#[test]
fn dashboard_and_alerts_group_by_labels_that_there_are() {
    let mut labels: BTreeSet<&str> = ["agent", "le", "instance", "job"].into();
    labels.extend(
        METRICS
            .iter()
            .flat_map(|metric| metric.labels)
            .map(|label| label.name),
    );
    for reader in READERS {
        let text = read(reader);
        for group in text.split(" by (").skip(1) {
            let (group, _) = group.split_once(')').expect("an end");
            for label in group.split(", ") {
                assert!(labels.contains(label), "{reader}: no label {label}");
            }
        }
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_can_read() {
    let text = read("deploy/docker/grafana/postroad.json");
    let board: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        board["schemaVersion"].as_u64() >= Some(39),
        "{}",
        board["schemaVersion"]
    );
    assert_eq!(board["templating"]["list"][0]["type"], "datasource");
    let panels = board["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(
            ids.insert(panel["id"].as_u64()),
            "{} has the id of another",
            panel["title"]
        );
        let targets = panel["targets"].as_array().map_or(0, Vec::len);
        assert_eq!(panel["type"] == "row", targets == 0, "{}", panel["title"]);
        if targets > 0 {
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{}",
                panel["title"]
            );
        }
    }
}
