//! AUTH (RFC 4954): which mechanisms there are, and their exchanges.

use postroad_reply::*;
use postroad_sasl::{Circumstances, Failure, Mechanism, ServerExchange, Step, nonce};

use super::{
    Event, Pending, Phase, ServerSession,
    command::{not_here, out_of_order},
};

impl ServerSession {
    pub(super) fn auth(
        &mut self,
        phase: Phase,
        mechanism: &str,
        initial_response: Option<&str>,
    ) -> Phase {
        let offered = self.mechanisms();
        let known = mechanism
            .parse::<Mechanism>()
            .ok()
            .filter(|known| offered.contains(known) || self.may_ask_why(*known));
        let refusal = match (&phase, known) {
            _ if self.config.offers.auth.is_empty() => not_here("AUTH is not offered"),
            _ if !self.extended() => out_of_order("EHLO first"),
            // RFC 4954 §4: once, and not inside a transaction.
            _ if self.identity.is_some() => out_of_order("already authenticated"),
            (Phase::Idle, _) if !self.tls => Reply::new(
                ENCRYPTION_REQUIRED_538,
                ENCRYPTION_NEEDED_5_7_11,
                "encryption required, issue a STARTTLS command first",
            ),
            (Phase::Idle, None) => Reply::new(
                PARAMETER_NOT_IMPLEMENTED_504,
                INVALID_PARAMETER_5_5_4,
                "authentication mechanism not supported",
            ),
            (Phase::Idle, Some(mechanism)) => {
                return self.begin_exchange(mechanism, initial_response);
            }
            _ => out_of_order("not inside a transaction"),
        };
        self.mistake(phase, refusal)
    }

    /// Those that can work on this connection, as it is now.
    pub(super) fn mechanisms(&self) -> Vec<Mechanism> {
        let channel = &self.channel;
        let works = |mechanism: &Mechanism| match mechanism {
            Mechanism::ScramSha256Plus => channel.seed.is_some() && channel.binding.is_some(),
            Mechanism::ScramSha256 | Mechanism::ScramSha1 | Mechanism::CramMd5 => {
                channel.seed.is_some()
            }
            Mechanism::External => channel.certified,
            Mechanism::Gssapi
            | Mechanism::OauthBearer
            | Mechanism::Xoauth2
            | Mechanism::Plain
            | Mechanism::Login => true,
        };
        let offered = self.config.offers.auth.iter();
        offered.copied().filter(works).collect()
    }

    /// What is not offered since the certificate is not good for it: whoever tries all the same is told what is wrong with it.
    fn may_ask_why(&self, mechanism: Mechanism) -> bool {
        mechanism == Mechanism::External && self.config.offers.auth.contains(&mechanism)
    }

    fn begin_exchange(&mut self, mechanism: Mechanism, initial_response: Option<&str>) -> Phase {
        self.channel.exchanges += 1;
        let (seed, number) = (&self.channel.seed, self.channel.exchanges);
        let nonce = seed.as_ref().map(|seed| nonce(seed, number));
        let circumstances = Circumstances {
            nonce: nonce.as_deref().unwrap_or_default(),
            binding: self.channel.binding.as_deref(),
            offers_binding: self.mechanisms().contains(&Mechanism::ScramSha256Plus),
        };
        let step = ServerExchange::start(mechanism, initial_response, circumstances);
        self.step_exchange(step)
    }

    pub(super) fn step_exchange(&mut self, step: Step) -> Phase {
        match step {
            Step::Challenge { text, next } => {
                self.say(&Reply::plain(AUTH_CONTINUE_334, text));
                Phase::Exchange(next)
            }
            Step::Ask { query, next } => self.ask(Event::Secret(query), Pending::Secret(next)),
            Step::Call { call, next } => self.ask(Event::Context(call), Pending::Context(next)),
            Step::Verify(credentials) => {
                let mechanism = credentials.mechanism;
                self.ask(Event::Authenticate(credentials), Pending::Auth(mechanism))
            }
            Step::Failed(failure) => {
                // RFC 4954 §4 and §6.
                let (code, enhanced) = match failure {
                    Failure::Cancelled => (PARAMETER_SYNTAX_501, SECURITY_5_7_0),
                    Failure::TooLong => (SYNTAX_ERROR_500, AUTH_LINE_TOO_LONG_5_5_6),
                    Failure::Base64 | Failure::Malformed => (PARAMETER_SYNTAX_501, SYNTAX_5_5_2),
                };
                self.mistake(Phase::Idle, Reply::new(code, enhanced, failure.to_string()))
            }
        }
    }
}
