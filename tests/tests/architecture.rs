//! The floors of the house (common/README.md): who may use whom. The rule is code, not a wish.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Crates that only these packages may name; everyone else goes through them.
const OWNERS: [(&str, &[&str]); 8] = [
    ("sled", &["postroad-queue"]),
    ("hickory-resolver", &["postroad-dns"]),
    ("rustls", &["postroad-net"]),
    ("tokio-rustls", &["postroad-net"]),
    ("tonic-health", &["postroad-rpc"]),
    ("tonic-reflection", &["postroad-rpc"]),
    ("argon2", &["postroad-directory"]),
    ("rcgen", &["postroad-pki", "postroad-tests"]),
];
/// What a machine without sockets, files or clock has no use for.
const BANNED_BELOW_FLOOR_2: [&str; 10] = [
    "tokio",
    "sled",
    "tonic",
    "hickory-resolver",
    "rustls",
    "tokio-rustls",
    "rand",
    "rustix",
    "tracing",
    "futures",
];
const AGENTS: [&str; 4] = [
    "postroad-msa",
    "postroad-mta",
    "postroad-mda",
    "postroad-queued",
];

struct Package {
    floor: Option<u64>,
    /// Direct dependencies of the library and binary, not those of its tests.
    uses: Vec<String>,
}

fn workspace() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().map(package).collect()
}

fn package(value: &Value) -> (String, Package) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let uses = value["dependencies"]
        .as_array()
        .expect("dependencies")
        .iter();
    let uses = uses
        .filter(|used| used["kind"].is_null())
        .map(|used| text(&used["name"]));
    let floor = value["metadata"]["postroad"]["floor"].as_u64();
    (
        text(&value["name"]),
        Package {
            floor,
            uses: uses.collect(),
        },
    )
}

#[test]
fn every_package_stands_on_a_floor() {
    for (name, package) in workspace() {
        assert!(
            package.floor.is_some_and(|floor| floor <= 5),
            "{name}: [package.metadata.postroad] floor = 0..5 is missing"
        );
    }
}

#[test]
fn nobody_uses_a_higher_floor() {
    let packages = workspace();
    for (name, package) in &packages {
        for used in &package.uses {
            let Some(below) = packages.get(used) else {
                continue;
            };
            assert!(
                below.floor <= package.floor,
                "{name} (floor {:?}) uses {used} (floor {:?})",
                package.floor,
                below.floor
            );
        }
    }
}

#[test]
fn agents_never_use_each_other() {
    for (name, package) in workspace() {
        if AGENTS.contains(&name.as_str()) {
            let other = package
                .uses
                .iter()
                .find(|used| AGENTS.contains(&used.as_str()));
            assert_eq!(other, None, "{name} uses another agent");
        }
    }
}

#[test]
fn words_and_machines_are_pure() {
    for (name, package) in workspace() {
        if package.floor < Some(2) {
            let banned = package
                .uses
                .iter()
                .find(|used| BANNED_BELOW_FLOOR_2.contains(&used.as_str()));
            assert_eq!(banned, None, "{name} is on floor {:?}", package.floor);
        }
    }
}

#[test]
fn each_outside_resource_has_one_owner() {
    for (name, package) in workspace() {
        for (resource, owners) in OWNERS {
            let named = package.uses.iter().any(|used| used == resource);
            assert!(
                !named || owners.contains(&name.as_str()),
                "{name} names {resource}; {owners:?} own it"
            );
        }
    }
}
