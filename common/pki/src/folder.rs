//! Where the files lie, and how they are made, completed and renewed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use crate::file::{Owner, make_folder, manners, read, refuse_open, write};
use crate::{Authority, AuthorityTerms, Certificate, Error, Key, Request, revocations};

/// The folder of the authority.
pub const AUTHORITY_FOLDER: &str = "ca";
/// The folder of the mail host's certificate.
pub const SERVER_FOLDER: &str = "server";

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
/// For the holder's own folder: its key has a lock of its own, and groups may look for the certificate.
const FOLDER_MODE: u32 = 0o750;

/// A folder with an authority and the holders of its certificates.
#[derive(Clone, Debug)]
pub struct Pki {
    folder: PathBuf,
}

/// What kind of certificate a holder has; files are named by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For agents among each other.
    Agent,
    /// For mail clients.
    Server,
}

/// One holder of a certificate: its folder's name and what kind of certificate it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Name of its folder.
    pub name: String,
    /// How its files are named.
    pub kind: Kind,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All was there; nothing was touched.
    Kept,
    /// What an earlier run had left out was added.
    Completed,
    /// It is new.
    Made,
}

/// Which certificates to renew, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Renewal {
    /// Those that have fewer days left; none: less than a third of their life.
    pub within_days: Option<u32>,
    /// With another key.
    pub new_key: bool,
}

/// What became of one certificate.
#[derive(Clone, Debug)]
pub enum Renewed {
    /// It is made anew.
    Renewed(Certificate),
    /// It has time left.
    Young(Certificate),
    /// It comes from another authority, which must renew it.
    Foreign(Certificate),
    /// It is revoked: to make its holder another is for a person to decide.
    Revoked(Certificate),
}

impl Kind {
    /// Names of the authority's certificate, the certificate and the key.
    pub fn files(self) -> [&'static str; 3] {
        match self {
            Self::Agent => ["agents-ca.pem", "agent.pem", "agent.key"],
            Self::Server => ["ca.pem", "cert.pem", "key.pem"],
        }
    }
}

impl Pki {
    /// The one in `folder`, which need not exist yet.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path in it.
    pub fn path(&self, folder: &str, file: &str) -> PathBuf {
        self.folder.join(folder).join(file)
    }

    /// The authority's certificate.
    pub fn authority_file(&self) -> PathBuf {
        self.path(AUTHORITY_FOLDER, "ca.pem")
    }

    /// The authority's key.
    pub fn authority_key_file(&self) -> PathBuf {
        self.path(AUTHORITY_FOLDER, "ca.key")
    }

    /// Makes the authority. One that is there is kept; with `replace` another one is made, and all that the old one
    /// signed counts no more.
    pub fn init(
        &self,
        terms: &AuthorityTerms,
        replace: bool,
        now: Timestamp,
    ) -> Result<Done, Error> {
        let _lock = self.lock()?;
        let (pem_file, key_file) = (self.authority_file(), self.authority_key_file());
        make_folder(&self.folder.join(AUTHORITY_FOLDER), 0o700, None)?;
        if pem_file.exists() && !replace {
            // A key that is kept elsewhere is well kept.
            if key_file.exists() {
                self.authority()?;
            }
            return Ok(Done::Kept);
        }
        // A run that was cut off has left its key.
        let left = match replace {
            true => None,
            false => read(&key_file)?,
        };
        let key = match &left {
            Some(pem) => {
                refuse_open(&key_file)?;
                Key::from_pem(pem).map_err(|error| Error::file(&key_file, error))?
            }
            None => Key::generate()?,
        };
        let authority = Authority::make(terms, key, now)?;
        if left.is_none() {
            write(&key_file, &authority.key_pem(), KEY_MODE, None)?;
        }
        write(&pem_file, authority.pem(), CERTIFICATE_MODE, None)?;
        Ok(match left {
            Some(_) => Done::Completed,
            None => Done::Made,
        })
    }

    /// The authority, if its key is here and closed to others.
    pub fn authority(&self) -> Result<Authority, Error> {
        let (pem_file, key_file) = (self.authority_file(), self.authority_key_file());
        let missing =
            |path: &Path| Error::file(path, "is missing; `postroad pki init` makes an authority");
        let pem = read(&pem_file)?.ok_or_else(|| missing(&pem_file))?;
        let key = read(&key_file)?.ok_or_else(|| {
            Error::file(
                &key_file,
                "is missing; put the authority's key there while you issue",
            )
        })?;
        refuse_open(&key_file)?;
        let key = Key::from_pem(&key).map_err(|error| Error::file(&key_file, error))?;
        Authority::from_pem(&pem, key).map_err(|error| Error::file(&pem_file, error))
    }

    /// Makes a holder's key and certificate. What is there is kept, unless `replace`.
    pub fn issue(
        &self,
        holder: &Holder,
        request: &Request,
        owner: Option<Owner>,
        replace: bool,
        now: Timestamp,
    ) -> Result<Done, Error> {
        let _lock = self.lock()?;
        let [ca_file, pem_file, key_file] = holder
            .kind
            .files()
            .map(|file| self.path(&holder.name, file));
        let (has_pem, has_key) = (pem_file.exists(), key_file.exists());
        if has_pem && has_key && !replace {
            let certificate = read_certificate(&pem_file)?;
            // A mail host's certificate may be another authority's, with a key of another kind.
            if holder.kind == Kind::Agent && !read_key(&key_file)?.fits(&certificate) {
                return Err(Error::file(
                    &key_file,
                    format!(
                        "is not the key of {}; `postroad pki renew` mends it",
                        pem_file.display()
                    ),
                ));
            }
            return self.trust(holder, &certificate, &ca_file, owner);
        }
        if has_pem && !has_key && !replace {
            return Err(Error::file(
                &key_file,
                format!(
                    "is missing, without which {} is of no use; put it there, or make both anew with `--replace`",
                    pem_file.display()
                ),
            ));
        }
        let authority = self.authority()?;
        make_folder(&self.folder.join(&holder.name), FOLDER_MODE, owner)?;
        let left = has_key && !has_pem && !replace;
        let key = match left {
            true => read_key(&key_file)?,
            false => Key::generate()?,
        };
        let pem = authority.issue(request, &key, now)?;
        if !left {
            write(&key_file, &key.to_pem(), KEY_MODE, owner)?;
        }
        write(&ca_file, authority.pem(), CERTIFICATE_MODE, owner)?;
        write(&pem_file, &pem, CERTIFICATE_MODE, owner)?;
        Ok(match left {
            true => Done::Completed,
            false => Done::Made,
        })
    }

    /// Puts the authority's certificate beside one of its own that lacks it.
    fn trust(
        &self,
        holder: &Holder,
        certificate: &Certificate,
        ca_file: &Path,
        owner: Option<Owner>,
    ) -> Result<Done, Error> {
        let authority_file = self.authority_file();
        let Some(authority) = read(&authority_file)?.filter(|_| !ca_file.exists()) else {
            return Ok(Done::Kept);
        };
        let own = Certificate::from_pem(&authority)
            .is_ok_and(|authority| certificate.is_signed_by(&authority));
        if !own && holder.kind == Kind::Server {
            return Ok(Done::Kept);
        }
        write(ca_file, &authority, CERTIFICATE_MODE, owner)?;
        Ok(Done::Completed)
    }

    /// Makes the certificates of `holders` anew that have little time left, with the names they have.
    pub fn renew(
        &self,
        holders: &[Holder],
        renewal: Renewal,
        now: Timestamp,
    ) -> Result<Vec<(Holder, Renewed)>, Error> {
        let _lock = self.lock()?;
        let authority = self.authority()?;
        let revoked = revocations(&self.revoked_file())?;
        let mut done = Vec::with_capacity(holders.len());
        for holder in holders {
            let old = self.certificate(holder)?;
            let renewed = match revoked.contains(&old.serial_number()?) {
                true => Renewed::Revoked(old),
                false => self.renew_one(&authority, holder, renewal, now)?,
            };
            done.push((holder.clone(), renewed));
        }
        Ok(done)
    }

    fn renew_one(
        &self,
        authority: &Authority,
        holder: &Holder,
        renewal: Renewal,
        now: Timestamp,
    ) -> Result<Renewed, Error> {
        let [_, pem_file, key_file] = holder
            .kind
            .files()
            .map(|file| self.path(&holder.name, file));
        let old = read_certificate(&pem_file)?;
        if !old.is_signed_by(&authority.certificate) {
            return Ok(Renewed::Foreign(old));
        }
        let key = read_key(&key_file)?;
        // A renewal with a new key that was cut off has left them so.
        let apart = !key.fits(&old);
        if !is_due(&old, renewal.within_days, now) && !apart {
            return Ok(Renewed::Young(old));
        }
        let key = match renewal.new_key && !apart {
            true => Key::generate()?,
            false => key,
        };
        let pem = authority.issue(&Request::like(&old), &key, now)?;
        if !key.fits(&old) && !apart {
            replace(&key_file, &key.to_pem())?;
        }
        replace(&pem_file, &pem)?;
        Certificate::from_pem(&pem).map(Renewed::Renewed)
    }

    /// Every holder in the folder, by name.
    pub fn holders(&self) -> Result<Vec<Holder>, Error> {
        let mut holders = Vec::new();
        let entries = fs::read_dir(&self.folder).map_err(Error::io(&self.folder))?;
        for entry in entries {
            let entry = entry.map_err(Error::io(&self.folder))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name == AUTHORITY_FOLDER {
                continue;
            }
            for kind in [Kind::Agent, Kind::Server] {
                let [_, pem_file, _] = kind.files();
                if self.path(&name, pem_file).exists() {
                    holders.push(Holder {
                        name: name.clone(),
                        kind,
                    });
                }
            }
        }
        holders.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(holders)
    }

    /// The holder of this name.
    pub fn holder(&self, name: &str) -> Result<Holder, Error> {
        let found = self
            .holders()?
            .into_iter()
            .find(|holder| holder.name == name);
        found.ok_or_else(|| Error::NoHolder(self.folder.join(name)))
    }

    /// What a holder's certificate says.
    pub fn certificate(&self, holder: &Holder) -> Result<Certificate, Error> {
        let [_, pem_file, _] = holder.kind.files();
        read_certificate(&self.path(&holder.name, pem_file))
    }

    /// Two that make files at one time would mix them.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        make_folder(&self.folder, 0o755, None)?;
        let lock = File::open(&self.folder).map_err(Error::io(&self.folder))?;
        lock.lock().map_err(Error::io(&self.folder))?;
        Ok(lock)
    }
}

fn is_due(certificate: &Certificate, within_days: Option<u32>, now: Timestamp) -> bool {
    let life = certificate.not_after.duration_since(certificate.not_before);
    let early = match within_days {
        Some(days) => SignedDuration::from_hours(24 * i64::from(days)),
        None => life / 3,
    };
    certificate.not_after.duration_since(now) < early
}

fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let (mode, owner) = match manners(path) {
        Some((mode, owner)) => (mode, Some(owner)),
        None => (KEY_MODE, None),
    };
    write(path, text, mode, owner)
}

fn read_certificate(path: &Path) -> Result<Certificate, Error> {
    let pem = read(path)?.ok_or_else(|| Error::NoHolder(path.to_owned()))?;
    Certificate::from_pem(&pem).map_err(|error| Error::file(path, error))
}

fn read_key(path: &Path) -> Result<Key, Error> {
    let pem = read(path)?.ok_or_else(|| Error::file(path, "is missing"))?;
    Key::from_pem(&pem).map_err(|error| Error::file(path, error))
}

#[cfg(test)]
mod tests;
