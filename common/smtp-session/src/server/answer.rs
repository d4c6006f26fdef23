//! The driver's answers.

use std::mem;

use base64::{Engine, engine::general_purpose::STANDARD};
use postroad_envelope::BodyKind;
use postroad_reply::*;
use postroad_sasl::{ContextAnswer, Identity, Mechanism, Secret};
use postroad_smtp::{ContentChecker, DotDecoder};

use super::{
    CloseReason, Flavour, Hello, HelloKind, Incoming, Pending, Phase, PolicyReply, ServerSession,
    Transaction, command::ok,
};

impl ServerSession {
    /// Answers the last event that asked for it. Without such an event nothing happens.
    pub fn answer(&mut self, answer: PolicyReply) {
        let pending = match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Undecided(pending) => pending,
            phase => return self.phase = phase,
        };
        self.phase = match answer {
            PolicyReply::Accept => self.accept(pending, None),
            PolicyReply::AcceptWith(reply) => self.accept(pending, Some(reply)),
            PolicyReply::Refuse(reply) => self.refuse(pending, negative(reply)),
            PolicyReply::Close(reply) => self.closing(negative(reply), CloseReason::Policy),
        };
    }

    /// Answers [`Event::Secret`](super::Event::Secret).
    pub fn secret(&mut self, secret: &Secret) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Undecided(Pending::Secret(asking)) => {
                self.phase = self.step_exchange(asking.answer(secret));
            }
            phase => self.phase = phase,
        }
    }

    /// Answers [`Event::Context`](super::Event::Context).
    pub fn context(&mut self, answer: ContextAnswer) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Undecided(Pending::Context(calling)) => {
                self.phase = self.step_exchange(calling.answer(answer));
            }
            phase => self.phase = phase,
        }
    }

    /// Answers [`Event::Authenticate`](super::Event::Authenticate): it is true.
    pub fn authenticated(&mut self, identity: Identity) {
        if matches!(self.phase, Phase::Undecided(Pending::Auth(_))) {
            self.identity = Some(identity);
            self.say(&Reply::new(
                AUTH_SUCCEEDED_235,
                SECURITY_OK_2_7_0,
                "authenticated",
            ));
            self.phase = Phase::Idle;
        }
    }

    /// Answers [`Event::ContentEnd`](super::Event::ContentEnd) under LMTP with one reply for each accepted RCPT, in
    /// their order (RFC 2033 §4.2). A missing one is our own fault, 451.
    pub fn answer_each(&mut self, replies: Vec<Reply>) {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Undecided(Pending::ContentEnd(transaction)) => {
                let mut replies = replies.into_iter();
                for _ in &transaction.recipients {
                    let reply = replies.next().unwrap_or_else(our_fault);
                    self.say(&reply);
                }
                self.counts.idle_commands = 0;
                self.phase = Phase::Idle;
            }
            phase => self.phase = phase,
        }
    }

    /// Refuses content that is still coming in: the rest is read and dropped, and this is said at its end.
    pub fn refuse_content(&mut self, reply: Reply) {
        match &mut self.phase {
            Phase::Dot(incoming, _)
            | Phase::Chunk(incoming, _)
            | Phase::BetweenChunks(incoming) => {
                incoming.fault.get_or_insert(negative(reply));
            }
            Phase::Undecided(Pending::ContentEnd(_)) => self.answer(PolicyReply::Refuse(reply)),
            _ => {}
        }
    }

    fn accept(&mut self, pending: Pending, reply: Option<Reply>) -> Phase {
        match pending {
            Pending::Connected | Pending::XClient => {
                let reply = reply.unwrap_or_else(|| self.greeting());
                self.say(&reply);
                Phase::Idle
            }
            Pending::Hello(hello) => {
                let reply = reply.unwrap_or_else(|| self.hello_reply(&hello));
                self.say(&reply);
                self.hello = Some(hello);
                Phase::Idle
            }
            // Only `authenticated` can accept, since it names the account.
            pending @ (Pending::Auth(_) | Pending::Secret(_) | Pending::Context(_)) => {
                self.refuse(pending, our_fault())
            }
            Pending::Mail(mail, lowered) => {
                let text = "sender ok";
                self.say(&reply.unwrap_or_else(|| match lowered {
                    // RFC 6710 §4.1: lowered, and said so.
                    Some(granted) => priority_lowered(granted),
                    None => Reply::new(OK_250, SENDER_OK_2_1_0, text),
                }));
                Phase::Transaction(Transaction {
                    mail,
                    recipients: Vec::new(),
                    forwarded: self.forwarded.take(),
                })
            }
            Pending::Rcpt(mut transaction, rcpt) => {
                let text = "recipient ok";
                self.say(&reply.unwrap_or_else(|| Reply::new(OK_250, RECIPIENT_OK_2_1_5, text)));
                transaction.recipients.push(rcpt);
                Phase::Transaction(transaction)
            }
            Pending::Question(phase, silence) => {
                self.say(&reply.unwrap_or(silence));
                *phase
            }
            Pending::Data { transaction, .. } => {
                let text = "go on, end with a line that holds only a dot";
                self.say(&Reply::plain(START_MAIL_INPUT_354, text));
                let decoder = DotDecoder::new(self.config.limits.content_line);
                Phase::Dot(self.incoming(transaction), decoder)
            }
            Pending::FirstChunk(transaction, chunk) => {
                let incoming = self.incoming(transaction);
                self.begin_chunk(incoming, chunk)
            }
            Pending::ContentEnd(transaction) => {
                self.counts.idle_commands = 0;
                let reply = reply.unwrap_or_else(|| ok("accepted"));
                self.end_transaction(&transaction, &reply)
            }
        }
    }

    fn refuse(&mut self, pending: Pending, reply: Reply) -> Phase {
        match pending {
            Pending::Connected | Pending::XClient if reply.code() == SERVICE_NOT_AVAILABLE_421 => {
                self.closing(reply, CloseReason::Policy)
            }
            Pending::Connected | Pending::XClient => {
                self.say(&reply);
                Phase::Refused
            }
            Pending::Auth(mechanism)
                if mechanism.shows_token() && reply.code() == AUTH_INVALID_535 =>
            {
                let told = &self.config.offers.token_refused;
                // As clients want to read it before the reply (RFC 7628 §3.2.2; Google's documentation of XOAUTH2).
                let text = STANDARD.encode(match mechanism {
                    Mechanism::Xoauth2 => &told.xoauth2,
                    _ => &told.oauthbearer,
                });
                self.say(&Reply::plain(AUTH_CONTINUE_334, text));
                Phase::TokenRefused(reply)
            }
            Pending::Auth(_) | Pending::Secret(_) | Pending::Context(_) => self.refuse_auth(&reply),
            Pending::Hello(_) | Pending::Mail(..) => {
                self.say(&reply);
                Phase::Idle
            }
            Pending::Question(phase, _) => {
                self.say(&reply);
                *phase
            }
            Pending::Rcpt(transaction, _) => self.refuse_rcpt(transaction, &reply),
            Pending::Data { transaction, early } => {
                self.say(&reply);
                self.after_refused_data(Phase::Transaction(transaction), early)
            }
            // RFC 3030 §2: after a refused BDAT nothing of the transaction may be built upon.
            Pending::FirstChunk(transaction, chunk) => {
                self.reset(Phase::Transaction(transaction));
                self.discard(Phase::Idle, chunk.size, reply)
            }
            Pending::ContentEnd(transaction) => self.end_transaction(&transaction, &reply),
        }
    }

    pub(super) fn refuse_auth(&mut self, reply: &Reply) -> Phase {
        self.say(reply);
        if reply.severity() == Severity::Permanent {
            self.counts.auth_failures += 1;
        }
        if self.counts.auth_failures < self.config.limits.auth_failures {
            return Phase::Idle;
        }
        let text = "too many failed authentications";
        self.give_up(text, CloseReason::TooManyAuthFailures)
    }

    fn refuse_rcpt(&mut self, transaction: Transaction, reply: &Reply) -> Phase {
        self.say(reply);
        if reply.severity() == Severity::Permanent {
            self.counts.refused_recipients += 1;
        }
        if self.counts.refused_recipients < self.config.limits.refused_recipients {
            return Phase::Transaction(transaction);
        }
        let text = "too many refused recipients";
        self.give_up(text, CloseReason::TooManyRefusedRecipients)
    }

    /// One reply, or under LMTP one for each recipient (RFC 2033 §4.2).
    pub(super) fn end_transaction(&mut self, transaction: &Transaction, reply: &Reply) -> Phase {
        let times = match self.config.flavour {
            Flavour::Lmtp => transaction.recipients.len(),
            Flavour::Smtp | Flavour::Submission => 1,
        };
        for _ in 0..times {
            self.say(reply);
        }
        Phase::Idle
    }

    fn incoming(&self, transaction: Transaction) -> Incoming {
        let anything = transaction.mail.params.body == Some(BodyKind::BinaryMime);
        Incoming {
            transaction,
            received: 0,
            checker: (!anything).then(|| ContentChecker::new(self.config.limits.content_line)),
            fault: None,
        }
    }

    fn greeting(&self) -> Reply {
        let protocol = match self.config.flavour {
            Flavour::Lmtp => "LMTP",
            Flavour::Smtp | Flavour::Submission => "ESMTP",
        };
        let host = self.config.host_name.a_label();
        Reply::plain(SERVICE_READY_220, format!("{host} {protocol} Postroad"))
    }

    fn hello_reply(&self, hello: &Hello) -> Reply {
        let mut text = self.config.host_name.a_label().to_owned();
        if hello.kind != HelloKind::Helo {
            for extension in self.extensions() {
                text.push('\n');
                text.push_str(&extension.to_string());
            }
        }
        Reply::plain(OK_250, text)
    }
}

/// X.3.6 of RFC 6710 §7.
fn priority_lowered(to: i8) -> Reply {
    let text = format!("sender ok, the priority was lowered to {to}");
    let status = EnhancedStatusCode::new(2, 3, 6).unwrap_or(SENDER_OK_2_1_0);
    Reply::new(OK_250, status, text)
}

/// A refusal must be one on the wire too, whatever a policy made of it.
fn negative(reply: Reply) -> Reply {
    match reply.severity() {
        Severity::Transient | Severity::Permanent => reply,
        Severity::Completion | Severity::Intermediate => our_fault(),
    }
}

fn our_fault() -> Reply {
    Reply::new(
        LOCAL_ERROR_451,
        SYSTEM_4_3_0,
        "local error, please try again later",
    )
}
