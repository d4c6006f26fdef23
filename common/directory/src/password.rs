use std::fmt;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{
        PasswordHasher,
        phc::{Output, PasswordHash},
    },
};

use crate::{
    DirectoryError,
    hashing::{HashMemory, Workplace},
};

/// Memory in KiB, passes and lanes of new hashes, as OWASP recommends for argon2id.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// The least memory × passes that OWASP's equivalent settings have.
const LEAST_WORK: u64 = 35_000;
/// A hash that wants more memory than this would let a few log-ins exhaust the host.
const MOST_MEMORY: u32 = 1024 * 1024;

/// The argon2id PHC string of a password: `$argon2id$v=19$m=19456,t=2,p=1$…`. Slow on purpose: blocks some 30 ms.
pub fn hash_password(password: &[u8], salt: [u8; 16]) -> Result<String, DirectoryError> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None)
        .map_err(|_| DirectoryError::Hash("bad parameters"))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(password, &salt)
        .map(|hash| hash.to_string())
        .map_err(|_| DirectoryError::Hash("argon2 refused it"))
}

/// A verifier of a password. Its hash is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    hash: PasswordHash,
    params: Params,
    version: Version,
}

impl Password {
    /// Takes an argon2id PHC string; the error says what is wrong with it.
    pub fn parse(phc: &str) -> Result<Self, &'static str> {
        let hash = PasswordHash::new(phc).map_err(|_| "the password hash is not a PHC string")?;
        if hash.algorithm.as_str() != "argon2id" {
            return Err("the password hash is not of the kind argon2id");
        }
        let params = Params::try_from(&hash).map_err(|_| "the password hash has bad parameters")?;
        let version = hash
            .version
            .map_or(Ok(Version::default()), Version::try_from);
        let version =
            version.map_err(|_| "the password hash is of an unknown version of argon2id")?;
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err("the password hash lacks its salt or hash");
        }
        if params.m_cost() > MOST_MEMORY || params.t_cost() > 100 {
            return Err("the password hash asks for too much memory or time");
        }
        Ok(Self {
            hash,
            params,
            version,
        })
    }

    /// Whether this is the password. Blocks for as long as the hash was made to take.
    pub fn verify(&self, password: &[u8]) -> bool {
        self.verify_in(&mut HashMemory::default().lend(), password)
    }

    /// The same in memory that is there.
    pub(crate) fn verify_in(&self, workplace: &mut Workplace, password: &[u8]) -> bool {
        let (Some(salt), Some(hash)) = (&self.hash.salt, &self.hash.hash) else {
            return false;
        };
        let mut made = [0; Output::MAX_LENGTH];
        let made = &mut made[..hash.len()];
        let hashed = Argon2::new(Algorithm::Argon2id, self.version, self.params.clone())
            .hash_password_into_with_memory(
                password,
                salt,
                made,
                workplace.blocks(self.params.block_count()),
            );
        // Comparing outputs takes the same time whatever they are.
        hashed.is_ok() && Output::new(made).is_ok_and(|made| made == *hash)
    }

    /// The PHC string it was made from. Whoever asks keeps it out of logs.
    pub fn phc(&self) -> String {
        self.hash.to_string()
    }

    pub(crate) fn hash(&self) -> &PasswordHash {
        &self.hash
    }

    /// Whether guessing is cheaper than it should be.
    pub fn is_weak(&self) -> bool {
        let work = u64::from(self.params.m_cost()) * u64::from(self.params.t_cost());
        work < LEAST_WORK || self.params.m_cost() < 7 * 1024
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_verifies_its_password_only() {
        let phc = hash_password("pässword".as_bytes(), [7; 16]).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        let password = Password::parse(&phc).unwrap();
        assert!(password.verify("pässword".as_bytes()));
        assert!(!password.verify(b"password") && !password.verify(b""));
        assert!(!password.is_weak());
        assert!(!format!("{password:?}").contains("argon2"));
    }

    #[test]
    fn refuses_other_kinds() {
        let good = hash_password(b"x", [7; 16]).unwrap();
        for bad in [
            "",
            "secret",
            "{PLAIN}secret",
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "$argon2id$v=19$m=19456,t=2,p=1",
            &good.replace("argon2id", "argon2i"),
            &good.replace("m=19456", "m=4000000000"),
        ] {
            assert!(Password::parse(bad).is_err(), "{bad}");
        }
        let weak = Password::parse(&good.replace("m=19456", "m=1024")).unwrap();
        assert!(weak.is_weak());
    }
}
