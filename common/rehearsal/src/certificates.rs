//! The certificates of a rehearsal: an authority that clients may be told to trust, and hosts that it vouches for wrongly.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use postroad_net::{CertFiles, ServerTls};
use postroad_pki::{Authority, AuthorityTerms, Key, Permits, Pki, Request, write};

use crate::peer::{Error, Place};
use crate::script::{CertificateKind, Script};

/// Days that a certificate lives.
const DAYS: u32 = 30;
/// What the certificate for another name is for.
const ANOTHER_NAME: &str = "another.invalid";

/// What is shown, by kind.
pub struct Certificates {
    /// The authority's, for who shall trust it.
    pub authority: PathBuf,
    shown: BTreeMap<CertificateKind, ServerTls>,
}

impl Certificates {
    /// Makes them in a folder, whose authority is kept if there is one; several hosts may have the same. Blocks.
    pub fn make(folder: &Path, script: &Script, place: &Place) -> Result<Self, Error> {
        let now = Timestamp::now();
        let pki = Pki::at(folder);
        let folder = folder.join(place.to_string().replace('/', "_"));
        let address = match place {
            Place::Tcp(address) => Some(address.ip().to_string()),
            Place::Unix(_) => None,
        };
        let terms = AuthorityTerms::new("Postroad rehearsal", Permits::default());
        pki.init(&terms, false, now)?;
        let authority = pki.authority()?;
        let stranger = AuthorityTerms::new("Unknown to all", Permits::default());
        let stranger = Authority::make(&stranger, Key::generate()?, now)?;
        let names = std::iter::once(script.name.clone()).chain(script.names.iter().cloned());
        let mut names: Vec<String> = names.chain(["localhost".to_owned()]).collect();
        names.extend(address);
        // A literal is a name in EHLO, and none in a certificate.
        names.retain(|name| !name.contains(['[', '_']));
        let month = SignedDuration::from_hours(24 * 60);
        let past = now.checked_sub(month).unwrap_or(now);
        let own = |names: &[String]| Request::server(names, DAYS);
        let another = [ANOTHER_NAME.to_owned()];
        let kinds = [
            ("good", CertificateKind::Good, &authority, own(&names)?, now),
            (
                "expired",
                CertificateKind::Expired,
                &authority,
                own(&names)?,
                past,
            ),
            (
                "another",
                CertificateKind::AnotherName,
                &authority,
                own(&another)?,
                now,
            ),
            (
                "unknown",
                CertificateKind::UnknownAuthority,
                &stranger,
                own(&names)?,
                now,
            ),
        ];
        let mut shown = BTreeMap::new();
        for (place, kind, by, request, at) in kinds {
            let files = issue(&folder.join(place), by, &request, at)?;
            shown.insert(kind, ServerTls::load(&[files])?);
        }
        for (cert, key) in script.certificate_files() {
            let files = CertFiles {
                cert_file: cert.clone(),
                key_file: key.clone(),
            };
            let tls = ServerTls::load(&[files])?;
            shown.insert(CertificateKind::Files { cert, key }, tls);
        }
        Ok(Self {
            authority: pki.authority_file(),
            shown,
        })
    }

    /// What is shown of this kind.
    pub fn of(&self, kind: &CertificateKind) -> Option<&ServerTls> {
        self.shown.get(kind)
    }
}

fn issue(
    folder: &Path,
    by: &Authority,
    request: &Request,
    at: Timestamp,
) -> Result<CertFiles, Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let key = Key::generate()?;
    let files = CertFiles {
        cert_file: folder.join("cert.pem"),
        key_file: folder.join("key.pem"),
    };
    write(&files.key_file, &key.to_pem(), 0o600, None)?;
    write(&files.cert_file, &by.issue(request, &key, at)?, 0o644, None)?;
    Ok(files)
}
