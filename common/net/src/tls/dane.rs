//! Certificates that the DNS vouches for instead of an authority (DANE, RFC 6698 and 7671, for mail RFC 7672).
//!
//! Only records that DNSSEC vouches for may come here; what they mean is decided here. Of the usages those that lean on public
//! authorities do not count for mail (RFC 7672 §3.1.3): DANE-TA (2) names an authority, DANE-EE (3) the certificate itself.

use std::fmt;
use std::sync::Arc;

use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, OtherError, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::provider;
use super::signatures::{Signatures, signatures_by};
use super::verify::{RefusedCertificate, about};

/// RFC 7218 §2.1.
const DANE_TA: u8 = 2;
const DANE_EE: u8 = 3;
/// RFC 7218 §2.2.
const CERT: u8 = 0;
const SPKI: u8 = 1;
/// RFC 7218 §2.3.
const FULL: u8 = 0;
const SHA2_256: u8 = 1;
const SHA2_512: u8 = 2;

/// One TLSA record (RFC 6698 §2.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DaneRecord {
    /// Certificate usage.
    pub usage: u8,
    /// What of a certificate is looked at.
    pub selector: u8,
    /// How it is compared.
    pub matching: u8,
    /// With what.
    pub data: Vec<u8>,
}

impl DaneRecord {
    /// Whether a mail server can be known by it (RFC 7672 §3.1.3, RFC 6698 §4.1).
    pub fn is_usable(&self) -> bool {
        let length = match self.matching {
            FULL => !self.data.is_empty(),
            SHA2_256 => self.data.len() == digest::SHA256_OUTPUT_LEN,
            SHA2_512 => self.data.len() == digest::SHA512_OUTPUT_LEN,
            _ => false,
        };
        matches!(self.usage, DANE_TA | DANE_EE) && matches!(self.selector, CERT | SPKI) && length
    }

    fn fits(&self, certificate: &CertificateDer<'_>) -> bool {
        let selected: &[u8] = match self.selector {
            CERT => certificate,
            _ => match X509Certificate::from_der(certificate) {
                Ok((_, parsed)) => parsed.tbs_certificate.subject_pki.raw,
                Err(_) => return false,
            },
        };
        match self.matching {
            FULL => selected == self.data,
            SHA2_256 => digest::digest(&digest::SHA256, selected).as_ref() == self.data,
            SHA2_512 => digest::digest(&digest::SHA512, selected).as_ref() == self.data,
            _ => false,
        }
    }

    /// RFC 7671 §9: of the digests of one kind only the strongest counts.
    fn is_outdone_by(&self, other: &Self) -> bool {
        (other.usage, other.selector) == (self.usage, self.selector)
            && (other.matching, self.matching) == (SHA2_512, SHA2_256)
    }
}

/// `3 1 1`, the data left out.
impl fmt::Display for DaneRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.usage, self.selector, self.matching)
    }
}

/// What the DNS says of a host's certificate, so far as it can be used; never nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dane {
    records: Vec<DaneRecord>,
    /// RFC 7672 §3.2.2: of these one must be in the certificate, where an authority is named.
    names: Vec<String>,
}

impl Dane {
    /// From what is published; `None` if none of it can be used. `names`: those the host may have.
    pub fn new(published: &[DaneRecord], names: Vec<String>) -> Option<Self> {
        let usable: Vec<_> = published
            .iter()
            .filter(|record| record.is_usable())
            .collect();
        let records: Vec<_> = usable
            .iter()
            .filter(|record| !usable.iter().any(|other| record.is_outdone_by(other)))
            .map(|record| (*record).clone())
            .collect();
        (!records.is_empty()).then_some(Self { records, names })
    }

    /// RFC 7672 §3.1.1: of DANE-EE neither names nor times are looked at, only the record counts.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), String> {
        let of = |usage| {
            self.records
                .iter()
                .filter(move |record| record.usage == usage)
        };
        if of(DANE_EE).any(|record| record.fits(leaf)) {
            return Ok(());
        }
        let mut anchors: Vec<CertificateDer<'_>> = Vec::new();
        for record in of(DANE_TA) {
            anchors.extend(intermediates.iter().filter(|one| record.fits(one)).cloned());
            // RFC 7671 §5.2.2: only an authority that is published as it is may be missing in the chain.
            if (record.selector, record.matching) == (CERT, FULL) {
                anchors.push(CertificateDer::from(record.data.as_slice()));
            }
        }
        if anchors.is_empty() {
            return Err(format!(
                "fits none of the TLSA records of its host ({})",
                self
            ));
        }
        self.verify_below(&anchors, leaf, intermediates, now)
    }

    fn verify_below(
        &self,
        anchors: &[CertificateDer<'_>],
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        for anchor in anchors {
            // One that is no certificate is of no use, another may be.
            let _ = roots.add(anchor.clone().into_owned());
        }
        let told = |error: &dyn fmt::Display| {
            format!("does not lead to the authority that the TLSA records name: {error}")
        };
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| told(&error))?;
        let mut reason = "no name of its host is known".to_owned();
        for name in &self.names {
            let verified = ServerName::try_from(name.as_str())
                .map_err(|error| told(&error))
                .and_then(|name| {
                    authorities
                        .verify_server_cert(leaf, intermediates, &name, &[], now)
                        .map_err(|error| told(&error))
                });
            match verified {
                Ok(_) => return Ok(()),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }
}

impl Dane {
    /// The records as a zone file has them, for reports.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.records.iter().map(|record| {
            let data = record.data.iter().map(|octet| format!("{octet:02x}"));
            format!("{record} {}", data.collect::<String>())
        })
    }
}

/// `TLSA 3 1 1, 2 0 1`.
impl fmt::Display for Dane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLSA ")?;
        let mut told: Vec<String> = self.records.iter().map(ToString::to_string).collect();
        told.dedup();
        f.write_str(&told.join(", "))
    }
}

/// The verifier of one connection.
#[derive(Debug)]
pub struct DaneHost {
    pub dane: Dane,
    pub signatures: Signatures,
}

impl ServerCertVerifier for DaneHost {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Err(reason) = self.dane.verify(leaf, intermediates, now) else {
            return Ok(ServerCertVerified::assertion());
        };
        let (name, serial) = about(leaf);
        let refused = RefusedCertificate {
            name,
            serial,
            reason,
            remedy: "whoever runs the host must publish the TLSA record of the certificate that it shows",
        };
        Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
    }

    signatures_by!(signatures);
}
