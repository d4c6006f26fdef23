//! The list of certificates that count no more, as `common.tls.revoked` names it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use postroad_net::{Revocations, Serial};

use crate::file::{manners, read, write};
use crate::{Certificate, Error, Pki};

const LIST: &str = "revoked";
const MODE: u32 = 0o644;
const HEAD: &str = "# Serial numbers of certificates that agents do not take any more; `common.tls.revoked` names this file.\n";

impl Pki {
    /// The list beside the authority.
    pub fn revoked_file(&self) -> PathBuf {
        self.folder().join(LIST)
    }

    /// Adds a number to a list, which is made if there is none; whether it is new there. `who` is for people.
    pub fn revoke(
        &self,
        list: &Path,
        serial: &Serial,
        who: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let _lock = self.lock()?;
        if revocations(list)?.contains(serial) {
            return Ok(false);
        }
        let mut text = read(list)?.unwrap_or_else(|| HEAD.to_owned());
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let who = who.replace(char::is_control, " ");
        text += &format!("{serial}  # {who}, revoked {now:.0}\n");
        let (mode, owner) = manners(list).unzip();
        write(list, &text, mode.unwrap_or(MODE), owner)?;
        Ok(true)
    }
}

/// What is on a list; nothing if there is none.
pub fn revocations(list: &Path) -> Result<Revocations, Error> {
    if !list.exists() {
        return Ok(Revocations::none());
    }
    let name = |error: postroad_net::Error| match error {
        postroad_net::Error::File { path, problem } => Error::File { path, problem },
        other => Error::file(list, other),
    };
    Revocations::open(list).map_err(name)
}

impl Certificate {
    /// Its serial number as lists have it.
    pub fn serial_number(&self) -> Result<Serial, Error> {
        let bad = |error: postroad_net::Error| Error::Certificate(error.to_string());
        self.serial.parse().map_err(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_added_once_and_agents_can_read_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::at(folder.path());
        let list = pki.revoked_file();
        let (one, two): (Serial, Serial) = ("0a1".parse().unwrap(), "b2".parse().unwrap());
        let now = Timestamp::UNIX_EPOCH;
        assert!(pki.revoke(&list, &one, "mta\nb2", now).unwrap());
        assert!(!pki.revoke(&list, &one, "mta", now).unwrap());
        assert!(
            !revocations(&list).unwrap().contains(&two),
            "a name is no number"
        );
        // As an editor may leave it.
        let text = std::fs::read_to_string(&list).unwrap();
        std::fs::write(&list, text.trim_end()).unwrap();
        assert!(pki.revoke(&list, &two, "msa", now).unwrap());
        let revoked = revocations(&list).unwrap();
        assert!(revoked.contains(&one) && revoked.contains(&two));

        std::fs::write(&list, "nonsense\n").unwrap();
        let told = pki.revoke(&list, &one, "mta", now).unwrap_err().to_string();
        assert!(told.contains("revoked: line 1: "), "{told}");
        assert_eq!(std::fs::read_to_string(&list).unwrap(), "nonsense\n");
    }
}
