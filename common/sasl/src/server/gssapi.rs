//! GSSAPI (RFC 4752), the server's side: what is said on the line. The security context itself is a library's.

use std::fmt;

use super::{Step, challenged, named};
use crate::{Credentials, Evidence, Mechanism};

/// RFC 4752 §3.3: no layer of its own; TLS is around it already.
const NO_LAYER: u8 = 1;
/// What is offered: that layer, and no octets that could come under another (RFC 4752 §3.2).
const OFFER: [u8; 4] = [NO_LAYER, 0, 0, 0];
/// Tokens of a client until its context stands. Kerberos needs one, or two where the clocks differ.
const MAX_TOKENS: u8 = 8;

/// What is to be done with a security context (RFC 2743), the acceptor's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextCall {
    /// Begin one, with the first token (§2.2.2). One from before is over.
    Begin(Vec<u8>),
    /// Take another token.
    Accept(Vec<u8>),
    /// Protect this against changes, without hiding it (§2.3.3).
    Wrap(Vec<u8>),
    /// Take this out of its protection (§2.3.4).
    Unwrap(Vec<u8>),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextAnswer {
    /// The context does not stand yet; the client gets this.
    Continue(Vec<u8>),
    /// It stands.
    Complete {
        /// What the client still gets; empty for nothing.
        token: Vec<u8>,
        /// Whose ticket it was, as Kerberos writes it: `alice@EXAMPLE.ORG`.
        principal: String,
    },
    /// What was wrapped or unwrapped.
    Octets(Vec<u8>),
}

/// Why a context refuses: the client's ticket or token is not good here. The words are the library's, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ContextFault(pub String);

/// A security context of one exchange. Whoever has one calls it where blocking is allowed.
pub trait SecurityContext: fmt::Debug + Send {
    /// Does what the exchange wants.
    ///
    /// # Errors
    ///
    /// Nothing more may be expected of the context.
    fn call(&mut self, call: &ContextCall) -> Result<ContextAnswer, ContextFault>;
}

/// For what of the client it waits.
#[derive(Debug)]
pub enum Waiting {
    /// A token; so many came before.
    Token { before: u8 },
    /// That it has our last one.
    Heard { principal: String },
    /// Which layer it takes, and whom it wants to act as.
    Choice { principal: String },
}

/// For what of the context it waits.
#[derive(Debug)]
pub enum Calling {
    Accepting { tokens: u8 },
    Wrapping { principal: String },
    Unwrapping { principal: String },
}

impl Waiting {
    pub const fn new() -> Self {
        Self::Token { before: 0 }
    }

    pub fn respond(self, octets: &[u8]) -> Option<Step> {
        match self {
            Self::Token { before } if octets.is_empty() || before >= MAX_TOKENS => None,
            Self::Token { before } => {
                let token = octets.to_vec();
                let call = match before {
                    0 => ContextCall::Begin(token),
                    _ => ContextCall::Accept(token),
                };
                let tokens = before + 1;
                Some(called(call, Calling::Accepting { tokens }))
            }
            Self::Heard { principal } => octets.is_empty().then(|| offer(principal)),
            Self::Choice { principal } => {
                let call = ContextCall::Unwrap(octets.to_vec());
                Some(called(call, Calling::Unwrapping { principal }))
            }
        }
    }
}

impl Calling {
    pub fn answer(self, answer: ContextAnswer) -> Option<Step> {
        match (self, answer) {
            (Self::Accepting { tokens }, ContextAnswer::Continue(token)) => {
                Some(waiting(&token, Waiting::Token { before: tokens }))
            }
            // RFC 4752 §3.2: a last token goes out first, and the client has nothing to say to it.
            (Self::Accepting { .. }, ContextAnswer::Complete { token, principal }) => {
                Some(match token.is_empty() {
                    true => offer(principal),
                    false => waiting(&token, Waiting::Heard { principal }),
                })
            }
            (Self::Wrapping { principal }, ContextAnswer::Octets(offer)) => {
                Some(waiting(&offer, Waiting::Choice { principal }))
            }
            (Self::Unwrapping { principal }, ContextAnswer::Octets(choice)) => {
                chosen(&choice, principal).map(Step::Verify)
            }
            _ => None,
        }
    }
}

fn offer(principal: String) -> Step {
    let call = ContextCall::Wrap(OFFER.to_vec());
    called(call, Calling::Wrapping { principal })
}

/// RFC 4752 §3.2: the layer, three octets that mean nothing without one, and whom to act as.
fn chosen(choice: &[u8], principal: String) -> Option<Credentials> {
    let ([NO_LAYER, _, _, _], authzid) = choice.split_first_chunk()? else {
        return None;
    };
    let authzid = std::str::from_utf8(authzid).ok()?;
    (!authzid.contains('\0')).then(|| Credentials {
        mechanism: Mechanism::Gssapi,
        authzid: named(authzid),
        authcid: principal,
        evidence: Evidence::Ticket,
    })
}

fn waiting(octets: &[u8], waiting: Waiting) -> Step {
    challenged(octets, super::Waiting::Gssapi(waiting))
}

fn called(call: ContextCall, next: Calling) -> Step {
    Step::Call {
        call,
        next: super::Calling(next),
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::{Circumstances, Failure, ServerExchange};

    const ALICE: &str = "alice@EXAMPLE.ORG";

    fn begun() -> ServerExchange {
        let step = ServerExchange::start(Mechanism::Gssapi, None, Circumstances::default());
        let Step::Challenge { text, next } = step else {
            panic!("{step:?}");
        };
        assert_eq!(text, "", "RFC 4752 §3.1: the client speaks first");
        next
    }

    fn said(exchange: ServerExchange, octets: &[u8]) -> Step {
        exchange.respond(STANDARD.encode(octets).as_bytes())
    }

    fn call(step: Step, expected: &ContextCall) -> super::super::Calling {
        match step {
            Step::Call { call, next } if call == *expected => next,
            step => panic!("{step:?}"),
        }
    }

    fn challenge(step: Step, expected: &[u8]) -> ServerExchange {
        match step {
            Step::Challenge { text, next } if text == STANDARD.encode(expected) => next,
            step => panic!("{step:?}"),
        }
    }

    fn complete(token: &[u8]) -> ContextAnswer {
        ContextAnswer::Complete {
            token: token.to_vec(),
            principal: ALICE.to_owned(),
        }
    }

    /// Up to the client's choice, which is the last thing it says.
    fn choose(choice: &[u8]) -> Step {
        let step = said(begun(), b"ticket");
        let next = call(step, &ContextCall::Begin(b"ticket".to_vec()));
        let next = challenge(next.answer(complete(b"mutual")), b"mutual");
        let next = call(said(next, b""), &ContextCall::Wrap(vec![1, 0, 0, 0]));
        let wrapped = ContextAnswer::Octets(b"wrapped".to_vec());
        let next = challenge(next.answer(wrapped), b"wrapped");
        let next = call(
            said(next, b"choice"),
            &ContextCall::Unwrap(b"choice".to_vec()),
        );
        next.answer(ContextAnswer::Octets(choice.to_vec()))
    }

    #[test]
    fn a_ticket_and_no_layer_make_credentials() {
        for (choice, authzid) in [
            (&b"\x01\0\0\0"[..], None),
            // A client that knows layers may say how much it takes, and takes none.
            (b"\x01\0\xff\xff", None),
            (b"\x01\0\0\0alice", Some("alice")),
        ] {
            let Step::Verify(credentials) = choose(choice) else {
                panic!("{choice:?}");
            };
            let expected = Credentials {
                mechanism: Mechanism::Gssapi,
                authzid: authzid.map(str::to_owned),
                authcid: ALICE.to_owned(),
                evidence: Evidence::Ticket,
            };
            assert_eq!(credentials, expected);
        }
    }

    #[test]
    fn another_layer_or_half_a_choice_is_malformed() {
        for choice in [
            &b""[..],
            b"\x01\0\0",
            b"\0\0\0\0",
            b"\x02\0\x10\0",
            b"\x03\0\0\0",
            b"\x04\0\x10\0alice",
            b"\x01\0\0\0al\xff",
            b"\x01\0\0\0alice\0bob",
        ] {
            let step = choose(choice);
            assert!(matches!(step, Step::Failed(Failure::Malformed)), "{step:?}");
        }
    }

    #[test]
    fn without_a_last_token_the_offer_comes_at_once() {
        let next = call(said(begun(), b"t"), &ContextCall::Begin(b"t".to_vec()));
        call(
            next.answer(complete(b"")),
            &ContextCall::Wrap(vec![1, 0, 0, 0]),
        );
    }

    #[test]
    fn what_does_not_belong_there_ends_it() {
        let accepting = || call(said(begun(), b"t"), &ContextCall::Begin(b"t".to_vec()));
        let heard = || challenge(accepting().answer(complete(b"m")), b"m");
        for step in [
            said(begun(), b""),
            said(heard(), b"more"),
            accepting().answer(ContextAnswer::Octets(vec![1, 0, 0, 0])),
            call(said(heard(), b""), &ContextCall::Wrap(vec![1, 0, 0, 0])).answer(complete(b"")),
        ] {
            assert!(matches!(step, Step::Failed(Failure::Malformed)), "{step:?}");
        }
        let step = heard().respond(b"*");
        assert!(matches!(step, Step::Failed(Failure::Cancelled)), "{step:?}");
    }

    #[test]
    fn tokens_without_an_end_end_it() {
        let mut step = said(begun(), b"t");
        for _ in 0..MAX_TOKENS {
            let Step::Call { next, .. } = step else {
                panic!("{step:?}");
            };
            let next = challenge(next.answer(ContextAnswer::Continue(b"c".to_vec())), b"c");
            step = said(next, b"t");
        }
        assert!(matches!(step, Step::Failed(Failure::Malformed)), "{step:?}");
    }
}
