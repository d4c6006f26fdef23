use std::{fmt, time::Duration};

use postroad_envelope::{BodyKind, DeliverBy, Notify, OriginalRecipient, Ret, Timestamp};

use crate::{
    CommandError,
    command::decimal,
    xtext::{decode_utf8_address, decode_xtext, encode_utf8_address, encode_xtext},
};

/// The parameters of MAIL. Absent ones were not given; whether one was offered is the session's to judge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailParams {
    /// SIZE (RFC 1870).
    pub size: Option<u64>,
    /// BODY (RFC 6152, RFC 3030).
    pub body: Option<BodyKind>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689).
    pub requiretls: bool,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID (RFC 3461 §4.4), decoded.
    pub envid: Option<String>,
    /// AUTH (RFC 4954 §5), decoded; empty for `<>`.
    pub auth: Option<String>,
    /// HOLDFOR or HOLDUNTIL (RFC 4865).
    pub hold: Option<Hold>,
    /// BY (RFC 2852).
    pub deliver_by: Option<By>,
    /// MT-PRIORITY (RFC 6710), -9 to 9.
    pub priority: Option<i8>,
}

/// When a mail may leave at the earliest (RFC 4865 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// HOLDFOR: so many seconds.
    For(u32),
    /// HOLDUNTIL: this moment.
    Until(Timestamp),
}

impl Hold {
    /// How long from `now`; nothing, if that moment is over.
    pub fn after(self, now: Timestamp) -> Duration {
        match self {
            Self::For(seconds) => Duration::from_secs(seconds.into()),
            Self::Until(moment) => moment.since(now),
        }
    }

    /// When it ends.
    pub fn until(self, now: Timestamp) -> Timestamp {
        now.plus(self.after(now))
    }
}

/// BY= as given: seconds from now, negative when already late (RFC 2852 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By {
    /// How long from now.
    pub seconds: i64,
    /// `R`: return it then; else `N`: only notify.
    pub return_after: bool,
    /// `T`: trace.
    pub trace: bool,
}

impl By {
    /// RFC 2852 §4: the most seconds that can be said, forwards and backwards.
    pub const MOST: i64 = 999_999_999;

    /// The moment made of the seconds (RFC 2852 §4), which may have passed.
    pub fn from(self, now: Timestamp) -> DeliverBy {
        let away = Duration::from_secs(self.seconds.unsigned_abs());
        DeliverBy {
            at: match self.seconds < 0 {
                true => now.minus(away),
                false => now.plus(away),
            },
            return_after: self.return_after,
            trace: self.trace,
        }
    }

    /// What is left of the time, in whole seconds, never more than there are (RFC 2852 §4.1.4).
    pub fn left(deadline: DeliverBy, now: Timestamp) -> Self {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(Self::MOST);
        let late = now.since(deadline.at);
        let left = match late.is_zero() {
            true => seconds(deadline.at.since(now)),
            false => -seconds(late + Duration::from_millis(999)),
        };
        Self {
            seconds: left.clamp(-Self::MOST, Self::MOST),
            return_after: deadline.return_after,
            trace: deadline.trace,
        }
    }
}

/// The parameters of RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RcptParams {
    /// NOTIFY (RFC 3461 §4.1).
    pub notify: Option<Notify>,
    /// ORCPT (RFC 3461 §4.2).
    pub orcpt: Option<OriginalRecipient>,
}

impl MailParams {
    pub(crate) fn parse(text: &str) -> Result<Self, CommandError> {
        let mut params = Self::default();
        for word in words(text) {
            let (keyword, value) = split(word)?;
            match keyword.as_str() {
                "SIZE" => set(&mut params.size, "SIZE", value, decimal)?,
                "BODY" => set(&mut params.body, "BODY", value, body)?,
                "SMTPUTF8" => flag(&mut params.smtputf8, "SMTPUTF8", value)?,
                "REQUIRETLS" => flag(&mut params.requiretls, "REQUIRETLS", value)?,
                "RET" => set(&mut params.ret, "RET", value, ret)?,
                "ENVID" => set(&mut params.envid, "ENVID", value, envid)?,
                "AUTH" => set(&mut params.auth, "AUTH", value, auth)?,
                "HOLDFOR" => set(&mut params.hold, "HOLDFOR", value, hold_for)?,
                "HOLDUNTIL" => set(&mut params.hold, "HOLDUNTIL", value, hold_until)?,
                "BY" => set(&mut params.deliver_by, "BY", value, by)?,
                "MT-PRIORITY" => set(&mut params.priority, "MT-PRIORITY", value, priority)?,
                _ => return Err(CommandError::UnknownParameter(keyword)),
            }
        }
        Ok(params)
    }
}

impl RcptParams {
    pub(crate) fn parse(text: &str) -> Result<Self, CommandError> {
        let mut params = Self::default();
        for word in words(text) {
            let (keyword, value) = split(word)?;
            match keyword.as_str() {
                "NOTIFY" => set(&mut params.notify, "NOTIFY", value, notify)?,
                "ORCPT" => set(&mut params.orcpt, "ORCPT", value, orcpt)?,
                _ => return Err(CommandError::UnknownParameter(keyword)),
            }
        }
        Ok(params)
    }
}

pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

/// RFC 5321 §4.1.2: esmtp-keyword, `=`, esmtp-value.
pub(crate) fn split(word: &str) -> Result<(String, Option<&str>), CommandError> {
    const USAGE: CommandError = CommandError::Arguments("parameters are KEYWORD or KEYWORD=value");
    let (keyword, value) = match word.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (word, None),
    };
    let named = keyword.len() <= 40
        && keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let valued = value.is_none_or(|value| !value.is_empty() && !value.contains(['=', '\t']));
    if named && valued {
        Ok((keyword.to_ascii_uppercase(), value))
    } else {
        Err(USAGE)
    }
}

pub(crate) fn set<T>(
    slot: &mut Option<T>,
    name: &'static str,
    value: Option<&str>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<(), CommandError> {
    if slot.is_some() {
        return Err(CommandError::DuplicateParameter(name));
    }
    let parsed = value.and_then(parse);
    *slot = Some(parsed.ok_or(CommandError::BadParameter(name))?);
    Ok(())
}

fn flag(slot: &mut bool, name: &'static str, value: Option<&str>) -> Result<(), CommandError> {
    match (*slot, value) {
        (true, _) => Err(CommandError::DuplicateParameter(name)),
        (false, Some(_)) => Err(CommandError::BadParameter(name)),
        (false, None) => {
            *slot = true;
            Ok(())
        }
    }
}

fn body(value: &str) -> Option<BodyKind> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Some(BodyKind::SevenBit),
        "8BITMIME" => Some(BodyKind::EightBitMime),
        "BINARYMIME" => Some(BodyKind::BinaryMime),
        _ => None,
    }
}

fn ret(value: &str) -> Option<Ret> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Some(Ret::Full),
        "HDRS" => Some(Ret::Headers),
        _ => None,
    }
}

/// RFC 3461 §4.4: at most 100 characters of xtext that stand for printable ASCII.
fn envid(value: &str) -> Option<String> {
    decode_xtext(value)
        .filter(|envid| value.len() <= 100 && envid.bytes().all(|b| (b' '..=b'~').contains(&b)))
}

fn auth(value: &str) -> Option<String> {
    if value == "<>" {
        return Some(String::new());
    }
    let mailbox = decode_xtext(value)?;
    postroad_address::Mailbox::parse(&mailbox).ok()?;
    Some(mailbox)
}

/// RFC 4865 §3: one to nine digits.
fn hold_for(value: &str) -> Option<Hold> {
    let seconds = decimal(value).filter(|_| value.len() <= 9)?;
    u32::try_from(seconds).ok().map(Hold::For)
}

fn hold_until(value: &str) -> Option<Hold> {
    let date_time = value.len() <= 32 && value.starts_with(|c: char| c.is_ascii_digit());
    value.parse().ok().filter(|_| date_time).map(Hold::Until)
}

/// RFC 2852 §4: up to nine digits with a sign, `;`, `N` or `R`, and perhaps `T`.
fn by(value: &str) -> Option<By> {
    let (time, mode) = value.split_once(';')?;
    let digits = time.strip_prefix(['-', '+']).unwrap_or(time);
    let seconds: i64 = decimal(digits)
        .filter(|_| digits.len() <= 9)
        .and_then(|seconds| seconds.try_into().ok())?;
    let seconds = if time.starts_with('-') {
        -seconds
    } else {
        seconds
    };
    let (return_after, trace) = match mode.to_ascii_uppercase().as_str() {
        "N" => (false, false),
        "NT" => (false, true),
        "R" => (true, false),
        "RT" => (true, true),
        _ => return None,
    };
    // A mail to be returned at once can never be delivered.
    (!return_after || seconds > 0).then_some(By {
        seconds,
        return_after,
        trace,
    })
}

fn priority(value: &str) -> Option<i8> {
    let digit = value.strip_prefix('-').unwrap_or(value);
    decimal(digit)?;
    value.parse().ok().filter(|value| (-9..=9).contains(value))
}

fn notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        let slot = match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => &mut success,
            "FAILURE" => &mut failure,
            "DELAY" => &mut delay,
            _ => return None,
        };
        *slot = true;
    }
    Some(Notify::On {
        success,
        failure,
        delay,
    })
}

/// RFC 3461 §4.2: at most 500 characters, `addr-type;xtext`; RFC 6533 §3 for type `utf-8`.
fn orcpt(value: &str) -> Option<OriginalRecipient> {
    let (address_type, text) = value.split_once(';').filter(|_| value.len() <= 500)?;
    let named = !address_type.is_empty()
        && address_type
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !named {
        return None;
    }
    let address_type = address_type.to_ascii_lowercase();
    let address = if address_type == "utf-8" {
        decode_utf8_address(text)?
    } else {
        decode_xtext(text)?
    };
    // It will stand in a field of a report: nothing in it may end a line there.
    let clean = !address.is_empty() && !address.chars().any(char::is_control);
    clean.then_some(OriginalRecipient {
        address_type,
        address,
    })
}

/// The value of the parameter.
impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.return_after { "R" } else { "N" };
        let trace = if self.trace { "T" } else { "" };
        write!(f, "{};{mode}{trace}", self.seconds)
    }
}

/// Each parameter with a blank before it.
impl fmt::Display for MailParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        match self.body {
            None => {}
            Some(BodyKind::SevenBit) => f.write_str(" BODY=7BIT")?,
            Some(BodyKind::EightBitMime) => f.write_str(" BODY=8BITMIME")?,
            Some(BodyKind::BinaryMime) => f.write_str(" BODY=BINARYMIME")?,
        }
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        if self.requiretls {
            f.write_str(" REQUIRETLS")?;
        }
        match self.ret {
            None => {}
            Some(Ret::Full) => f.write_str(" RET=FULL")?,
            Some(Ret::Headers) => f.write_str(" RET=HDRS")?,
        }
        if let Some(envid) = &self.envid {
            write!(f, " ENVID={}", encode_xtext(envid))?;
        }
        match self.auth.as_deref() {
            None => {}
            Some("") => f.write_str(" AUTH=<>")?,
            Some(mailbox) => write!(f, " AUTH={}", encode_xtext(mailbox))?,
        }
        match self.hold {
            None => {}
            Some(Hold::For(seconds)) => write!(f, " HOLDFOR={seconds}")?,
            Some(Hold::Until(at)) => write!(f, " HOLDUNTIL={at}")?,
        }
        if let Some(by) = self.deliver_by {
            write!(f, " BY={by}")?;
        }
        match self.priority {
            None => Ok(()),
            Some(priority) => write!(f, " MT-PRIORITY={priority}"),
        }
    }
}

/// Each parameter with a blank before it.
impl fmt::Display for RcptParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.notify {
            None | Some(Notify::Unsaid) => {}
            Some(Notify::Never) => f.write_str(" NOTIFY=NEVER")?,
            Some(Notify::On {
                success,
                failure,
                delay,
            }) => {
                let words: Vec<&str> =
                    [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")]
                        .into_iter()
                        .filter_map(|(on, word)| on.then_some(word))
                        .collect();
                // NOTIFY with no case at all means the same as NEVER, and only that can be said.
                let words = if words.is_empty() {
                    "NEVER".to_owned()
                } else {
                    words.join(",")
                };
                write!(f, " NOTIFY={words}")?;
            }
        }
        match &self.orcpt {
            None => Ok(()),
            Some(orcpt) if orcpt.address_type == "utf-8" => {
                write!(f, " ORCPT=utf-8;{}", encode_utf8_address(&orcpt.address))
            }
            Some(orcpt) => write!(
                f,
                " ORCPT={};{}",
                orcpt.address_type,
                encode_xtext(&orcpt.address)
            ),
        }
    }
}
