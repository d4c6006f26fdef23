//! Commands: order, limits and parameters.

use postroad_address::{ForwardPath, ReversePath};
use postroad_envelope::BodyKind;
use postroad_reply::*;
use postroad_smtp::{Command, CommandError, HeloName, MailParams, RcptParams, XForward};

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
        self.heard_of_client(&command);
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
            } => {
                // LOGIN's responses may be said all at once; a mechanism that was given all it needs has none to come.
                let is_whole = initial_response.is_some() && mechanism != "LOGIN";
                if more_input && is_whole && !self.config.offers.auth.is_empty() {
                    // RFC 4954 §4, RFC 2920 §3.1: AUTH is the last of its group. What stands behind it may be meant as response
                    // or as command, and must not be taken for the other.
                    let reply = out_of_order("nothing may follow AUTH before its reply");
                    self.reset(phase);
                    return self.closing(reply, CloseReason::CommandInjection);
                }
                self.auth(phase, &mechanism, initial_response.as_deref())
            }
            Command::StartTls => self.start_tls(phase, more_input),
            Command::XForward(told) => self.xforward(phase, told),
            Command::XClient(told) => self.xclient(phase, told),
            Command::Rset => {
                self.reset(phase);
                self.say(&ok("reset"));
                Phase::Idle
            }
            Command::Noop => self.remark(phase, ok("ok")),
            Command::Help(_) => {
                let text = self.help();
                self.remark(phase, Reply::new(HELP_214, SUCCESS_2_0_0, text))
            }
            Command::Vrfy(name) => {
                let text = "cannot verify, but will take mail and try to deliver it";
                self.question(phase, Event::Verify(name), text)
            }
            Command::Expn(name) => {
                let text = "cannot expand, but will take mail and try to deliver it";
                self.question(phase, Event::Expand(name), text)
            }
            // RFC 1985 §5 has replies of its own for servers that know the command; we do not.
            Command::Etrn => {
                self.mistake(phase, not_here("mail is not waiting to be fetched here"))
            }
            Command::Quit => {
                let reply = Reply::new(CLOSING_221, SUCCESS_2_0_0, "bye");
                self.closing(reply, CloseReason::Quit)
            }
        }
    }

    /// RFC 5321 §3.5.3 and §7.3: strangers are told nothing about addresses.
    fn question(&mut self, phase: Phase, event: Event, text: &str) -> Phase {
        let silence = Reply::new(CANNOT_VRFY_252, SUCCESS_2_0_0, text);
        if self.identity.is_none() {
            return self.remark(phase, silence);
        }
        self.ask(event, Pending::Question(Box::new(phase), silence))
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

    pub(super) fn extended(&self) -> bool {
        self.hello
            .as_ref()
            .is_some_and(|hello| hello.kind != HelloKind::Helo)
    }

    fn mail(&mut self, phase: Phase, reverse_path: ReversePath, params: MailParams) -> Phase {
        // RFC 9422 §4.1: each MAIL counts, whether or not it is taken.
        if self.counts.mails >= self.config.limits.mails {
            let text = "too many mails on one connection, please connect again";
            return self.give_up(text, CloseReason::TooManyMails);
        }
        self.counts.mails += 1;
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
        let granted = self.config.offers.mt_priority;
        let lowered = params.priority > granted;
        let priority = params.priority.min(granted);
        let request = MailRequest {
            reverse_path,
            params: MailParams { priority, ..params },
        };
        let pending = Pending::Mail(request.clone(), granted.filter(|_| lowered));
        self.ask(Event::Mail(request), pending)
    }

    fn check_mail(&self, reverse_path: &ReversePath, params: &MailParams) -> Result<(), Reply> {
        if let Some(name) = self.unoffered(params) {
            return Err(CommandError::UnknownParameter(name.to_owned()).reply());
        }
        // RFC 1870 §6.1 (3).
        if params.size.is_some_and(|size| size > self.size_limit()) {
            return Err(self.too_large());
        }
        // RFC 4865 §4: beyond what was announced, a bad argument.
        if let Some((hold, longest)) = params.hold.zip(self.config.offers.future_release)
            && hold.after(self.now) > longest
        {
            return Err(Reply::new(
                PARAMETER_SYNTAX_501,
                INVALID_PARAMETER_5_5_4,
                format!("mail is held for {} seconds at most", longest.as_secs()),
            ));
        }
        self.check_deliver_by(params)?;
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
            (
                "BODY=BINARYMIME",
                params.body == Some(BodyKind::BinaryMime) && !self.takes_binary(),
            ),
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
            (
                "HOLDFOR",
                params.hold.is_some() && !(extended && offers.future_release.is_some()),
            ),
            (
                "BY",
                params.deliver_by.is_some() && !(extended && offers.deliver_by.is_some()),
            ),
            (
                "MT-PRIORITY",
                params.priority.is_some() && !(extended && offers.mt_priority.is_some()),
            ),
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
        if transaction.recipients.len() >= self.most_recipients() {
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
        let binary =
            |transaction: &Transaction| transaction.mail.params.body == Some(BodyKind::BinaryMime);
        match phase {
            // RFC 3030 §3: DATA cannot carry it.
            Phase::Transaction(transaction) if binary(&transaction) => {
                let reply = out_of_order("BODY=BINARYMIME was said, so the content comes by BDAT");
                let phase = self.mistake(Phase::Transaction(transaction), reply);
                self.after_refused_data(phase, more_input)
            }
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
        let refusal = match () {
            // One reply for all that have it already, whether by STARTTLS or from the first octet.
            () if self.tls => Some(out_of_order("TLS already active")),
            () if !self.config.offers.starttls => Some(not_here("STARTTLS is not offered")),
            () if self.hello.is_none() => Some(out_of_order("EHLO first")),
            () => None,
        };
        if let Some(reply) = refusal {
            return self.mistake(phase, reply);
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
        let text = format!("the mail is larger than {} octets", self.size_limit());
        Reply::new(EXCEEDED_STORAGE_552, TOO_LARGE_5_3_4, text)
    }
}

pub(super) fn ok(text: &str) -> Reply {
    Reply::new(OK_250, SUCCESS_2_0_0, text)
}

pub(super) fn out_of_order(text: &str) -> Reply {
    Reply::new(BAD_SEQUENCE_503, INVALID_COMMAND_5_5_1, text)
}

pub(super) fn not_here(text: &str) -> Reply {
    Reply::new(NOT_IMPLEMENTED_502, INVALID_COMMAND_5_5_1, text)
}

/// RFC 6531 §3.5.
fn needs_smtputf8() -> Reply {
    let text = "this address needs SMTPUTF8 in MAIL";
    Reply::new(MAILBOX_NAME_553, NEEDS_SMTPUTF8_5_6_7, text)
}
