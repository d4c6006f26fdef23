//! Tokens good and bad. Keys of Ed25519 and P-256 are made here; those of RSA, which take long, were made once, and their
//! signatures stand here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use ring::{digest, hmac};
use serde_json::{Value, json};

use super::*;
use crate::MAX_TOKEN;

/// Modulus of the RSA key, and what it signed: the claims of [`claims`].
const N: &str = "u6bvjndRci3WUeqhoinrX4nsgwdRBYJgMwwqT1dfcJXtGg49siNmBKNwZD9OiGecATnAzyZmXSwTETYxLpjHsj4_-4F3yrHZvOeHJHBXABB2gT\
    ZhPQ5dNWPa_kw8pRD5PnmohTenkEni8Nv3-xSXC4yVlEycTQ2rDycZJI-QBNXIN8pDoF418daSVb5dCNzvq-SVvAdGmfOhH3OHqxBCMMd3UhXM\
    y_9WnrzwH5Z16sA1HDebQMadQNjrBBKw8NYtdKtJ3D1pRLh2aFhNhQP3uQnJi_ero0Sf4AvBdun0MDCKJ10yy9_Wf1Xag9DILlzbTQp-SBf1_G\
    5Z-pZYqqcSDw";
const RS256: &str = "JQJBylxYSMFs7fKTju6cNWEj3_p5-YWatKpBMj_ZoxhRw7BJPUEEoy1a4C972gdH6xs21XhVMQ5vyxbsFvDNffVT4GYMIMV5vfy6Rbd1MLiSv5\
    TzYEurqec6Gk3zxU8K8grX1NtskD3CL6JWTqMT_iA8OZ1CdNg4LF5L61Xa18FCqdOqrC1OcjSKaBZGuiIEw7qWrnFBzgyaC6lKbiSMnStQ5Nu-\
    GNTl3rbyPWz7_otKTx47Qg6Y6cI4kXVWrSdWx78X6lbDPnPA8JUhG8Z25l_R_KZnqAKKHoAgv7k8uBmx2xYLAvGkE2xgsyaIao5cZpNc31E_a6\
    HdVSlVuMU7pQ";
const PS256: &str = "rKPapNJn0okMh7I6AG12cz2AKg_doyIA8gUgPCojnuul0--dP1wMHm5h0Z-9vAhn7W4Ac0zuNCQ4DxAGz_5_ro7IQ4FCoU7X7Xy4ikMvzlg-wm\
    eeK3MzdM3tdY4AhRcMcsv1VbG9LNaYOT66V3GbLjYdH7Eee592CLsnpnf09nOkz_XolPttWteH_QVLpGXMq2yR6YFNO1Au1f0HXn31LM3D-anA\
    SCQh4deemSjezPIqzwWXuBJdeNmjqFv-rgkdVx-4rCn68l7MyW-MWWrIWS5_t6ma1wflXng3NBMATvNTYUzXkybq81sL_0kxwA1FyB2V_ls7zb\
    pv6muThTfZTw";

fn terms() -> Terms {
    Terms {
        issuer: "https://id.example".to_owned(),
        audience: vec!["mail".to_owned()],
        scopes: vec!["mail.send".to_owned(), "mail".to_owned()],
        account_claim: "email".to_owned(),
        leeway: Duration::from_secs(30),
    }
}

/// In the order in which the RSA key signed them.
const CLAIMS: &str = r#"{"iss":"https://id.example","aud":["mail","other"],"exp":2000,"nbf":1000,"scope":"openid mail.send","email":"alice@demo.test","email_verified":true}"#;

fn claims() -> Value {
    serde_json::from_str(CLAIMS).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn base64(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[claim] = value;
    claims
}

fn without(claim: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(claim);
    claims
}

/// An issuer with two keys.
struct Issuer {
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    keys: KeySet,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed25519 = Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let p256 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let p256 = EcdsaKeyPair::from_pkcs8(algorithm, p256.as_ref(), &random).unwrap();
        let point = p256.public_key().as_ref();
        let set = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": base64(ed25519.public_key())},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "x": base64(&point[1..33]), "y": base64(&point[33..])},
            {"kty": "RSA", "kid": "rsa", "n": N, "e": "AQAB"},
            {"kty": "oct", "kid": "oct", "k": base64("secret")},
        ]});
        let keys = KeySet::parse(set.to_string().as_bytes()).unwrap();
        Self {
            ed25519,
            p256,
            keys,
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            base64(header.to_string()),
            base64(claims.to_string())
        );
        let octets = signed.as_bytes();
        let signature = match header["alg"].as_str().unwrap() {
            "ES256" => {
                let signature = self.p256.sign(&SystemRandom::new(), octets).unwrap();
                base64(signature)
            }
            _ => base64(self.ed25519.sign(octets)),
        };
        format!("{signed}.{signature}")
    }

    fn signed(&self, claims: &Value) -> String {
        self.sign(
            &json!({"alg": "EdDSA", "kid": "ed", "typ": "at+jwt"}),
            claims,
        )
    }

    fn check(&self, token: &str, now: u64) -> Result<Claims, Rejection> {
        let terms = terms();
        let keys = &self.keys;
        Validator {
            terms: &terms,
            keys,
        }
        .check(token, at(now))
    }
}

#[test]
fn each_algorithm_counts_by_its_own_key() {
    let issuer = Issuer::new();
    let alice = Claims {
        account: "alice@demo.test".to_owned(),
        issuer: "https://id.example".to_owned(),
    };
    let rsa = |algorithm: &str, signature: &str| {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"rsa"}}"#);
        format!("{}.{}.{signature}", base64(header), base64(CLAIMS))
    };
    for token in [
        issuer.signed(&claims()),
        issuer.sign(&json!({"alg": "Ed25519"}), &claims()),
        issuer.sign(
            &json!({"alg": "ES256", "kid": "ec", "typ": "JWT"}),
            &claims(),
        ),
        rsa("RS256", RS256),
        rsa("PS256", PS256),
    ] {
        assert_eq!(issuer.check(&token, 1500), Ok(alice.clone()), "{token}");
    }
    for token in [rsa("RS256", PS256), rsa("PS256", RS256)] {
        assert_eq!(
            issuer.check(&token, 1500),
            Err(Rejection::Signature),
            "{token}"
        );
    }
    for header in [
        json!({"alg": "ES256", "kid": "ed"}),
        json!({"alg": "EdDSA", "kid": "ec"}),
        json!({"alg": "RS256", "kid": "ec"}),
        json!({"alg": "EdDSA", "kid": "new"}),
        json!({"alg": "EdDSA", "kid": "oct"}),
        json!({"alg": "EdDSA", "kid": ""}),
    ] {
        let token = issuer.sign(&header, &claims());
        assert_eq!(
            issuer.check(&token, 1500),
            Err(Rejection::UnknownKey),
            "{header}"
        );
    }
}

/// RFC 8725 §2.1: a token is not verified as the sender of it would like.
#[test]
fn no_signature_and_a_shared_secret_are_none() {
    let issuer = Issuer::new();
    let payload = base64(claims().to_string());
    for algorithm in [
        "none", "None", "NONE", "HS256", "HS512", "", "ES384", "RS512",
    ] {
        for kid in ["ed", "rsa", "oct"] {
            let header = base64(json!({"alg": algorithm, "kid": kid}).to_string());
            let signed = format!("{header}.{payload}");
            // Keys that are public, taken for the secret.
            let public = issuer.ed25519.public_key().as_ref();
            for secret in [public, N.as_bytes(), b"secret"] {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                let tag = base64(hmac::sign(&key, signed.as_bytes()));
                let token = format!("{signed}.{tag}");
                assert_eq!(issuer.check(&token, 1500), Err(Rejection::Algorithm));
            }
            let token = format!("{signed}.");
            assert_eq!(issuer.check(&token, 1500), Err(Rejection::Algorithm));
        }
    }
    // Without a name it must be clear which key is meant.
    let keys = KeySet::parse(
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": base64(issuer.ed25519.public_key())},
            {"kty": "OKP", "crv": "Ed25519", "x": base64(digest::digest(&digest::SHA256, b""))},
        ]})
        .to_string()
        .as_bytes(),
    );
    let token = issuer.sign(&json!({"alg": "EdDSA"}), &claims());
    let (terms, keys) = (terms(), keys.unwrap());
    let validator = Validator {
        terms: &terms,
        keys: &keys,
    };
    assert_eq!(
        validator.check(&token, at(1500)),
        Err(Rejection::UnknownKey)
    );
}

#[test]
fn times_hold_to_the_second_within_the_leeway() {
    let issuer = Issuer::new();
    let token = issuer.signed(&claims());
    for (now, expected) in [
        (969, Err(Rejection::NotYet)),
        (970, Ok(())),
        (2029, Ok(())),
        (2030, Err(Rejection::Expired)),
        (u64::from(u32::MAX), Err(Rejection::Expired)),
    ] {
        assert_eq!(issuer.check(&token, now).map(drop), expected, "{now}");
    }
    let endless = issuer.signed(&without("exp"));
    assert_eq!(issuer.check(&endless, 1500), Err(Rejection::Endless));
    let always = issuer.signed(&without("nbf"));
    assert!(issuer.check(&always, 0).is_ok());
    for odd in [json!("2000"), json!(null), json!([])] {
        let token = issuer.signed(&with("exp", odd));
        assert_eq!(issuer.check(&token, 1500), Err(Rejection::Malformed));
    }
}

#[test]
fn a_token_for_somebody_else_is_none() {
    let issuer = Issuer::new();
    for (claims, expected) in [
        (
            with("iss", json!("https://id.example/")),
            Err(Rejection::Issuer),
        ),
        (without("iss"), Err(Rejection::Malformed)),
        (with("aud", json!("mail")), Ok(())),
        (with("aud", json!("mailbox")), Err(Rejection::Audience)),
        (with("aud", json!([])), Err(Rejection::Audience)),
        (with("aud", json!([17])), Err(Rejection::Malformed)),
        (without("aud"), Err(Rejection::Audience)),
        (with("scope", json!("openid email")), Err(Rejection::Scope)),
        (with("scope", json!("mail.sender")), Err(Rejection::Scope)),
        (with("scope", json!(["x", "mail"])), Ok(())),
        (without("scope"), Err(Rejection::Scope)),
        (with("cnf", json!({"jkt": "x"})), Err(Rejection::Bound)),
        (without("email"), Err(Rejection::NoAccount)),
        (with("email", json!("")), Err(Rejection::NoAccount)),
        (
            with("email", json!(["a@demo.test"])),
            Err(Rejection::NoAccount),
        ),
        (without("email_verified"), Err(Rejection::Unverified)),
        (
            with("email_verified", json!(false)),
            Err(Rejection::Unverified),
        ),
        (
            with("email_verified", json!("true")),
            Err(Rejection::Unverified),
        ),
    ] {
        let token = issuer.signed(&claims);
        assert_eq!(issuer.check(&token, 1500).map(drop), expected, "{claims}");
    }
    let mut elsewhere = without("scope");
    elsewhere["scp"] = json!(["mail"]);
    assert!(issuer.check(&issuer.signed(&elsewhere), 1500).is_ok());
    // Another issuer's key, under the same name.
    let stranger = Issuer::new().signed(&claims());
    assert_eq!(issuer.check(&stranger, 1500), Err(Rejection::Signature));
}

#[test]
fn what_the_header_says_is_heeded() {
    let issuer = Issuer::new();
    for (typ, expected) in [
        ("application/at+jwt", Ok(())),
        ("JWT", Ok(())),
        ("dpop+jwt", Err(Rejection::Kind)),
        ("logout+jwt", Err(Rejection::Kind)),
        ("", Err(Rejection::Kind)),
    ] {
        let token = issuer.sign(&json!({"alg": "EdDSA", "kid": "ed", "typ": typ}), &claims());
        assert_eq!(issuer.check(&token, 1500).map(drop), expected, "{typ}");
    }
    let critical = json!({"alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false});
    let token = issuer.sign(&critical, &claims());
    assert_eq!(issuer.check(&token, 1500), Err(Rejection::Malformed));
}

#[test]
fn what_was_changed_or_cut_is_none() {
    let issuer = Issuer::new();
    let token = issuer.signed(&claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let header = signed.split('.').next().unwrap();
    let other = base64(with("email", json!("bob@demo.test")).to_string());
    let forged = format!("{header}.{other}.{signature}");
    assert_eq!(issuer.check(&forged, 1500), Err(Rejection::Signature));
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        signed.to_owned(),
        format!("{token}."),
        format!("{token}="),
        format!("{token}.a.b"),
        format!(" {token}"),
        format!("{header}..{signature}"),
    ] {
        assert_eq!(
            issuer.check(&bad, 1500),
            Err(Rejection::Malformed),
            "{bad:?}"
        );
    }
    assert_eq!(
        issuer.check(&"a".repeat(MAX_TOKEN + 1), 1500),
        Err(Rejection::TooLong)
    );
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_gets_in(token in "[A-Za-z0-9_.=-]{0,200}", json in "[ -~]{0,80}") {
        let issuer = Issuer::new();
        prop_assert!(issuer.check(&token, 1500).is_err());
        let three = format!("{}.{}.{}", base64(r#"{"alg":"EdDSA","kid":"ed"}"#), base64(json), token.replace('.', ""));
        prop_assert!(issuer.check(&three, 1500).is_err());
    }

    #[test]
    fn no_octet_can_be_changed(place in 0_usize..10_000, octet in "[A-Za-z0-9_-]") {
        let issuer = Issuer::new();
        let token = issuer.signed(&claims());
        let place = place % token.len();
        let mut changed = token.clone();
        changed.replace_range(place..=place, &octet);
        prop_assume!(changed != token);
        prop_assert!(issuer.check(&changed, 1500).is_err());
    }
}
