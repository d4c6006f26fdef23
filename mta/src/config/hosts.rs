//! `mta.outbound.hosts`: what is known of single next hops.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use postroad_address::Domain;
use postroad_daemon::{ConfigError, ConfigFile, SecretFile};
use postroad_dns::HostName;
use postroad_envelope::{NextHop, Route};
use postroad_net::{CertFiles, ClientTls, Trust};
use postroad_oauth::GrantConfig;
use postroad_sasl::{Mechanism, Password};
use serde::{Deserialize, Serialize};

use super::TlsPolicy;

/// Submission with TLS from the first octet (RFC 8314 §7.3).
const SUBMISSIONS: u16 = 465;

/// One of `mta.outbound.hosts`: how a next hop is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostConfig {
    /// The next hop as a route names it, or for mail without a route its domain; without a port whatever the port.
    pub host: HostPattern,
    /// How hard to try for encryption. Who is named here can be verified, so that is what is done by default.
    #[serde(default = "verified")]
    pub tls: TlsPolicy,
    /// TLS from the first octet instead of STARTTLS. Default: at port 465.
    #[serde(default)]
    pub implicit_tls: Option<bool>,
    /// Names of which its certificate must have one, if not the name in `host`.
    #[serde(default)]
    pub tls_names: Vec<String>,
    /// The authorities whose certificates count for it. Default: those of the operating system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Our certificate for it, if it wants one.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// The key of that.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// As whom to log in.
    #[serde(default)]
    pub user: Option<String>,
    /// The password for that.
    #[serde(default)]
    pub password_file: Option<SecretFile>,
    /// Instead of a password: a file with an access token, which another program renews. It is read at each log-in.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Instead of a password: an access token that we get from its issuer ourselves.
    #[serde(default)]
    pub oauth: Option<GrantConfig>,
    /// What a connection must have before the password, or token, is shown.
    #[serde(default)]
    pub password_needs: PasswordNeeds,
    /// By what mechanisms; the strongest that it offers is taken. None listed: any for passwords, or for tokens.
    #[serde(default)]
    pub mechanisms: Vec<MechanismName>,
}

fn verified() -> TlsPolicy {
    TlsPolicy::Verify
}

/// A mechanism as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MechanismName(pub Mechanism);

impl TryFrom<String> for MechanismName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = text.parse().ok();
        let all = || {
            Mechanism::BY_PASSWORD
                .into_iter()
                .chain(Mechanism::BY_TOKEN)
        };
        let known = known.filter(|known| all().any(|mechanism| mechanism == *known));
        known.map(Self).ok_or_else(|| {
            let known: Vec<&str> = all().map(Mechanism::as_str).collect();
            let known = known.join(", ");
            format!("{text} is no mechanism for a password or token; there are {known}")
        })
    }
}

impl From<MechanismName> for String {
    fn from(name: MechanismName) -> Self {
        name.0.as_str().to_owned()
    }
}

/// What a connection must have before a password is shown over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PasswordNeeds {
    /// TLS, and a certificate that was verified: nobody else can be there.
    #[default]
    Verified,
    /// TLS with whoever answers.
    Tls,
    /// Nothing: whoever is on the way can read it.
    Nothing,
}

/// `smtp.example.net:587`, `smtp.example.net`, `192.0.2.1:25`, `[2001:db8::1]:25`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    /// In the form of [`folded`].
    name: String,
    port: Option<u16>,
}

/// A text that names no host.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no host, such as \"smtp.example.net:587\" or \"smtp.example.net\"")]
pub struct NoHost(String);

impl HostConfig {
    /// Whether TLS comes before the first word with a next hop at this port.
    pub fn is_implicit(&self, port: u16) -> bool {
        self.implicit_tls.unwrap_or(is_submissions(port))
    }

    /// Name and password, if it is to be logged in to.
    pub fn credentials(&self) -> Option<(String, Password)> {
        let password = self.password_file.as_ref()?.reveal_str()?;
        Some((self.user.clone()?, Password::new(password)))
    }

    /// By what mechanisms to log in.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        match self.mechanisms.as_slice() {
            [] if self.shows_token() => Mechanism::BY_TOKEN.to_vec(),
            [] => Mechanism::BY_PASSWORD.to_vec(),
            listed => listed.iter().map(|name| name.0).collect(),
        }
    }

    fn shows_token(&self) -> bool {
        self.token_file.is_some() || self.oauth.is_some()
    }

    /// What we show it.
    pub fn own_certificate(&self) -> Option<CertFiles> {
        Some(CertFiles {
            cert_file: self.cert_file.clone()?,
            key_file: self.key_file.clone()?,
        })
    }

    /// Its TLS. Reads files; blocks.
    pub fn client_tls(&self) -> Result<ClientTls, postroad_net::Error> {
        let verify = self.tls == TlsPolicy::Verify;
        let trust = match (&self.ca_file, verify) {
            (Some(path), _) => Trust::Files(vec![path.clone()]),
            (None, true) => Trust::System,
            (None, false) => Trust::Files(Vec::new()),
        };
        ClientTls::to_hosts(verify, trust, self.own_certificate().as_ref())
    }

    /// What cannot work, or would do what nobody wants: key, problem, remedy.
    fn faults(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut faults = Vec::new();
        let mut fault = |key, problem: &str, remedy| faults.push((key, problem.to_owned(), remedy));
        let secrets = [
            self.password_file.is_some(),
            self.token_file.is_some(),
            self.oauth.is_some(),
        ];
        let secrets = secrets.into_iter().filter(|written| *written).count();
        if secrets > 1 {
            fault(
                "user",
                "a log-in has a password or a token, and there are several here",
                "leave all but one of `password_file`, `token_file` and `oauth` out",
            );
        } else if self.user.is_some() != (secrets == 1) {
            fault(
                "user",
                "a log-in has a name and a password, and one of them is missing",
                "write both `user` and `password_file` (or `token_file`, or `oauth`), or neither",
            );
        }
        let for_tokens = |name: &MechanismName| name.0.shows_token();
        if self.shows_token() && !self.mechanisms.iter().all(for_tokens)
            || !self.shows_token() && self.mechanisms.iter().any(for_tokens)
        {
            fault(
                "mechanisms",
                "passwords and tokens are shown by different mechanisms",
                "for `token_file` and `oauth` write OAUTHBEARER or XOAUTH2, for `password_file` the others",
            );
        }
        let text = self.password_file.as_ref().map(SecretFile::reveal_str);
        let nul = |text: &str| text.contains('\0');
        if text.is_some_and(|text| text.is_none_or(nul)) || self.user.as_deref().is_some_and(nul) {
            fault(
                "password_file",
                "name and password must be UTF-8 without the octet 0 (RFC 4616)",
                "write the password alone into the file, as text",
            );
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            fault(
                "cert_file",
                "a certificate is of no use without its key",
                "write both `cert_file` and `key_file`, or neither",
            );
        }
        if !self.mechanisms.is_empty() && self.user.is_none() {
            fault(
                "mechanisms",
                "nobody logs in to it",
                "write `user` and `password_file` too, or leave this key out",
            );
        }
        self.password_faults(&mut fault);
        if self.tls == TlsPolicy::None && self.implicit_tls == Some(true) {
            fault(
                "implicit_tls",
                "`tls = \"none\"` says the opposite",
                "leave one of them out",
            );
        }
        let unused = [
            ("tls_names", !self.tls_names.is_empty()),
            ("ca_file", self.ca_file.is_some()),
        ];
        for (key, written) in unused {
            if written && self.tls != TlsPolicy::Verify {
                fault(
                    key,
                    "no certificate is verified, since `tls` is not \"verify\"",
                    "write `tls = \"verify\"`, or leave this key out",
                );
            }
        }
        let bad =
            |name: &&String| HostName::parse(name).is_err() && name.parse::<IpAddr>().is_err();
        if let Some(name) = self.tls_names.iter().find(bad) {
            fault(
                "tls_names",
                &format!("{name:?} is no name that a certificate could have"),
                "write host names, such as \"smtp.example.net\", without wildcards",
            );
        }
        faults
    }

    fn password_faults(&self, fault: &mut impl FnMut(&'static str, &str, &'static str)) {
        if self.user.is_none() {
            return;
        }
        match (self.password_needs, self.tls) {
            (PasswordNeeds::Verified, TlsPolicy::Verify | TlsPolicy::Dane) => {}
            (PasswordNeeds::Verified, _) => fault(
                "tls",
                "the password would be shown to whoever answers",
                "write `tls = \"verify\"`, or say expressly by `password_needs = \"tls\"` (or \"nothing\") that this may be",
            ),
            (PasswordNeeds::Tls, TlsPolicy::None) => fault(
                "password_needs",
                "with `tls = \"none\"` there is never TLS, so no mail could leave",
                "set `tls`, or say expressly by `password_needs = \"nothing\"` that everybody on the way may read the password",
            ),
            (PasswordNeeds::Tls | PasswordNeeds::Nothing, _) => {}
        }
    }
}

/// Whether a port is known for TLS from the first octet.
pub fn is_submissions(port: u16) -> bool {
    port == SUBMISSIONS
}

/// All that is wrong with the table. Reads the files it names; blocks.
pub fn check(hosts: &[HostConfig], file: &ConfigFile) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    let mut known = HashSet::new();
    for (index, host) in hosts.iter().enumerate() {
        let entry = format!("mta.outbound.hosts[{index}]");
        if !known.insert(&host.host) {
            let problem = format!("{} has an entry already", host.host);
            problems.push(file.error(&entry, problem, "write all of it into one entry"));
        }
        let faults = host.faults();
        let grant = host.oauth.as_ref().map(GrantConfig::faults);
        let grant = grant.unwrap_or_default();
        let sound = faults.is_empty() && grant.is_empty();
        for (key, problem, remedy) in grant {
            problems.push(file.error(&format!("{entry}.oauth.{key}"), problem, remedy));
        }
        for (key, problem, remedy) in faults {
            problems.push(file.error(&format!("{entry}.{key}"), problem, remedy));
        }
        if sound && let Err(error) = host.client_tls() {
            let remedy = "name PEM files that this user can read";
            problems.push(file.error(&entry, error.to_string(), remedy));
        }
    }
    problems
}

/// The entry for what a job is aimed at; one that names the port counts more.
pub fn position(hosts: &[HostConfig], route: &Route, port: u16) -> Option<usize> {
    // As with most; this is asked several times of each mail.
    if hosts.is_empty() {
        return None;
    }
    let (name, port) = match &route.next_hop {
        Some(NextHop::Host(hop)) => (folded(&hop.host), hop.port),
        // Nobody is in between at a socket, and it has no name to verify.
        Some(NextHop::Unix(_)) => return None,
        None => (folded(&route.destination), port),
    };
    let fits = |wanted: Option<u16>| {
        hosts
            .iter()
            .position(|entry| entry.host.name == name && entry.host.port == wanted)
    };
    fits(Some(port)).or_else(|| fits(None))
}

/// A name in the form of the DNS, an address in its shortest form.
fn folded(host: &str) -> String {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return ip.to_string();
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    match Domain::parse(host) {
        Ok(domain) => domain.a_label().to_ascii_lowercase(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

impl FromStr for HostPattern {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        let wrong = || NoHost(text.to_owned());
        let whole = |host: &str| -> Result<String, NoHost> {
            let name = folded(host);
            let good = name.parse::<IpAddr>().is_ok() || HostName::parse(&name).is_ok();
            good.then_some(name).ok_or_else(wrong)
        };
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
            return Ok(Self {
                name: ip.to_string(),
                port: None,
            });
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Ok(Self {
                name: whole(text)?,
                port: None,
            });
        };
        let inner = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if port == 0 {
            return Err(wrong());
        }
        Ok(Self {
            name: whole(inner.unwrap_or(host))?,
            port: Some(port),
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => f.write_str(&self.name),
            Some(port) if self.name.contains(':') => write!(f, "[{}]:{port}", self.name),
            Some(port) => write!(f, "{}:{port}", self.name),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = NoHost;

    fn try_from(text: String) -> Result<Self, NoHost> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests;
