//! Log-ins by access tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postroad_oauth::OAuthConfig;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

/// An issuer, by its key.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Self {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap())
    }

    fn keys(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}]}}"#)
    }

    /// A token of an account that runs out so many seconds from now.
    fn token(&self, account: &str, left: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let end = now.as_secs().cast_signed() + left;
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"a"}"#);
        let claims = URL_SAFE_NO_PAD.encode(format!(
            r#"{{"iss":"https://id.example","aud":"mail","exp":{end},"scope":"mail.send","sub":"{account}"}}"#
        ));
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

fn terms(keys: &Path) -> OAuthConfig {
    OAuthConfig {
        issuer: "https://id.example".to_owned(),
        audience: vec!["mail".to_owned()],
        jwks_file: Some(keys.to_owned()),
        jwks_url: None,
        ca_file: None,
        scopes: vec!["mail.send".to_owned()],
        openid_configuration: Some(
            "https://id.example/.well-known/openid-configuration".to_owned(),
        ),
        account_claim: "sub".to_owned(),
        leeway: Interval::seconds(30),
        refresh: Interval::hours(1),
        max_stale: Interval::hours(1),
    }
}

fn bearer(account: &str, token: &str) -> String {
    let text =
        format!("n,a={account},\u{1}host=localhost\u{1}port=587\u{1}auth=Bearer {token}\u{1}\u{1}");
    format!("AUTH OAUTHBEARER {}", STANDARD.encode(text))
}

fn xoauth2(account: &str, token: &str) -> String {
    let text = format!("user={account}\u{1}auth=Bearer {token}\u{1}\u{1}");
    format!("AUTH XOAUTH2 {}", STANDARD.encode(text))
}

async fn agent(keys: &str) -> (Agent, TempDir) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("keys.json");
    fs::write(&file, keys).unwrap();
    let issuer = terms(&file);
    let agent = Agent::with(|config| {
        config.auth.oauth = vec![issuer];
        config.auth.max_failures = 100;
        config.auth.max_delay = Interval::millis(2);
    });
    (agent.await, folder)
}

#[tokio::test]
async fn who_has_a_token_of_an_account_is_that_account() {
    let issuer = Issuer::new();
    let (agent, _folder) = agent(&issuer.keys()).await;
    let token = issuer.token("alice@example.org", 60);
    for log_in in [
        bearer("alice@example.org", &token),
        bearer("ALICE@example.org", &token),
        xoauth2("alice@example.org", &token),
        format!(
            "AUTH OAUTHBEARER {}",
            STANDARD.encode(format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}"))
        ),
    ] {
        let mut client = agent.client().await;
        client.expect(&log_in, "235 ").await;
        let reply = send(&mut client, &["bob@example.org"], "Subject: a\r\n\r\nb").await;
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let mails = agent.queue.mails();
    assert_eq!(mails.len(), 4);
    assert!(
        mails
            .iter()
            .all(|mail| mail.envelope.account.as_deref() == Some("alice@example.org"))
    );
    // Whoever has a password goes on to use it.
    agent.alice().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_token_for_nobody_here_or_for_another_lets_nobody_in() {
    let issuer = Issuer::new();
    let (agent, _folder) = agent(&issuer.keys()).await;
    let alice = issuer.token("alice@example.org", 60);
    let mut client = agent.client().await;
    for (account, token) in [
        ("bob@example.org", alice.clone()),
        ("alice@example.org", issuer.token("alice@example.org", -60)),
        (
            "alice@example.org",
            Issuer::new().token("alice@example.org", 60),
        ),
        ("away@example.org", issuer.token("away@example.org", 60)),
        ("none@example.org", issuer.token("none@example.org", 60)),
        ("team@example.org", issuer.token("team@example.org", 60)),
        ("alice", issuer.token("alice", 60)),
        ("alice@example.org", "e30.e30.".to_owned()),
    ] {
        // RFC 7628 §3.2.3: why, then an answer that says nothing, then the reply.
        let status = STANDARD.encode(
            r#"{"status":"invalid_token","scope":"mail.send","openid-configuration":"https://id.example/.well-known/openid-configuration"}"#,
        );
        client
            .expect(&bearer(account, &token), &format!("334 {status}"))
            .await;
        client
            .expect("AQ==", "535 5.7.8 name or password is wrong")
            .await;
        let status = STANDARD.encode(r#"{"status":"401","schemes":"bearer","scope":"mail.send"}"#);
        client
            .expect(&xoauth2(account, &token), &format!("334 {status}"))
            .await;
        client.expect("", "535 5.7.8").await;
    }
    client
        .expect(&bearer("alice@example.org", &alice), "235 ")
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn without_keys_it_is_told_to_come_again_and_without_issuers_it_is_not_offered() {
    let issuer = Issuer::new();
    let (without, _folder) = agent("{}").await;
    let token = issuer.token("alice@example.org", 60);
    let mut client = without.client().await;
    client
        .expect(&bearer("alice@example.org", &token), "454 4.7.0")
        .await;
    without.stop().await;

    let agent = Agent::start().await;
    let mut client = agent.client().await;
    let hello = client.ask("EHLO laptop").await;
    assert!(!hello.contains("OAUTH"), "{hello}");
    client
        .expect(&bearer("alice@example.org", &token), "504 5.5.4")
        .await;
    agent.stop().await;
}
