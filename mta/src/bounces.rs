//! Envelope senders of our own making, signed or for one recipient each (VERP): made as mail leaves, read as bounces come.
//!
//! The signature is outside, so it is of the recipient as well: nobody else can say that mail to somebody came back.

use std::time::SystemTime;

use postroad_address::{ForwardPath, Mailbox, ReversePath};
use postroad_bounce_address::{Delimiters, KeyError, Read, Signer};
use postroad_daemon::SecretFile;
use postroad_reply::{BAD_MAILBOX_5_1_1, MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, Reply};

use crate::config::{HostText, InboundConfig, OutboundConfig, SenderText};

/// Days within which the day of an address is looked for.
const WINDOW: u64 = 500;

/// What is done with bounce addresses; nothing, if no key and no senders are named.
#[derive(Clone, Debug, Default)]
pub struct Bounces {
    signer: Option<Signer>,
    /// Outbound: whose mail is signed. Inbound: who takes mail without a sender at signed addresses alone.
    domains: Vec<HostText>,
    /// Whose mail has a sender for each recipient.
    verp_senders: Vec<SenderText>,
    delimiters: Delimiters,
}

/// What stands behind an address of our own making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// To whom its mail goes.
    pub path: ForwardPath,
    /// The address of one recipient, without its signature, and that recipient.
    pub verp: Option<(Mailbox, Mailbox)>,
}

impl Bounces {
    /// Of mail that leaves.
    pub fn outbound(config: &OutboundConfig) -> Result<Self, KeyError> {
        let days = config.bounce_keep.as_duration().as_secs().div_ceil(86_400);
        let signed = Self::new(&config.bounce_key_file, days, &config.sign_senders)?;
        Ok(signed.with_verp(&config.verp_senders, config.verp_delimiters.0))
    }

    /// Of mail that comes.
    pub fn inbound(config: &InboundConfig) -> Result<Self, KeyError> {
        let signed = Self::new(&config.bounce_key_file, WINDOW, &config.bounces_only_signed)?;
        Ok(signed.with_verp(&config.verp_senders, config.verp_delimiters.0))
    }

    fn new(file: &Option<SecretFile>, days: u64, domains: &[HostText]) -> Result<Self, KeyError> {
        let keys = file
            .as_ref()
            .map(|file| file.reveal_str().unwrap_or_default());
        Ok(Self {
            signer: keys.map(|keys| Signer::new(keys, days)).transpose()?,
            domains: domains.to_vec(),
            verp_senders: Vec::new(),
            delimiters: Delimiters::default(),
        })
    }

    fn with_verp(self, senders: &[SenderText], delimiters: Delimiters) -> Self {
        Self {
            verp_senders: senders.to_vec(),
            delimiters,
            ..self
        }
    }

    /// Whether mail of this sender has a sender for each recipient.
    pub fn parts(&self, sender: &ReversePath) -> bool {
        sender
            .mailbox()
            .is_some_and(|mailbox| self.is_parted(mailbox))
    }

    /// The sender that a host is told of mail to this recipient alone.
    pub fn sender_for(&self, sender: &ReversePath, recipient: &ForwardPath) -> ReversePath {
        let (Some(from), Some(to)) = (sender.mailbox(), recipient.mailbox()) else {
            return self.sign(sender);
        };
        let written = match self.is_parted(from) {
            true => self.delimiters.write(from, to),
            false => None,
        };
        let Some(own) = written.map(ReversePath::from) else {
            return self.sign(sender);
        };
        // Where there is no room for both, the signature is worth more: without it the bounce might be refused.
        let signed = self.sign(&own);
        let signs = self.signer.is_some() && self.is_for(from);
        if signs && signed == own {
            return self.sign(sender);
        }
        signed
    }

    /// The sender that a host is told of mail to any number of them.
    pub fn sign(&self, sender: &ReversePath) -> ReversePath {
        let mailbox = sender.mailbox().filter(|mailbox| self.is_for(mailbox));
        let signed = mailbox.and_then(|mailbox| self.signer.as_ref()?.sign(mailbox, today()));
        signed.map_or_else(|| sender.clone(), ReversePath::from)
    }

    /// What is behind a path, if we made it: the address below a signature, the sender below an address of one recipient.
    pub fn read(&self, path: &ForwardPath, has_sender: bool) -> Result<Option<Behind>, Reply> {
        let signed = self.unsigned(path, has_sender)?;
        let below = signed.as_ref().unwrap_or(path);
        let verp = below.mailbox().and_then(|own| {
            let (sender, recipient) = self.delimiters.read(own)?;
            let ours = self.is_parted(&sender);
            ours.then(|| (own.clone(), sender, recipient))
        });
        if let Some((own, sender, recipient)) = verp {
            return Ok(Some(Behind {
                path: ForwardPath::Mailbox(sender),
                verp: Some((own, recipient)),
            }));
        }
        Ok(signed.map(|path| Behind { path, verp: None }))
    }

    /// The address below a signature of ours.
    fn unsigned(&self, path: &ForwardPath, has_sender: bool) -> Result<Option<ForwardPath>, Reply> {
        let (Some(signer), Some(mailbox)) = (&self.signer, path.mailbox()) else {
            return Ok(None);
        };
        match signer.read(mailbox, today()) {
            Read::Signed(mailbox) => Ok(Some(ForwardPath::Mailbox(mailbox))),
            Read::Expired => Err(Reply::new(
                MAILBOX_UNAVAILABLE_550,
                BAD_MAILBOX_5_1_1,
                "the time of this bounce address is over",
            )),
            Read::Forged => Err(Reply::new(
                MAILBOX_UNAVAILABLE_550,
                BAD_MAILBOX_5_1_1,
                "this bounce address was not made here",
            )),
            // RFC 5321 §4.5.1: whoever has something to say to postmaster may.
            Read::Plain if !has_sender && self.is_for(mailbox) && !is_postmaster(mailbox) => {
                Err(Reply::new(
                    MAILBOX_UNAVAILABLE_550,
                    NOT_AUTHORIZED_5_7_1,
                    "no mail was sent from this address as it is written, so nothing of it can bounce",
                ))
            }
            Read::Plain => Ok(None),
        }
    }

    fn is_parted(&self, mailbox: &Mailbox) -> bool {
        self.verp_senders.iter().any(|one| one.0.include(mailbox))
    }

    fn is_for(&self, mailbox: &Mailbox) -> bool {
        let domain = mailbox.domain().a_label();
        self.domains.iter().any(|one| one.0.a_label() == domain)
    }
}

fn is_postmaster(mailbox: &Mailbox) -> bool {
    let local = mailbox.local_part().as_str();
    local.eq_ignore_ascii_case("postmaster")
}

/// Days since 1970.
fn today() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / 86_400)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn key() -> SecretFile {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bounce.key");
        fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        SecretFile::read(path.to_str().unwrap()).unwrap()
    }

    fn domains() -> Vec<HostText> {
        vec![HostText("our.test".parse().unwrap())]
    }

    fn both() -> (Bounces, Bounces) {
        let outbound = OutboundConfig {
            sign_senders: domains(),
            bounce_key_file: Some(key()),
            ..OutboundConfig::default()
        };
        let inbound = InboundConfig {
            bounces_only_signed: domains(),
            bounce_key_file: Some(key()),
            ..InboundConfig::default()
        };
        let outbound = Bounces::outbound(&outbound).unwrap();
        (outbound, Bounces::inbound(&inbound).unwrap())
    }

    fn path(text: &str) -> ForwardPath {
        ForwardPath::Mailbox(text.parse().unwrap())
    }

    #[test]
    fn a_bounce_of_our_own_mail_finds_its_sender_and_others_do_not() {
        let (outbound, inbound) = both();
        let sender = ReversePath::parse("alice@our.test").unwrap();
        let signed = outbound.sign(&sender).to_string();
        assert!(
            signed.starts_with("prvs=0") && signed.ends_with("=alice@our.test"),
            "{signed}"
        );
        assert_eq!(
            inbound.read(&path(&signed), false),
            Ok(Some(Behind {
                path: path("alice@our.test"),
                verp: None
            }))
        );
        let refused = |text: &str, has_sender| inbound.read(&path(text), has_sender).unwrap_err();
        let forged = signed.replace("alice", "bob");
        assert_eq!(refused(&forged, false).enhanced(), Some(BAD_MAILBOX_5_1_1));
        assert_eq!(
            refused("alice@our.test", false).enhanced(),
            Some(NOT_AUTHORIZED_5_7_1)
        );
        // Mail that is no bounce, and postmaster.
        assert_eq!(inbound.read(&path("alice@our.test"), true), Ok(None));
        assert_eq!(inbound.read(&path("Postmaster@our.test"), false), Ok(None));
        assert_eq!(inbound.read(&path("bob@other.test"), false), Ok(None));
    }

    #[test]
    fn what_is_not_listed_is_left_alone() {
        let (outbound, _) = both();
        for sender in ["", "bob@other.test"] {
            let sender = ReversePath::parse(sender).unwrap();
            assert_eq!(outbound.sign(&sender), sender);
        }
        let off = Bounces::default();
        let sender = ReversePath::parse("alice@our.test").unwrap();
        assert_eq!(off.sign(&sender), sender);
        assert_eq!(
            off.read(&path("prvs=0123abcdef=alice@our.test"), false),
            Ok(None)
        );
    }

    fn listed(sign: bool) -> (Bounces, Bounces) {
        let senders = vec![SenderText("our.test".parse().unwrap())];
        let (outbound, inbound) = match sign {
            true => both(),
            false => (Bounces::default(), Bounces::default()),
        };
        let verp = |bounces: Bounces| bounces.with_verp(&senders, Delimiters::default());
        (verp(outbound), verp(inbound))
    }

    #[test]
    fn a_bounce_tells_of_its_recipient_signed_or_not() {
        let list = ReversePath::parse("list@our.test").unwrap();
        let bob = path("bob+x@far.test");
        let behind = Behind {
            path: path("list@our.test"),
            verp: Some((
                "list+bob+x=far.test@our.test".parse().unwrap(),
                "bob+x@far.test".parse().unwrap(),
            )),
        };
        for sign in [false, true] {
            let (outbound, inbound) = listed(sign);
            assert!(outbound.parts(&list));
            let own = outbound.sender_for(&list, &bob).to_string();
            assert!(own.ends_with("list+bob+x=far.test@our.test"), "{own}");
            assert_eq!(own.starts_with("prvs="), sign, "{own}");
            assert_eq!(inbound.read(&path(&own), false), Ok(Some(behind.clone())));
            // Nobody can make one of a signed one about somebody else.
            let other = inbound.read(&path(&own.replace("bob", "eve")), false);
            assert_eq!(other.is_err(), sign);
        }
    }

    #[test]
    fn without_room_the_signature_is_kept_and_the_plain_sender_is_the_last_resort() {
        let list = ReversePath::parse("list@our.test").unwrap();
        let (plain, signed) = (listed(false).0, listed(true).0);
        let longer = path(&format!("{}@far.test", "u".repeat(40)));
        let own = plain.sender_for(&list, &longer).to_string();
        assert!(own.starts_with("list+uuu"), "{own}");
        let own = signed.sender_for(&list, &longer).to_string();
        assert!(
            own.starts_with("prvs=") && own.ends_with("=list@our.test"),
            "{own}"
        );
        let longest = path(&format!("{}@far.test", "u".repeat(60)));
        assert_eq!(plain.sender_for(&list, &longest), list);
        // Others are left alone, and so is mail without a sender.
        for sender in ["", "bob@other.test"] {
            let sender = ReversePath::parse(sender).unwrap();
            assert!(!signed.parts(&sender));
            assert_eq!(signed.sender_for(&sender, &longer), sender);
        }
    }
}
