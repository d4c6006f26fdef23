//! TLS: files in, configurations out; the only place that builds them.

pub mod client;
pub mod files;
pub mod info;
pub mod server;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};

/// RFC 8996 retired TLS 1.0 and 1.1.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn config_error(error: impl ToString) -> crate::Error {
    crate::Error::Tls(error.to_string())
}

#[cfg(test)]
mod tests;
