//! The machine with rules that decide as the agents' policies do.

use std::{num::NonZeroU32, sync::Arc};

use bytes::BytesMut;
use postroad_address::{Domain, ForwardPath};
use postroad_conversations::{HOST, Listener, PASSWORD, SIZE};
use postroad_reply::*;
use postroad_sasl::{
    CramSecret, Credentials, Evidence, Identity, Mechanism, ScramKeys, Secret, SecretKind,
};
use postroad_smtp_session::{Event, Flavour, PolicyReply, ServerConfig, ServerSession};

/// Who can prove its password.
const DORA: &str = "dora@demo.test";
const OFFERED: [Mechanism; 6] = [
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha256,
    Mechanism::ScramSha1,
    Mechanism::CramMd5,
    Mechanism::Plain,
    Mechanism::Login,
];
/// The id of every mail.
const ID: &str = "0123456789abcdefghjkmnpqrs";

pub struct Machine {
    pub session: ServerSession,
    listener: Listener,
    input: BytesMut,
    said: BytesMut,
    content: Vec<u8>,
    /// The content of each mail accepted.
    pub mails: Vec<Vec<u8>>,
    /// STARTTLS was accepted.
    pub starting_tls: bool,
}

impl Machine {
    pub fn new(listener: Listener) -> Self {
        let mut session =
            ServerSession::new(Arc::new(config(listener)), listener.begins_with_tls());
        session.set_seed([1; 32]);
        session.set_binding(Some(vec![8; 32]));
        Self {
            session,
            listener,
            input: BytesMut::new(),
            said: BytesMut::new(),
            content: Vec::new(),
            mails: Vec::new(),
            starting_tls: false,
        }
    }

    /// The next line it said.
    pub fn line(&mut self) -> Option<String> {
        let end = self.said.windows(2).position(|pair| pair == b"\r\n")?;
        let line = self.said.split_to(end + 2);
        Some(String::from_utf8_lossy(line.strip_suffix(b"\r\n")?).into_owned())
    }

    /// Takes what a client sends.
    pub fn turn(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        while let Some(event) = self.session.receive(&mut self.input) {
            self.decide(event);
        }
        self.said.extend_from_slice(&self.session.take_output());
    }

    fn decide(&mut self, event: Event) {
        let answer = match event {
            Event::Mail(mail) if self.submits() => self.sender(&mail.reverse_path.to_string()),
            Event::Secret(query) => {
                // Keys that fit no password, for who has none.
                let password = match query.name.eq_ignore_ascii_case(DORA) {
                    true => PASSWORD,
                    false => "another",
                };
                return self.session.secret(&secret(query.kind, password));
            }
            Event::Rcpt(rcpt) => self.recipient(&rcpt.forward_path),
            Event::Authenticate(credentials) => return self.authenticate(credentials),
            Event::Content(octets) => return self.content.extend_from_slice(&octets),
            Event::ContentRefused(_) | Event::Reset => return self.content.clear(),
            Event::StartTls => {
                self.starting_tls = true;
                return;
            }
            Event::Closed(_) => return,
            Event::ContentEnd => {
                let content = std::mem::take(&mut self.content);
                let fields = content.windows(10);
                if fields.filter(|part| part == b"\nReceived:").count() > 100 {
                    let reply = Reply::new(TRANSACTION_FAILED_554, LOOP_5_4_6, "too many hops");
                    return self.session.answer(PolicyReply::Refuse(reply));
                }
                if self.submits()
                    && let Err(refusal) = author(&content)
                {
                    return self.session.answer(refusal);
                }
                self.mails.push(content);
                PolicyReply::AcceptWith(Reply::new(OK_250, SUCCESS_2_0_0, format!("{ID} queued")))
            }
            _ => PolicyReply::Accept,
        };
        self.session.answer(answer);
    }

    fn submits(&self) -> bool {
        matches!(self.listener, Listener::Submission | Listener::Submissions)
    }

    fn authenticate(&mut self, credentials: Credentials) {
        let authcid = &credentials.authcid;
        let own = |authzid: &Option<String>| authzid.as_ref().is_none_or(|id| id == authcid);
        let known = match &credentials.evidence {
            Evidence::Password(password) => is_account(authcid) && password.reveal() == PASSWORD,
            Evidence::Proof { holds } => *holds && authcid.eq_ignore_ascii_case(DORA),
            Evidence::Token(_) | Evidence::Certificate | Evidence::Ticket => false,
        };
        if known && own(&credentials.authzid) {
            return self.session.authenticated(Identity {
                account: credentials.authcid,
                mechanism: credentials.mechanism,
            });
        }
        self.session.answer(PolicyReply::Refuse(Reply::new(
            AUTH_INVALID_535,
            AUTH_INVALID_5_7_8,
            "name or password is wrong",
        )));
    }

    fn sender(&self, address: &str) -> PolicyReply {
        let account = self.session.identity().map(|known| known.account.as_str());
        match account {
            Some(account) if !address.is_empty() && !address.eq_ignore_ascii_case(account) => {
                refusal(NOT_AUTHORIZED_5_7_1)
            }
            _ => PolicyReply::Accept,
        }
    }

    fn recipient(&self, path: &ForwardPath) -> PolicyReply {
        let ForwardPath::Mailbox(mailbox) = path else {
            return PolicyReply::Accept;
        };
        if mailbox.domain().a_label() != "demo.test" {
            return if self.submits() {
                PolicyReply::Accept
            } else {
                refusal(NOT_AUTHORIZED_5_7_1)
            };
        }
        let local = mailbox.local_part().folded();
        let local = local.split('+').next().unwrap_or_default();
        match local {
            "gone" => refusal(MAILBOX_DISABLED_5_2_1),
            "all" | "postmaster" | "abuse" => PolicyReply::Accept,
            _ if is_account(&format!("{local}@demo.test")) => PolicyReply::Accept,
            _ => refusal(BAD_MAILBOX_5_1_1),
        }
    }
}

fn config(listener: Listener) -> ServerConfig {
    let flavour = match listener {
        Listener::Submission | Listener::Submissions => Flavour::Submission,
        Listener::Inbound | Listener::Neighbour | Listener::Proxy => Flavour::Smtp,
        Listener::Lmtp => Flavour::Lmtp,
    };
    let mut config = ServerConfig::new(Domain::parse(HOST).unwrap(), flavour);
    config.limits.size = SIZE;
    config.offers.starttls = !matches!(listener, Listener::Lmtp | Listener::Submissions);
    config.offers.deliver_by = Some(10);
    config.offers.xclient = listener == Listener::Proxy;
    config.offers.xforward = listener == Listener::Neighbour;
    if flavour != Flavour::Lmtp {
        config.offers.requiretls = true;
    }
    if flavour == Flavour::Submission {
        config.offers.future_release = Some(std::time::Duration::from_secs(30 * 86_400));
        config.offers.mt_priority = Some(0);
    }
    if flavour == Flavour::Submission {
        config.offers.auth = OFFERED.to_vec();
    }
    config
}

fn is_account(address: &str) -> bool {
    let accounts = ["alice@demo.test", "bob@demo.test", "carol@demo.test", DORA];
    accounts.contains(&address.to_lowercase().as_str())
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

fn refusal(enhanced: EnhancedStatusCode) -> PolicyReply {
    PolicyReply::Refuse(Reply::new(
        MAILBOX_UNAVAILABLE_550,
        enhanced,
        "not that one",
    ))
}

/// A mail of alice says that it is from her.
fn author(content: &[u8]) -> Result<(), PolicyReply> {
    let text = String::from_utf8_lossy(content);
    let header = text.split("\r\n\r\n").next().unwrap_or_default();
    let mut fields = header
        .lines()
        .filter_map(|line| line.strip_prefix("From: "));
    let (first, second) = (fields.next(), fields.next());
    if second.is_some() {
        let reply = Reply::new(TRANSACTION_FAILED_554, BAD_CONTENT_5_6_0, "two of them");
        return Err(PolicyReply::Refuse(reply));
    }
    let address = first.map(|field| field.rsplit('<').next().unwrap_or(field));
    match address.map(|address| address.trim_end_matches('>')) {
        None | Some("alice@demo.test" | DORA) => Ok(()),
        Some(_) => Err(refusal(NOT_AUTHORIZED_5_7_1)),
    }
}
