//! `[[msa.auth.oauth]]`: an issuer whose tokens count.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use postroad_daemon::{ConfigError, ConfigFile, Interval};
use postroad_net::{ClientTls, Trust};
use serde::{Deserialize, Serialize};

use crate::fetch::Address;
use crate::keys::KeySet;
use crate::source::read_file;
use crate::{KeysError, Terms};

/// How far clocks may differ at most: a longer leeway would keep tokens alive that have run out.
const LONGEST_LEEWAY: Duration = Duration::from_secs(5 * 60);
/// RFC 7519 has no bounds for times; these keep the issuer from being asked all the time, or never.
const REFRESH: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(7 * 86_400);

/// One issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuthConfig {
    /// Its name, to the letter as tokens have it in `iss`.
    pub issuer: String,
    /// One of these must be in a token's `aud`.
    pub audience: Vec<String>,
    /// Where its keys are: a JWKS in a file …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// … or at an address (https; http to this host alone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Authorities that vouch for the server at that address, instead of those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// One of these must be in a token's `scope` or `scp`; none: not asked for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Where clients find out how to get a token: the issuer's `/.well-known/openid-configuration`, told to those whose token is
    /// refused (RFC 7628 §3.2.2); none: not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openid_configuration: Option<String>,
    /// The claim that has the account's address.
    #[serde(default = "email")]
    pub account_claim: String,
    /// How far the clocks of issuer and host may differ.
    #[serde(default = "leeway")]
    pub leeway: Interval,
    /// How often keys are fetched.
    #[serde(default = "refresh")]
    pub refresh: Interval,
    /// How long keys count while they cannot be fetched.
    #[serde(default = "max_stale")]
    pub max_stale: Interval,
}

fn email() -> String {
    "email".to_owned()
}

const fn leeway() -> Interval {
    Interval::seconds(30)
}

const fn refresh() -> Interval {
    Interval::hours(1)
}

const fn max_stale() -> Interval {
    Interval::days(1)
}

/// Where keys are, as it was understood.
#[derive(Clone, Debug)]
pub enum Place {
    File(PathBuf),
    Server(Address, Option<ClientTls>),
}

impl OAuthConfig {
    /// What a token must be.
    pub fn terms(&self) -> Terms {
        Terms {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            scopes: self.scopes.clone(),
            account_claim: self.account_claim.clone(),
            leeway: self.leeway.into(),
        }
    }

    /// Reads `ca_file`; blocks.
    pub(crate) fn place(&self) -> Result<Place, Fault> {
        match (&self.jwks_file, &self.jwks_url) {
            (Some(file), None) => Ok(Place::File(file.clone())),
            (None, Some(url)) => self.server(url),
            _ => Err(Fault(
                "issuer",
                "it is not said where its keys are, or twice".to_owned(),
                "write either `jwks_url = \"https://…\"` (the issuer's `jwks_uri`) or `jwks_file = \"/etc/postroad/keys.json\"`",
            )),
        }
    }

    fn server(&self, url: &str) -> Result<Place, Fault> {
        let address = url.parse::<Uri>().ok().and_then(|uri| Address::of(&uri));
        let Some(address) = address else {
            return Err(Fault(
                "jwks_url",
                format!("\"{url}\" is no address that keys may be fetched from"),
                "write an https address; http is for this host alone (127.0.0.1, ::1, localhost), as whoever answers decides who gets in",
            ));
        };
        if !address.secure {
            return Ok(Place::Server(address, None));
        }
        let trust = match &self.ca_file {
            Some(file) => Trust::Files(vec![file.clone()]),
            None => Trust::System,
        };
        match ClientTls::verified(trust) {
            Ok(tls) => Ok(Place::Server(address, Some(tls))),
            Err(error) => Err(Fault(
                "ca_file",
                error.to_string(),
                "name a PEM file with the authority of the issuer's server; without it those of the system count",
            )),
        }
    }

    /// What is wrong with it. Reads files; blocks.
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault =
            |key, problem: &str, remedy| faults.push(Fault(key, problem.to_owned(), remedy));
        if self.issuer.is_empty() {
            fault(
                "issuer",
                "it has no name",
                "write what tokens have in `iss`",
            );
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            fault(
                "audience",
                "a token for any other service would open this one",
                "write what the issuer puts into `aud` for this service, such as `audience = [\"mail.example.org\"]`",
            );
        }
        if self.account_claim.is_empty() {
            fault(
                "account_claim",
                "it names no claim",
                "write \"email\", \"preferred_username\" or \"sub\"",
            );
        }
        let told = self.openid_configuration.as_deref();
        if told.is_some_and(|address| !is_address_to_tell(address)) {
            fault(
                "openid_configuration",
                "clients could not use it",
                "write an https address of up to 512 characters, such as \"https://id.example.org/.well-known/openid-configuration\"",
            );
        }
        if self.leeway.as_duration() > LONGEST_LEEWAY {
            fault(
                "leeway",
                "tokens would count long after they have run out",
                "write \"5m\" or less, and set the clocks right",
            );
        }
        if !REFRESH.contains(&self.refresh.as_duration()) {
            fault(
                "refresh",
                "keys cannot be fetched so often",
                "write a time from \"1m\" to \"7d\"",
            );
        }
        if self.max_stale < self.refresh {
            fault(
                "max_stale",
                "keys would be forgotten before they are fetched again",
                "write a time that is not shorter than `refresh`",
            );
        }
        match self.place() {
            Err(wrong) => faults.push(wrong),
            Ok(Place::File(file)) => {
                if let Err(problem) = check_file(&file) {
                    faults.push(Fault(
                        "jwks_file",
                        format!("{}: {problem}", file.display()),
                        "write what the issuer publishes at its `jwks_uri` there, readable for this user",
                    ));
                }
            }
            Ok(Place::Server(..)) => {}
        }
        faults
    }
}

/// RFC 7628 §3.2.2 wants https; the client's line has bounds (RFC 4954 §4).
fn is_address_to_tell(address: &str) -> bool {
    let uri = address.parse::<Uri>().ok();
    address.len() <= 512 && uri.is_some_and(|uri| uri.scheme_str() == Some("https"))
}

fn check_file(file: &Path) -> Result<(), String> {
    let text = read_file(file)?;
    KeySet::parse(&text)
        .map(drop)
        .map_err(|error: KeysError| error.to_string())
}

/// A key, what is wrong with it, and what to do.
#[derive(Debug)]
pub(crate) struct Fault(pub &'static str, pub String, pub &'static str);

/// All that is wrong with a list of issuers, which stands at `key`. Reads files; blocks.
pub fn check_all(issuers: &[OAuthConfig], key: &str, file: &ConfigFile) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    for (number, issuer) in issuers.iter().enumerate() {
        let entry = format!("{key}[{number}]");
        for Fault(key, problem, remedy) in issuer.faults() {
            problems.push(file.error(&format!("{entry}.{key}"), problem, remedy));
        }
        let mut before = issuers.iter().take(number);
        if before.any(|other| other.issuer == issuer.issuer) {
            let problem = format!("\"{}\" stands here twice", issuer.issuer);
            let remedy = "write each issuer once; `audience` and `scopes` are lists";
            problems.push(file.error(&format!("{entry}.issuer"), problem, remedy));
        }
    }
    problems
}
