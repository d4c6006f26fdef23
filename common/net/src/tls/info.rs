//! What a handshake gave, in the words of `Received` and the log.

use std::fmt;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConnection, CommonState, ProtocolVersion, ServerConnection};

use super::client::Current;
use super::neighbour::ClientJudge;

/// The protocol version in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// What is known of the peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerCertificate {
    /// The peer showed none; the rule for SMTP clients.
    Absent,
    /// It leads to a CA we trust and is for the name we asked for.
    Verified,
    /// It does not, for this reason; opportunistic TLS goes on all the same (RFC 7435).
    Unverified(String),
}

/// RFC 9266 §2.
const BINDING: &[u8] = b"EXPORTER-Channel-Binding";

/// The outcome of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// The version.
    pub version: TlsVersion,
    /// The cipher suite's IANA name, such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The host name the client asked for.
    pub sni: Option<String>,
    /// The application protocol (RFC 7301).
    pub alpn: Option<String>,
    /// The peer's certificate.
    pub peer: PeerCertificate,
    /// The name for which it was verified, where a name was asked for.
    pub verified: Option<String>,
    /// What names this connection alone (`tls-exporter`, RFC 9266), for channel binding. Under TLS 1.3 alone: before it an
    /// exporter is sound only with an extension that clients need not have.
    pub binding: Option<Vec<u8>>,
}

impl TlsInfo {
    /// Whether the peer proved who it is.
    pub fn is_peer_verified(&self) -> bool {
        self.peer == PeerCertificate::Verified
    }
}

impl TlsVersion {
    /// `TLS1.2` or `TLS1.3`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLS1.2",
            Self::Tls13 => "TLS1.3",
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `TLS1.3 TLS_AES_256_GCM_SHA384`, for the log field `tls`.
impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.cipher)
    }
}

pub fn of_server(connection: &ServerConnection, judge: Option<&ClientJudge>) -> TlsInfo {
    let (peer, verified) = match (connection.peer_certificates(), judge) {
        (Some([leaf, intermediates @ ..]), Some(judge)) => {
            match judge.judge(leaf, intermediates, UnixTime::now()) {
                Ok(name) => (PeerCertificate::Verified, Some(name)),
                Err(reason) => (PeerCertificate::Unverified(reason), None),
            }
        }
        // Among agents no unverified one comes through the handshake.
        (Some([_, ..]), None) => (PeerCertificate::Verified, None),
        _ => (PeerCertificate::Absent, None),
    };
    let sni = connection.server_name().map(str::to_owned);
    TlsInfo {
        binding: binding(connection.protocol_version(), |out| {
            connection.export_keying_material(out, BINDING, None)
        }),
        ..info(connection, sni, peer, verified)
    }
}

pub fn of_client(
    connection: &ClientConnection,
    asked_for: &ServerName<'_>,
    names: &[ServerName<'_>],
    current: &Current,
) -> TlsInfo {
    let (peer, verified) = match connection.peer_certificates() {
        Some([leaf, intermediates @ ..]) => {
            match current.judge(leaf, intermediates, names, UnixTime::now()) {
                Ok(name) => (PeerCertificate::Verified, Some(name)),
                Err(reason) => (PeerCertificate::Unverified(reason), None),
            }
        }
        _ => (PeerCertificate::Absent, None),
    };
    let sni = match asked_for {
        ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
        _ => None,
    };
    TlsInfo {
        binding: binding(connection.protocol_version(), |out| {
            connection.export_keying_material(out, BINDING, None)
        }),
        ..info(connection, sni, peer, verified)
    }
}

fn info(
    state: &CommonState,
    sni: Option<String>,
    peer: PeerCertificate,
    verified: Option<String>,
) -> TlsInfo {
    let version = match state.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
        // After a handshake it is one of the two we speak.
        _ => TlsVersion::Tls13,
    };
    let suite = state
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str())
        .unwrap_or("unknown");
    // rustls writes TLS13_AES_…; the registered name (RFC 8446 §B.4) is TLS_AES_….
    let cipher = suite
        .strip_prefix("TLS13_")
        .map_or_else(|| suite.to_owned(), |rest| format!("TLS_{rest}"));
    let alpn = state
        .alpn_protocol()
        .map(|protocol| String::from_utf8_lossy(protocol).into_owned());
    TlsInfo {
        version,
        cipher,
        sni,
        alpn,
        peer,
        verified,
        binding: None,
    }
}

/// RFC 9266 §2.
fn binding(
    version: Option<ProtocolVersion>,
    export: impl FnOnce([u8; 32]) -> Result<[u8; 32], rustls::Error>,
) -> Option<Vec<u8>> {
    let exports = version == Some(ProtocolVersion::TLSv1_3);
    let octets = exports.then(|| export([0; 32]).ok()).flatten()?;
    Some(octets.to_vec())
}
