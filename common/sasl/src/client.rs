use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{Credentials, Failure, Mechanism};

/// A client's side of an exchange.
#[derive(Debug)]
pub struct ClientExchange {
    credentials: Credentials,
    answered: u8,
}

impl ClientExchange {
    /// Begins by the mechanism of the credentials; also gives the initial response (base64), where there is one.
    pub fn start(credentials: Credentials) -> (Self, Option<Zeroizing<String>>) {
        let initial = match credentials.mechanism {
            Mechanism::Plain => Some(plain(&credentials)),
            Mechanism::Login => None,
        };
        let exchange = Self {
            credentials,
            answered: 0,
        };
        (exchange, initial)
    }

    /// Answers a challenge (base64, the text of a 334) with the next line (base64).
    ///
    /// LOGIN servers word their prompts as they like, so the order counts, not the text.
    pub fn respond(&mut self, _challenge: &str) -> Result<Zeroizing<String>, Failure> {
        let answer = match (self.credentials.mechanism, self.answered) {
            (Mechanism::Plain, 0) => plain(&self.credentials),
            (Mechanism::Login, 0) => Zeroizing::new(STANDARD.encode(&self.credentials.authcid)),
            (Mechanism::Login, 1) => {
                Zeroizing::new(STANDARD.encode(self.credentials.password.reveal()))
            }
            _ => return Err(Failure::Malformed),
        };
        self.answered += 1;
        Ok(answer)
    }
}

fn plain(credentials: &Credentials) -> Zeroizing<String> {
    let authzid = credentials.authzid.as_deref().unwrap_or_default();
    let (authcid, password) = (&credentials.authcid, credentials.password.reveal());
    let text = Zeroizing::new(format!("{authzid}\0{authcid}\0{password}"));
    Zeroizing::new(STANDARD.encode(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{MAX_RESPONSE, Password, ServerExchange, Step};

    fn verified(step: Step) -> Result<Credentials, Option<Failure>> {
        match step {
            Step::Verify(credentials) => Ok(credentials),
            Step::Failed(failure) => Err(Some(failure)),
            Step::Challenge { .. } => Err(None),
        }
    }

    fn plain_response(decoded: &str) -> Result<Credentials, Option<Failure>> {
        let response = STANDARD.encode(decoded);
        verified(ServerExchange::start(Mechanism::Plain, Some(&response)))
    }

    #[test]
    fn rfc_4616_messages() {
        let credentials = plain_response("Ursel\0Kurt\0xipj3plmq").unwrap();
        assert_eq!(credentials.authzid.as_deref(), Some("Ursel"));
        assert_eq!(credentials.authcid, "Kurt");
        assert_eq!(credentials.password.reveal(), "xipj3plmq");
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
        let plain = |line: &str| verified(ServerExchange::start(Mechanism::Plain, Some(line)));
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
        let Step::Challenge { text, next } = ServerExchange::start(Mechanism::Login, None) else {
            panic!()
        };
        assert_eq!(text, "VXNlcm5hbWU6");
        let Step::Challenge { text, next } = next.respond(b"Ym9i") else {
            panic!()
        };
        assert_eq!(text, "UGFzc3dvcmQ6");
        assert_eq!(verified(next.respond(b"cHc=")).unwrap().authcid, "bob");
        let early = ServerExchange::start(Mechanism::Login, Some("Ym9i"));
        assert!(matches!(early, Step::Challenge { text, .. } if text == "UGFzc3dvcmQ6"));
    }

    proptest! {
        #[test]
        fn the_server_hears_what_the_client_says(
            authcid in "[^\0]{1,30}", password in "[^\0]{1,30}", login: bool, initial: bool,
        ) {
            let mechanism = if login { Mechanism::Login } else { Mechanism::Plain };
            let said = Credentials { mechanism, authzid: None, authcid, password: Password::new(password) };
            let (mut client, first) = ClientExchange::start(said.clone());
            let mut step = ServerExchange::start(mechanism, first.as_ref().filter(|_| initial).map(|text| text.as_str()));
            while let Step::Challenge { text, next } = step {
                step = next.respond(client.respond(&text).unwrap().as_bytes());
            }
            prop_assert_eq!(verified(step), Ok(said));
        }

        #[test]
        fn nothing_panics(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            for mechanism in Mechanism::ALL {
                if let Step::Challenge { next, .. } = ServerExchange::start(mechanism, None) {
                    next.respond(&line);
                }
            }
        }
    }
}
