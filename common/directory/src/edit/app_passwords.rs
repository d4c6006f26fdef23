//! App passwords of an account are made and taken away.

use std::path::Path;

use postroad_address::Mailbox;
use toml_edit::{Array, ArrayOfTables, Item, Table, value};
use zeroize::Zeroizing;

use super::{change, entry_of, malformed};
use crate::{AppPassword, AppVerifier, DirectoryError, app_password};

/// Makes an app password for an account, with 24 octets of chance and those of a key. Tells it, prefix and all; it is not to be had
/// again. Blocks.
pub fn add_app_password(
    path: &Path,
    address: &Mailbox,
    terms: &AppPassword,
    (which, chance, key): (u64, [u128; 2], [u8; 16]),
) -> Result<Zeroizing<String>, DirectoryError> {
    let prefix = app_password::prefix(which);
    let made = Zeroizing::new(app_password::password(&prefix, chance));
    change(path, |directory, document| {
        let entry = entry_of(document, directory, address, path)?;
        let all = entry
            .entry("app_passwords")
            .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()))
            .as_array_of_tables_mut()
            .ok_or_else(|| malformed(path))?;
        let verifier = AppVerifier::new(&made, key);
        all.push(app_entry(&prefix, &verifier, terms));
        Ok(())
    })?;
    Ok(made)
}

fn app_entry(prefix: &str, verifier: &AppVerifier, terms: &AppPassword) -> Table {
    let mut entry = Table::new();
    entry.insert("prefix", value(prefix));
    entry.insert("verifier", value(verifier.to_text()));
    entry.insert("name", value(&terms.name));
    let texts = |all: Vec<String>| value(Array::from_iter(all));
    if !terms.scopes.is_empty() {
        let scopes = terms.scopes.iter().map(ToString::to_string).collect();
        entry.insert("scopes", texts(scopes));
    }
    if !terms.networks.is_empty() {
        let networks = terms.networks.iter().map(ToString::to_string).collect();
        entry.insert("networks", texts(networks));
    }
    if let Some(expires) = terms.expires {
        entry.insert("expires", value(expires.to_string()));
    }
    entry
}

/// Takes an app password from an account: it opens nothing any more. False: the account has none with this prefix. Blocks.
pub fn remove_app_password(
    path: &Path,
    address: &Mailbox,
    prefix: &str,
) -> Result<bool, DirectoryError> {
    let mut removed = false;
    change(path, |directory, document| {
        let entry = entry_of(document, directory, address, path)?;
        let all = entry.get_mut("app_passwords");
        if let Some(all) = all.and_then(Item::as_array_of_tables_mut) {
            let before = all.len();
            all.retain(|one| one.get("prefix").and_then(Item::as_str) != Some(prefix));
            removed = all.len() < before;
            if all.is_empty() {
                entry.remove("app_passwords");
            }
        }
        Ok(())
    })?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{DecoyKey, Directory, Secrets, app_prefix, hash_password, set_password};

    #[test]
    fn they_come_and_go_and_outlive_the_password_of_the_account() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.toml");
        let text = "# ours\n[[domain]]\nname = \"a.example\"\n[[account]]\naddress = \"bob@a.example\"\n\
                    # the other\n[[account]]\naddress = \"alice@a.example\"\n";
        fs::write(&path, text).unwrap();
        let bob = Mailbox::parse("Bob@a.example").unwrap();
        let terms = AppPassword {
            name: "the \"old\" printer".to_owned(),
            scopes: vec![crate::Scope::Submission],
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            expires: Some(postroad_envelope::Timestamp::from_millis(5000)),
        };
        let made = |number: u64, terms: &AppPassword| {
            add_app_password(&path, &bob, terms, (number, [number.into(), 2], [9; 16])).unwrap()
        };
        let one = made(1, &terms);
        let two = made(2, &AppPassword::default());
        let twice = add_app_password(&path, &bob, &terms, (2, [3, 3], [9; 16]));
        assert!(
            twice
                .unwrap_err()
                .to_string()
                .contains("another app password")
        );
        let secrets = Secrets::from(hash_password(b"pw", [1; 16]).unwrap());
        set_password(&path, &bob, &secrets).unwrap();

        let of = |password: &str| {
            let directory = Directory::load(&path).unwrap();
            let prefix = app_prefix(password.as_bytes()).unwrap();
            let key = DecoyKey::new([1; 32]);
            let (verifier, terms) = directory.app_verifier("BOB@a.example", prefix, &key);
            assert_eq!(verifier.verify(password.as_bytes()), terms.is_some());
            let (other, none) = directory.app_verifier("alice@a.example", prefix, &key);
            assert!(!other.verify(password.as_bytes()) && none.is_none());
            terms
        };
        assert_eq!(of(&one), Some(terms));
        assert_eq!(of(&two), Some(AppPassword::default()));
        let prefix = app_prefix(one.as_bytes()).unwrap();
        assert!(remove_app_password(&path, &bob, prefix).unwrap());
        assert!(!remove_app_password(&path, &bob, prefix).unwrap());
        assert_eq!(of(&one), None);
        assert!(of(&two).is_some());
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# ours\n") && text.contains("# the other\n"),
            "{text}"
        );
        assert!(!text.contains(&*two), "{text}");
    }
}
