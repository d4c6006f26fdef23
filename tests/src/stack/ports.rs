//! Ports that nobody else takes.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result};

/// Below the range from which systems take ports for outgoing connections, so that a port stays free between two
/// processes of one test.
const FIRST: u16 = 10_240;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Where a stack listens, and the port of the world's mail hosts.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub(super) smtp: u16,
    pub(super) submission: u16,
    pub(super) submissions: u16,
    pub(super) lmtp: u16,
    /// `mta.outbound.port`.
    pub world: u16,
}

impl Ports {
    pub(super) fn free() -> Result<Self> {
        Ok(Self {
            smtp: free_port()?,
            submission: free_port()?,
            submissions: free_port()?,
            lmtp: free_port()?,
            world: free_port()?,
        })
    }

    /// Mail from the world.
    pub fn smtp(&self) -> SocketAddr {
        local(self.smtp)
    }

    /// Submission with STARTTLS.
    pub fn submission(&self) -> SocketAddr {
        local(self.submission)
    }

    /// Submission with implicit TLS.
    pub fn submissions(&self) -> SocketAddr {
        local(self.submissions)
    }

    /// Delivery by LMTP.
    pub fn lmtp(&self) -> SocketAddr {
        local(self.lmtp)
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port nobody listens on. Tests of one process count on; those of another begin elsewhere.
pub fn free_port() -> Result<u16> {
    let start = u16::try_from(process::id() % u32::from(COUNT))
        .unwrap_or_default()
        .wrapping_mul(7)
        % COUNT;
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    None.context("no free port")
}
