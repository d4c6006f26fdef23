//! From the greeting until a mail can be sent.

use postroad_reply::{AUTH_CONTINUE_334, Reply, SERVICE_NOT_AVAILABLE_421, Severity};
use postroad_sasl::{Binding, ClientExchange, Credentials, Evidence, Mechanism, nonce};
use postroad_smtp::{Capabilities, Command, Extension};

use super::{ClientError, ClientSession, Phase, Progress, Stage, TlsUse};

impl ClientSession {
    pub(super) fn step_setup(
        &mut self,
        phase: Phase,
        reply: Reply,
        input_empty: bool,
    ) -> Result<Option<Progress>, ClientError> {
        match (phase, reply.severity()) {
            (Phase::Greeting, Severity::Completion) => {
                let name = reply.text().split([' ', '\n']).next().unwrap_or_default();
                self.greeting = name.to_owned();
                self.say_ehlo();
                Ok(None)
            }
            (Phase::Ehlo, Severity::Completion) => {
                self.capabilities = Capabilities::from_reply(&reply);
                self.after_hello()
            }
            // RFC 5321 §3.2: a host that does not know EHLO is spoken to with HELO.
            (Phase::Ehlo, Severity::Permanent) if !self.config.lmtp => {
                self.capabilities = Capabilities::default();
                self.say(&Command::Helo(self.config.helo_name.clone()));
                self.phase = Phase::Helo;
                Ok(None)
            }
            (Phase::Helo, Severity::Completion) => self.after_hello(),
            (Phase::StartTls, Severity::Completion) if input_empty => {
                self.phase = Phase::Handshake;
                Ok(Some(Progress::StartTls))
            }
            (Phase::StartTls, Severity::Completion) => Err(ClientError::PlaintextAfterStartTls),
            (Phase::StartTls, Severity::Transient | Severity::Permanent)
                if self.config.tls == TlsUse::IfOffered
                    && reply.code() != SERVICE_NOT_AVAILABLE_421 =>
            {
                self.authenticate()
            }
            // Whoever says yes without having shown that it knows the password is somebody else (RFC 5802 §5).
            (Phase::Auth(exchange), Severity::Completion) if !exchange.may_end() => {
                Err(ClientError::UnprovenServer)
            }
            (Phase::Auth(_), Severity::Completion) => {
                self.authenticated = true;
                self.ready()
            }
            (Phase::Auth(exchange), Severity::Intermediate)
                if reply.code() == AUTH_CONTINUE_334 =>
            {
                self.answer_challenge(exchange, reply)
            }
            (phase, severity) => Err(refused(&phase, severity, reply)),
        }
    }

    pub(super) fn say_ehlo(&mut self) {
        let name = self.config.helo_name.clone();
        self.say(&if self.config.lmtp {
            Command::Lhlo(name)
        } else {
            Command::Ehlo(name)
        });
        self.phase = Phase::Ehlo;
    }

    fn after_hello(&mut self) -> Result<Option<Progress>, ClientError> {
        let offered = self.capabilities.offers(&Extension::StartTls);
        match self.config.tls {
            _ if self.tls => self.authenticate(),
            TlsUse::IfOffered | TlsUse::Required if offered => {
                self.say(&Command::StartTls);
                self.phase = Phase::StartTls;
                Ok(None)
            }
            TlsUse::Required => Err(ClientError::TlsNotOffered),
            TlsUse::Never | TlsUse::IfOffered => self.authenticate(),
        }
    }

    fn authenticate(&mut self) -> Result<Option<Progress>, ClientError> {
        let Some((name, password)) = self.config.auth.clone() else {
            return self.ready();
        };
        let usable = |mechanism: &Mechanism| {
            let mut mechanisms = self.capabilities.mechanisms();
            self.config.mechanisms.contains(mechanism)
                && (self.seed.is_some()
                    || mechanism.shows_token()
                    || Mechanism::PASSWORDS.contains(mechanism))
                && (self.binding.is_some() || *mechanism != Mechanism::ScramSha256Plus)
                && mechanisms.any(|name| name == mechanism.as_str())
        };
        let mechanism = Mechanism::BY_PASSWORD
            .into_iter()
            .chain(Mechanism::BY_TOKEN)
            .find(usable)
            .ok_or_else(|| {
                let offered = self.capabilities.mechanisms();
                ClientError::NoMechanism(offered.map(|name| name.to_string()).collect())
            })?;
        if mechanism.reveals_password() && !self.tls && !self.config.auth_without_tls {
            return Err(ClientError::AuthWithoutTls);
        }
        let nonce = self.seed.map(|seed| nonce(&seed, 0)).unwrap_or_default();
        let credentials = Credentials {
            mechanism,
            authzid: None,
            authcid: name,
            evidence: match mechanism.shows_token() {
                true => Evidence::Token(password),
                false => Evidence::Password(password),
            },
        };
        let (exchange, initial_response) =
            ClientExchange::start_bound(credentials, &nonce, self.bind(mechanism))
                .map_err(|_| ClientError::UnfitPassword)?;
        self.say(&Command::Auth {
            mechanism: mechanism.to_string(),
            initial_response: initial_response.map(|response| response.to_string()),
        });
        self.phase = Phase::Auth(exchange);
        Ok(None)
    }

    fn bind(&self, mechanism: Mechanism) -> Binding<'_> {
        let may = self.config.mechanisms.contains(&Mechanism::ScramSha256Plus);
        // A host that binds by other hashes alone was not lied about.
        let binds = || {
            self.capabilities
                .mechanisms()
                .any(|name| name.ends_with("-PLUS"))
        };
        match (&self.binding, mechanism) {
            (Some(binding), Mechanism::ScramSha256Plus) => Binding::To(binding),
            (Some(_), _) if may && !binds() => Binding::NotOffered,
            _ => Binding::Unused,
        }
    }

    fn answer_challenge(
        &mut self,
        mut exchange: ClientExchange,
        reply: Reply,
    ) -> Result<Option<Progress>, ClientError> {
        let stage = Stage::Auth;
        let response = exchange
            .respond(reply.text())
            .map_err(|_| ClientError::Unexpected { stage, reply })?;
        self.output.extend_from_slice(response.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        self.phase = Phase::Auth(exchange);
        Ok(None)
    }

    fn ready(&mut self) -> Result<Option<Progress>, ClientError> {
        self.phase = Phase::Ready;
        Ok(Some(Progress::Ready))
    }
}

fn refused(phase: &Phase, severity: Severity, reply: Reply) -> ClientError {
    let stage = match phase {
        Phase::Greeting => Stage::Greeting,
        Phase::StartTls => Stage::StartTls,
        Phase::Auth(_) => Stage::Auth,
        _ => Stage::Hello,
    };
    match severity {
        Severity::Transient | Severity::Permanent => ClientError::Refused { stage, reply },
        Severity::Completion | Severity::Intermediate => ClientError::Unexpected { stage, reply },
    }
}
