//! Which certificates count between agents, and why another does not: for our log, not for who shows it.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, OtherError};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::revoked::{Revocations, Serial};
use super::signatures::signatures_by;
use crate::{PeerIdentity, PeerRole, Roles};

/// A certificate that does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RefusedCertificate {
    /// Its subject, as it says itself.
    pub name: String,
    /// Its serial number.
    pub serial: Option<Serial>,
    /// Why it does not count.
    pub reason: String,
    /// What a person can do.
    pub remedy: &'static str,
}

impl fmt::Display for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate of {}", self.name)?;
        if let Some(serial) = &self.serial {
            write!(f, " (serial {serial})")?;
        }
        write!(f, " {}", self.reason)
    }
}

/// Of those who call us: a certificate of our authority, not revoked, with a role.
#[derive(Debug)]
pub struct Callers {
    pub inner: Arc<dyn ClientCertVerifier>,
    pub revoked: Revocations,
}

/// Of those whom we call: a certificate of our authority for the name, not revoked, with the role of whom we want if that
/// is known.
#[derive(Debug)]
pub struct Servers {
    pub inner: Arc<WebPkiServerVerifier>,
    pub revoked: Revocations,
    pub role: Option<PeerRole>,
}

/// What a certificate of a peer needs besides a signature and time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Any that this release knows.
    SomeRole,
    Role(PeerRole),
    Nothing,
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now);
        judge(verified, end_entity, &self.revoked, Needs::SomeRole)
    }

    signatures_by!(inner);
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_server_cert(end_entity, intermediates, name, ocsp, now);
        let needs = self.role.map_or(Needs::Nothing, Needs::Role);
        judge(verified, end_entity, &self.revoked, needs)
    }

    signatures_by!(inner);
}

/// Whatever is wrong, the peer reads the same alert: rustls makes `certificate_unknown` of an error that is not its own.
fn judge<T>(
    verified: Result<T, rustls::Error>,
    certificate: &CertificateDer<'_>,
    revoked: &Revocations,
    needs: Needs,
) -> Result<T, rustls::Error> {
    let (name, serial) = about(certificate);
    let (reason, remedy) = match verified {
        Err(error) => words(&error),
        Ok(_)
            if serial
                .as_ref()
                .is_some_and(|serial| revoked.contains(serial)) =>
        {
            (
                "is revoked".to_owned(),
                "if its holder is trusted again, make another: `postroad pki issue ROLE --replace`",
            )
        }
        Ok(verified) => match needs.missing(certificate) {
            Some(missing) => missing,
            None => return Ok(verified),
        },
    };
    let refused = RefusedCertificate {
        name,
        serial,
        reason,
        remedy,
    };
    Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
}

pub fn about(certificate: &CertificateDer<'_>) -> (String, Option<Serial>) {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => (
            parsed.subject().to_string(),
            Some(Serial::of(parsed.raw_serial())),
        ),
        Err(_) => ("a subject that cannot be read".to_owned(), None),
    }
}

impl Needs {
    /// What the certificate lacks of it, and what a person can do.
    fn missing(self, certificate: &CertificateDer<'_>) -> Option<(String, &'static str)> {
        let roles =
            PeerIdentity::from_certificate(certificate).map_or(Roles::NONE, |peer| peer.roles);
        match self {
            Self::SomeRole if roles == Roles::NONE => Some((
                "names no role that this release knows".to_owned(),
                "make one for its agent: `postroad pki issue ROLE`",
            )),
            Self::Role(role) if !roles.contains(role) => Some((
                format!("does not name the role {role}, but {roles}"),
                "make one for that agent: `postroad pki issue ROLE`",
            )),
            Self::SomeRole | Self::Role(_) | Self::Nothing => None,
        }
    }
}

fn words(error: &rustls::Error) -> (String, &'static str) {
    let rustls::Error::InvalidCertificate(why) = error else {
        return (format!("cannot be verified: {error}"), "");
    };
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "has run out".to_owned(),
            "make it anew: `postroad pki renew`",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "is not valid yet".to_owned(),
            "set the clocks of both hosts right",
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "is not from the authority in common.tls.ca_file".to_owned(),
            "let that authority make one: `postroad pki issue ROLE`",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("is for other names: {why}"),
            "make one with the name that agents call: `postroad pki issue queued --name NAME --replace`",
        ),
        why => (
            format!("does not count: {why}"),
            "make another: `postroad pki issue ROLE --replace`",
        ),
    }
}

/// What we found wrong with the peer's certificate, if a handshake ended by that.
pub fn refusal(error: &io::Error) -> Option<RefusedCertificate> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = error
    else {
        return None;
    };
    other.downcast_ref::<RefusedCertificate>().cloned()
}
