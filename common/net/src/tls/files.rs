//! PEM files: reading them, noticing that they changed, and saying what is wrong with them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use serde::{Deserialize, Serialize};
use tracing::warn;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::provider;
use crate::Error;

const EXPIRES_SOON_SECONDS: i64 = 7 * 24 * 3600;

/// A certificate and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CertFiles {
    /// The certificate, followed by its intermediates.
    pub cert_file: PathBuf,
    /// Its private key (PKCS #8, PKCS #1 or SEC 1), not encrypted. Refused if every user of the host can read it.
    pub key_file: PathBuf,
}

/// A usable certificate with the names it is for, in lower case.
#[derive(Debug)]
pub struct Loaded {
    pub key: CertifiedKey,
    pub names: Vec<String>,
}

impl CertFiles {
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        let chain = read_certificates(&self.cert_file)?;
        let key = read_key(&self.key_file)?;
        let names = inspect(&self.cert_file, chain.first())?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Error::file(
                &self.key_file,
                format!(
                    "is not the key of the certificate in {}",
                    self.cert_file.display()
                ),
            ),
            error => Error::file(&self.key_file, format!("this key cannot be used: {error}")),
        })?;
        Ok(Loaded { key, names })
    }
}

/// The certificates of a CA file.
pub fn read_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| Error::file(path, format!("holds a bad CA certificate: {error}")))?;
    }
    Ok(roots)
}

/// What a look at the files' metadata shows; a different stamp means different files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(i64, i64, u64, u64)>>);

impl Stamp {
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let look = |path: &PathBuf| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.size()))
        };
        Self(paths.into_iter().map(look).collect())
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::file(path, format!("is not PEM: {}", pem_problem(&error))))?;
    if chain.is_empty() {
        return Err(Error::file(
            path,
            "is not a certificate in PEM (no `-----BEGIN CERTIFICATE-----`)",
        ));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(path)?;
    if fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o007 != 0) {
        return Err(Error::file(
            path,
            "this key is open to every user of this host; let its owner and group alone read it (chmod 640)",
        ));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if text.windows(9).any(|window| window == b"ENCRYPTED") => {
            Error::file(path, "this key is encrypted; store it without a passphrase")
        }
        pem::Error::NoItemsFound => Error::file(
            path,
            "is not a private key in PEM (no `-----BEGIN … PRIVATE KEY-----`)",
        ),
        error => Error::file(path, format!("is not PEM: {}", pem_problem(&error))),
    })
}

/// Not the error's own text: it may quote lines of the file, and the file may be a key.
fn pem_problem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::SectionTooLarge => "a section is too large",
        _ => "it cannot be read",
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::file(path, format!("cannot be read: {error}")))
}

/// The names of the certificate; warns when its time is over or not yet come, which is no reason not to start.
fn inspect(path: &Path, leaf: Option<&CertificateDer<'_>>) -> Result<Vec<String>, Error> {
    let bad = |error: &dyn std::fmt::Display| {
        Error::file(path, format!("holds a malformed certificate: {error}"))
    };
    let der = leaf.map(AsRef::as_ref).unwrap_or_default();
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| bad(&error))?;
    let validity = certificate.validity();
    let (from, until, now) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
        unix_seconds(),
    );
    let path_shown = path.display();
    if until < now {
        warn!(event = "certificate_warning", path = %path_shown, "expired at {}", validity.not_after);
    } else if from > now {
        warn!(event = "certificate_warning", path = %path_shown, "valid from {}", validity.not_before);
    } else if until < now + EXPIRES_SOON_SECONDS {
        warn!(event = "certificate_warning", path = %path_shown, "expires at {}", validity.not_after);
    }
    let extension = certificate
        .subject_alternative_name()
        .map_err(|error| bad(&error))?;
    let names = extension
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
