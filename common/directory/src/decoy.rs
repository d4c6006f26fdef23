//! What an account that cannot log in is checked by: a verifier like those of the others, which no password fits.
//!
//! Whoever may ask for verifiers learns nothing of who exists: decoys are made like verifiers of this directory, each as
//! often as they are, and one account's is always the same.

use std::fmt;

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use blake2::{
    Blake2bMac512,
    digest::{FixedOutput, Update},
};
use zeroize::Zeroizing;

use crate::{Directory, Password};
use postroad_address::Mailbox;

/// The form of a decoy where nobody has a password: that of new ones.
const COMMON_FORM: &str = "$argon2id$v=19$m=19456,t=2,p=1$WlpaWlpaWlpaWlpaWlpaWg$WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo";

/// What decoys are made with. Who knows it can tell them from verifiers.
#[derive(Clone)]
pub struct DecoyKey(Zeroizing<[u8; 32]>);

impl DecoyKey {
    /// Takes 32 octets of chance, which should outlive a restart.
    pub fn new(octets: [u8; 32]) -> Self {
        Self(Zeroizing::new(octets))
    }

    fn octets_for(&self, purpose: &[u8], account: &str) -> [u8; 64] {
        // It fails on keys and salts that are too long, which these are not.
        let Ok(mac) = Blake2bMac512::new_with_salt_and_personal(Some(&self.0[..]), b"", purpose)
        else {
            return [0; 64];
        };
        mac.chain(account.as_bytes()).finalize_fixed().into()
    }
}

impl fmt::Debug for DecoyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecoyKey(…)")
    }
}

/// How the verifiers of a directory look, each with the number of those that look so or stand before it.
pub(crate) type Forms = Vec<(u64, PasswordHash)>;

impl Directory {
    /// The PHC string that checks the account's password; a decoy if there is none, or the account is unknown or
    /// disabled. The work is the same for all.
    pub fn verifier(&self, name: &str, key: &DecoyKey) -> Zeroizing<String> {
        let folded =
            Mailbox::parse(name).map_or_else(|_| name.to_lowercase(), |name| name.folded());
        let decoy = self.decoy(&folded, key);
        let account = self.accounts.get(&folded);
        let password = account
            .filter(|account| !account.disabled)
            .and_then(|account| account.password.as_ref());
        Zeroizing::new(password.map_or(decoy, Password::phc))
    }

    fn decoy(&self, account: &str, key: &DecoyKey) -> String {
        let [a, b, c, d, e, f, g, h, ..] = key.octets_for(b"form", account);
        let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let Some(form) = self.form(number) else {
            return COMMON_FORM.to_owned();
        };
        let (salt, hash) = (
            key.octets_for(b"salt", account),
            key.octets_for(b"hash", account),
        );
        let salt = salt.get(..form.salt.map_or(16, |salt| salt.len()));
        let hash = hash.get(..form.hash.map_or(32, |hash| hash.len()));
        let decoy = PasswordHash {
            salt: salt.and_then(|salt| Salt::new(salt).ok()),
            hash: hash.and_then(|hash| Output::new(hash).ok()),
            ..form
        };
        decoy.to_string()
    }

    /// One of the forms, each as often as there are verifiers that have it.
    fn form(&self, number: u64) -> Option<PasswordHash> {
        let forms = self.forms.get_or_init(|| forms(self));
        let (all, _) = forms.last()?;
        let at = forms.partition_point(|(upto, _)| *upto <= number % all);
        forms.get(at).map(|(_, form)| form.clone())
    }
}

fn forms(directory: &Directory) -> Forms {
    let hashes = directory
        .accounts
        .values()
        .filter_map(|account| Some(account.password.as_ref()?.hash()));
    let mut counted = std::collections::BTreeMap::new();
    for hash in hashes {
        let lengths = (
            hash.salt.map(|salt| salt.len()),
            hash.hash.map(|hash| hash.len()),
        );
        let version = hash.version;
        let entry = counted
            .entry((hash.params.to_string(), version, lengths))
            .or_insert((0, hash));
        entry.0 += 1;
    }
    let common = PasswordHash::new(COMMON_FORM)
        .ok()
        .filter(|_| counted.is_empty());
    if let Some(common) = common {
        return vec![(1, common)];
    }
    let mut upto = 0;
    let form = |(number, hash): (u64, &PasswordHash)| {
        upto += number;
        (upto, hash.clone())
    };
    counted.into_values().map(form).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::hash_password;

    fn directory(weak: bool) -> Directory {
        let alice = hash_password(b"alice", [1; 16]).unwrap();
        let mut text = format!(
            "[[domain]]\nname = \"a.example\"\n[[account]]\naddress = \"alice@a.example\"\npassword_hash = \"{alice}\"\n\
             [[account]]\naddress = \"gone@a.example\"\npassword_hash = \"{alice}\"\ndisabled = true\n\
             [[account]]\naddress = \"store@a.example\"\n"
        );
        if weak {
            text += "[[account]]\naddress = \"weak@a.example\"\npassword_hash = \"$argon2id$v=19$m=1024,t=1,p=1$BwcHBwcHBwc$BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\"\n";
        }
        Directory::parse(Path::new("d.toml"), &text).unwrap()
    }

    #[test]
    fn an_account_is_checked_by_its_own_verifier_in_any_case() {
        let (directory, key) = (directory(false), DecoyKey::new([7; 32]));
        let verifier = directory.verifier("ALICE@A.example", &key);
        assert!(Password::parse(&verifier).unwrap().verify(b"alice"));
    }

    #[test]
    fn whoever_cannot_log_in_has_a_verifier_of_the_same_form_that_stays_the_same() {
        let (directory, key) = (directory(false), DecoyKey::new([7; 32]));
        let real = directory.verifier("alice@a.example", &key);
        let mut seen = std::collections::HashSet::from([real.to_string()]);
        for name in [
            "nobody@a.example",
            "x@foreign.example",
            "gone@a.example",
            "store@a.example",
            "no address",
            "",
        ] {
            let decoy = directory.verifier(name, &key);
            assert_eq!(decoy, directory.verifier(&name.to_uppercase(), &key));
            assert_eq!(decoy.len(), real.len(), "{}", *decoy);
            assert_eq!(
                decoy.split('$').take(4).collect::<Vec<_>>(),
                real.split('$').take(4).collect::<Vec<_>>()
            );
            assert!(seen.insert(decoy.to_string()), "{name}");
            let password = Password::parse(&decoy).unwrap();
            assert!(!password.verify(b"alice") && !password.verify(b""));
            assert_ne!(decoy, directory.verifier(name, &DecoyKey::new([8; 32])));
        }
    }

    #[test]
    fn decoys_look_like_all_verifiers_there_are() {
        let (directory, key) = (directory(true), DecoyKey::new([7; 32]));
        let weak = (0..100)
            .filter(|n| {
                directory
                    .verifier(&format!("n{n}@a.example"), &key)
                    .contains("m=1024,")
            })
            .count();
        // One of three accounts with a verifier, disabled ones too.
        assert!((15..60).contains(&weak), "{weak}");
    }

    #[test]
    fn without_any_password_decoys_look_like_new_ones() {
        let text = "[[domain]]\nname = \"a.example\"\n[[account]]\naddress = \"alice@a.example\"\n";
        let directory = Directory::parse(Path::new("d.toml"), text).unwrap();
        let decoy = directory.verifier("alice@a.example", &DecoyKey::new([7; 32]));
        assert_eq!(decoy.len(), hash_password(b"x", [1; 16]).unwrap().len());
        assert!(Password::parse(&decoy).is_ok());
    }
}
