//! What accounts have for mechanisms in which a password is proved rather than shown, and what others seem to have.

use std::collections::BTreeMap;

use postroad_sasl::{CramSecret, SCRAM_ITERATIONS, ScramHash, ScramKeys, SecretKind};

use crate::{Account, DecoyKey, Directory, decoy::folded};

/// Octets of the salt of new keys.
const SALT: usize = 16;

/// Of one account. Each is there or not; PLAIN and LOGIN need none of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// Of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.
    pub scram_sha_256: Option<ScramKeys>,
    /// Of SCRAM-SHA-1.
    pub scram_sha_1: Option<ScramKeys>,
    /// The password itself, for CRAM-MD5: whoever reads it can log in.
    pub recoverable_secret: Option<CramSecret>,
}

impl Keys {
    /// Of a hash.
    pub const fn scram(&self, hash: ScramHash) -> Option<&ScramKeys> {
        match hash {
            ScramHash::Sha256 => self.scram_sha_256.as_ref(),
            ScramHash::Sha1 => self.scram_sha_1.as_ref(),
        }
    }
}

/// How SCRAM keys look to a client: rounds, and octets of the salt.
type Look = (u32, usize);

impl Directory {
    /// The SCRAM keys of an account; of one without them, that is unknown or disabled, keys that look like the others' and that no
    /// password fits, always the same.
    pub fn scram_keys(&self, name: &str, hash: ScramHash, key: &DecoyKey) -> ScramKeys {
        let folded = folded(name);
        let decoy = self.scram_decoy(&folded, hash, key);
        let keys = self.who_logs_in(&folded).map(|account| &account.keys);
        keys.and_then(|keys| keys.scram(hash))
            .cloned()
            .unwrap_or(decoy)
    }

    /// The recoverable secret of an account; of any other, one that nobody knows.
    pub fn recoverable_secret(&self, name: &str, key: &DecoyKey) -> CramSecret {
        let folded = folded(name);
        let decoy = CramSecret::new(&key.octets_for(b"cram", &folded));
        let keys = self.who_logs_in(&folded).map(|account| &account.keys);
        keys.and_then(|keys| keys.recoverable_secret.clone())
            .unwrap_or(decoy)
    }

    /// Accounts that have a password and cannot prove it this way, by address.
    pub fn without_keys(&self, kind: SecretKind) -> Vec<&Account> {
        let lacks = |account: &&Account| match kind {
            SecretKind::Scram(hash) => account.keys.scram(hash).is_none(),
            SecretKind::Cram => account.keys.recoverable_secret.is_none(),
        };
        let all = self.accounts().into_iter();
        let log_in = all.filter(|account| account.password.is_some() && !account.disabled);
        log_in.filter(lacks).collect()
    }

    fn scram_decoy(&self, account: &str, hash: ScramHash, key: &DecoyKey) -> ScramKeys {
        let (rounds, salt) = self.look(account, hash, key);
        // Whose look becomes another one's gets another salt too, as somebody with another password does.
        let whose = format!("{account}\0{rounds},{salt}");
        let octets = |purpose: &[u8]| key.octets_for(purpose, &whose);
        let part = |octets: [u8; 64], most: usize| octets.get(..most.min(64)).map(<[u8]>::to_vec);
        let keys = [octets(b"stored"), octets(b"server")]
            .map(|octets| part(octets, hash.octets()).unwrap_or_default());
        let [stored, server] = keys;
        // Each hash has a salt of its own, as real ones do.
        let salt = part(octets(hash.as_str().as_bytes()), salt).unwrap_or_default();
        let rounds = rounds.try_into().unwrap_or(SCRAM_ITERATIONS);
        ScramKeys::from_parts(hash, rounds, &salt, stored, server)
    }

    /// One of the looks, each as often as there are keys that have it.
    fn look(&self, account: &str, hash: ScramHash, key: &DecoyKey) -> Look {
        let mut looks: BTreeMap<Look, u64> = BTreeMap::new();
        for keys in self
            .accounts
            .values()
            .filter_map(|one| one.keys.scram(hash))
        {
            *looks
                .entry((keys.iterations().get(), keys.salt().len()))
                .or_default() += 1;
        }
        let looks = looks.into_iter().map(|((rounds, salt), count)| {
            let label = format!("{hash},{rounds},{salt}");
            (count, label, (rounds, salt))
        });
        let chosen = key.choose(b"scramform", account, looks);
        chosen.unwrap_or((SCRAM_ITERATIONS.get(), SALT))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn directory() -> Directory {
        let keys = |rounds| {
            let rounds = std::num::NonZeroU32::new(rounds).unwrap();
            ScramKeys::derive(ScramHash::Sha256, "pw", &[7; 12], rounds).unwrap()
        };
        let secret = CramSecret::new(b"pw");
        let text = format!(
            "[[domain]]\nname = \"a.example\"\n\
             [[account]]\naddress = \"alice@a.example\"\nscram_sha_256 = \"{}\"\nrecoverable_secret = \"{}\"\n\
             [[account]]\naddress = \"gone@a.example\"\nscram_sha_256 = \"{}\"\ndisabled = true\n\
             [[account]]\naddress = \"bare@a.example\"\n",
            keys(5000),
            *secret.to_text(),
            keys(6000)
        );
        Directory::parse(Path::new("d.toml"), &text).unwrap()
    }

    #[test]
    fn who_has_keys_gets_its_own_and_others_get_what_looks_alike() {
        let (directory, key) = (directory(), DecoyKey::new([7; 32]));
        let of = |name: &str| directory.scram_keys(name, ScramHash::Sha256, &key);
        assert_eq!(of("Alice@A.example").iterations().get(), 5000);
        let mut looks = std::collections::BTreeSet::new();
        for name in [
            "nobody@a.example",
            "gone@a.example",
            "bare@a.example",
            "",
            "x",
        ] {
            let decoy = of(name);
            assert_eq!(decoy, of(&name.to_uppercase()));
            assert_eq!(decoy.salt().len(), 12);
            assert!([5000, 6000].contains(&decoy.iterations().get()));
            assert_ne!(decoy.salt(), [7; 12]);
            assert!(looks.insert(decoy.to_string()), "{name}");
            // In its text form it is as good as any.
            assert_eq!(decoy.to_string().parse::<ScramKeys>(), Ok(decoy));
        }
        let other = directory.scram_keys("alice@a.example", ScramHash::Sha1, &key);
        assert_eq!(other.iterations(), SCRAM_ITERATIONS);
    }

    #[test]
    fn a_secret_is_known_of_whoever_has_one_alone() {
        let (directory, key) = (directory(), DecoyKey::new([7; 32]));
        let of = |name: &str| directory.recoverable_secret(name, &key);
        assert_eq!(of("alice@a.example").reveal(), b"pw");
        assert_ne!(of("gone@a.example"), of("bare@a.example"));
        assert_eq!(of("gone@a.example").reveal().len(), 64);
    }

    /// A directory with two accounts; of "amy", the first, each is made from these.
    fn of_amy(head: &str, password: Option<u8>, rounds: &[u32]) -> Directory {
        let mut text =
            format!("{head}\n[[domain]]\nname = \"a.example\"\npostmaster = \"zoe@a.example\"\n");
        let hash = |salt| crate::hash_password(b"pw", [salt; 16]).unwrap();
        if let Some(salt) = password {
            text += &format!(
                "[[account]]\naddress = \"amy@a.example\"\npassword_hash = \"{}\"\n",
                hash(salt)
            );
        }
        text += "[[account]]\naddress = \"zoe@a.example\"\n";
        for (at, rounds) in rounds.iter().enumerate() {
            let rounds = std::num::NonZeroU32::new(*rounds).unwrap();
            let keys = ScramKeys::derive(ScramHash::Sha256, "pw", &[7; 16], rounds).unwrap();
            text += &format!(
                "[[account]]\naddress = \"n{at}@a.example\"\nscram_sha_256 = \"{keys}\"\n"
            );
        }
        Directory::parse(Path::new("d.toml"), &text).unwrap()
    }

    fn nobody(directory: &Directory) -> ScramKeys {
        let key = directory.own_decoy_key();
        directory.scram_keys("nobody@a.example", ScramHash::Sha256, &key)
    }

    const HEAD: &str = "decoy_key = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"";

    #[test]
    fn by_a_written_key_decoys_outlive_every_change_of_accounts() {
        let decoys = [Some(1), Some(2), None].map(|salt| nobody(&of_amy(HEAD, salt, &[5000])));
        assert_eq!(decoys[0], decoys[1], "the first password is another");
        assert_eq!(decoys[0], decoys[2], "the first account is gone");
        let directory = of_amy(HEAD, Some(1), &[5000]);
        assert_eq!(directory.check(), Vec::new());
    }

    #[test]
    fn without_a_written_key_a_change_would_show_and_check_says_so() {
        let decoys = [Some(1), Some(2)].map(|salt| nobody(&of_amy("", salt, &[5000])));
        assert_ne!(decoys[0], decoys[1]);
        let told = of_amy("", Some(1), &[5000]).check();
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("d.toml: there is no decoy_key"),
            "{told:?}"
        );
        // Nobody is shown a salt.
        assert_eq!(of_amy("", Some(1), &[]).check(), Vec::new());
    }

    #[test]
    fn where_nothing_is_secret_the_key_is_made_by_chance() {
        // Who logs in by SCRAM knows its own keys, and the salt is for everybody.
        let secret = |directory: &Directory| {
            let key = directory.own_decoy_key();
            directory.recoverable_secret("zoe@a.example", &key)
        };
        for rounds in [&[][..], &[5000]] {
            let (one, other) = (of_amy("", None, rounds), of_amy("", None, rounds));
            assert_ne!(secret(&one), secret(&other));
            let mut again = of_amy("", None, rounds);
            again.keep_chance_of(&one);
            assert_eq!(secret(&one), secret(&again), "read again");
        }
    }

    #[test]
    fn who_gets_another_look_gets_another_salt() {
        let rounds = [vec![5000; 9], vec![6000; 9]].concat();
        let (old, new) = (
            of_amy(HEAD, None, &rounds[..17]),
            of_amy(HEAD, None, &rounds),
        );
        let key = old.own_decoy_key();
        let mut changed = 0;
        for number in 0..200 {
            let name = format!("nobody{number}@a.example");
            let [old, new] = [&old, &new].map(|one| one.scram_keys(&name, ScramHash::Sha256, &key));
            let same = old.iterations() == new.iterations();
            assert_eq!(old.salt() == new.salt(), same, "{name}");
            changed += u32::from(!same);
        }
        assert!(changed < 30, "{changed} of 200");
    }
}
