//! Commands: order, limits and parameters.

use postroad_address::{ForwardPath, ReversePath};
use postroad_envelope::BodyKind;
use postroad_reply::*;
use postroad_sasl::{Failure, Mechanism, ServerExchange, Step};
use postroad_smtp::{Command, CommandError, Extension, HeloName, MailParams, RcptParams, XForward};

use super::{
    Chunk, CloseReason, Event, Flavour, Hello, HelloKind, MailRequest, Pending, Phase, RcptRequest,
    ServerSession, Transaction,
};

impl ServerSession {
    pub(super) fn step_command(
        &mut self,
        phase: Phase,
        command: Command,
        more_input: bool,
    ) -> Phase {
        if matches!(phase, Phase::Refused) && command != Command::Quit {
            // RFC 5321 §3.1: after 554, 503 to anything but QUIT.
            return self.mistake(phase, out_of_order("no mail service here"));
        }
        if !matches!(
            command,
            Command::Rcpt { .. } | Command::Bdat { .. } | Command::Quit
        ) {
            self.counts.idle_commands += 1;
            if self.counts.idle_commands > self.config.limits.idle_commands {
                let text = "too many commands without a mail";
                return self.give_up(text, CloseReason::TooManyIdleCommands);
            }
        }
        match command {
            Command::Ehlo(name) => self.greeted(phase, HelloKind::Ehlo, name),
            Command::Helo(name) => self.greeted(phase, HelloKind::Helo, name),
            Command::Lhlo(name) => self.greeted(phase, HelloKind::Lhlo, name),
            Command::Mail {
                reverse_path,
                params,
            } => self.mail(phase, reverse_path, params),
            Command::Rcpt {
                forward_path,
                params,
            } => self.rcpt(phase, forward_path, params),
            Command::Data => self.data(phase, more_input),
            Command::Bdat { size, last } => self.bdat(phase, size, last),
            Command::Auth {
                mechanism,
                initial_response,
            } => self.auth(phase, &mechanism, initial_response.as_deref()),
            Command::StartTls => self.start_tls(phase, more_input),
            Command::XForward(told) => self.xforward(phase, told),
            Command::Rset => {
                self.reset(phase);
                self.say(&ok("reset"));
                Phase::Idle
            }
            Command::Noop => self.remark(phase, ok("ok")),
            Command::Help => {
                let text = "RFC 5321; ask postmaster for help";
                self.remark(phase, Reply::new(HELP_214, SUCCESS_2_0_0, text))
            }
            // RFC 5321 §3.5.3 and §7.3: nothing is told about addresses.
            Command::Vrfy => {
                let text = "cannot verify, but will take mail and try to deliver it";
                self.remark(phase, Reply::new(CANNOT_VRFY_252, SUCCESS_2_0_0, text))
            }
            Command::Expn => self.mistake(phase, not_here("lists are not expanded")),
            Command::Quit => {
                let reply = Reply::new(CLOSING_221, SUCCESS_2_0_0, "bye");
                self.closing(reply, CloseReason::Quit)
            }
        }
    }

    fn remark(&mut self, phase: Phase, reply: Reply) -> Phase {
        self.say(&reply);
        phase
    }

    /// RFC 5321 §4.1.4: a new greeting resets the transaction.
    fn greeted(&mut self, phase: Phase, kind: HelloKind, name: HeloName) -> Phase {
        // RFC 2033 §4.1: LHLO there and nowhere else.
        if (self.config.flavour == Flavour::Lmtp) != (kind == HelloKind::Lhlo) {
            let text = match kind {
                HelloKind::Lhlo => "this is SMTP, say EHLO",
                _ => "this is LMTP, say LHLO",
            };
            let reply = Reply::new(SYNTAX_ERROR_500, INVALID_COMMAND_5_5_1, text);
            return self.mistake(phase, reply);
        }
        self.reset(phase);
        let hello = Hello { kind, name };
        self.ask(Event::Hello(hello.clone()), Pending::Hello(hello))
    }

    /// The lines of the reply to EHLO and LHLO.
    pub(super) fn extensions(&self) -> Vec<Extension> {
        let offers = &self.config.offers;
        let mut extensions = vec![
            Extension::Size(Some(self.config.limits.size)),
            Extension::Pipelining,
            Extension::EightBitMime,
            Extension::EnhancedStatusCodes,
        ];
        let mechanisms = offers.auth.iter().map(ToString::to_string).collect();
        let attributes = XForward::ATTRIBUTES.map(str::to_owned).to_vec();
        extensions.extend(
            [
                (offers.smtputf8, Extension::SmtpUtf8),
                (offers.dsn, Extension::Dsn),
                (offers.chunking, Extension::Chunking),
                (offers.starttls && !self.tls, Extension::StartTls),
                (offers.requiretls && self.tls, Extension::RequireTls),
                // RFC 4954 §4 and §9: mechanisms that reveal passwords are offered under TLS alone.
                (
                    self.tls && !offers.auth.is_empty(),
                    Extension::Auth(mechanisms),
                ),
                (offers.xforward, Extension::XForward(attributes)),
            ]
            .into_iter()
            .filter_map(|(offered, extension)| offered.then_some(extension)),
        );
        extensions
    }

    fn extended(&self) -> bool {
        self.hello
            .as_ref()
            .is_some_and(|hello| hello.kind != HelloKind::Helo)
    }

    fn mail(&mut self, phase: Phase, reverse_path: ReversePath, params: MailParams) -> Phase {
        let refusal =
            match &phase {
                _ if self.hello.is_none() => Some(out_of_order("say hello first")),
                Phase::Idle if self.config.require_tls && !self.tls => Some(Reply::new(
                    AUTH_REQUIRED_530,
                    SECURITY_5_7_0,
                    "must issue a STARTTLS command first",
                )),
                Phase::Idle if self.config.require_auth && self.identity.is_none() => Some(
                    Reply::new(AUTH_REQUIRED_530, SECURITY_5_7_0, "authentication required"),
                ),
                Phase::Idle => self.check_mail(&reverse_path, &params).err(),
                _ => Some(out_of_order("a transaction is under way")),
            };
        if let Some(reply) = refusal {
            return self.mistake(phase, reply);
        }
        let request = MailRequest {
            reverse_path,
            params,
        };
        self.ask(Event::Mail(request.clone()), Pending::Mail(request))
    }

    fn check_mail(&self, reverse_path: &ReversePath, params: &MailParams) -> Result<(), Reply> {
        if let Some(name) = self.unoffered(params) {
            return Err(CommandError::UnknownParameter(name.to_owned()).reply());
        }
        // RFC 1870 §6.1 (3).
        if params
            .size
            .is_some_and(|size| size > self.config.limits.size)
        {
            return Err(self.too_large());
        }
        let needs_utf8 = reverse_path
            .mailbox()
            .is_some_and(|mailbox| mailbox.needs_smtputf8());
        if needs_utf8 && !params.smtputf8 {
            return Err(needs_smtputf8());
        }
        Ok(())
    }

    /// RFC 5321 §4.1.1.11: a parameter that was not offered is not known.
    fn unoffered(&self, params: &MailParams) -> Option<&'static str> {
        let (offers, extended) = (&self.config.offers, self.extended());
        [
            ("SIZE", params.size.is_some() && !extended),
            ("BODY", params.body.is_some() && !extended),
            ("BODY=BINARYMIME", params.body == Some(BodyKind::BinaryMime)),
            (
                "SMTPUTF8",
                params.smtputf8 && !(extended && offers.smtputf8),
            ),
            (
                "REQUIRETLS",
                params.requiretls && !(extended && offers.requiretls && self.tls),
            ),
            ("RET", params.ret.is_some() && !(extended && offers.dsn)),
            ("ENVID", params.envid.is_some() && !(extended && offers.dsn)),
            (
                "AUTH",
                params.auth.is_some() && !(extended && self.tls && !offers.auth.is_empty()),
            ),
            ("HOLDFOR", params.hold.is_some()),
            ("BY", params.deliver_by.is_some()),
            ("MT-PRIORITY", params.priority.is_some()),
        ]
        .into_iter()
        .find_map(|(name, unoffered)| unoffered.then_some(name))
    }

    fn rcpt(&mut self, phase: Phase, forward_path: ForwardPath, params: RcptParams) -> Phase {
        let Phase::Transaction(transaction) = phase else {
            return self.mistake(phase, out_of_order("MAIL first"));
        };
        if let Err(reply) = self.check_rcpt(&transaction, &forward_path, &params) {
            return self.mistake(Phase::Transaction(transaction), reply);
        }
        if transaction.recipients.len() >= self.config.limits.recipients.max(100) {
            // RFC 5321 §4.5.3.1.10. No mistake: a client may go on with those it has.
            let text = "too many recipients, send the mail to the others again";
            let reply = Reply::new(INSUFFICIENT_STORAGE_452, TOO_MANY_RECIPIENTS_4_5_3, text);
            return self.remark(Phase::Transaction(transaction), reply);
        }
        let request = RcptRequest {
            forward_path,
            params,
        };
        self.ask(
            Event::Rcpt(request.clone()),
            Pending::Rcpt(transaction, request),
        )
    }

    fn check_rcpt(
        &self,
        transaction: &Transaction,
        forward_path: &ForwardPath,
        params: &RcptParams,
    ) -> Result<(), Reply> {
        let dsn = self.extended() && self.config.offers.dsn;
        for (name, given) in [
            ("NOTIFY", params.notify.is_some()),
            ("ORCPT", params.orcpt.is_some()),
        ] {
            if given && !dsn {
                return Err(CommandError::UnknownParameter(name.to_owned()).reply());
            }
        }
        let needs_utf8 = forward_path
            .mailbox()
            .is_some_and(|mailbox| mailbox.needs_smtputf8());
        if needs_utf8 && !transaction.mail.params.smtputf8 {
            return Err(needs_smtputf8());
        }
        Ok(())
    }

    fn data(&mut self, phase: Phase, more_input: bool) -> Phase {
        match phase {
            Phase::Transaction(transaction) if !transaction.recipients.is_empty() => self.ask(
                Event::Data,
                Pending::Data {
                    transaction,
                    early: more_input,
                },
            ),
            phase => {
                // RFC 5321 §3.3 allows 554 and 503, RFC 2033 §4.2 wants 503.
                let text = match &phase {
                    Phase::Transaction(_) => "no valid recipients",
                    Phase::BetweenChunks(_) => "BDAT was used, it must be used to the end",
                    _ => "MAIL and RCPT first",
                };
                let phase = self.mistake(phase, out_of_order(text));
                self.after_refused_data(phase, more_input)
            }
        }
    }

    /// Whoever sends on after DATA without waiting for 354 sends content, which must not be taken for commands.
    pub(super) fn after_refused_data(&mut self, phase: Phase, early: bool) -> Phase {
        if !early || matches!(phase, Phase::Closed) {
            return phase;
        }
        self.give_up("wait for the reply to DATA", CloseReason::CommandInjection)
    }

    fn bdat(&mut self, phase: Phase, size: u64, last: bool) -> Phase {
        let chunk = Chunk {
            size,
            remaining: size,
            last,
        };
        match phase {
            phase if !self.config.offers.chunking => {
                self.discard(phase, size, not_here("BDAT is not offered"))
            }
            Phase::BetweenChunks(incoming) => self.begin_chunk(incoming, chunk),
            Phase::Transaction(transaction) if !transaction.recipients.is_empty() => {
                self.ask(Event::Data, Pending::FirstChunk(transaction, chunk))
            }
            phase => self.discard(phase, size, out_of_order("MAIL and RCPT first")),
        }
    }

    fn auth(&mut self, phase: Phase, mechanism: &str, initial_response: Option<&str>) -> Phase {
        let offered = &self.config.offers.auth;
        let known = mechanism
            .parse::<Mechanism>()
            .ok()
            .filter(|known| offered.contains(known));
        let refusal = match (&phase, known) {
            _ if offered.is_empty() => not_here("AUTH is not offered"),
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
                return self.step_exchange(ServerExchange::start(mechanism, initial_response));
            }
            _ => out_of_order("not inside a transaction"),
        };
        self.mistake(phase, refusal)
    }

    pub(super) fn step_exchange(&mut self, step: Step) -> Phase {
        match step {
            Step::Challenge { text, next } => {
                self.say(&Reply::plain(AUTH_CONTINUE_334, text));
                Phase::Exchange(next)
            }
            Step::Verify(credentials) => self.ask(Event::Authenticate(credentials), Pending::Auth),
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

    /// Postfix's XFORWARD_README: outside of transactions; several commands add up, for one transaction.
    fn xforward(&mut self, phase: Phase, told: XForward) -> Phase {
        let refusal = match phase {
            _ if !self.config.offers.xforward => Reply::new(
                MAILBOX_UNAVAILABLE_550,
                NOT_AUTHORIZED_5_7_1,
                "XFORWARD is for listed neighbours only",
            ),
            _ if !self.extended() => out_of_order("say hello first"),
            Phase::Idle => {
                self.forwarded.get_or_insert_default().add(told);
                return self.remark(phase, ok("forwarded"));
            }
            _ => out_of_order("a transaction is under way"),
        };
        self.mistake(phase, refusal)
    }

    fn start_tls(&mut self, phase: Phase, more_input: bool) -> Phase {
        if !self.config.offers.starttls {
            return self.mistake(phase, not_here("STARTTLS is not offered"));
        }
        if self.tls || self.hello.is_none() {
            let text = if self.tls {
                "TLS is in use"
            } else {
                "EHLO first"
            };
            return self.mistake(phase, out_of_order(text));
        }
        if more_input {
            // RFC 3207 §4: STARTTLS is the last of its group. What follows it in plain text may be from
            // somebody between, and must never be taken for said under TLS.
            let reply = out_of_order("nothing may follow STARTTLS before the handshake");
            return self.closing(reply, CloseReason::CommandInjection);
        }
        self.reset(phase);
        self.say(&Reply::new(
            SERVICE_READY_220,
            SUCCESS_2_0_0,
            "ready to start TLS",
        ));
        self.events.push_back(Event::StartTls);
        Phase::StartingTls
    }

    pub(super) fn too_large(&self) -> Reply {
        let text = format!("the mail is larger than {} octets", self.config.limits.size);
        Reply::new(EXCEEDED_STORAGE_552, TOO_LARGE_5_3_4, text)
    }
}

pub(super) fn ok(text: &str) -> Reply {
    Reply::new(OK_250, SUCCESS_2_0_0, text)
}

fn out_of_order(text: &str) -> Reply {
    Reply::new(BAD_SEQUENCE_503, INVALID_COMMAND_5_5_1, text)
}

fn not_here(text: &str) -> Reply {
    Reply::new(NOT_IMPLEMENTED_502, INVALID_COMMAND_5_5_1, text)
}

/// RFC 6531 §3.5.
fn needs_smtputf8() -> Reply {
    let text = "this address needs SMTPUTF8 in MAIL";
    Reply::new(MAILBOX_NAME_553, NEEDS_SMTPUTF8_5_6_7, text)
}
