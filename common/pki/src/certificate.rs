use std::net::IpAddr;

use jiff::Timestamp;
use postroad_net::{PeerIdentity, Roles};
use ring::digest::{SHA256, digest};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::Error;
use crate::permits::ip;

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The subject's common name.
    pub common_name: Option<String>,
    /// Host names.
    pub host_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// URI names, roles among them.
    pub uris: Vec<String>,
    /// What its owner may do among agents.
    pub roles: Roles,
    /// Whether it may be shown by a client.
    pub for_clients: bool,
    /// When it begins to count.
    pub not_before: Timestamp,
    /// When it ceases to.
    pub not_after: Timestamp,
    /// Serial number, in hexadecimal digits.
    pub serial: String,
    /// SHA-256 of the whole, in hexadecimal digits.
    pub fingerprint: String,
    pub(crate) public_key: Vec<u8>,
    pub(crate) der: Vec<u8>,
}

impl Certificate {
    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(bad)?;
        match block.label.as_str() {
            "CERTIFICATE" => Self::from_der(&block.contents),
            label => Err(Error::Certificate(format!("it is a {label}"))),
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(bad)?;
        let names = certificate.subject_alternative_name().map_err(bad)?;
        let (mut host_names, mut addresses, mut uris) = (Vec::new(), Vec::new(), Vec::new());
        for name in names
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default()
        {
            match name {
                GeneralName::DNSName(name) => host_names.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => addresses.extend(ip(octets)),
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        let usage = certificate.extended_key_usage().map_err(bad)?;
        let identity = PeerIdentity::from_certificate(der).map_err(bad)?;
        let validity = certificate.validity();
        Ok(Self {
            common_name: certificate
                .subject()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok())
                .map(str::to_owned),
            host_names,
            addresses,
            uris,
            roles: identity.roles,
            for_clients: usage.is_none_or(|usage| usage.value.client_auth),
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
            serial: hex(certificate.raw_serial()),
            fingerprint: fingerprint(der),
            public_key: certificate.public_key().raw.to_vec(),
            der: der.to_vec(),
        })
    }

    /// Host names and addresses, as text.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let addresses = self.addresses.iter().map(ToString::to_string);
        self.host_names.iter().cloned().chain(addresses)
    }

    /// Whole days that are left, negative once it has run out.
    pub fn days_left(&self, now: Timestamp) -> i64 {
        (self.not_after.as_second() - now.as_second()).div_euclid(24 * 3600)
    }

    /// Whether `authority` signed it.
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let own = X509Certificate::from_der(&self.der);
        let other = X509Certificate::from_der(&authority.der);
        match (own, other) {
            (Ok((_, own)), Ok((_, other))) => {
                own.issuer() == other.subject()
                    && own.verify_signature(Some(other.public_key())).is_ok()
            }
            _ => false,
        }
    }
}

/// SHA-256 of a certificate, in hexadecimal digits.
pub fn fingerprint(der: &[u8]) -> String {
    hex(digest(&SHA256, der).as_ref())
}

fn time(seconds: i64) -> Result<Timestamp, Error> {
    Timestamp::from_second(seconds).map_err(bad)
}

fn bad(error: impl ToString) -> Error {
    Error::Certificate(error.to_string())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
