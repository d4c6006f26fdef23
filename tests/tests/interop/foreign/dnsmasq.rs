//! A name server that knows a few names of .test and asks nobody else.

use std::{fs, net::Ipv4Addr, path::Path, path::PathBuf};

use anyhow::Result;
use postroad_tests::{free_port, wait_for};

use super::Kept;

pub struct Dnsmasq {
    port: u16,
    log: PathBuf,
    _kept: Kept,
}

impl Dnsmasq {
    /// `hosts` are a domain, its mail host and the address of that.
    pub async fn start(folder: &Path, hosts: &[(&str, &str, Ipv4Addr)]) -> Result<Self> {
        super::folder(folder)?;
        let port = free_port()?;
        let log = folder.join("queries");
        let mut command: Vec<String> = [
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts",
            "--listen-address=127.0.0.1 --bind-interfaces --local=/test/ --local=/arpa/ --log-queries",
        ]
        .iter()
        .flat_map(|options| options.split(' ').map(str::to_owned))
        .collect();
        command.push(format!("--port={port}"));
        command.push(format!("--log-facility={}", log.display()));
        for (domain, host, address) in hosts {
            command.push(format!("--mx-host={domain},{host},10"));
            command.push(format!("--host-record={host},{address}"));
        }
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let kept = Kept::start("dnsmasq", &command, folder.join("output"))?;
        let dnsmasq = Self {
            port,
            log,
            _kept: kept,
        };
        wait_for("dnsmasq", async || {
            dnsmasq.log().contains("started").then_some(())
        })
        .await?;
        Ok(dnsmasq)
    }

    /// For `common.dns.servers`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it was asked, and what it said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
