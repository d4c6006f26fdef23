use std::{fmt, num::NonZeroU32, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

/// Rounds of new keys. RFC 7677 §4 wants 4096 at least; more makes stolen keys dearer to guess, and logging in too, at the client.
pub const SCRAM_ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
/// Fewer are refused when keys are read.
const LEAST_ITERATIONS: u32 = 4096;
/// A client that is asked for more gives up, or is a victim.
const MOST_ITERATIONS: u32 = 1_000_000;
/// Octets of a salt.
const SALT: std::ops::RangeInclusive<usize> = 8..=64;
/// Octets of a password that is kept as it is.
const LONGEST_SECRET: usize = 1024;

/// The hash function of a SCRAM mechanism (RFC 5802 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScramHash {
    /// RFC 5802; old, and sound for this purpose.
    Sha1,
    /// RFC 7677.
    Sha256,
}

impl ScramHash {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha1];

    /// The name of the mechanism, and the scheme of the keys' text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
        }
    }

    /// Octets of a key.
    pub const fn octets(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    pub(crate) fn digest(self, octets: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        };
        digest::digest(algorithm, octets).as_ref().to_vec()
    }

    pub(crate) fn hmac(self, key: &[u8], octets: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), octets)
            .as_ref()
            .to_vec()
    }

    /// `Hi` (RFC 5802 §2.2).
    pub(crate) fn salted(
        self,
        password: &[u8],
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> Zeroizing<Vec<u8>> {
        let algorithm = match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        let mut out = Zeroizing::new(vec![0; self.octets()]);
        pbkdf2::derive(algorithm, iterations, salt, password, &mut out);
        out
    }
}

impl fmt::Display for ScramHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A password that SCRAM cannot use: what is left of it by SASLprep (RFC 4013) is nothing, or it has characters that no password has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the password has characters that SCRAM does not allow (RFC 4013)")]
pub struct BadPassword;

/// A password as it is hashed (RFC 5802 §5.1, RFC 4013).
pub fn prepare(password: &str) -> Result<Zeroizing<String>, BadPassword> {
    let prepared = stringprep::saslprep(password).map_err(|_| BadPassword)?;
    match prepared.is_empty() {
        true => Err(BadPassword),
        false => Ok(Zeroizing::new(prepared.into_owned())),
    }
}

/// What a server keeps of a password for SCRAM (RFC 5802 §3): it can verify the password and not say it, and nobody can log in with
/// it. In the form of RFC 5803: `SCRAM-SHA-256$10000:salt$StoredKey:ServerKey`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    hash: ScramHash,
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Zeroizing<Vec<u8>>,
    server_key: Zeroizing<Vec<u8>>,
}

impl ScramKeys {
    /// Of a password. Blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// See [`BadPassword`].
    pub fn derive(
        hash: ScramHash,
        password: &str,
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> Result<Self, BadPassword> {
        let password = prepare(password)?;
        let salted = hash.salted(password.as_bytes(), salt, iterations);
        let client_key = Zeroizing::new(hash.hmac(&salted, b"Client Key"));
        let stored_key = hash.digest(&client_key);
        let server_key = hash.hmac(&salted, b"Server Key");
        Ok(Self::from_parts(
            hash, iterations, salt, stored_key, server_key,
        ))
    }

    /// Of keys that were made otherwise, such as those of an account that does not exist.
    pub fn from_parts(
        hash: ScramHash,
        iterations: NonZeroU32,
        salt: &[u8],
        stored_key: Vec<u8>,
        server_key: Vec<u8>,
    ) -> Self {
        Self {
            hash,
            iterations,
            salt: salt.to_vec(),
            stored_key: Zeroizing::new(stored_key),
            server_key: Zeroizing::new(server_key),
        }
    }

    /// By which mechanism they are used.
    pub const fn hash(&self) -> ScramHash {
        self.hash
    }

    /// How often the password was hashed; the client is told.
    pub const fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    /// With what; the client is told.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub(crate) fn stored_key(&self) -> &[u8] {
        &self.stored_key
    }

    pub(crate) fn server_key(&self) -> &[u8] {
        &self.server_key
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&*self.salt, self.stored_key(), self.server_key()].map(|part| STANDARD.encode(part));
        let (hash, iterations) = (self.hash, self.iterations);
        write!(f, "{hash}${iterations}:{salt}${stored}:{server}")
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramKeys({}, …)", self.hash)
    }
}

impl FromStr for ScramKeys {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "the keys are not in the form SCRAM-SHA-256$10000:salt$StoredKey:ServerKey";
        let mut parts = text.split('$');
        let (Some(scheme), Some(salting), Some(keys), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(FORM);
        };
        let hash = ScramHash::ALL
            .into_iter()
            .find(|hash| hash.as_str() == scheme)
            .ok_or("the keys are neither of SCRAM-SHA-256 nor of SCRAM-SHA-1")?;
        let (iterations, salt) = salting.split_once(':').ok_or(FORM)?;
        let (stored, server) = keys.split_once(':').ok_or(FORM)?;
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| FORM)?;
        if !(LEAST_ITERATIONS..=MOST_ITERATIONS).contains(&iterations.get()) {
            return Err("the keys were hashed fewer than 4,096 or more than 1,000,000 times");
        }
        let salt = STANDARD.decode(salt).map_err(|_| FORM)?;
        let [stored, server] = [stored, server].map(|part| STANDARD.decode(part));
        let (stored, server) = (stored.map_err(|_| FORM)?, server.map_err(|_| FORM)?);
        let fits = SALT.contains(&salt.len())
            && stored.len() == hash.octets()
            && server.len() == hash.octets();
        match fits {
            true => Ok(Self::from_parts(hash, iterations, &salt, stored, server)),
            false => Err("salt or keys have not the length they should have"),
        }
    }
}

/// A password kept as it is, for CRAM-MD5 (RFC 2195), whose server must know it. Whoever reads it can log in. In text:
/// `CRAM-MD5$` and the password in base64, so that no eye catches it by chance.
#[derive(Clone, PartialEq, Eq)]
pub struct CramSecret(Zeroizing<Vec<u8>>);

impl CramSecret {
    const SCHEME: &'static str = "CRAM-MD5$";

    /// Of a password.
    pub fn new(password: &[u8]) -> Self {
        Self(Zeroizing::new(password.to_vec()))
    }

    /// The password, for the mechanism alone.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// Its text form, which is as secret as the password.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}{}", Self::SCHEME, STANDARD.encode(&*self.0)))
    }
}

impl fmt::Debug for CramSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CramSecret(…)")
    }
}

impl FromStr for CramSecret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "the secret is not in the form CRAM-MD5$base64";
        let octets = text.strip_prefix(Self::SCHEME).ok_or(FORM)?;
        let octets = STANDARD.decode(octets).map_err(|_| FORM)?;
        match (1..=LONGEST_SECRET).contains(&octets.len()) {
            true => Ok(Self::new(&octets)),
            false => Err("the secret is empty, or longer than any password"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Salt and rounds of the example of RFC 7677 §3; the password is `pencil`.
    const EXAMPLE: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                           WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn keys_are_those_of_rfc_7677() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let rounds = NonZeroU32::new(4096).unwrap();
        let keys = ScramKeys::derive(ScramHash::Sha256, "pencil", &salt, rounds).unwrap();
        assert_eq!(keys.to_string(), EXAMPLE);
        assert_eq!(EXAMPLE.parse::<ScramKeys>().unwrap(), keys);
        assert!(!format!("{keys:?}").contains("WG5d"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in [
            "",
            "SCRAM-SHA-256",
            &EXAMPLE.replace("SHA-256", "SHA-512"),
            &EXAMPLE.replace("4096", "4095"),
            &EXAMPLE.replace("4096", "1000001"),
            &EXAMPLE.replace("4096", "0"),
            &EXAMPLE.replace("W22ZaJ0SNY7soEsUEjb6gQ==", "W22Z"),
            &EXAMPLE.replace("WG5d", ""),
            &EXAMPLE.replace("SHA-256", "SHA-1"),
            &format!("{EXAMPLE}$"),
        ] {
            assert!(bad.parse::<ScramKeys>().is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_prepared_as_rfc_4013_has_it() {
        assert_eq!(&**prepare("I\u{ad}X").unwrap(), "IX");
        assert_eq!(&**prepare("\u{aa}").unwrap(), "a");
        for bad in ["", "\u{7}", "\u{627}1", "\u{ad}"] {
            assert!(prepare(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_read_as_it_is_written() {
        let secret = CramSecret::new("tanstaaftanstaaf".as_bytes());
        assert_eq!(secret.to_text().parse::<CramSecret>().unwrap(), secret);
        for bad in ["", "tanstaaf", "CRAM-MD5$", "CRAM-MD5$!", "cram-md5$YQ=="] {
            assert!(bad.parse::<CramSecret>().is_err(), "{bad}");
        }
    }
}
