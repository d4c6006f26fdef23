//! Who calls a service of ours, and what it may do there.

mod only_accounts;
mod unix_roles;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing::debug;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

pub use only_accounts::OnlyAccounts;
pub use unix_roles::{UnixRole, UnixRoles};

use crate::{Error, Serial};

/// The scheme and path of role names in certificates: `postroad://role/mta`.
const ROLE_URI: &str = "postroad://role/";
/// The same of accounts: `postroad://account/www@example.org`.
const ACCOUNT_URI: &str = "postroad://account/";

/// A part an agent plays towards the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerRole {
    /// Mail submission agent.
    Msa,
    /// Mail transfer agent.
    Mta,
    /// Mail delivery agent.
    Mda,
    /// The queue agent.
    Queued,
    /// An administrator's command.
    Admin,
}

impl PeerRole {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Msa, Self::Mta, Self::Mda, Self::Queued, Self::Admin];

    /// Its name in certificates, configuration and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Msa => "msa",
            Self::Mta => "mta",
            Self::Mda => "mda",
            Self::Queued => "queued",
            Self::Admin => "admin",
        }
    }

    /// The name a certificate of its owner carries.
    pub fn uri(self) -> String {
        format!("{ROLE_URI}{self}")
    }

    fn bit(self) -> u8 {
        match self {
            Self::Msa => 1,
            Self::Mta => 2,
            Self::Mda => 4,
            Self::Queued => 8,
            Self::Admin => 16,
        }
    }
}

impl fmt::Display for PeerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PeerRole {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| Error::Syntax {
                text: text.to_owned(),
                expected: "a role: msa, mta, mda, queued or admin",
            })
    }
}

/// A set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Vec<PeerRole>", into = "Vec<PeerRole>")]
pub struct Roles(u8);

impl Roles {
    /// No role.
    pub const NONE: Self = Self(0);

    /// Every role.
    pub fn all() -> Self {
        PeerRole::ALL.into_iter().collect()
    }

    /// Whether `role` is in the set.
    pub fn contains(self, role: PeerRole) -> bool {
        self.0 & role.bit() != 0
    }

    /// The roles of the set.
    pub fn iter(self) -> impl Iterator<Item = PeerRole> {
        PeerRole::ALL
            .into_iter()
            .filter(move |role| self.contains(*role))
    }
}

impl FromIterator<PeerRole> for Roles {
    fn from_iter<I: IntoIterator<Item = PeerRole>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

impl From<Vec<PeerRole>> for Roles {
    fn from(roles: Vec<PeerRole>) -> Self {
        roles.into_iter().collect()
    }
}

impl From<Roles> for Vec<PeerRole> {
    fn from(roles: Roles) -> Self {
        roles.iter().collect()
    }
}

/// `msa,mta`, or `none`.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(PeerRole::as_str).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({self})")
    }
}

/// How a caller reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with mutual TLS.
    MutualTls,
    /// A Unix socket.
    Unix,
    /// A call within the process, in the all-in-one program.
    InProcess,
}

/// A caller: established by the kernel or by a certificate, never by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What it may do.
    pub roles: Roles,
    /// Its name for logs: the certificate's common name or first DNS name, or `uid=…`.
    pub name: String,
    /// How it came.
    pub transport: Transport,
    /// The serial number of its certificate, if it showed one.
    pub serial: Option<Serial>,
    /// Whose mail it may submit, if it is no agent.
    pub only: OnlyAccounts,
}

impl PeerIdentity {
    /// A part of this very process, with every role.
    pub fn in_process(name: impl Into<String>) -> Self {
        Self {
            roles: Roles::all(),
            name: name.into(),
            transport: Transport::InProcess,
            serial: None,
            only: OnlyAccounts::default(),
        }
    }

    /// The owner of a certificate that has been verified; role names we do not know are passed over, since a
    /// newer release may have issued it.
    pub fn from_certificate(der: &[u8]) -> Result<Self, Error> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| Error::PeerCertificate(error.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| Error::PeerCertificate(error.to_string()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let mut roles = Roles::NONE;
        let mut dns_name = None;
        let mut only = Vec::new();
        for name in names {
            match name {
                GeneralName::URI(uri) if uri.starts_with(ACCOUNT_URI) => {
                    only.extend(uri.strip_prefix(ACCOUNT_URI).map(str::to_owned));
                }
                GeneralName::URI(uri) => match uri.strip_prefix(ROLE_URI).map(PeerRole::from_str) {
                    Some(Ok(role)) => roles.0 |= role.bit(),
                    Some(Err(_)) => debug!(uri, "unknown role in a certificate"),
                    None => {}
                },
                GeneralName::DNSName(name) => dns_name = dns_name.or(Some(*name)),
                _ => {}
            }
        }
        let common_name = certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        let name = common_name.or(dns_name).unwrap_or("unnamed").to_owned();
        Ok(Self {
            roles,
            name,
            transport: Transport::MutualTls,
            serial: Some(Serial::of(certificate.raw_serial())),
            only: only.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(common_name: Option<&str>, uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["mx1.example.org".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names.extend(
            uris.iter()
                .map(|uri| SanType::URI((*uri).try_into().unwrap())),
        );
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn roles_come_from_the_uri_names_of_the_certificate() {
        let uris = [
            "postroad://role/msa",
            "postroad://role/mda",
            "postroad://role/future",
            "https://role/admin",
        ];
        let identity = PeerIdentity::from_certificate(&certificate(Some("edge-1"), &uris)).unwrap();
        assert_eq!(identity.roles.to_string(), "msa,mda");
        assert_eq!(identity.name, "edge-1");
        let nameless = PeerIdentity::from_certificate(&certificate(None, &[])).unwrap();
        assert_eq!(
            (nameless.roles, nameless.name.as_str()),
            (Roles::NONE, "mx1.example.org")
        );
        assert!(PeerIdentity::from_certificate(b"\x30\x00").is_err());
    }

    #[test]
    fn rules_may_name_users_and_groups_of_this_host() {
        let parse = |text: &str| serde_json::from_str::<UnixRole>(text);
        let rule = parse(r#"{"user": "root", "group": "root", "roles": ["mda"]}"#).unwrap();
        assert_eq!((rule.uid, rule.gid), (Some(0), Some(0)));
        let printed = serde_json::to_string(&rule).unwrap();
        assert_eq!(parse(&printed).unwrap(), rule);
        for (text, why) in [
            (
                r#"{"user": "nobody-else", "roles": []}"#,
                "has no user \"nobody-else\"",
            ),
            (r#"{"group": "nobody-else", "roles": []}"#, "has no group"),
            (
                r#"{"user": "root", "uid": 0, "roles": []}"#,
                "either uid or user",
            ),
            (
                r#"{"group": "root", "gid": 0, "roles": []}"#,
                "either gid or group",
            ),
            (r#"{"users": "root", "roles": []}"#, "unknown field"),
        ] {
            let refused = parse(text).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn the_owner_and_root_have_all_roles_unless_a_rule_says_otherwise() {
        let rules: UnixRoles = serde_json::from_str(
            r#"[{"uid": 7, "roles": ["msa"]}, {"gid": 70, "roles": ["admin", "mta"]}]"#,
        )
        .unwrap();
        let roles = |uid, gid| rules.allowed(uid, gid, 1).0.to_string();
        assert_eq!(roles(7, 7), "msa");
        assert_eq!(roles(7, 70), "msa,mta,admin");
        assert_eq!(roles(8, 8), "none");
        assert_eq!(roles(1, 1), Roles::all().to_string());
        assert_eq!(roles(0, 0), Roles::all().to_string());
        assert_eq!(roles(1, 70), "mta,admin");
    }

    #[test]
    fn a_program_has_the_accounts_of_all_its_rules_unless_one_has_no_limit() {
        let rules: UnixRoles = serde_json::from_str(
            r#"[{"uid": 33, "roles": ["msa"], "accounts": ["WWW@example.org"]},
                {"gid": 33, "roles": ["msa"], "accounts": ["shop@example.org"]},
                {"gid": 8, "roles": ["msa"]}]"#,
        )
        .unwrap();
        let only = |uid, gid| rules.allowed(uid, gid, 1).1;
        let both = only(33, 33);
        assert!(both.is_limit() && both.allow("www@Example.org") && both.allow("shop@example.org"));
        assert!(!both.allow("alice@example.org") && !both.allow(""));
        assert!(!only(33, 0).allow("shop@example.org"));
        assert!(!only(33, 8).is_limit() && only(33, 8).allow("alice@example.org"));
        let printed = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<UnixRoles>(&printed).unwrap(), rules);
        for (text, why) in [
            (
                r#"{"uid": 33, "roles": ["msa"], "accounts": []}"#,
                "names nobody",
            ),
            (
                r#"{"uid": 33, "roles": ["msa", "mta"], "accounts": ["a@b.example"]}"#,
                "nothing else",
            ),
        ] {
            let refused = serde_json::from_str::<UnixRole>(text).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
        }
        let uris = ["postroad://role/msa", &OnlyAccounts::uri("www@example.org")];
        let identity = PeerIdentity::from_certificate(&certificate(None, &uris)).unwrap();
        assert!(identity.only.is_limit() && identity.only.allow("www@example.org"));
    }

    #[test]
    fn a_rule_for_nobody_fits_nobody() {
        let rules = UnixRoles(vec![UnixRole {
            uid: None,
            gid: None,
            roles: Roles::all(),
            accounts: OnlyAccounts::default(),
        }]);
        assert_eq!(rules.allowed(5, 5, 1).0, Roles::NONE);
    }

    #[test]
    fn role_names_are_read_and_written_alike() {
        for role in PeerRole::ALL {
            assert_eq!(role.to_string().parse::<PeerRole>().unwrap(), role);
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
            let identity = PeerIdentity::from_certificate(&certificate(None, &[&role.uri()]));
            assert!(identity.unwrap().roles.contains(role));
        }
        assert!("Msa".parse::<PeerRole>().is_err());
    }
}
