//! Routes, reports and hosts ↔ store.

use postroad_envelope::{
    HostPort, NextHop, RemoteHost, RouteClass, StatusReport, TlsFacts, WeightedHop,
};
use postroad_reply::{EnhancedStatusCode, Reply, ReplyCode};

use super::wire;
use crate::{QueueError, error::unreadable};

/// Octets kept of a text that a remote said.
const MAX_TEXT: usize = 512;
/// Octets kept of a host's name.
const MAX_NAME: usize = 255;

pub const fn class_to_wire(class: RouteClass) -> u32 {
    match class {
        RouteClass::Local => 1,
        RouteClass::Relay => 2,
        RouteClass::Lmtp => 3,
        RouteClass::Hold => 4,
        RouteClass::Discard => 5,
    }
}

pub fn class_from_wire(class: u32) -> Result<RouteClass, QueueError> {
    Ok(match class {
        1 => RouteClass::Local,
        2 => RouteClass::Relay,
        3 => RouteClass::Lmtp,
        4 => RouteClass::Hold,
        5 => RouteClass::Discard,
        other => return Err(unreadable("route class", other)),
    })
}

/// A socket stands in the place of the host's name, as text, with the port 0 that no host has: a release that knows hosts
/// alone finds no such host, and keeps the mail.
impl From<&NextHop> for wire::HostPort {
    fn from(hop: &NextHop) -> Self {
        match hop {
            NextHop::Host(host) => Self {
                host: host.host.clone(),
                port: host.port.into(),
            },
            NextHop::Unix(_) => Self {
                host: hop.to_string(),
                port: 0,
            },
        }
    }
}

pub fn next_hop_from_wire(hop: wire::HostPort) -> Result<NextHop, QueueError> {
    let port = u16::try_from(hop.port).map_err(|e| unreadable("port", e))?;
    if port == 0
        && let Ok(socket @ NextHop::Unix(_)) = hop.host.parse()
    {
        return Ok(socket);
    }
    Ok(NextHop::Host(HostPort {
        host: hop.host,
        port,
    }))
}

impl From<&WeightedHop> for wire::WeightedHop {
    fn from(hop: &WeightedHop) -> Self {
        Self {
            hop: Some((&hop.hop).into()),
            weight: hop.weight.into(),
            preference: hop.preference.into(),
        }
    }
}

pub fn weighted_hop_from_wire(hop: wire::WeightedHop) -> Result<WeightedHop, QueueError> {
    let small = |number: u32| u16::try_from(number).map_err(|e| unreadable("weight of a host", e));
    Ok(WeightedHop {
        weight: small(hop.weight)?,
        preference: small(hop.preference)?,
        hop: next_hop_from_wire(hop.hop.unwrap_or_default())?,
    })
}

pub fn tls_to_wire(tls: &TlsFacts) -> wire::TlsFacts {
    wire::TlsFacts {
        version: tls.version.clone(),
        cipher: tls.cipher.clone(),
        verified: tls.verified.clone(),
    }
}

pub fn tls_from_wire(tls: wire::TlsFacts) -> TlsFacts {
    TlsFacts {
        version: tls.version,
        cipher: tls.cipher,
        verified: tls.verified,
    }
}

/// A report as it is stored: texts of remotes are cut, so that nobody can fill the index.
pub fn report_to_wire(report: &StatusReport) -> wire::StatusReport {
    wire::StatusReport {
        status: report.status.to_string(),
        text: cut(&report.text, MAX_TEXT),
        remote: report.remote.as_ref().map(|remote| wire::RemoteHost {
            name: cut(&remote.name, MAX_NAME),
            address: remote.address.map(|address| address.to_string()),
            tls: remote.tls.as_ref().map(|tls| wire::TlsFacts {
                version: cut(&tls.version, 32),
                cipher: cut(&tls.cipher, 64),
                verified: tls.verified.as_ref().map(|name| cut(name, MAX_NAME)),
            }),
            tls_policy: remote.tls_policy.as_ref().map(|why| cut(why, MAX_NAME)),
        }),
        reply: report.reply.as_ref().map(|reply| wire::Reply {
            code: reply.code().value().into(),
            enhanced: reply.enhanced().map(|code| code.to_string()),
            text: cut(reply.text(), MAX_TEXT),
        }),
        stage: report.stage.map(|stage| stage.as_str().to_owned()),
        cause: report.cause.map(|cause| cause.as_str().to_owned()),
    }
}

pub fn report_from_wire(report: &wire::StatusReport) -> Result<StatusReport, QueueError> {
    Ok(StatusReport {
        status: status(&report.status)?,
        text: report.text.clone(),
        remote: report.remote.as_ref().map(remote_from_wire).transpose()?,
        reply: report.reply.as_ref().map(reply_from_wire).transpose()?,
        stage: report.stage.as_deref().and_then(|stage| stage.parse().ok()),
        cause: report.cause.as_deref().and_then(|cause| cause.parse().ok()),
    })
}

fn status(text: &str) -> Result<EnhancedStatusCode, QueueError> {
    text.parse().map_err(|e| unreadable("status", e))
}

fn remote_from_wire(remote: &wire::RemoteHost) -> Result<RemoteHost, QueueError> {
    let address = remote.address.as_deref().map(str::parse).transpose();
    Ok(RemoteHost {
        name: remote.name.clone(),
        address: address.map_err(|e| unreadable("address of a remote host", e))?,
        tls: remote.tls.clone().map(tls_from_wire),
        tls_policy: remote.tls_policy.clone(),
    })
}

fn reply_from_wire(reply: &wire::Reply) -> Result<Reply, QueueError> {
    let code = u16::try_from(reply.code).map_err(|e| unreadable("reply code", e))?;
    let code = ReplyCode::new(code).map_err(|e| unreadable("reply code", e))?;
    Ok(match &reply.enhanced {
        Some(enhanced) => Reply::new(code, status(enhanced)?, reply.text.clone()),
        None => Reply::plain(code, reply.text.clone()),
    })
}

/// At most `max` octets of the text, cut at a character border.
pub fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
