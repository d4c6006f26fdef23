//! Files that are there whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown,
};
use std::path::Path;
use std::str::FromStr;

use crate::Error;

/// Whose files are: the numbers of a user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once(':')
            .map(|(uid, gid)| (uid.parse(), gid.parse()));
        match parts {
            Some((Ok(uid), Ok(gid))) => Ok(Self { uid, gid }),
            _ => Err("write UID:GID, both as numbers, such as 10001:10001".to_owned()),
        }
    }
}

/// Writes beside the file, syncs, renames, syncs the folder: a reader sees the old file or the new one.
pub fn write(path: &Path, text: &str, mode: u32, owner: Option<Owner>) -> Result<(), Error> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    let written = (|| {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        if let Some(owner) = owner {
            let now = file.metadata()?;
            if (now.uid(), now.gid()) != (owner.uid, owner.gid) {
                fchown(&file, Some(owner.uid), Some(owner.gid))?;
            }
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map_err(Error::io(path))
}

/// Makes a folder, and those above it, if it is not there. One that is there stays as it is, but for a wanted owner.
pub fn make_folder(path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), Error> {
    let made = (|| {
        match DirBuilder::new().recursive(true).mode(mode).create(path) {
            Err(error) if !path.is_dir() => return Err(error),
            _ => {}
        }
        if let Some(owner) = owner {
            let now = fs::metadata(path)?;
            if (now.uid(), now.gid()) != (owner.uid, owner.gid) {
                chown(path, Some(owner.uid), Some(owner.gid))?;
            }
        }
        Ok(())
    })();
    made.map_err(Error::io(path))
}

/// The text of a file, if there is one.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// A key that others can read is no secret any more.
pub fn refuse_open(path: &Path) -> Result<(), Error> {
    let found = fs::metadata(path).map_err(Error::io(path))?;
    match found.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(Error::file(
            path,
            format!(
                "this key is open to others (mode {:03o}); if nobody can have read it, chmod 600, else make another authority",
                found.mode() & 0o777
            ),
        )),
    }
}

/// Mode and owner of a file that is replaced.
pub fn manners(path: &Path) -> Option<(u32, Owner)> {
    let found = fs::metadata(path).ok()?;
    let owner = Owner {
        uid: found.uid(),
        gid: found.gid(),
    };
    Some((found.mode() & 0o777, owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_two_numbers() {
        let owner = "10001:20002".parse::<Owner>().unwrap();
        assert_eq!((owner.uid, owner.gid), (10001, 20002));
        for bad in ["", "10001", "mail:mail", "1:2:3", "-1:1"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_written_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, "one", 0o600, None).unwrap();
        write(&path, "two", 0o640, None).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(manners(&path).unwrap().0, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(read(&folder.path().join("none")).unwrap(), None);
        let refused = refuse_open(&path).unwrap_err().to_string();
        assert!(refused.contains("mode 640"), "{refused}");
    }
}
