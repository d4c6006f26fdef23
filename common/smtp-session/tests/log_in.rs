//! AUTH between our own two ends, by each mechanism that a password can be used with.

use std::{num::NonZeroU32, sync::Arc};

use bytes::BytesMut;
use postroad_address::Domain;
use postroad_reply::*;
use postroad_sasl::{
    ContextAnswer, ContextCall, CramSecret, Evidence, Identity, Mechanism, Password, ScramKeys,
    Secret, SecretKind,
};
use postroad_smtp::HeloName;
use postroad_smtp_session::*;

const BINDING: &[u8] = &[8; 32];

fn server(mechanisms: &[Mechanism]) -> ServerSession {
    let mut config = ServerConfig::new(Domain::parse("mail.example").unwrap(), Flavour::Submission);
    config.offers.auth = mechanisms.to_vec();
    let mut server = ServerSession::new(Arc::new(config), true);
    server.set_seed([1; 32]);
    server.set_binding(Some(BINDING.to_vec()));
    server
}

fn secret(kind: SecretKind, password: &str) -> Secret {
    match kind {
        SecretKind::Cram => Secret::Cram(CramSecret::new(password.as_bytes())),
        SecretKind::Scram(hash) => {
            let rounds = NonZeroU32::new(4096).unwrap();
            Secret::Scram(ScramKeys::derive(hash, password, &[5; 16], rounds).unwrap())
        }
    }
}

/// A library that knows one ticket, and protects by what it puts before the octets.
fn context(call: &ContextCall) -> Option<ContextAnswer> {
    match call {
        ContextCall::Begin(token) | ContextCall::Accept(token) => {
            (token == b"ticket").then(|| ContextAnswer::Complete {
                token: b"mutual".to_vec(),
                principal: "alice@MAIL.EXAMPLE".to_owned(),
            })
        }
        ContextCall::Wrap(octets) => {
            let wrapped = [b"signed:", &octets[..]].concat();
            Some(ContextAnswer::Octets(wrapped))
        }
        ContextCall::Unwrap(octets) => {
            let octets = octets.strip_prefix(b"signed:")?;
            Some(ContextAnswer::Octets(octets.to_vec()))
        }
    }
}

fn wrong() -> Reply {
    Reply::new(AUTH_INVALID_535, AUTH_INVALID_5_7_8, "wrong")
}

/// Answers as a policy would for an account whose password is `secret`; all that was asked and said, the client's included.
fn serve(server: &mut ServerSession, input: &mut BytesMut) -> String {
    while let Some(event) = server.receive(input) {
        match event {
            Event::Secret(query) => server.secret(&secret(query.kind, "secret")),
            Event::Authenticate(credentials) => {
                let holds = match &credentials.evidence {
                    Evidence::Password(password) => password.reveal() == "secret",
                    Evidence::Proof { holds } => *holds,
                    Evidence::Token(token) => token.reveal() == "token",
                    Evidence::Certificate | Evidence::Ticket => true,
                };
                match holds {
                    true => server.authenticated(Identity {
                        account: "alice@mail.example".to_owned(),
                        mechanism: credentials.mechanism,
                    }),
                    false => server.answer(PolicyReply::Refuse(wrong())),
                }
            }
            Event::Context(call) => match context(&call) {
                Some(answer) => server.context(answer),
                None => server.answer(PolicyReply::Refuse(wrong())),
            },
            Event::Closed(_) => {}
            _ => server.answer(PolicyReply::Accept),
        }
    }
    String::from_utf8(server.take_output().to_vec()).unwrap()
}

/// Whether the client gets in, and by which mechanism.
type Ended = (Result<(), ClientError>, Option<Mechanism>);

fn log_in(offered: &[Mechanism], password: &str) -> Ended {
    log_in_by(offered, password, Some(BINDING), &Mechanism::ALL)
}

fn log_in_by(
    offered: &[Mechanism],
    password: &str,
    binding: Option<&[u8]>,
    mechanisms: &[Mechanism],
) -> Ended {
    let mut server = server(offered);
    let config = ClientConfig {
        mechanisms: mechanisms.to_vec(),
        auth: Some(("alice@mail.example".to_owned(), Password::new(password))),
        ..ClientConfig::new(HeloName::parse("client.example").unwrap())
    };
    let mut client = ClientSession::new(config, true);
    client.set_seed([2; 32]);
    client.set_binding(binding.map(<[u8]>::to_vec));
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    loop {
        to_client.extend_from_slice(serve(&mut server, &mut to_server).as_bytes());
        let result = match client.receive(&mut to_client) {
            Ok(None) => {
                to_server.extend_from_slice(&client.take_output());
                continue;
            }
            Ok(Some(_)) => Ok(()),
            Err(error) => Err(error),
        };
        return (result, server.identity().map(|known| known.mechanism));
    }
}

#[test]
fn each_mechanism_lets_in_who_knows_the_password_and_nobody_else() {
    for mechanism in [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::CramMd5,
        Mechanism::Plain,
        Mechanism::Login,
    ] {
        let (result, by) = log_in(&[mechanism], "secret");
        assert_eq!((result, by), (Ok(()), Some(mechanism)));
        let (result, by) = log_in(&[mechanism], "wrong");
        let refused = ClientError::Refused {
            stage: Stage::Auth,
            reply: wrong(),
        };
        assert_eq!((result, by), (Err(refused), None), "{mechanism}");
    }
}

#[test]
fn the_strongest_is_taken_whatever_the_order() {
    let all: Vec<_> = Mechanism::ALL.into_iter().rev().collect();
    let plus = Mechanism::ScramSha256Plus;
    assert_eq!(log_in(&all, "secret").1, Some(plus));
    let (unbound, by) = log_in_by(&all, "secret", None, &Mechanism::ALL);
    assert_eq!((unbound, by), (Ok(()), Some(Mechanism::ScramSha256)));
}

#[test]
fn none_is_taken_that_was_not_allowed() {
    let all = Mechanism::ALL;
    for wanted in [
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Login,
    ] {
        let (result, by) = log_in_by(&all, "secret", Some(BINDING), &[wanted]);
        assert_eq!((result, by), (Ok(()), Some(wanted)));
    }
    let weaker = [Mechanism::Plain, Mechanism::CramMd5];
    let only = [Mechanism::ScramSha256Plus];
    let (result, _) = log_in_by(&weaker, "secret", Some(BINDING), &only);
    assert!(
        matches!(result, Err(ClientError::NoMechanism(_))),
        "{result:?}"
    );
}

#[test]
fn a_proof_for_another_connection_lets_nobody_in() {
    let only = [Mechanism::ScramSha256Plus];
    let (result, by) = log_in_by(&only, "secret", Some(&[1; 32]), &only);
    let refused = ClientError::Refused {
        stage: Stage::Auth,
        reply: wrong(),
    };
    assert_eq!((result, by), (Err(refused), None));
}

/// What a server says to these lines, one after another.
fn said(server: &mut ServerSession, lines: &[&str]) -> Vec<String> {
    let mut input = BytesMut::new();
    serve(server, &mut input);
    let replies = lines.iter().map(|line| {
        input.extend_from_slice(line.as_bytes());
        input.extend_from_slice(b"\r\n");
        serve(server, &mut input)
    });
    replies.collect()
}

#[test]
fn what_cannot_work_on_this_connection_is_not_offered() {
    let auth = |server: &mut ServerSession| {
        let hello = said(server, &["EHLO client.example"]).remove(0);
        let line = hello.lines().find(|line| line.get(4..8) == Some("AUTH"));
        line.unwrap_or_default().to_owned()
    };
    let all = Mechanism::ALL;
    assert_eq!(
        auth(&mut server(&all)),
        "250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1 GSSAPI OAUTHBEARER XOAUTH2 CRAM-MD5 PLAIN LOGIN"
    );
    let mut unbound = server(&all);
    unbound.set_binding(None);
    unbound.set_certified(true);
    assert_eq!(
        auth(&mut unbound),
        "250-AUTH SCRAM-SHA-256 SCRAM-SHA-1 EXTERNAL GSSAPI OAUTHBEARER XOAUTH2 CRAM-MD5 PLAIN LOGIN"
    );
    let refused = said(
        &mut unbound,
        &["AUTH SCRAM-SHA-256-PLUS cD10bHMtZXhwb3J0ZXIsLG49YSxyPWE="],
    );
    assert!(refused[0].starts_with("504 5.5.4"), "{refused:?}");
}

#[test]
fn a_client_that_says_it_was_not_offered_binding_was_lied_to() {
    // y,,n=a,r=a
    let y = "AUTH SCRAM-SHA-256 eSwsbj1hLHI9YQ==";
    let lines = ["EHLO client.example", y];
    let replies = said(&mut server(&Mechanism::ALL), &lines);
    assert!(replies[1].starts_with("501 5.5.2"), "{replies:?}");
    let replies = said(&mut server(&[Mechanism::ScramSha256]), &lines);
    assert!(replies[1].starts_with("334 "), "{replies:?}");
}

#[test]
fn a_ticket_lets_in_after_the_layers_were_spoken_of() {
    // ticket, nothing, signed: and the octets 1 0 0 0
    let lines = [
        "EHLO client.example",
        "AUTH GSSAPI dGlja2V0",
        "",
        "c2lnbmVkOgEAAAA=",
    ];
    let mut kerberos = server(&[Mechanism::Gssapi]);
    let replies = said(&mut kerberos, &lines);
    assert_eq!(replies[1], "334 bXV0dWFs\r\n");
    assert_eq!(replies[2], "334 c2lnbmVkOgEAAAA=\r\n");
    assert!(replies[3].starts_with("235 2.7.0"), "{replies:?}");
    assert!(kerberos.identity().is_some());
}

#[test]
fn without_a_good_ticket_nobody_gets_in() {
    for (lines, reply) in [
        (&["AUTH GSSAPI", "Z2FyYmFnZQ=="][..], "535 5.7.8"),
        (&["AUTH GSSAPI", "?"], "501 5.5.2"),
        (&["AUTH GSSAPI", ""], "501 5.5.2"),
        (&["AUTH GSSAPI ="], "501 5.5.2"),
        (&["AUTH GSSAPI", "*"], "501 5.7.0"),
        (&["AUTH GSSAPI dGlja2V0", "*"], "501 5.7.0"),
        (&["AUTH GSSAPI dGlja2V0", "AQAAAA=="], "501 5.5.2"),
        // Not signed, and another layer.
        (&["AUTH GSSAPI dGlja2V0", "", "AQAAAA=="], "535 5.7.8"),
        (
            &["AUTH GSSAPI dGlja2V0", "", "c2lnbmVkOgIAAAA="],
            "501 5.5.2",
        ),
    ] {
        let mut kerberos = server(&[Mechanism::Gssapi]);
        said(&mut kerberos, &["EHLO client.example"]);
        let replies = said(&mut kerberos, lines);
        let last = replies.last().map(String::as_str).unwrap_or_default();
        assert!(last.starts_with(reply), "{lines:?} {replies:?}");
        assert_eq!(kerberos.identity(), None);
    }
}

#[test]
fn a_refused_token_is_told_why_before_the_reply() {
    // n,a=alice,^Aauth=Bearer wrong^A^A and user=alice^Aauth=Bearer wrong^A^A, and the same with the right token
    for (mechanism, line, status) in [
        (
            Mechanism::OauthBearer,
            "bixhPWFsaWNlLAFhdXRoPUJlYXJlciB3cm9uZwEB",
            "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=",
        ),
        (
            Mechanism::Xoauth2,
            "dXNlcj1hbGljZQFhdXRoPUJlYXJlciB3cm9uZwEB",
            "eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIn0=",
        ),
    ] {
        let command = format!("AUTH {mechanism} {line}");
        let lines = ["EHLO client.example", &command, "AQ==", "NOOP"];
        let replies = said(&mut server(&[mechanism]), &lines);
        assert_eq!(
            replies[1..],
            [
                format!("334 {status}\r\n"),
                "535 5.7.8 wrong\r\n".to_owned(),
                "250 2.0.0 ok\r\n".to_owned()
            ]
        );
    }
    let right = "AUTH XOAUTH2 dXNlcj1hbGljZQFhdXRoPUJlYXJlciB0b2tlbgEB";
    let replies = said(
        &mut server(&[Mechanism::Xoauth2]),
        &["EHLO client.example", right],
    );
    assert!(replies[1].starts_with("235 "), "{replies:?}");
}

#[test]
fn no_two_exchanges_have_the_same_nonce() {
    let line = "AUTH CRAM-MD5";
    let lines = ["EHLO client.example", line, "*", line, "*"];
    let replies = said(&mut server(&[Mechanism::CramMd5]), &lines);
    assert!(replies[1].starts_with("334 ") && replies[1] != replies[3]);
    assert!(replies[2].starts_with("501 5.7.0"), "{replies:?}");
}
