//! What an account that cannot log in is checked by: a verifier like those of the others, which no password fits.
//!
//! Whoever may ask for verifiers learns nothing of who exists: decoys are made like verifiers of this directory, each as
//! often as they are, and one account's is always the same.

use std::{collections::HashMap, fmt, str::FromStr};

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use blake2::{
    Blake2bMac512,
    digest::{FixedOutput, Update},
};
use zeroize::Zeroizing;

use crate::{Account, Directory, Password};
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

    /// Of a secret that is kept anyway.
    pub(crate) fn derived(secret: &str) -> Self {
        let octets = Self::new([0; 32]).octets_for(b"decoys", secret);
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(octets) {
            *to = from;
        }
        Self::new(key)
    }

    /// Of chance, for nobody else.
    pub(crate) fn of_chance() -> Self {
        Self::new(rand::random())
    }

    /// As a directory file has it. Whoever asks keeps it out of logs.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }

    pub(crate) fn octets_for(&self, purpose: &[u8], account: &str) -> [u8; 64] {
        // It fails on keys and salts that are too long, which these are not.
        let Ok(mac) = Blake2bMac512::new_with_salt_and_personal(Some(&self.0[..]), b"", purpose)
        else {
            return [0; 64];
        };
        mac.chain(account.as_bytes()).finalize_fixed().into()
    }

    /// One of several looks that is always the same for the account, each as often as its count says. When counts change few accounts get
    /// another one.
    pub(crate) fn choose<T>(
        &self,
        purpose: &[u8],
        account: &str,
        looks: impl IntoIterator<Item = (u64, String, T)>,
    ) -> Option<T> {
        let scored = looks.into_iter().map(|(count, label, look)| {
            let octets = self.octets_for(purpose, &format!("{account}\0{label}"));
            (race(octets, count), look)
        });
        let first = scored.min_by(|(one, _), (other, _)| one.total_cmp(other));
        first.map(|(_, look)| look)
    }
}

/// When this one comes in: an exponential time, so that the first of several is each in proportion to its count.
fn race([a, b, c, d, ..]: [u8; 64], count: u64) -> f64 {
    let chance = (f64::from(u32::from_le_bytes([a, b, c, d])) + 1.0) / 4_294_967_297.0;
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    -chance.ln() / f64::from(count.max(1))
}

impl FromStr for DecoyKey {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let octets = STANDARD.decode(text.trim()).ok();
        let octets: Option<[u8; 32]> = octets.and_then(|octets| octets.try_into().ok());
        let octets = octets.ok_or("the key of decoys is not 32 octets in base64")?;
        // An example that was copied hides nobody.
        match octets.windows(2).all(|pair| pair.first() == pair.last()) {
            true => Err("the key of decoys is not made by chance"),
            false => Ok(Self::new(octets)),
        }
    }
}

impl fmt::Debug for DecoyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecoyKey(…)")
    }
}

/// The key of a directory, and where it comes from.
#[derive(Debug, Clone)]
pub(crate) enum Decoys {
    /// It is written in the file.
    Written(DecoyKey),
    /// From a verifier of the file: the same in all copies, until that verifier is another.
    Derived(DecoyKey),
    /// There is nothing secret to make it from, or nothing that its owner does not know: who has SCRAM keys knows all of them.
    Chance(DecoyKey),
}

impl Decoys {
    pub fn new(written: Option<DecoyKey>, accounts: &HashMap<String, Account>) -> Self {
        if let Some(key) = written {
            return Self::Written(key);
        }
        let with_password = accounts
            .iter()
            .filter_map(|(name, account)| Some((name, account.password.as_ref()?)));
        match with_password.min_by_key(|(name, _)| *name) {
            Some((_, password)) => Self::Derived(DecoyKey::derived(&password.phc())),
            None => Self::Chance(DecoyKey::of_chance()),
        }
    }

    fn key(&self) -> &DecoyKey {
        match self {
            Self::Written(key) | Self::Derived(key) | Self::Chance(key) => key,
        }
    }
}

/// How the verifiers of a directory look, each with how many do.
pub(crate) type Forms = Vec<(u64, String, PasswordHash)>;

/// The name of an account as it is looked up by.
pub(crate) fn folded(name: &str) -> String {
    Mailbox::parse(name).map_or_else(|_| name.to_lowercase(), |name| name.folded())
}

impl Directory {
    /// What decoys are made with where the directory is read by whoever asks: it must be the same in all copies and after a restart,
    /// and nobody may know it. So it is written in the file; without it, it comes from a verifier there.
    pub fn own_decoy_key(&self) -> DecoyKey {
        self.decoys.key().clone()
    }

    /// The key that is written in the file.
    pub fn written_decoy_key(&self) -> Option<&DecoyKey> {
        match &self.decoys {
            Decoys::Written(key) => Some(key),
            Decoys::Derived(_) | Decoys::Chance(_) => None,
        }
    }

    /// Whether clients are shown salts, by whose changes those of decoys could be told.
    pub(crate) fn wants_decoy_key(&self) -> bool {
        let shown = |account: &Account| {
            account.keys.scram_sha_256.is_some() || account.keys.scram_sha_1.is_some()
        };
        self.written_decoy_key().is_none() && self.accounts.values().any(shown)
    }

    /// The text of a key to be written: that in force, or a new one where that would not outlive the process.
    pub(crate) fn lasting_decoy_key(&self) -> Zeroizing<String> {
        match &self.decoys {
            Decoys::Written(key) | Decoys::Derived(key) => key.to_text(),
            Decoys::Chance(_) => DecoyKey::of_chance().to_text(),
        }
    }

    /// A key made by chance stays for as long as the process does.
    pub(crate) fn keep_chance_of(&mut self, before: &Self) {
        if let (Decoys::Chance(key), Decoys::Chance(old)) = (&mut self.decoys, &before.decoys) {
            key.clone_from(old);
        }
    }

    /// The PHC string that checks the account's password; a decoy if there is none, or the account is unknown or
    /// disabled. The work is the same for all.
    pub fn verifier(&self, name: &str, key: &DecoyKey) -> Zeroizing<String> {
        let folded = folded(name);
        let decoy = self.decoy(&folded, key);
        let account = self.who_logs_in(&folded);
        let password = account.and_then(|account| account.password.as_ref());
        Zeroizing::new(password.map_or(decoy, Password::phc))
    }

    fn decoy(&self, account: &str, key: &DecoyKey) -> String {
        let forms = self.forms.get_or_init(|| forms(self)).iter();
        let forms = forms.map(|(count, label, form)| (*count, label.clone(), (label, form)));
        let Some((label, form)) = key.choose(b"form", account, forms) else {
            return COMMON_FORM.to_owned();
        };
        let whose = format!("{account}\0{label}");
        let (salt, hash) = (
            key.octets_for(b"salt", &whose),
            key.octets_for(b"hash", &whose),
        );
        let salt = salt.get(..form.salt.map_or(16, |salt| salt.len()));
        let hash = hash.get(..form.hash.map_or(32, |hash| hash.len()));
        let decoy = PasswordHash {
            salt: salt.and_then(|salt| Salt::new(salt).ok()),
            hash: hash.and_then(|hash| Output::new(hash).ok()),
            ..form.clone()
        };
        decoy.to_string()
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
            .or_insert((0_u64, hash));
        entry.0 += 1;
    }
    if counted.is_empty()
        && let Ok(common) = PasswordHash::new(COMMON_FORM)
    {
        return vec![(1, "common".to_owned(), common)];
    }
    let form = |(look, (count, hash)): (_, (u64, &PasswordHash))| {
        (count, format!("{look:?}"), hash.clone())
    };
    counted.into_iter().map(form).collect()
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

    #[test]
    fn a_written_key_is_chance_in_base64() {
        let key = DecoyKey::of_chance();
        let read: DecoyKey = key.to_text().parse().unwrap();
        assert_eq!(*read.to_text(), *key.to_text());
        for bad in [
            "",
            "AAAA",
            "not base64",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            assert!(bad.parse::<DecoyKey>().is_err(), "{bad}");
            let text = format!("\ndecoy_key = \"{bad}\"\n");
            let refused = Directory::parse(Path::new("d.toml"), &text).unwrap_err();
            assert!(
                refused.to_string().contains("d.toml:2: the key of decoys"),
                "{refused}"
            );
        }
    }
}
