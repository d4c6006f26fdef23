//! The demo's certificate and the authority it comes from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use postroad_pki::{Authority, AuthorityTerms, Error, Key, Permits, Request, SERVER_DAYS};

use crate::fault::Fault;

use super::folder::write_private;

/// What the certificate is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const RENEW_AFTER: Duration = Duration::from_secs(300 * 24 * 3600);

/// The files in a folder.
#[derive(Debug, Clone)]
pub struct Files {
    /// The authority, for clients.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Files {
    /// Their names in `folder`.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            ca: folder.join("ca.pem"),
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        }
    }

    /// Makes them, unless they are there and young: who trusts the authority of the last start need not begin anew.
    /// The authority's own key is used once and forgotten, so nobody can sign with it later.
    pub fn ensure(&self) -> Result<(), Fault> {
        let young = |path: &PathBuf| {
            let modified = fs::metadata(path).and_then(|found| found.modified());
            modified.is_ok_and(|at| {
                SystemTime::now().duration_since(at).unwrap_or_default() < RENEW_AFTER
            })
        };
        if [&self.ca, &self.cert, &self.key].into_iter().all(young) {
            return Ok(());
        }
        let (ca, cert, key) = make(Timestamp::now()).map_err(Fault::not_done)?;
        for (path, text) in [(&self.ca, ca), (&self.cert, cert), (&self.key, key)] {
            write_private(path, &text)?;
        }
        Ok(())
    }
}

/// Authority, certificate, key, as PEM.
fn make(now: Timestamp) -> Result<(String, String, String), Error> {
    let terms = AuthorityTerms {
        days: SERVER_DAYS,
        ..AuthorityTerms::new("Postroad demo authority", Permits::default())
    };
    let authority = Authority::make(&terms, Key::generate()?, now)?;
    let key = Key::generate()?;
    let pem = authority.issue(&Request::server(&NAMES, SERVER_DAYS)?, &key, now)?;
    Ok((authority.pem().to_owned(), pem, key.to_pem()))
}

#[cfg(test)]
mod tests {
    use postroad_net::{CertFiles, ClientTls, ServerTls, Trust};

    use super::*;

    #[test]
    fn the_files_are_made_once_and_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::in_folder(folder.path());
        files.ensure().unwrap();
        let own = CertFiles {
            cert_file: files.cert.clone(),
            key_file: files.key.clone(),
        };
        ServerTls::load(&[own]).unwrap();
        ClientTls::verified(Trust::Files(vec![files.ca.clone()])).unwrap();
        let before = fs::read(&files.cert).unwrap();
        files.ensure().unwrap();
        assert_eq!(fs::read(&files.cert).unwrap(), before);
    }
}
