//! What this host is: its names, addresses and ports, as the loop guard needs them.

use std::net::{IpAddr, SocketAddr};

use postroad_address::Domain;
use postroad_daemon::CommonConfig;
use postroad_dns::HostName;

use super::next_hop::Surroundings;
use crate::config::OutboundConfig;

/// The port of the world, on which other servers of this host would be found.
const SMTP: u16 = 25;

/// What is known from the configuration and the system's network interfaces.
pub fn surroundings(
    config: &OutboundConfig,
    common: &CommonConfig,
    listening: &[SocketAddr],
) -> Surroundings {
    let pools = config.sources.values();
    let said = pools.flat_map(|pool| {
        let own = pool
            .addresses
            .iter()
            .filter_map(|address| address.helo_name.as_ref());
        own.chain(&pool.helo_name).map(|name| &name.0)
    });
    let names: Vec<&Domain> = [&common.hostname, helo_name(config, common)]
        .into_iter()
        .chain(said)
        .collect();
    let mut own_names: Vec<HostName> = Vec::new();
    own_names.extend(
        names
            .iter()
            .filter_map(|name| HostName::try_from(*name).ok()),
    );
    let own_ports = match listening {
        // Mail for this host is taken by another process, which then listens where all do.
        [] => vec![SMTP],
        listening => listening.iter().map(SocketAddr::port).collect(),
    };
    Surroundings {
        own_names,
        own_addresses: own_addresses(&config.own_addresses),
        own_ports,
        allow_networks: config.allow_networks.clone(),
        prefer: config.address_preference,
        port: config.port,
    }
}

/// What we say in EHLO.
pub fn helo_name<'a>(config: &'a OutboundConfig, common: &'a CommonConfig) -> &'a Domain {
    let configured = config.helo_name.as_ref();
    configured.map_or(&common.hostname, |name| &name.0)
}

fn own_addresses(configured: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = configured.to_vec();
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => addresses.extend(interfaces.iter().map(if_addrs::Interface::ip)),
        Err(error) => tracing::warn!(
            event = "fault",
            "the addresses of this host cannot be listed, loops are found by name only: {error}"
        ),
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
