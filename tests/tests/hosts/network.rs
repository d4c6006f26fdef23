//! The router between the hosts, and what it does to their packets.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use tokio::process::Command;

/// Of the router itself, with clients, lines and the world.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The rules that do harm.
const TABLE: &str = "inet harm";
/// Of packets that get lost: one in so many.
pub const LOST_ONE_IN: u32 = 10;

/// What befalls the packets of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// All are lost, without a word to anybody.
    CutOff,
    /// Some are.
    Lossy,
}

/// This namespace becomes a router.
pub async fn open() -> Result<()> {
    ip("link set lo up").await?;
    ip(&format!("addr add {ROUTER}/32 dev lo")).await?;
    // Of this namespace.
    Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?)
}

/// A host, by its number: its address, and the file of its namespace.
pub async fn host(name: &str, number: u8) -> Result<(IpAddr, PathBuf)> {
    let (here, there) = ([10, 77, number, 1], Ipv4Addr::new(10, 77, number, 2));
    let here = Ipv4Addr::from(here);
    let cable = cable(name);
    for words in [
        format!("netns add {name}"),
        format!("link add {cable} type veth peer name eth0 netns {name}"),
        format!("addr add {here}/24 dev {cable}"),
        format!("link set {cable} up"),
        format!("-n {name} addr add {there}/24 dev eth0"),
        format!("-n {name} link set eth0 up"),
        format!("-n {name} link set lo up"),
        format!("-n {name} route add default via {here}"),
    ] {
        ip(&words).await?;
    }
    Ok((there.into(), PathBuf::from(format!("/run/netns/{name}"))))
}

/// From now on, in both directions. Packets are dropped where they arrive: whoever sends must not notice.
pub async fn harm(name: &str, harm: Harm) -> Result<()> {
    let rule = match harm {
        Harm::CutOff => "drop".to_owned(),
        Harm::Lossy => format!("numgen random mod {LOST_ONE_IN} 0 drop"),
    };
    let from = |device: &str| {
        format!(
            "table {TABLE} {{\nchain arrival {{ type filter hook prerouting priority 0; iifname \"{device}\" {rule}; }}\n}}"
        )
    };
    run("nft", &[&from(&cable(name))]).await?;
    run("nsenter", &[&inside(name), "nft", &from("eth0")]).await
}

/// No harm any more.
pub async fn heal(name: &str) -> Result<()> {
    let rules = format!("delete table {TABLE}");
    run("nft", &[&rules]).await?;
    run("nsenter", &[&inside(name), "nft", &rules]).await
}

fn inside(name: &str) -> String {
    format!("--net=/run/netns/{name}")
}

fn cable(name: &str) -> String {
    format!("to-{name}")
}

async fn ip(words: &str) -> Result<()> {
    run("ip", &words.split(' ').collect::<Vec<_>>()).await
}

async fn run(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program).args(words).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {words:?}: {said}");
    Ok(())
}
