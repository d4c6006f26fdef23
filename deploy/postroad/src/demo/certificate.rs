//! The demo's certificate and the authority it comes from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::fault::Fault;

use super::folder::write_private;

/// What the certificate is for.
pub const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Some programs refuse certificates that live longer than 398 days.
const LIFE_DAYS: i64 = 390;
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
        let (ca, cert, key) = make().map_err(Fault::not_done)?;
        for (path, text) in [(&self.ca, ca), (&self.cert, cert), (&self.key, key)] {
            write_private(path, &text)?;
        }
        Ok(())
    }
}

/// Authority, certificate, key, as PEM.
fn make() -> Result<(String, String, String), Error> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name
        .push(DnType::CommonName, "Postroad demo authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    dates(&mut ca);
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let mut server = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
    server
        .distinguished_name
        .push(DnType::CommonName, "Postroad demo");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    dates(&mut server);
    let key = KeyPair::generate()?;
    let pem = server.signed_by(&key, &issuer)?.pem();
    Ok((ca_pem, pem, key.serialize_pem()))
}

/// From yesterday, for clocks that are behind.
fn dates(params: &mut CertificateParams) {
    let today = jiff::Zoned::now().date();
    let day = |days| {
        let date = today.saturating_add(jiff::Span::new().days(days));
        date_time_ymd(
            date.year().into(),
            date.month().unsigned_abs(),
            date.day().unsigned_abs(),
        )
    };
    params.not_before = day(-1);
    params.not_after = day(LIFE_DAYS);
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
