//! AUTH (RFC 4954), by the mechanisms that need nothing but names and secrets.

use postroad_sasl::{
    Circumstances, CramSecret, Credentials, Evidence, Mechanism, SCRAM_ITERATIONS, ScramHash,
    ScramKeys, Secret, SecretKind, SecretQuery, ServerExchange, Step, nonce,
};

use super::deeds::Done;
use super::{Around, Deed, Session, State, Told};
use crate::script::{Login, Stage};

const SALT: &[u8] = b"salt of rehearsal";
/// What a refused token is told, as base64 of JSON (RFC 7628 §3.2.2).
const TOKEN_REFUSED: &str = "eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJtYWlsIn0=";

impl Session {
    pub(super) fn auth(&mut self, argument: &str, around: &mut Around<'_>) -> Vec<Deed> {
        let mut words = argument.split_whitespace();
        let mechanism = words.next().and_then(|word| word.parse::<Mechanism>().ok());
        let known = mechanism.filter(|mechanism| {
            use Mechanism::{External, Gssapi, ScramSha256Plus};
            !matches!(mechanism, External | Gssapi | ScramSha256Plus)
        });
        let Some(mechanism) = known else {
            return Done::well("504 5.5.4 this mechanism is not known").deeds;
        };
        if self.login.is_some() || !self.greeted {
            return Done::well("503 5.5.1 not now").deeds;
        }
        self.exchanges += 1;
        let nonce = nonce(&self.seed, self.exchanges);
        let circumstances = Circumstances {
            nonce: &nonce,
            ..Circumstances::default()
        };
        let step = ServerExchange::start(mechanism, words.next(), circumstances);
        self.log_in(step, mechanism.to_string(), around)
    }

    /// Goes on with a log-in.
    pub(super) fn log_in(
        &mut self,
        mut step: Step,
        mechanism: String,
        around: &mut Around<'_>,
    ) -> Vec<Deed> {
        loop {
            step = match step {
                Step::Challenge { text, next } => {
                    self.state = State::Login(Box::new(next), mechanism);
                    return Done::well(&format!("334 {text}")).deeds;
                }
                Step::Ask { query, next } => match self.secret(&query) {
                    Some(secret) => next.answer(&secret),
                    None => return self.refuse_login(around).deeds,
                },
                Step::Verify(credentials) => return self.verify(&credentials, around),
                Step::Call { .. } | Step::Failed(_) => {
                    return Done::well("501 5.5.2 this is no log-in").deeds;
                }
            };
        }
    }

    fn verify(&mut self, credentials: &Credentials, around: &mut Around<'_>) -> Vec<Deed> {
        let shown = match &credentials.evidence {
            Evidence::Password(secret) | Evidence::Token(secret) => Some(secret.reveal()),
            Evidence::Proof { .. } | Evidence::Certificate | Evidence::Ticket => None,
        };
        let proved = matches!(credentials.evidence, Evidence::Proof { holds: true });
        let name = &credentials.authcid;
        let logins = &self.script.logins;
        let is =
            |login: &Login| login.name == *name && (proved || shown == Some(login.secret.as_str()));
        if !(logins.is_empty() || logins.iter().any(is)) {
            if credentials.mechanism.shows_token() {
                self.state = State::TokenRefused;
                return Done::well(&format!("334 {TOKEN_REFUSED}")).deeds;
            }
            return self.refuse_login(around).deeds;
        }
        let mut done = self.at(Stage::Auth, None, "235 2.7.0 welcome", around);
        if done.code == Some(235) {
            self.login = Some(name.clone());
            done.deeds.push(Deed::Tell(Told::LoggedIn {
                name: name.clone(),
                mechanism: credentials.mechanism.to_string(),
            }));
        }
        done.deeds
    }

    pub(super) fn refuse_login(&mut self, around: &mut Around<'_>) -> Done {
        self.at(Stage::Auth, None, "535 5.7.8 these are no good", around)
    }

    /// What the mechanisms that prove a password ask for.
    fn secret(&self, query: &SecretQuery) -> Option<Secret> {
        let mut logins = self.script.logins.iter();
        let login = logins.find(|login| login.name == query.name)?;
        let keys = |hash: ScramHash| {
            ScramKeys::derive(hash, &login.secret, SALT, SCRAM_ITERATIONS).map(Secret::Scram)
        };
        match query.kind {
            SecretKind::Scram(hash) => keys(hash).ok(),
            SecretKind::Cram => Some(Secret::Cram(CramSecret::new(login.secret.as_bytes()))),
        }
    }
}
