use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use postroad_net::{OnlyAccounts, PeerRole};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::permits::host_name;
use crate::{AUTHORITY_DAYS, Certificate, Error, Key, Permits};

/// For clocks that are behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);
/// RFC 5280 appendix A.1: `ub-common-name`.
const LONGEST_COMMON_NAME: usize = 64;
const DAY: i64 = 24 * 3600;

/// Who signs.
pub struct Authority {
    /// Its own certificate.
    pub certificate: Certificate,
    /// What it may vouch for.
    pub permits: Permits,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What an authority shall be like.
#[derive(Clone, Debug)]
pub struct AuthorityTerms {
    /// Its name, for people.
    pub name: String,
    /// What it may vouch for.
    pub permits: Permits,
    /// How long it lives.
    pub days: u32,
}

/// What a certificate shall say.
#[derive(Clone, Debug)]
pub struct Request {
    common_name: String,
    host_names: Vec<String>,
    addresses: Vec<IpAddr>,
    uris: Vec<String>,
    for_clients: bool,
    life: SignedDuration,
}

impl AuthorityTerms {
    /// An authority of the usual life.
    pub fn new(name: impl Into<String>, permits: Permits) -> Self {
        Self {
            name: name.into(),
            permits,
            days: AUTHORITY_DAYS,
        }
    }
}

impl Request {
    /// For an agent: it serves and it calls, as `role`. The first name is its name in logs; without any it is the role.
    pub fn agent<T: AsRef<str>>(role: PeerRole, names: &[T], days: u32) -> Result<Self, Error> {
        let mut request = Self::server(names, days)?;
        request.uris.push(role.uri());
        request.for_clients = true;
        if request.common_name.is_empty() {
            request.common_name = role.to_string();
        }
        Ok(request)
    }

    /// For a program that submits mail of these accounts and does nothing else, with the role msa.
    pub fn for_accounts<'a>(mut self, accounts: impl IntoIterator<Item = &'a str>) -> Self {
        self.uris
            .extend(accounts.into_iter().map(OnlyAccounts::uri));
        self
    }

    /// For a server that mail clients call.
    pub fn server<T: AsRef<str>>(names: &[T], days: u32) -> Result<Self, Error> {
        let (mut host_names, mut addresses) = (Vec::new(), Vec::new());
        for name in names.iter().map(AsRef::as_ref) {
            match name.parse::<IpAddr>() {
                Ok(address) if addresses.contains(&address) => {}
                Ok(address) => addresses.push(address),
                Err(_) => {
                    let name = host_name(name)?;
                    if !host_names.contains(&name) {
                        host_names.push(name);
                    }
                }
            }
        }
        let first = names.first().map(|name| name.as_ref().to_owned());
        Ok(Self {
            common_name: first
                .filter(|name| name.len() <= LONGEST_COMMON_NAME)
                .unwrap_or_default(),
            host_names,
            addresses,
            uris: Vec::new(),
            for_clients: false,
            life: SignedDuration::from_secs(i64::from(days) * DAY),
        })
    }

    /// The same again, for as long a life.
    pub fn like(old: &Certificate) -> Self {
        Self {
            common_name: old.common_name.clone().unwrap_or_default(),
            host_names: old.host_names.clone(),
            addresses: old.addresses.clone(),
            uris: old.uris.clone(),
            for_clients: old.for_clients,
            life: old.not_after.duration_since(old.not_before) - BACKDATED,
        }
    }

    /// With another life.
    pub fn with_days(mut self, days: u32) -> Self {
        self.life = SignedDuration::from_secs(i64::from(days) * DAY);
        self
    }

    fn params(&self) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if !self.common_name.is_empty() {
            params
                .distinguished_name
                .push(DnType::CommonName, self.common_name.clone());
        }
        for name in &self.host_names {
            let name = name.as_str().try_into()?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let addresses = self.addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        for uri in &self.uris {
            let uri = uri.as_str().try_into()?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if self.for_clients {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        Ok(params)
    }
}

impl Authority {
    /// Makes an authority for `key`: it may sign certificates of holders, but none of further authorities.
    pub fn make(terms: &AuthorityTerms, key: Key, now: Timestamp) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = terms.name.chars().take(LONGEST_COMMON_NAME);
        params
            .distinguished_name
            .push(DnType::CommonName, name.collect::<String>());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = terms.permits.constraints();
        let life = SignedDuration::from_secs(i64::from(terms.days) * DAY);
        date(&mut params, now, later(now, life)?);
        let pem = params.self_signed(&key.0)?.pem();
        Self::from_pem(&pem, key)
    }

    /// The authority with this certificate and key.
    pub fn from_pem(pem: &str, key: Key) -> Result<Self, Error> {
        let certificate = Certificate::from_pem(pem)?;
        if !key.fits(&certificate) {
            return Err(Error::Certificate(
                "the key beside it is another's".to_owned(),
            ));
        }
        let permits = {
            let (_, parsed) = X509Certificate::from_der(&certificate.der)
                .map_err(|error| Error::Certificate(error.to_string()))?;
            if !parsed.is_ca() {
                return Err(Error::Certificate("it is no authority's".to_owned()));
            }
            Permits::of(&parsed)
        };
        Ok(Self {
            permits,
            certificate,
            pem: pem.to_owned(),
            issuer: Issuer::from_ca_cert_pem(pem, key.0)?,
        })
    }

    /// Its certificate, for those who shall trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key, to be kept secret.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Makes a certificate for `key`, as PEM. It does not outlive the authority.
    pub fn issue(&self, request: &Request, key: &Key, now: Timestamp) -> Result<String, Error> {
        let addresses = request.addresses.iter().map(ToString::to_string);
        for name in request.host_names.iter().cloned().chain(addresses) {
            if !self.permits.allow(&name) {
                return Err(Error::NotPermitted {
                    name,
                    permits: self.permits.to_string(),
                });
            }
        }
        if self.certificate.not_after <= now {
            return Err(Error::Make("the authority itself has run out".to_owned()));
        }
        let mut params = request.params()?;
        let until = later(now, request.life)?.min(self.certificate.not_after);
        date(&mut params, now, until);
        Ok(params.signed_by(&key.0, &self.issuer)?.pem())
    }
}

fn later(now: Timestamp, life: SignedDuration) -> Result<Timestamp, Error> {
    now.checked_add(life)
        .map_err(|error| Error::Make(error.to_string()))
}

fn date(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    let epoch = date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| {
        let seconds = u64::try_from(time.as_second()).unwrap_or_default();
        epoch + std::time::Duration::from_secs(seconds)
    };
    params.not_before = at(now.saturating_sub(BACKDATED).unwrap_or(now));
    params.not_after = at(until);
    // RFC 5280 §4.1.2.2: unique, positive. rcgen's own follows from the key, which may be kept.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(permits: Permits, now: Timestamp) -> Authority {
        let terms = AuthorityTerms::new("Test authority", permits);
        Authority::make(&terms, Key::generate().unwrap(), now).unwrap()
    }

    #[test]
    fn an_agent_gets_its_role_its_names_and_both_usages() {
        let now = Timestamp::now();
        let authority = authority(Permits::default(), now);
        let key = Key::generate().unwrap();
        let names = ["mx2.Example.org", "10.0.0.7", "mx2.example.org"];
        let request = Request::agent(PeerRole::Mta, &names, 30).unwrap();
        let pem = authority.issue(&request, &key, now).unwrap();
        let certificate = Certificate::from_pem(&pem).unwrap();
        assert_eq!(certificate.roles.to_string(), "mta");
        assert_eq!(certificate.common_name.as_deref(), Some("mx2.Example.org"));
        assert_eq!(
            certificate.names().collect::<Vec<_>>(),
            ["mx2.example.org", "10.0.0.7"]
        );
        assert!(certificate.for_clients && key.fits(&certificate));
        assert_eq!(certificate.days_left(now), 30);
        assert!(certificate.is_signed_by(&authority.certificate));

        let again = authority
            .issue(&Request::like(&certificate), &key, now)
            .unwrap();
        let again = Certificate::from_pem(&again).unwrap();
        assert_ne!(again.serial, certificate.serial);
        assert_eq!(
            (again.not_after, again.uris, again.common_name),
            (
                certificate.not_after,
                certificate.uris,
                certificate.common_name
            )
        );
    }

    #[test]
    fn nothing_outlives_its_authority_or_leaves_its_permits() {
        let now = Timestamp::now();
        let permits = Permits::parse(["example.org"]).unwrap();
        let mut terms = AuthorityTerms::new("Short", permits.clone());
        terms.days = 10;
        let made = Authority::make(&terms, Key::generate().unwrap(), now).unwrap();
        let short =
            Authority::from_pem(made.pem(), Key::from_pem(&made.key_pem()).unwrap()).unwrap();
        assert_eq!(short.permits, permits);
        let key = Key::generate().unwrap();
        let request = Request::server(&["mail.example.org"], 365).unwrap();
        let pem = short.issue(&request, &key, now).unwrap();
        let certificate = Certificate::from_pem(&pem).unwrap();
        assert_eq!(certificate.not_after, short.certificate.not_after);
        assert!(!certificate.for_clients);
        let foreign = Request::server(&["mail.example.com"], 1).unwrap();
        let refused = short.issue(&foreign, &key, now).unwrap_err().to_string();
        assert!(refused.contains("mail.example.com"), "{refused}");
        let stranger = authority(Permits::default(), now);
        assert!(!certificate.is_signed_by(&stranger.certificate));
        let late = later(now, SignedDuration::from_secs(11 * DAY)).unwrap();
        assert!(short.issue(&request, &key, late).is_err());
        let mixed = Authority::from_pem(made.pem(), Key::generate().unwrap());
        assert!(mixed.is_err());
        assert!(Authority::from_pem(&pem, key).is_err(), "no authority");
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for bad in ["", "two words", "[10.0.0.1]", "a..b"] {
            assert!(Request::server(&[bad], 1).is_err(), "{bad}");
        }
        assert!(Request::server(&["*.example.org"], 1).is_ok());
        assert!(
            Key::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
                .is_err()
        );
    }
}
