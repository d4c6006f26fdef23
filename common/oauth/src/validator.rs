//! Whether a token counts, and for whom.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::KeySet;
use crate::token::{Payload, Token};

/// What a token must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who must have made it (`iss`).
    pub issuer: String,
    /// For whom it must be: one of these in `aud`.
    pub audience: Vec<String>,
    /// One of these must be in `scope` or `scp`; none: not asked for.
    pub scopes: Vec<String>,
    /// The claim that names the account.
    pub account_claim: String,
    /// How far the clocks of issuer and host may differ.
    pub leeway: Duration,
}

/// Judges the tokens of one issuer.
#[derive(Debug, Clone, Copy)]
pub struct Validator<'a> {
    /// What they must be.
    pub terms: &'a Terms,
    /// The issuer's keys.
    pub keys: &'a KeySet,
}

/// What a token says, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose it is, as the issuer calls the account.
    pub account: String,
    /// Who said so.
    pub issuer: String,
}

/// Why a token does not count. The peer hears none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Peer.
    #[error("the token is longer than {} octets", crate::MAX_TOKEN)]
    TooLong,
    /// Peer.
    #[error("it is no signed JWT")]
    Malformed,
    /// Peer: `none` and HMAC among them.
    #[error(
        "it is signed by an algorithm that is not taken here; RS256, PS256, ES256 and EdDSA are"
    )]
    Algorithm,
    /// Peer: the header says that it is something else.
    #[error("it is not an access token, but one for another purpose")]
    Kind,
    /// Peer.
    #[error("it is from an issuer that is not configured")]
    Issuer,
    /// Peer, or the keys here are old.
    #[error("the issuer has published no key by that name for that algorithm")]
    UnknownKey,
    /// Peer.
    #[error("the signature is wrong")]
    Signature,
    /// Peer.
    #[error("it has run out")]
    Expired,
    /// Peer, or a clock.
    #[error("it does not count yet; are the clocks right?")]
    NotYet,
    /// Peer.
    #[error("it has no time when it runs out")]
    Endless,
    /// Peer.
    #[error("it is for somebody else (`aud`)")]
    Audience,
    /// Peer, or the issuer is configured otherwise.
    #[error("it has none of the scopes asked for")]
    Scope,
    /// Peer: who presents it must have proved more (RFC 7800), which SASL cannot.
    #[error("it is bound to a key of its holder (`cnf`)")]
    Bound,
    /// Issuer, or `account_claim` is another.
    #[error("the claim that names the account is missing or no text")]
    NoAccount,
    /// Issuer: anybody could have typed it.
    #[error("the issuer has not verified the address in `email` (`email_verified`)")]
    Unverified,
}

impl Validator<'_> {
    /// Judges a token.
    pub fn check(&self, token: &str, now: SystemTime) -> Result<Claims, Rejection> {
        let token = Token::parse(token)?;
        if token.payload.iss != self.terms.issuer {
            return Err(Rejection::Issuer);
        }
        let by = (token.algorithm, token.kid.as_deref());
        match self.keys.verify(by, token.signed, &token.signature) {
            None => return Err(Rejection::UnknownKey),
            Some(false) => return Err(Rejection::Signature),
            Some(true) => {}
        }
        // What is said from here on was said by the issuer.
        self.check_times(&token.payload, now)?;
        let Terms {
            audience, scopes, ..
        } = self.terms;
        let payload = &token.payload;
        if !payload.aud.iter().any(|one| audience.contains(one)) {
            return Err(Rejection::Audience);
        }
        let granted = || payload.scope.iter().chain(&payload.scp);
        if !scopes.is_empty() && !granted().any(|one| scopes.contains(one)) {
            return Err(Rejection::Scope);
        }
        if payload.others.contains_key("cnf") {
            return Err(Rejection::Bound);
        }
        Ok(Claims {
            account: self.account(payload)?,
            issuer: payload.iss.clone(),
        })
    }

    /// RFC 7519 §4.1.4 and §4.1.5. At the second it runs out it has run out.
    fn check_times(&self, payload: &Payload, now: SystemTime) -> Result<(), Rejection> {
        let now = now
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let leeway = self.terms.leeway.as_secs_f64();
        match payload.exp {
            None => return Err(Rejection::Endless),
            Some(end) if now - leeway >= end => return Err(Rejection::Expired),
            Some(_) => {}
        }
        match payload.nbf {
            Some(begin) if now + leeway < begin => Err(Rejection::NotYet),
            _ => Ok(()),
        }
    }

    fn account(&self, payload: &Payload) -> Result<String, Rejection> {
        let claim = self.terms.account_claim.as_str();
        let Some(Value::String(account)) = payload.others.get(claim) else {
            return Err(Rejection::NoAccount);
        };
        // OpenID Connect Core §5.1: an issuer may let people type any address there.
        let verified = payload.others.get("email_verified");
        if claim == "email" && verified != Some(&Value::Bool(true)) {
            return Err(Rejection::Unverified);
        }
        match account.is_empty() {
            true => Err(Rejection::NoAccount),
            false => Ok(account.clone()),
        }
    }
}

/// The issuer a token says it is from; nobody has verified that.
pub fn claimed_issuer(token: &str) -> Result<String, Rejection> {
    Token::parse(token).map(|token| token.payload.iss)
}

#[cfg(test)]
mod tests;
