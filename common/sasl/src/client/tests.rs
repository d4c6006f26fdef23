use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::{
    Circumstances, ContextAnswer, MAX_RESPONSE, Password, ScramHash, ScramKeys, Secret, SecretKind,
    SecretQuery, ServerExchange, Step,
};

fn start(mechanism: Mechanism, initial: Option<&str>) -> Step {
    let circumstances = Circumstances {
        nonce: &[3; 18],
        binding: Some(b"bound"),
        offers_binding: false,
    };
    ServerExchange::start(mechanism, initial, circumstances)
}

fn verified(step: Step) -> Result<Credentials, Option<Failure>> {
    match step {
        Step::Verify(credentials) => Ok(credentials),
        Step::Failed(failure) => Err(Some(failure)),
        Step::Challenge { .. } | Step::Ask { .. } | Step::Call { .. } => Err(None),
    }
}

fn plain_response(decoded: &str) -> Result<Credentials, Option<Failure>> {
    let response = STANDARD.encode(decoded);
    verified(start(Mechanism::Plain, Some(&response)))
}

#[test]
fn rfc_4616_messages() {
    let credentials = plain_response("Ursel\0Kurt\0xipj3plmq").unwrap();
    assert_eq!(credentials.authzid.as_deref(), Some("Ursel"));
    assert_eq!(credentials.authcid, "Kurt");
    assert_eq!(credentials.password().unwrap().reveal(), "xipj3plmq");
    assert!(!format!("{credentials:?}").contains("xipj3plmq"));
    for bad in ["", "a", "a\0b", "a\0b\0", "\0\0c", "a\0b\0c\0d"] {
        assert_eq!(
            plain_response(bad),
            Err(Some(Failure::Malformed)),
            "{bad:?}"
        );
    }
}

#[test]
fn bad_lines_end_the_exchange() {
    let plain = |line: &str| verified(start(Mechanism::Plain, Some(line)));
    for bad in ["AGE", "A=A=", "AG E=", "AGEAYg==\n", "AGEAYh==", "!!!!"] {
        assert_eq!(plain(bad), Err(Some(Failure::Base64)), "{bad:?}");
    }
    assert_eq!(plain("*"), Err(Some(Failure::Cancelled)));
    assert_eq!(plain("="), Err(Some(Failure::Malformed)));
    assert_eq!(plain("/wD/AP8="), Err(Some(Failure::Malformed)));
    let long = "A".repeat(MAX_RESPONSE * 2);
    assert_eq!(plain(&long), Err(Some(Failure::TooLong)));
}

#[test]
fn login_asks_twice_unless_the_name_came_along() {
    let Step::Challenge { text, next } = start(Mechanism::Login, None) else {
        panic!()
    };
    assert_eq!(text, "VXNlcm5hbWU6");
    let Step::Challenge { text, next } = next.respond(b"Ym9i") else {
        panic!()
    };
    assert_eq!(text, "UGFzc3dvcmQ6");
    assert_eq!(verified(next.respond(b"cHc=")).unwrap().authcid, "bob");
    let early = start(Mechanism::Login, Some("Ym9i"));
    assert!(matches!(early, Step::Challenge { text, .. } if text == "UGFzc3dvcmQ6"));
}

#[test]
fn cram_md5_takes_no_initial_response() {
    let early = start(Mechanism::CramMd5, Some("Ym9i"));
    assert_eq!(verified(early), Err(Some(Failure::Malformed)));
}

#[test]
fn external_says_whom_to_act_as_or_nothing() {
    for (initial, authzid) in [("=", None), ("Ym9i", Some("bob"))] {
        let credentials = verified(start(Mechanism::External, Some(initial))).unwrap();
        assert_eq!(credentials.evidence, Evidence::Certificate);
        assert_eq!(credentials.authzid.as_deref(), authzid);
    }
}

/// What a server keeps of this password.
fn secret(query: &SecretQuery, password: &str) -> Secret {
    match query.kind {
        SecretKind::Cram => Secret::Cram(CramSecret::new(password.as_bytes())),
        SecretKind::Scram(hash) => {
            let rounds = NonZeroU32::new(4096).unwrap();
            Secret::Scram(ScramKeys::derive(hash, password, &[5; 16], rounds).unwrap())
        }
    }
}

/// A conversation between our two ends; whether the client is content with how it went.
fn talk(said: &Credentials, known: &str, initial: bool) -> (Step, bool) {
    let binding = match said.mechanism {
        Mechanism::ScramSha256Plus => Binding::To(b"bound"),
        Mechanism::ScramSha256 => Binding::NotOffered,
        _ => Binding::Unused,
    };
    let (mut client, first) = ClientExchange::start_bound(said.clone(), &[9; 18], binding).unwrap();
    let first = first.as_ref().map(|text| text.as_str());
    let first = first.filter(|_| initial);
    let mut step = start(said.mechanism, first);
    loop {
        step = match step {
            Step::Challenge { text, next } => match client.respond(&text) {
                Ok(answer) => next.respond(answer.as_bytes()),
                Err(_) => return (Step::Failed(Failure::Cancelled), false),
            },
            Step::Ask { query, next } => {
                assert_eq!(query.name, said.authcid);
                next.answer(&secret(&query, known))
            }
            end => return (end, client.may_end()),
        }
    }
}

#[test]
fn a_proof_for_one_connection_is_none_on_another() {
    let said = Credentials {
        mechanism: Mechanism::ScramSha256Plus,
        authzid: None,
        authcid: "alice".to_owned(),
        evidence: Evidence::Password(Password::new("secret")),
    };
    for (bound, holds) in [(&b"bound"[..], true), (b"other", false)] {
        let (mut client, first) =
            ClientExchange::start_bound(said.clone(), &[9; 18], Binding::To(bound)).unwrap();
        let step = start(said.mechanism, first.as_ref().map(|text| text.as_str()));
        let Step::Ask { query, next } = step else {
            panic!("{step:?}")
        };
        let Step::Challenge { text, next } = next.answer(&secret(&query, "secret")) else {
            panic!()
        };
        let step = next.respond(client.respond(&text).unwrap().as_bytes());
        assert_eq!(matches!(step, Step::Challenge { .. }), holds, "{step:?}");
    }
    for binding in [Binding::Unused, Binding::NotOffered] {
        assert!(ClientExchange::start_bound(said.clone(), &[9; 18], binding).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_server_hears_what_the_client_says(
        authcid in "[^\0\u{1}]{1,30}", password in "[!-~]{1,30}", number in 0_usize..6, initial: bool, right: bool,
    ) {
        let mechanism = [Mechanism::ScramSha256Plus, Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha1, Mechanism::CramMd5][number];
        let evidence = Evidence::Password(Password::new(password.clone()));
        let said = Credentials { mechanism, authzid: None, authcid, evidence };
        let known = if right { password.clone() } else { format!("{password}x") };
        let (step, content) = talk(&said, &known, initial);
        let heard = verified(step);
        match (mechanism, right) {
            (Mechanism::Plain | Mechanism::Login, _) => prop_assert_eq!(heard, Ok(said)),
            (_, holds) => {
                prop_assert_eq!(heard.map(|heard| heard.evidence), Ok(Evidence::Proof { holds }));
                prop_assert!(content || !holds);
            }
        }
    }

    #[test]
    fn tokens_are_heard(name in "[^\0\u{1}]{1,30}", token in "[a-zA-Z0-9._~+/-]{1,60}", google: bool) {
        let mechanism = if google { Mechanism::Xoauth2 } else { Mechanism::OauthBearer };
        let evidence = Evidence::Token(Password::new(token));
        let said = Credentials { mechanism, authzid: Some(name.clone()), authcid: name, evidence };
        prop_assert_eq!(verified(talk(&said, "", true).0), Ok(said));
    }

    #[test]
    fn nothing_panics(line in proptest::collection::vec(any::<u8>(), 0..100), text in "\\PC{0,60}") {
        let hash = ScramHash::Sha256;
        let rounds = NonZeroU32::new(4096).unwrap();
        let keys = Secret::Scram(ScramKeys::derive(hash, "x", &[5; 16], rounds).unwrap());
        for mechanism in Mechanism::ALL {
            for line in [line.clone(), STANDARD.encode(&text).into_bytes(), STANDARD.encode(format!("n,,n=a,r={text}")).into_bytes()] {
                let mut step = start(mechanism, None);
                for _ in 0..4 {
                    step = match step {
                        Step::Challenge { next, .. } => next.respond(&line),
                        Step::Ask { next, .. } => next.answer(&keys),
                        Step::Call { next, .. } => next.answer(ContextAnswer::Octets(line.clone())),
                        _ => break,
                    };
                }
            }
        }
    }
}
