//! The client's end.

mod config;
mod content;
mod deliver_by;
mod delivery;
mod setup;

use std::{mem, time::Duration};

use bytes::{Bytes, BytesMut};
pub use config::{ClientConfig, ClientTimeouts, TlsUse};
use content::Encoder;
use delivery::Delivery;
pub use delivery::{OutgoingMail, OutgoingRecipient, RecipientResult};
use postroad_reply::{Reply, SERVICE_NOT_AVAILABLE_421};
use postroad_sasl::ClientExchange;
use postroad_smtp::{Capabilities, Command, ReplyDecoder, ReplyError};

/// One conversation with a host: setting up, then any number of mails, then QUIT.
#[derive(Debug)]
pub struct ClientSession {
    config: ClientConfig,
    phase: Phase,
    decoder: ReplyDecoder,
    output: BytesMut,
    capabilities: Capabilities,
    greeting: String,
    tls: bool,
    authenticated: bool,
    /// Chance for SASL; without it mechanisms that need some are left alone.
    seed: Option<[u8; 32]>,
    /// See [`ClientSession::set_binding`].
    binding: Option<Vec<u8>>,
    /// The host holds a transaction that failed half-way; RSET comes before the next mail.
    needs_reset: bool,
}

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Write the output, make the handshake, then call [`ClientSession::tls_started`].
    StartTls,
    /// The host is ready: [`ClientSession::send`] or [`ClientSession::quit`].
    Ready,
    /// Give the content by [`ClientSession::content`], as long as no [replies are to come first](ClientSession::awaits_replies), then
    /// [`ClientSession::content_end`].
    SendContent,
    /// The mail is done: one result per recipient, in the order of [`OutgoingMail::recipients`]. The session is
    /// ready for the next mail unless it [is closed](ClientSession::is_closed).
    Done(Vec<RecipientResult>),
    /// The host said good-bye.
    Closed,
}

/// Where in the conversation something happened; also which time-out runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Waiting for the greeting.
    Greeting,
    /// EHLO, HELO, LHLO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
    /// RSET between mails.
    Reset,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, waiting for 354.
    Data,
    /// Sending content.
    Content,
    /// Behind the final dot or BDAT LAST: only here the host may have taken the mail without our knowing.
    End,
    /// QUIT.
    Quit,
    /// Nothing is under way.
    Idle,
}

/// Why the whole conversation is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The host refused us before any mail was spoken of.
    #[error("the host refused {stage:?}: {reply}")]
    Refused {
        /// Where.
        stage: Stage,
        /// With what words.
        reply: Reply,
    },
    /// Policy: TLS is required and the host has none.
    #[error("the host does not offer STARTTLS, which is required")]
    TlsNotOffered,
    /// Policy: no password is shown to a host without TLS.
    #[error("authentication needs TLS")]
    AuthWithoutTls,
    /// The host offers no mechanism of ours.
    #[error("the host offers no authentication that we know ({})", offered(.0))]
    NoMechanism(Vec<String>),
    /// The password has characters that the host's mechanism has no place for.
    #[error("the password cannot be used by the mechanism that the host offers")]
    UnfitPassword,
    /// The host let us in without showing that it knows the password, as its mechanism demands.
    #[error("the host did not prove that it knows the password")]
    UnprovenServer,
    /// The host, or somebody between, sent plain text behind its reply to STARTTLS (RFC 3207).
    #[error("plain text followed the reply to STARTTLS")]
    PlaintextAfterStartTls,
    /// The host does not speak SMTP.
    #[error("at {stage:?}: {error}")]
    Protocol {
        /// Where.
        stage: Stage,
        /// What it said.
        #[source]
        error: ReplyError,
    },
    /// The host answers what was not asked.
    #[error("unexpected reply at {stage:?}: {reply}")]
    Unexpected {
        /// Where.
        stage: Stage,
        /// With what words.
        reply: Reply,
    },
}

/// For a person; what the host said is cut to a bearable length.
fn offered(mechanisms: &[String]) -> String {
    match mechanisms {
        [] => "it offers none".to_owned(),
        some => format!("it offers {:.200}", some.join(" ")),
    }
}

#[derive(Debug)]
enum Phase {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Auth(ClientExchange),
    Ready,
    Envelope(Delivery),
    Content(Delivery, Encoder),
    /// A chunk was refused; the others are answered too.
    Cut(Delivery),
    Ending(Delivery),
    Quitting,
    Closed,
}

impl ClientSession {
    /// A conversation on a fresh connection; `tls`: it is encrypted already.
    pub fn new(config: ClientConfig, tls: bool) -> Self {
        Self {
            config,
            phase: Phase::Greeting,
            decoder: ReplyDecoder::default(),
            output: BytesMut::new(),
            capabilities: Capabilities::default(),
            greeting: String::new(),
            tls,
            authenticated: false,
            seed: None,
            binding: None,
            needs_reset: false,
        }
    }

    /// Chance for the nonces of SASL, used for no other conversation: with it a host is shown a proof of the password rather than the
    /// password, where it offers that.
    pub fn set_seed(&mut self, seed: [u8; 32]) {
        self.seed = Some(seed);
    }

    /// What names this connection alone (`tls-exporter`, RFC 9266), once it is encrypted: a proof is bound to it where the host offers
    /// that, so that nobody between can use it.
    pub fn set_binding(&mut self, binding: Option<Vec<u8>>) {
        self.binding = binding;
    }

    /// Takes replies off `input`. None: write the output, then read more (or give content).
    ///
    /// After an error the connection is to be closed; [`ClientSession::abandon`] tells what is known.
    pub fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Progress>, ClientError> {
        loop {
            if matches!(self.phase, Phase::Ready | Phase::Handshake | Phase::Closed) {
                return Ok(None);
            }
            let stage = self.stage();
            let reply = match self.decoder.decode(input) {
                None => return Ok(None),
                Some(Err(error)) => return Err(ClientError::Protocol { stage, error }),
                Some(Ok(reply)) => reply,
            };
            let phase = mem::replace(&mut self.phase, Phase::Closed);
            if let Some(progress) = self.step(phase, stage, reply, input.is_empty())? {
                return Ok(Some(progress));
            }
        }
    }

    /// How many octets there are to write.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// What is to be written now.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// After [`Progress::StartTls`], when the handshake is done: the host is asked again what it offers
    /// (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        if matches!(self.phase, Phase::Handshake) {
            self.tls = true;
            self.decoder = ReplyDecoder::default();
            self.say_ehlo();
        }
    }

    /// Says QUIT; [`Progress::Closed`] follows.
    pub fn quit(&mut self) {
        if matches!(self.phase, Phase::Ready) {
            self.say(&Command::Quit);
            self.phase = Phase::Quitting;
        }
    }

    /// What the host offers, as far as it was asked.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The first word of the greeting: what the host calls itself.
    pub fn host_greeting(&self) -> &str {
        &self.greeting
    }

    /// Whether the host has left.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Where the conversation is.
    pub fn stage(&self) -> Stage {
        match &self.phase {
            Phase::Greeting => Stage::Greeting,
            Phase::Ehlo | Phase::Helo => Stage::Hello,
            Phase::StartTls | Phase::Handshake => Stage::StartTls,
            Phase::Auth(_) => Stage::Auth,
            Phase::Envelope(delivery) => delivery.stage(),
            Phase::Content(..) | Phase::Cut(_) => Stage::Content,
            Phase::Ending(_) => Stage::End,
            Phase::Quitting => Stage::Quit,
            Phase::Ready | Phase::Closed => Stage::Idle,
        }
    }

    /// How long to wait for the next reply, or for a block of content to be written (RFC 5321 §4.5.3.2).
    pub fn timeout(&self) -> Duration {
        self.config.timeouts.of(self.stage())
    }

    /// After an error, a lost connection or a time-out: the stage, and what is already final of the running mail.
    pub fn abandon(&mut self) -> (Stage, Vec<Option<RecipientResult>>) {
        let stage = self.stage();
        let results = match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Envelope(delivery)
            | Phase::Content(delivery, _)
            | Phase::Cut(delivery)
            | Phase::Ending(delivery) => delivery.results,
            _ => Vec::new(),
        };
        (stage, results)
    }

    fn step(
        &mut self,
        phase: Phase,
        stage: Stage,
        reply: Reply,
        input_empty: bool,
    ) -> Result<Option<Progress>, ClientError> {
        match phase {
            Phase::Greeting | Phase::Ehlo | Phase::Helo | Phase::StartTls | Phase::Auth(_) => {
                self.step_setup(phase, reply, input_empty)
            }
            // RFC 5321 §3.8: a host that says 421 closes the connection, whatever was asked.
            Phase::Envelope(delivery) if reply.code() == SERVICE_NOT_AVAILABLE_421 => {
                let stage = delivery.awaited();
                Ok(Some(Progress::Done(delivery.cut_short(stage, &reply))))
            }
            Phase::Content(delivery, _) | Phase::Cut(delivery) | Phase::Ending(delivery)
                if reply.code() == SERVICE_NOT_AVAILABLE_421 =>
            {
                Ok(Some(Progress::Done(delivery.cut_short(stage, &reply))))
            }
            Phase::Envelope(delivery) => self.step_envelope(delivery, reply),
            Phase::Content(delivery, encoder) => self.step_content(delivery, encoder, reply),
            Phase::Cut(delivery) => self.step_cut(delivery, reply),
            Phase::Ending(delivery) => self.step_ending(delivery, reply),
            Phase::Quitting => Ok(Some(Progress::Closed)),
            waiting @ (Phase::Ready | Phase::Handshake | Phase::Closed) => {
                self.phase = waiting;
                Ok(None)
            }
        }
    }

    fn say(&mut self, command: &Command) {
        command.write_to(&mut self.output);
    }
}

#[cfg(test)]
mod tests;
