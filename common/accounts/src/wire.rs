//! Answers about accounts as messages of `postroad.directory.v1`, and back.

use postroad_address::{AddressError, Mailbox};
use postroad_directory::{AppPassword, Expanded, Resolution, Resolved, SenderVerdict};
use postroad_envelope::{InvalidStoreName, StoreName, Timestamp};
use postroad_proto::directory::v1::{
    AppPassword as AppMessage, ResolveResponse, SenderResponse, Target,
    resolve_response::Result as Found, sender_response::Result as Said,
};
use postroad_sasl::{ScramHash, Secret, SecretKind};

/// Server: an answer that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A result this version does not know, or none.
    #[error("an answer about an account tells no result that is known here: {0}")]
    Result(i32),
    /// An address that is none.
    #[error("an answer about an account: {0}")]
    Address(#[from] AddressError),
    /// A store that cannot be.
    #[error("an answer about an account: {0}")]
    Store(#[from] InvalidStoreName),
    /// Nothing to check a password by.
    #[error("an answer about an account has no verifier")]
    NoVerifier,
    /// A scope or network that this version does not know: it must not be taken for none.
    #[error("an answer about an app password: {0:?} is not known here")]
    Terms(String),
    /// Found, and nobody there.
    #[error("an answer about an account names no target")]
    NoTarget,
}

/// Where mail goes, as a message without age and generation.
pub fn from_resolved(resolved: &Resolved) -> ResolveResponse {
    let (result, targets) = match &resolved.resolution {
        Resolution::Local(targets) => (Found::Found, targets.iter().map(from_target).collect()),
        Resolution::UnknownRecipient => (Found::UnknownRecipient, Vec::new()),
        Resolution::ForeignDomain => (Found::ForeignDomain, Vec::new()),
        Resolution::Disabled => (Found::Disabled, Vec::new()),
        Resolution::AliasLoop => (Found::Loop, Vec::new()),
        Resolution::TooManyTargets => (Found::TooManyTargets, Vec::new()),
    };
    ResolveResponse {
        result: result.into(),
        targets,
        tenant: resolved.tenant.clone().unwrap_or_default(),
        ..ResolveResponse::default()
    }
}

/// Where mail goes, as a server said.
pub fn into_resolved(answer: ResolveResponse) -> Result<Resolved, AnswerError> {
    let resolution = match answer.result() {
        Found::Found if answer.targets.is_empty() => return Err(AnswerError::NoTarget),
        Found::Found => {
            let targets = answer.targets.into_iter().map(into_target);
            Resolution::Local(targets.collect::<Result<_, _>>()?)
        }
        Found::UnknownRecipient => Resolution::UnknownRecipient,
        Found::ForeignDomain => Resolution::ForeignDomain,
        Found::Disabled => Resolution::Disabled,
        Found::Loop => Resolution::AliasLoop,
        Found::TooManyTargets => Resolution::TooManyTargets,
        Found::Unspecified => return Err(AnswerError::Result(answer.result)),
    };
    Ok(Resolved {
        resolution,
        tenant: some(answer.tenant),
    })
}

/// Whether an account may use a sender, as a message without age and generation.
pub fn from_sender(verdict: &SenderVerdict) -> SenderResponse {
    let (result, address, tenant) = match verdict {
        SenderVerdict::Allowed { tenant } => (Said::Allowed, None, tenant.clone()),
        SenderVerdict::NotAllowed { account } => (Said::NotAllowed, Some(account), None),
        SenderVerdict::NoAccount => (Said::NoAccount, None, None),
    };
    SenderResponse {
        result: result.into(),
        address: address.map(ToString::to_string).unwrap_or_default(),
        tenant: tenant.unwrap_or_default(),
        ..SenderResponse::default()
    }
}

/// Whether an account may use a sender, as a server said.
pub fn into_sender(answer: SenderResponse) -> Result<SenderVerdict, AnswerError> {
    Ok(match answer.result() {
        Said::Allowed => SenderVerdict::Allowed {
            tenant: some(answer.tenant),
        },
        Said::NotAllowed => SenderVerdict::NotAllowed {
            account: Mailbox::parse(&answer.address)?,
        },
        Said::NoAccount => SenderVerdict::NoAccount,
        Said::Unspecified => return Err(AnswerError::Result(answer.result)),
    })
}

fn from_target(target: &Expanded) -> Target {
    Target {
        address: target.address.to_string(),
        local: target.local,
        detail: target.detail.clone(),
        store: target.store.named().map(str::to_owned),
        original: target.original.as_ref().map(ToString::to_string),
    }
}

fn into_target(target: Target) -> Result<Expanded, AnswerError> {
    let original = target.original.as_deref().map(Mailbox::parse);
    Ok(Expanded {
        address: Mailbox::parse(&target.address)?,
        detail: target.detail,
        local: target.local,
        store: target
            .store
            .map_or(Ok(StoreName::default()), |name| name.parse())?,
        original: original.transpose()?,
    })
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// What is asked for under the name of a mechanism: none is a verifier of passwords that come in plain text, which is the same for
/// PLAIN (RFC 4616) and its elder LOGIN. `None` at all: there is nothing of the kind.
pub fn verifier_kind(mechanism: &str) -> Option<Option<SecretKind>> {
    match mechanism {
        "PLAIN" | "LOGIN" => Some(None),
        "SCRAM-SHA-256" => Some(Some(SecretKind::Scram(ScramHash::Sha256))),
        "SCRAM-SHA-1" => Some(Some(SecretKind::Scram(ScramHash::Sha1))),
        "CRAM-MD5" => Some(Some(SecretKind::Cram)),
        _ => None,
    }
}

/// The name under which a secret is asked for.
pub const fn mechanism_of(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::Scram(hash) => hash.as_str(),
        SecretKind::Cram => "CRAM-MD5",
    }
}

/// What an app password is good for, as a message.
pub fn from_app(terms: &AppPassword) -> AppMessage {
    AppMessage {
        name: terms.name.clone(),
        scopes: terms.scopes.iter().map(ToString::to_string).collect(),
        networks: terms.networks.iter().map(ToString::to_string).collect(),
        expires_at_ms: terms.expires.map(Timestamp::as_millis),
    }
}

/// The same, as a server said.
pub fn into_app(terms: AppMessage) -> Result<AppPassword, AnswerError> {
    fn all<T: std::str::FromStr>(texts: Vec<String>) -> Result<Vec<T>, AnswerError> {
        let read = |text: String| text.parse().map_err(|_| AnswerError::Terms(text));
        texts.into_iter().map(read).collect()
    }
    Ok(AppPassword {
        name: terms.name,
        scopes: all(terms.scopes)?,
        networks: all(terms.networks)?,
        expires: terms.expires_at_ms.map(Timestamp::from_millis),
    })
}

/// The secret in an answer.
pub fn into_secret(kind: SecretKind, verifier: &str) -> Result<Secret, AnswerError> {
    let secret = match kind {
        SecretKind::Scram(_) => verifier.parse().map(Secret::Scram),
        SecretKind::Cram => verifier.parse().map(Secret::Cram),
    };
    secret.map_err(|_| AnswerError::NoVerifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    #[test]
    fn every_answer_survives_the_way() {
        let target = |original: Option<&str>| Expanded {
            address: mailbox("\"a b\"@bücher.example"),
            detail: Some("x".to_owned()),
            local: true,
            store: original.map_or_else(StoreName::default, |_| "b".parse().unwrap()),
            original: original.map(mailbox),
        };
        let found = Resolution::Local(vec![target(None), target(Some("list@a.example"))]);
        for resolution in [
            found,
            Resolution::UnknownRecipient,
            Resolution::ForeignDomain,
            Resolution::Disabled,
            Resolution::AliasLoop,
            Resolution::TooManyTargets,
        ] {
            for tenant in [None, Some("acme".to_owned())] {
                let resolution = resolution.clone();
                let resolved = Resolved { resolution, tenant };
                assert_eq!(into_resolved(from_resolved(&resolved)), Ok(resolved));
            }
        }
        for verdict in [
            SenderVerdict::Allowed { tenant: None },
            SenderVerdict::NotAllowed {
                account: mailbox("Bob@a.example"),
            },
            SenderVerdict::NoAccount,
        ] {
            assert_eq!(into_sender(from_sender(&verdict)), Ok(verdict));
        }
    }

    #[test]
    fn terms_of_an_app_password_survive_the_way_and_unknown_ones_are_not_passed_over() {
        let terms = AppPassword {
            name: "printer".to_owned(),
            scopes: vec![postroad_directory::Scope::Imap],
            networks: vec![
                "192.0.2.0/24".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ],
            expires: Some(Timestamp::from_millis(7)),
        };
        assert_eq!(into_app(from_app(&terms)), Ok(terms.clone()));
        let sieve = AppMessage {
            scopes: vec!["sieve".to_owned()],
            ..from_app(&terms)
        };
        assert_eq!(into_app(sieve), Err(AnswerError::Terms("sieve".to_owned())));
    }

    #[test]
    fn what_cannot_be_is_no_answer() {
        let nobody = ResolveResponse {
            result: Found::Found.into(),
            ..ResolveResponse::default()
        };
        assert_eq!(into_resolved(nobody), Err(AnswerError::NoTarget));
        let later = ResolveResponse {
            result: 99,
            ..ResolveResponse::default()
        };
        assert_eq!(into_resolved(later), Err(AnswerError::Result(99)));
        assert!(into_sender(SenderResponse::default()).is_err());
    }
}
