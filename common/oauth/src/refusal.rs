//! What a client is told whose token is refused, so that it can get a better one (RFC 7628 §3.2.2).

use serde::Serialize;

use crate::OAuthConfig;

/// In JSON, by mechanism. It is the same whatever was wrong with the token, and whoever's it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// RFC 7628 §3.2.2.
    pub oauthbearer: String,
    /// As Google's documentation of XOAUTH2 has it.
    pub xoauth2: String,
}

#[derive(Serialize)]
struct Oauthbearer<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(
        rename = "openid-configuration",
        skip_serializing_if = "Option::is_none"
    )]
    openid_configuration: Option<&'a str>,
}

#[derive(Serialize)]
struct Xoauth2<'a> {
    status: &'a str,
    schemes: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

impl Refusal {
    /// By the first issuer: there is room for one, and a client whose token is nobody's has to be told of one too.
    pub fn of(issuers: &[OAuthConfig]) -> Self {
        let first = issuers.first();
        // RFC 7628 §3.2.2: one scope rather than a list.
        let scope = first.and_then(|issuer| issuer.scopes.first());
        let scope = scope.map(String::as_str);
        let oauthbearer = Oauthbearer {
            status: "invalid_token",
            scope,
            openid_configuration: first.and_then(|issuer| issuer.openid_configuration.as_deref()),
        };
        let xoauth2 = Xoauth2 {
            status: "401",
            schemes: "bearer",
            scope,
        };
        // Strings under fixed names can always be written.
        Self {
            oauthbearer: serde_json::to_string(&oauthbearer).unwrap_or_default(),
            xoauth2: serde_json::to_string(&xoauth2).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_issuer_is_told_of() {
        let none = Refusal::of(&[]);
        assert_eq!(none.oauthbearer, r#"{"status":"invalid_token"}"#);
        assert_eq!(none.xoauth2, r#"{"status":"401","schemes":"bearer"}"#);
        let issuer = |name: &str| OAuthConfig {
            issuer: format!("https://{name}.example"),
            audience: vec!["mail".to_owned()],
            jwks_file: Some("/keys".into()),
            jwks_url: None,
            ca_file: None,
            scopes: vec![format!("{name}.send"), "other".to_owned()],
            openid_configuration: Some(format!("https://{name}.example/c")),
            account_claim: "email".to_owned(),
            leeway: postroad_daemon::Interval::seconds(1),
            refresh: postroad_daemon::Interval::hours(1),
            max_stale: postroad_daemon::Interval::hours(1),
        };
        let told = Refusal::of(&[issuer("a\""), issuer("b")]);
        assert_eq!(
            told.oauthbearer,
            r#"{"status":"invalid_token","scope":"a\".send","openid-configuration":"https://a\".example/c"}"#
        );
        assert_eq!(
            told.xoauth2,
            r#"{"status":"401","schemes":"bearer","scope":"a\".send"}"#
        );
    }
}
