//! Mail servers that are not ours and prove who they are: hosts we send to, and clients of a listener that is for them alone.
//!
//! What is checked is a name that the configuration has, never one that the DNS gave (RFC 9525 §6.1). A client that proves
//! nothing is let through the handshake all the same: what it reads then is a reply in words, not an alert.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DistinguishedName, OtherError};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::files::{read_crls, read_roots};
use super::provider;
use super::signatures::{Signatures, signatures_by};
use super::verify::{RefusedCertificate, about};
use crate::Error;

/// Names of a certificate that are told.
const MAX_TOLD: usize = 10;

/// The SHA-256 of a certificate, as `openssl x509 -noout -fingerprint -sha256` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, certificate);
        Self(
            digest
                .as_ref()
                .iter()
                .map(|octet| format!("{octet:02x}"))
                .collect(),
        )
    }
}

/// Digits in either case, also in pairs with colons between; `sha256:` may stand before them.
impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower
            .strip_prefix("sha256:")
            .unwrap_or(&lower)
            .replace(':', "");
        match digits.len() == 64 && digits.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            true => Ok(Self(digits)),
            false => Err(Error::Syntax {
                text: text.to_owned(),
                expected: "the SHA-256 fingerprint of a certificate: 64 hexadecimal digits, as `openssl x509 -in FILE -noout -fingerprint -sha256` tells them",
            }),
        }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// `sha256:` and 64 digits: also what a client is called that is known by it.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// What a client is called that is known by its certificate: a DNS name of it, or its [`Fingerprint`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct KnownClient(String);

impl KnownClient {
    /// Whether a name that was verified is this one.
    pub fn is(&self, verified: &str) -> bool {
        self.0.eq_ignore_ascii_case(verified)
    }
}

impl FromStr for KnownClient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(fingerprint) = text.parse::<Fingerprint>() {
            return Ok(Self(fingerprint.to_string()));
        }
        match ServerName::try_from(text) {
            Ok(ServerName::DnsName(_)) => Ok(Self(text.to_ascii_lowercase())),
            _ => Err(Error::Syntax {
                text: text.to_owned(),
                expected: "a name of a certificate, such as \"submission.example.net\", or its SHA-256 fingerprint",
            }),
        }
    }
}

impl TryFrom<String> for KnownClient {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<KnownClient> for String {
    fn from(client: KnownClient) -> Self {
        client.0
    }
}

impl fmt::Display for KnownClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The clients a listener knows by their certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedClients {
    /// Whose certificates count, for [`names`](Self::names).
    pub ca_file: Option<PathBuf>,
    /// One of these must be among the DNS names of the certificate.
    pub names: Vec<String>,
    /// Certificates that count by themselves, whoever made them and as long as they stand here.
    pub fingerprints: Vec<Fingerprint>,
    /// Clients are people: in place of `names`, the first mail address among the names of the certificate says who it is.
    pub people: bool,
    /// Lists of the authority, of certificates that it took back (RFC 5280 §5), in PEM. Then there must be one for each certificate.
    pub crl_file: Option<PathBuf>,
}

/// What a client's certificate must have.
#[derive(Debug)]
pub struct ClientJudge {
    authority: Option<Arc<dyn ClientCertVerifier>>,
    names: Vec<(String, ServerName<'static>)>,
    fingerprints: Vec<Fingerprint>,
    people: bool,
}

impl ClientJudge {
    /// Reads the authority's file; blocks.
    pub fn new(trusted: &TrustedClients) -> Result<Self, Error> {
        let authority: Option<Arc<dyn ClientCertVerifier>> = match &trusted.ca_file {
            None => None,
            Some(path) => {
                let roots = Arc::new(read_roots(path)?);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                if let Some(path) = &trusted.crl_file {
                    verifier = verifier
                        .with_crls(read_crls(path)?)
                        .only_check_end_entity_revocation();
                }
                Some(verifier.build().map_err(|error| Error::file(path, error))?)
            }
        };
        let name = |name: &String| match ServerName::try_from(name.clone()) {
            Ok(parsed @ ServerName::DnsName(_)) => Ok((name.to_ascii_lowercase(), parsed)),
            _ => Err(Error::ServerName(name.clone())),
        };
        Ok(Self {
            authority,
            names: trusted.names.iter().map(name).collect::<Result<_, _>>()?,
            fingerprints: trusted.fingerprints.clone(),
            people: trusted.people,
        })
    }

    /// By what name the client is trusted, or why not.
    pub fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<String, String> {
        let fingerprint = Fingerprint::of(leaf);
        if self.fingerprints.contains(&fingerprint) {
            return Ok(fingerprint.to_string());
        }
        let Some(authority) = &self.authority else {
            return Err("is none of those known here by their fingerprints".to_owned());
        };
        authority
            .verify_client_cert(leaf, intermediates, now)
            .map_err(|error| fault(&error, leaf))?;
        if self.people {
            return person(leaf).ok_or_else(|| "names nobody by a mail address".to_owned());
        }
        let parsed = ParsedCertificate::try_from(leaf).map_err(|error| fault(&error, leaf))?;
        let fits =
            |(_, name): &&(String, ServerName<'_>)| verify_server_name(&parsed, name).is_ok();
        match self.names.iter().find(fits) {
            Some((name, _)) => Ok(name.clone()),
            None => Err(other_names(leaf)),
        }
    }
}

/// Asks for a certificate and takes any, or none, if the client holds its key: [`ClientJudge`] says afterwards what it is worth.
#[derive(Debug)]
pub struct AnyClient {
    pub judge: Arc<ClientJudge>,
    pub signatures: Signatures,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match &self.judge.authority {
            // With a hint a client might keep back the certificate that is known by itself.
            Some(authority) if self.judge.fingerprints.is_empty() => authority.root_hint_subjects(),
            _ => &[],
        }
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    signatures_by!(signatures);
}

/// Of a host we send to: a certificate of a known authority, for one of these names.
#[derive(Debug)]
pub struct Host {
    pub authorities: Arc<WebPkiServerVerifier>,
    pub names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for Host {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut last = None;
        for name in &self.names {
            let verified =
                self.authorities
                    .verify_server_cert(leaf, intermediates, name, ocsp, now);
            match verified {
                Ok(verified) => return Ok(verified),
                Err(error) => last = Some(error),
            }
        }
        let error = last.unwrap_or(CertificateError::ApplicationVerificationFailure.into());
        let (name, serial) = about(leaf);
        let refused = RefusedCertificate {
            name,
            serial,
            reason: fault(&error, leaf),
            remedy: remedy(&error),
        };
        Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
    }

    signatures_by!(authorities);
}

/// What is wrong with a certificate, for a person: `the certificate …`.
fn fault(error: &rustls::Error, leaf: &CertificateDer<'_>) -> String {
    let rustls::Error::InvalidCertificate(why) = error else {
        return format!("cannot be verified: {error}");
    };
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has run out".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is from no authority that is trusted here".to_owned()
        }
        CertificateError::Revoked => "was taken back by its authority".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            other_names(leaf)
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is made for another use (its extended key usage)".to_owned()
        }
        why => format!("does not count: {why}"),
    }
}

/// What whoever runs our side can do about it.
fn remedy(error: &rustls::Error) -> &'static str {
    let rustls::Error::InvalidCertificate(why) = error else {
        return "ask whoever runs the host";
    };
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "whoever runs the host must renew it"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "compare the clocks of both hosts"
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "if it is the right host, name its authority in ca_file"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "if it is the right host, name it by a name of its certificate, or that name in tls_names"
        }
        _ => "ask whoever runs the host",
    }
}

fn other_names(leaf: &CertificateDer<'_>) -> String {
    let names = match X509Certificate::from_der(leaf) {
        Ok((_, certificate)) => dns_names(&certificate),
        Err(_) => Vec::new(),
    };
    match names.as_slice() {
        [] => "names no host".to_owned(),
        names => format!("is for other names: {}", names.join(", ")),
    }
}

/// RFC 5280 §4.2.1.6, `rfc822Name`. What an authority put anywhere else is no proof of an address.
fn person(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let extension = certificate.subject_alternative_name().ok()??;
    let mut names = extension.value.general_names.iter();
    let address = names.find_map(|name| match name {
        GeneralName::RFC822Name(address) => Some(*address),
        _ => None,
    })?;
    let plain = address.len() <= 320 && address.bytes().all(|octet| octet.is_ascii_graphic());
    plain.then(|| address.to_owned())
}

/// Without characters that could be taken for something else in a reply or a log.
fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name),
        _ => None,
    });
    let plain = |c: char| c.is_ascii_alphanumeric() || "*.-_".contains(c);
    names
        .filter(|name| name.len() <= 255 && name.chars().all(plain))
        .take(MAX_TOLD)
        .map(|name| (*name).to_owned())
        .collect()
}
