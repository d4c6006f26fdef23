//! A client from abroad: in a network namespace of its own, which a cable joins to this machine. It has addresses that no engine gave.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    process::Command,
    runtime::{Builder, Handle, Runtime},
};

use crate::docker::{outcome_of, output_of};

/// The client.
pub const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
pub const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2));
/// This machine's end of the cable, where ports are published.
pub const HERE: [&str; 2] = ["198.51.100.1", "2001:db8:77::1"];

const NAMESPACE: &str = "postroad-abroad";
/// Both ends of the cable.
const CABLE: [&str; 2] = ["postroad-here", "postroad-there"];
const PATIENCE: Duration = Duration::from_secs(30);

/// What is spawned here runs there: all its threads are in the namespace.
pub struct Abroad {
    runtime: Option<Runtime>,
}

impl Abroad {
    pub async fn open() -> Result<Self> {
        Self::close().await?;
        let [here, there] = CABLE;
        let [ipv4, ipv6] = HERE;
        let inside = ["-n", NAMESPACE];
        ip(&["netns", "add", NAMESPACE]).await?;
        ip(&["link", "add", here, "type", "veth", "peer", "name", there]).await?;
        ip(&["link", "set", there, "netns", NAMESPACE]).await?;
        address(&[], here, ipv4, ipv6).await?;
        address(&inside, there, &IPV4.to_string(), &IPV6.to_string()).await?;
        for (family, gateway) in [("-4", ipv4), ("-6", ipv6)] {
            let route = [family, "route", "add", "default", "via", gateway];
            ip(&[&inside[..], &route].concat()).await?;
        }
        let abroad = Self {
            runtime: Some(runtime()?),
        };
        let there = abroad.run(async { own_namespace() }).await?;
        ensure!(there != own_namespace()?, "the client is not abroad");
        Ok(abroad)
    }

    /// Takes away what there is, also what a broken run left.
    pub async fn close() -> Result<()> {
        for words in [["link", "del", CABLE[0]], ["netns", "del", NAMESPACE]] {
            // It may not be there.
            outcome_of(Command::new("ip").args(words), b"", PATIENCE).await?;
        }
        Ok(())
    }

    /// For spawning there.
    pub fn handle(&self) -> Result<&Handle> {
        Ok(self.runtime.as_ref().context("no runtime")?.handle())
    }

    /// Runs it there.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.handle()?.spawn(work).await?
    }
}

impl Drop for Abroad {
    fn drop(&mut self) {
        // A runtime that is dropped within another one must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn ip(words: &[&str]) -> Result<()> {
    output_of(Command::new("ip").args(words), b"", PATIENCE).await?;
    Ok(())
}

async fn address(inside: &[&str], device: &str, ipv4: &str, ipv6: &str) -> Result<()> {
    for words in [
        &["addr", "add", &format!("{ipv4}/24"), "dev", device][..],
        // Nobody else could have it, so nobody is asked.
        &["addr", "add", &format!("{ipv6}/64"), "dev", device, "nodad"],
        &["link", "set", device, "up"],
    ] {
        ip(&[inside, words].concat()).await?;
    }
    Ok(())
}

fn runtime() -> Result<Runtime> {
    let namespace = File::open(format!("/run/netns/{NAMESPACE}"))?;
    let enter = move || {
        // Whether it went well is looked at from within.
        let _ = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
    };
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(1)
        .enable_all()
        .on_thread_start(enter);
    Ok(builder.build()?)
}

fn own_namespace() -> Result<std::path::PathBuf> {
    Ok(std::fs::read_link("/proc/thread-self/ns/net")?)
}
