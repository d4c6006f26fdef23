//! Store and forward: from a relay client by way of a durable queue to a remote host.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Result;
use async_trait::async_trait;
use clap::Args;
use postroad_tests::free_port;
use serde_json::Value;

use crate::{
    load::{Mails, To},
    product::{Product, Task},
    sink::{Count, Sink},
    trial::{self, Goal},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    pub rounds: trial::Rounds,
    /// Domains the mails go to, each with a host of its own.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=200))]
    destinations: u8,
}

struct Hosts {
    sink: Sink,
    addresses: Vec<SocketAddr>,
}

pub async fn run(options: &Options) -> Result<Value> {
    let port = free_port()?;
    let addresses: Vec<SocketAddr> = (1..=options.destinations)
        .map(|host| (Ipv4Addr::new(127, 0, 1, host), port).into())
        .collect();
    let hosts = Hosts {
        sink: Sink::up(&addresses).await?,
        addresses,
    };
    options.rounds.check_domains(options.destinations)?;
    trial::run("store-and-forward", &options.rounds, &hosts).await
}

#[async_trait(?Send)]
impl Goal for Hosts {
    fn task(&self) -> Task<'_> {
        Task::Relay(&self.addresses)
    }

    fn direct(&self) -> Option<SocketAddr> {
        self.addresses.first().copied()
    }

    fn to(&self) -> To {
        To::Worlds(self.addresses.len())
    }

    fn expect(&self, mails: &Arc<Mails>) {
        self.sink.expect(mails);
    }

    async fn all_arrived(&self, _product: Option<&Product>) -> Result<()> {
        self.sink.all_arrived().await
    }

    fn count(&self, _product: Option<&Product>) -> Result<Count> {
        Ok(self.sink.count())
    }
}
