//! PEM files: reading them, noticing that they changed, and saying what is wrong with them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::provider;
use crate::Error;

/// Who renews writes two files, and somebody may look between one and the other.
const TRIES: u32 = 4;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

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
    pub facts: Facts,
}

impl CertFiles {
    /// Blocks, for a moment also where certificate and key do not belong together: the other may be just coming.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        for _ in 1..TRIES {
            match self.load_pair()? {
                Ok(loaded) => return Ok(loaded),
                Err(Apart) => sleep(BETWEEN_TRIES),
            }
        }
        self.load_pair()?.map_err(|Apart| {
            let problem = format!(
                "is not the key of the certificate in {}",
                self.cert_file.display()
            );
            Error::file(&self.key_file, problem)
        })
    }

    /// What a person should know of the time it has, if anything. Blocks.
    pub fn concern(&self, before: Duration) -> Result<Option<String>, Error> {
        let chain = read_certificates(&self.cert_file)?;
        let (_, facts) = inspect(&self.cert_file, chain.first())?;
        let concern = facts.concern(before);
        Ok(concern.map(|concern| format!("{}: {concern}", self.cert_file.display())))
    }

    fn load_pair(&self) -> Result<Result<Loaded, Apart>, Error> {
        let chain = read_certificates(&self.cert_file)?;
        let key = read_key(&self.key_file)?;
        let (names, facts) = inspect(&self.cert_file, chain.first())?;
        match CertifiedKey::from_der(chain, key, &provider()) {
            Ok(key) => Ok(Ok(Loaded { key, names, facts })),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Ok(Err(Apart)),
            Err(error) => Err(Error::file(
                &self.key_file,
                format!("this key cannot be used: {error}"),
            )),
        }
    }
}

/// Certificate and key do not belong together.
struct Apart;

/// What is told of a certificate.
#[derive(Clone, Debug)]
pub struct Facts {
    path: PathBuf,
    name: Option<String>,
    from: i64,
    until: i64,
}

impl Facts {
    /// That it was read again.
    pub fn announce(&self) {
        info!(
            event = "certificate_reloaded",
            path = %self.path.display(),
            name = self.name,
            not_after = %time(self.until),
            "certificates reloaded"
        );
    }

    /// Warns when its time is over, not yet come, or within `before` of its end; no reason not to start.
    pub fn warn(&self, before: Duration) {
        if let Some(text) = self.concern(before) {
            let (until, path) = (time(self.until), self.path.display());
            warn!(event = "certificate_warning", %path, name = self.name, not_after = %until, "{text}");
        }
    }

    /// What a person should do something about. One of a short life is renewed late in it: a fifth of it is soon enough.
    fn concern(&self, before: Duration) -> Option<String> {
        let now = unix_seconds();
        let before = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
        let soon = before.min((self.until - self.from) / 5);
        let until = time(self.until);
        if self.until < now {
            Some(format!("expired at {until}"))
        } else if self.from > now {
            Some(format!("valid from {}", time(self.from)))
        } else if self.until < now.saturating_add(soon) {
            Some(format!("expires at {until}"))
        } else {
            None
        }
    }

    /// Seconds until it runs out.
    pub fn seconds_left(&self) -> i64 {
        self.until - unix_seconds()
    }
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
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

/// The lists of certificates taken back in a file; none is an error.
pub fn read_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let lists: Result<Vec<_>, _> =
        CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect);
    match lists {
        Ok(lists) if lists.is_empty() => Err(Error::file(path, "has no PEM section X509 CRL")),
        Ok(lists) => Ok(lists),
        Err(error) => Err(Error::file(path, error)),
    }
}

/// What a look at the files' metadata shows; a different stamp means different files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<[i64; 6]>>);

impl Stamp {
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let look = |path: &PathBuf| {
            let meta = fs::metadata(path).ok()?;
            let (inode, size) = (meta.ino().cast_signed(), meta.size().cast_signed());
            // The time of the last change of any kind: who may read it matters, too.
            Some([
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec(),
                inode,
                size,
            ])
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

/// The names of the certificate, and what is told of it.
fn inspect(path: &Path, leaf: Option<&CertificateDer<'_>>) -> Result<(Vec<String>, Facts), Error> {
    let bad = |error: &dyn std::fmt::Display| {
        Error::file(path, format!("holds a malformed certificate: {error}"))
    };
    let der = leaf.map(AsRef::as_ref).unwrap_or_default();
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| bad(&error))?;
    let extension = certificate
        .subject_alternative_name()
        .map_err(|error| bad(&error))?;
    let names = extension
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let names: Vec<String> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    let validity = certificate.validity();
    let facts = Facts {
        path: path.to_owned(),
        name: names.first().cloned(),
        from: validity.not_before.timestamp(),
        until: validity.not_after.timestamp(),
    };
    Ok((names, facts))
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
