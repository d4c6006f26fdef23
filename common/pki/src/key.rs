use std::fmt;

use rcgen::{KeyPair, PublicKeyData};

use crate::{Certificate, Error};

/// A private key, ECDSA on P-256. Never shown.
pub struct Key(pub(crate) KeyPair);

impl Key {
    /// A new one.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(KeyPair::generate()?))
    }

    /// Reads PKCS #8 in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        KeyPair::from_pem(pem).map(Self).map_err(|_| Error::Key)
    }

    /// PKCS #8 in PEM, to be kept secret.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// Whether the certificate is for this key.
    pub fn fits(&self, certificate: &Certificate) -> bool {
        self.0.subject_public_key_info() == certificate.public_key
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
