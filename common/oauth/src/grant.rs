//! An access token for ourselves, from the issuer's token endpoint (RFC 6749).
//!
//! A refresh token is exchanged for it (§6), or, where there is none, our own name and secret (§4.4). It is kept until shortly
//! before it runs out, so that the issuer is asked once in its life and not for each connection.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::Uri;
use postroad_daemon::SecretFile;
use postroad_net::{ClientTls, Trust};
use postroad_sasl::Password;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use crate::MAX_TOKEN;
use crate::fetch::{Address, post};

/// A token is not used in the last minute of its life: a conversation takes its time.
const BEFORE_ITS_END: Duration = Duration::from_secs(60);
/// Of a token whose life is not told (RFC 6749 §5.1 only recommends it).
const UNTOLD: Duration = Duration::from_secs(300);
/// No token counts for longer, whatever is told of it.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Characters of what an issuer says of a refusal.
const LONGEST_REASON: usize = 300;

/// `oauth` of an entry in `mta.outbound.hosts`: how an access token is got for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantConfig {
    /// The issuer's token endpoint: https, or http to this host alone.
    pub token_url: String,
    /// As what program we are known there.
    pub client_id: String,
    /// The secret of that program, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<SecretFile>,
    /// The refresh token that a person's consent has given; without it the program speaks for itself (client credentials).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_file: Option<SecretFile>,
    /// What the token shall be good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Authorities that vouch for the endpoint, instead of those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The issuer does not answer, or not as RFC 6749 has it.
    #[error("no access token: {0}")]
    Unreachable(String),
    /// It does not give us one; a person must see to that.
    #[error("the issuer gives no access token: {0}")]
    Refused(String),
}

/// The tokens of one grant. Nothing of them is ever shown.
pub struct AccessTokens {
    config: GrantConfig,
    address: Address,
    tls: Option<ClientTls>,
    held: Mutex<Held>,
    /// One asks, the others wait for the answer.
    asking: AsyncMutex<()>,
}

#[derive(Default)]
struct Held {
    token: Option<(Password, Instant)>,
    /// A later refresh token than that of the file (RFC 6749 §6).
    refresh: Option<Password>,
}

impl GrantConfig {
    /// What cannot work: key, problem, remedy. Reads the authorities; blocks.
    pub fn faults(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut faults = Vec::new();
        if self.client_id.is_empty() {
            faults.push((
                "client_id",
                "the issuer does not know us without it".to_owned(),
                "write what the issuer has given to this program",
            ));
        }
        if self.client_secret_file.is_none() && self.refresh_token_file.is_none() {
            faults.push((
                "client_secret_file",
                "nothing speaks for us at the issuer".to_owned(),
                "write `client_secret_file`, or `refresh_token_file`, or both",
            ));
        }
        if let Err(fault) = self.place() {
            faults.push(fault);
        }
        faults
    }

    fn place(&self) -> Result<(Address, Option<ClientTls>), (&'static str, String, &'static str)> {
        let uri = self.token_url.parse::<Uri>().ok();
        let Some(address) = uri.and_then(|uri| Address::of(&uri)) else {
            return Err((
                "token_url",
                format!(
                    "{:?} is no address that our secret may go to",
                    self.token_url
                ),
                "write an https address; http is for this host alone (127.0.0.1, ::1, localhost)",
            ));
        };
        if !address.secure {
            return Ok((address, None));
        }
        let trust = match &self.ca_file {
            Some(file) => Trust::Files(vec![file.clone()]),
            None => Trust::System,
        };
        match ClientTls::verified(trust) {
            Ok(tls) => Ok((address, Some(tls))),
            Err(error) => Err((
                "ca_file",
                error.to_string(),
                "name a PEM file with the authority of the endpoint; without it those of the system count",
            )),
        }
    }
}

impl AccessTokens {
    /// Those of a grant without faults. Reads the authorities; blocks.
    pub fn new(config: &GrantConfig) -> Result<Self, GrantError> {
        let place = config.place();
        let (address, tls) = place.map_err(|(_, problem, _)| GrantError::Refused(problem))?;
        Ok(Self {
            config: config.clone(),
            address,
            tls,
            held: Mutex::default(),
            asking: AsyncMutex::new(()),
        })
    }

    /// One that counts now.
    pub async fn token(&self) -> Result<Password, GrantError> {
        let _asking = self.asking.lock().await;
        if let Some(token) = self.current(Instant::now()) {
            return Ok(token);
        }
        let answer = post(&self.address, self.tls.as_ref(), self.question()).await;
        let (status, body) = answer.map_err(GrantError::Unreachable)?;
        let given = read(status, &body)?;
        let until = Instant::now() + given.life.saturating_sub(BEFORE_ITS_END);
        let mut held = self.held();
        held.token = Some((given.token.clone(), until));
        if given.refresh.is_some() {
            held.refresh = given.refresh;
        }
        Ok(given.token)
    }

    /// The token was not taken: the next one is asked for anew.
    pub fn forget(&self) {
        self.held().token = None;
    }

    fn current(&self, now: Instant) -> Option<Password> {
        let held = self.held();
        let (token, until) = held.token.as_ref()?;
        (now < *until).then(|| token.clone())
    }

    /// RFC 6749 §2.3.1, §4.4.2 and §6, as a form.
    fn question(&self) -> String {
        let config = &self.config;
        let renewed = self.held().refresh.clone();
        let in_file = config.refresh_token_file.as_ref();
        let refresh = match (&renewed, in_file.and_then(SecretFile::reveal_str)) {
            (Some(renewed), _) => Some(renewed.reveal()),
            (None, in_file) => in_file,
        };
        let secret = config.client_secret_file.as_ref();
        let kind = match refresh {
            Some(_) => "refresh_token",
            None => "client_credentials",
        };
        let fields = [
            ("grant_type", Some(kind)),
            ("client_id", Some(config.client_id.as_str())),
            ("client_secret", secret.and_then(SecretFile::reveal_str)),
            ("refresh_token", refresh),
            ("scope", config.scope.as_deref()),
        ];
        let fields = fields
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", form(value?))));
        fields.collect::<Vec<_>>().join("&")
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an issuer gives.
struct Given {
    token: Password,
    life: Duration,
    refresh: Option<Password>,
}

/// RFC 6749 §5.1 and §5.2.
fn read(status: u16, body: &[u8]) -> Result<Given, GrantError> {
    let strange =
        |what: &str| GrantError::Unreachable(format!("the issuer answers {status} {what}"));
    let answer: Value =
        serde_json::from_slice(body).map_err(|_| strange("and something that is not JSON"))?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str);
    if let Some(error) = text("error") {
        let reason = match text("error_description") {
            Some(description) => format!("{error}: {description}"),
            None => error.to_owned(),
        };
        let reason = reason.chars().filter(|c| !c.is_control());
        let reason = reason.take(LONGEST_REASON).collect();
        // What passes by itself; everything else is about us.
        return Err(match error {
            "temporarily_unavailable" | "server_error" | "slow_down" => {
                GrantError::Unreachable(reason)
            }
            _ => GrantError::Refused(reason),
        });
    }
    if status != 200 {
        return Err(strange("without a reason"));
    }
    let allowed = |octet: u8| octet.is_ascii_graphic();
    let token = text("access_token")
        .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN && token.bytes().all(allowed))
        .ok_or_else(|| strange("without a token that could be used"))?;
    let kind = text("token_type").unwrap_or("bearer");
    if !kind.eq_ignore_ascii_case("bearer") {
        return Err(strange("and a token that is not of the type Bearer"));
    }
    let life = answer.get("expires_in");
    // Some write the number as a text.
    let life = life.and_then(|life| life.as_u64().or_else(|| life.as_str()?.parse().ok()));
    Ok(Given {
        token: Password::new(token),
        life: life.map_or(UNTOLD, Duration::from_secs).min(LONGEST),
        refresh: text("refresh_token").map(Password::new),
    })
}

/// `application/x-www-form-urlencoded`.
fn form(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(octet));
            }
            octet => out.push_str(&format!("%{octet:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests;
