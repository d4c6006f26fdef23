mod app_passwords;

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

use postroad_address::{Domain, Mailbox};
use postroad_envelope::StoreName;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::{Directory, DirectoryError, Keys, Problem};

pub use app_passwords::{add_app_password, remove_app_password};

/// The mode of a directory file that did not exist before.
const NEW_FILE_MODE: u32 = 0o640;

/// A domain to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDomain {
    /// Its name.
    pub name: Domain,
    /// Who gets the mail of `postmaster` and `abuse`.
    pub postmaster: Option<Mailbox>,
    /// Whose it is; none: `default`.
    pub tenant: Option<String>,
}

/// What an account is to log in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets {
    /// The hash of its password.
    pub password_hash: String,
    /// Of the same password; what is not there is taken out of the entry.
    pub keys: Keys,
}

/// Nothing but a hash.
impl From<String> for Secrets {
    fn from(password_hash: String) -> Self {
        Self {
            password_hash,
            keys: Keys::default(),
        }
    }
}

impl Secrets {
    fn write(&self, entry: &mut Table) {
        entry.insert("password_hash", value(&self.password_hash));
        let keys = &self.keys;
        let texts = [
            (
                "scram_sha_256",
                keys.scram_sha_256.as_ref().map(ToString::to_string),
            ),
            (
                "scram_sha_1",
                keys.scram_sha_1.as_ref().map(ToString::to_string),
            ),
            (
                "recoverable_secret",
                keys.recoverable_secret
                    .as_ref()
                    .map(|secret| secret.to_text().to_string()),
            ),
        ];
        for (name, text) in texts {
            match text {
                Some(text) => drop(entry.insert(name, value(text))),
                // Of an older password.
                None => drop(entry.remove(name)),
            }
        }
    }
}

/// Gives an account another password. Blocks.
pub fn set_password(
    path: &Path,
    address: &Mailbox,
    secrets: &Secrets,
) -> Result<(), DirectoryError> {
    change(path, |directory, document| {
        let entry = entry_of(document, directory, address, path)?;
        entry.remove("password_hash_file");
        secrets.write(entry);
        Ok(())
    })
}

/// Adds an account to the file, which keeps its comments and mode. Its domain must be there. Blocks.
pub fn add_account(
    path: &Path,
    address: &Mailbox,
    secrets: &Secrets,
    store: Option<&StoreName>,
) -> Result<(), DirectoryError> {
    change(path, |directory, document| {
        // One that another program has may log in here from now on.
        let known = directory.account(address);
        if known.is_some_and(|account| !account.elsewhere) {
            return Err(DirectoryError::AlreadyThere(address.clone()));
        }
        let mut entry = Table::new();
        entry.insert("address", value(address.to_string()));
        secrets.write(&mut entry);
        if let Some(store) = store {
            entry.insert("store", value(store.as_str()));
        }
        append(document, "account", entry, path)
    })
}

/// Makes an account one of another store: mail for it goes there from the next reading of the file on. Tells the store it was
/// of. Blocks.
pub fn move_account(
    path: &Path,
    address: &Mailbox,
    store: &StoreName,
) -> Result<StoreName, DirectoryError> {
    let mut before = StoreName::default();
    change(path, |directory, document| {
        if let Some(account) = directory.account(address) {
            before = account.store.clone();
        }
        let entry = entry_of(document, directory, address, path)?;
        entry.insert("store", value(store.as_str()));
        Ok(())
    })?;
    Ok(before)
}

/// Adds a domain to the file, which is made if it does not exist. Blocks.
pub fn add_domain(path: &Path, domain: &NewDomain) -> Result<(), DirectoryError> {
    change(path, |directory, document| {
        if directory.is_local_domain(&domain.name) {
            return Err(DirectoryError::DomainAlreadyThere(domain.name.clone()));
        }
        let mut entry = Table::new();
        entry.insert("name", value(domain.name.to_string()));
        if let Some(postmaster) = &domain.postmaster {
            entry.insert("postmaster", value(postmaster.to_string()));
        }
        if let Some(tenant) = &domain.tenant {
            entry.insert("tenant", value(tenant));
        }
        append(document, "domain", entry, path)
    })
}

/// Reads, changes and replaces the file while no other of us does. A change that would make a bad file is refused.
fn change(
    path: &Path,
    edit: impl FnOnce(&Directory, &mut DocumentMut) -> Result<(), DirectoryError>,
) -> Result<(), DirectoryError> {
    let write_error = |source| DirectoryError::Write {
        path: path.to_owned(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let lock = File::open(folder).map_err(write_error)?;
    lock.lock().map_err(write_error)?;
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            let path = path.to_owned();
            return Err(DirectoryError::Read { path, source });
        }
    };
    let directory = Directory::parse(path, &text)?;
    let mut document: DocumentMut = text.parse().map_err(|_| malformed(path))?;
    edit(&directory, &mut document)?;
    let mut text = document.to_string();
    if Directory::parse(path, &text)?.wants_decoy_key() {
        // The one in force is kept where it comes from the file, so that nothing is seen of this.
        document.insert("decoy_key", value(directory.lasting_decoy_key().as_str()));
        text = document.to_string();
        Directory::parse(path, &text)?;
    }
    replace(path, &text).map_err(write_error)?;
    lock.sync_all().map_err(write_error)
}

fn append(
    document: &mut DocumentMut,
    section: &str,
    entry: Table,
    path: &Path,
) -> Result<(), DirectoryError> {
    document
        .entry(section)
        .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()))
        .as_array_of_tables_mut()
        .ok_or_else(|| malformed(path))?
        .push(entry);
    Ok(())
}

/// The entry of an account that this file has itself.
fn entry_of<'a>(
    document: &'a mut DocumentMut,
    directory: &Directory,
    address: &Mailbox,
    path: &Path,
) -> Result<&'a mut Table, DirectoryError> {
    let account = directory.account(address);
    let Some(account) = account.filter(|account| !account.elsewhere) else {
        return Err(DirectoryError::NoSuchAccount(address.clone()));
    };
    let entries = document
        .get_mut("account")
        .and_then(Item::as_array_of_tables_mut)
        .ok_or_else(|| malformed(path))?;
    let is_it = |entry: &&mut Table| {
        let named = entry.get("address").and_then(Item::as_str);
        let named = named.and_then(|text| Mailbox::parse(text).ok());
        named.is_some_and(|named| named.folded() == account.name())
    };
    let entry = entries.iter_mut().find(is_it);
    entry.ok_or_else(|| malformed(path))
}

fn malformed(path: &Path) -> DirectoryError {
    DirectoryError::Invalid(vec![Problem::new(
        path,
        None,
        "the entries are not written as [[domain]], [[account]], [[alias]]",
        "write them so, or add the entry by hand",
    )])
}

/// Writes beside the file, syncs, renames: a reader sees the old file or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let old = fs::metadata(path).ok();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let written = (|| {
        file.write_all(text.as_bytes())?;
        if let Some(old) = &old
            && file
                .metadata()
                .is_ok_and(|now| (now.uid(), now.gid()) != (old.uid(), old.gid()))
        {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        // The file may hold its first hash now, so others lose what they had.
        let mode = old.map_or(NEW_FILE_MODE, |old| old.mode() & 0o7770);
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_password;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn entries_are_added_and_comments_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.toml");
        let domain = NewDomain {
            name: Domain::parse("a.example").unwrap(),
            postmaster: Some(Mailbox::parse("bob@a.example").unwrap()),
            tenant: None,
        };
        add_domain(&path, &domain).unwrap();
        assert_eq!(mode(&path), 0o640);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("# ours\n{text}# end\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();

        let hash = hash_password(b"pw", [3; 16]).unwrap();
        for name in ["bob@a.example", "\"..\"@a.example"] {
            add_account(
                &path,
                &Mailbox::parse(name).unwrap(),
                &hash.clone().into(),
                None,
            )
            .unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# ours\n") && text.contains("# end"),
            "{text}"
        );
        assert_eq!(mode(&path), 0o600);
        let directory = Directory::load(&path).unwrap();
        assert!(directory.verify("bob@a.example", b"pw").is_some());
        assert_eq!(directory.accounts().len(), 2);
        assert_eq!(directory.check(), Vec::new());
    }

    #[test]
    fn an_account_moves_and_the_rest_of_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.toml");
        let text = "# ours\n[[domain]]\nname = \"a.example\"\nstore = \"old\"\n\n# bob\n[[account]]\naddress = \"Bob@a.example\" # he\n\n\
            [[account]]\naddress = \"eve@a.example\"\n";
        fs::write(&path, text).unwrap();
        let bob = Mailbox::parse("bob@A.example").unwrap();
        let eve = Mailbox::parse("eve@a.example").unwrap();
        let to = |name: &str| move_account(&path, &bob, &name.parse().unwrap());
        assert_eq!(to("b").unwrap().as_str(), "old");
        assert_eq!(to("default").unwrap().as_str(), "b");
        assert_eq!(to("default").unwrap().as_str(), "default");
        let directory = Directory::load(&path).unwrap();
        assert!(directory.account(&bob).unwrap().store.is_default());
        assert_eq!(directory.account(&eve).unwrap().store.as_str(), "old");
        assert_eq!(directory.store_of(&eve).as_str(), "old");
        let moved = fs::read_to_string(&path).unwrap();
        let added = "address = \"Bob@a.example\" # he\nstore = \"default\"\n";
        assert_eq!(
            moved,
            text.replace("address = \"Bob@a.example\" # he\n", added)
        );
        let nobody = Mailbox::parse("nobody@a.example").unwrap();
        assert!(matches!(
            move_account(&path, &nobody, &StoreName::default()),
            Err(DirectoryError::NoSuchAccount(_))
        ));
    }

    #[test]
    fn what_would_make_a_bad_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.toml");
        fs::write(&path, "[[domain]]\nname = \"a.example\"\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let hash = hash_password(b"pw", [3; 16]).unwrap();
        let bob = Mailbox::parse("bob@a.example").unwrap();
        let foreign = Mailbox::parse("bob@b.example").unwrap();
        add_account(&path, &bob, &hash.clone().into(), None).unwrap();
        assert_eq!(mode(&path), 0o640, "a file with hashes is not for others");
        let before = fs::read_to_string(&path).unwrap();
        assert!(matches!(
            add_account(&path, &bob, &hash.clone().into(), None),
            Err(DirectoryError::AlreadyThere(_))
        ));
        assert!(matches!(
            add_account(&path, &foreign, &hash.clone().into(), None),
            Err(DirectoryError::Invalid(_))
        ));
        let eve = Mailbox::parse("eve@a.example").unwrap();
        assert!(add_account(&path, &eve, &"plain".to_owned().into(), None).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_of_decoys_is_written_with_the_first_keys_and_shows_nothing() {
        use postroad_sasl::{SCRAM_ITERATIONS, ScramHash, ScramKeys};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.toml");
        let hash = |salt| hash_password(b"pw", [salt; 16]).unwrap();
        let text = format!(
            "# ours\n\n[[domain]]\nname = \"a.example\"\npostmaster = \"bob@a.example\"\n\n[[account]]\naddress = \"bob@a.example\"\npassword_hash = \"{}\"\n",
            hash(1)
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let decoy = || {
            let directory = Directory::load(&path).unwrap();
            let key = directory.own_decoy_key();
            directory.scram_keys("nobody@a.example", ScramHash::Sha256, &key)
        };
        let before = decoy();
        let keys = |salt| Keys {
            scram_sha_256: ScramKeys::derive(
                ScramHash::Sha256,
                "pw",
                &[salt; 16],
                SCRAM_ITERATIONS,
            )
            .ok(),
            ..Keys::default()
        };
        let bob = Mailbox::parse("bob@a.example").unwrap();
        for salt in [2, 3] {
            let secrets = Secrets {
                password_hash: hash(salt),
                keys: keys(salt),
            };
            set_password(&path, &bob, &secrets).unwrap();
            assert_eq!(decoy(), before);
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("decoy_key = \""), "{text}");
        assert!(text.contains("# ours\n"), "{text}");
        assert_eq!(text.matches("decoy_key").count(), 1);
        assert_eq!(Directory::load(&path).unwrap().check(), Vec::new());
    }
}
