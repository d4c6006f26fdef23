//! What a life told before the power was cut, and what each mail holds.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use postroad_envelope::QueueId;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Sets of recipients, a bit for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    pub acknowledged: u32,
    /// Their end was offered; it may be durable or not.
    pub trying: u32,
    /// It was told that their end is durable.
    pub ended: u32,
    /// It was told that those not ended are held, durably, and nobody has begun to let them go.
    pub held: u32,
}

pub type Mails = BTreeMap<QueueId, Told>;

/// One line of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Acknowledged,
    Trying,
    Ended,
    Held,
    LettingGo,
}

impl Word {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Trying => "trying",
            Self::Ended => "ended",
            Self::Held => "held",
            Self::LettingGo => "letting-go",
        }
    }
}

const WORDS: [Word; 5] = [
    Word::Acknowledged,
    Word::Trying,
    Word::Ended,
    Word::Held,
    Word::LettingGo,
];

/// What checks count.
pub const FOUND: [&str; 3] = ["found", "filed-again", "index-put-aside"];

/// Tells the parent; in one write, so no line is cut.
pub fn say(line: &str) {
    let mut out = io::stdout().lock();
    // The parent may be gone; then this process is about to be, too.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

pub fn tell(word: Word, id: QueueId, recipients: u32) {
    say(&format!("{} {id} {recipients}\n", word.as_str()));
}

pub fn hear(line: &str) -> Option<(Word, QueueId, u32)> {
    let mut words = line.split(' ');
    let word = words.next()?;
    let word = WORDS.into_iter().find(|known| known.as_str() == word)?;
    let (id, recipients) = (words.next()?, words.next()?);
    Some((word, id.parse().ok()?, recipients.parse().ok()?))
}

impl Told {
    pub fn add(&mut self, word: Word, recipients: u32) {
        match word {
            Word::Acknowledged => self.acknowledged |= recipients,
            Word::Trying => self.trying |= recipients,
            Word::Ended => self.ended |= recipients,
            Word::Held => self.held |= recipients,
            Word::LettingGo => self.held &= !recipients,
        }
    }
}

pub fn write(mails: &Mails, path: &Path) -> Result<()> {
    let mut text = String::new();
    for (id, told) in mails {
        let Told {
            acknowledged,
            trying,
            ended,
            held,
        } = told;
        writeln!(text, "{id} {acknowledged} {trying} {ended} {held}")?;
    }
    Ok(fs::write(path, text)?)
}

pub fn read(path: &Path) -> Result<Mails> {
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let id = words.next()?.parse().ok()?;
        let mut next = || words.next()?.parse().ok();
        let told = Told {
            acknowledged: next()?,
            trying: next()?,
            ended: next()?,
            held: next()?,
        };
        Some((id, told))
    };
    let text = fs::read_to_string(path)?;
    text.lines()
        .map(|line| parse(line).with_context(|| format!("unreadable: {line}")))
        .collect()
}

/// About how long a mail's content is.
pub fn len_of(id: QueueId) -> usize {
    draw_len(&mut random_of(id))
}

fn random_of(id: QueueId) -> StdRng {
    let [.., a, b, c, d, e, f, g, h] = id.to_bytes();
    StdRng::seed_from_u64(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

fn draw_len(random: &mut StdRng) -> usize {
    match random.random_range(0..100) {
        0..2 => random.random_range(1 << 20..5 << 20),
        // Around the border between records and files.
        2..8 => random.random_range(200 << 10..400 << 10),
        8..30 => random.random_range(16 << 10..100 << 10),
        _ => random.random_range(1 << 10..16 << 10),
    }
}

/// Any mail's content follows from its id: 1 KiB to 5 MiB of lines, each different.
pub fn content_of(id: QueueId) -> Vec<u8> {
    let mut random = random_of(id);
    let len = draw_len(&mut random);
    let letters: Vec<u8> = (0..54).map(|_| random.random_range(b'a'..=b'z')).collect();
    let mut content = Vec::with_capacity(len + 64);
    for number in 0u32.. {
        if content.len() + 64 > len {
            break;
        }
        // Not `write!`: this is a debug build, and there are many lines.
        content
            .extend((0..8).map(|place| b"0123456789abcdef"[(number >> (place * 4)) as usize & 15]));
        content.extend_from_slice(&letters);
        content.extend_from_slice(b"\r\n");
    }
    content.extend_from_slice(&letters[..random.random_range(0..54)]);
    content.extend_from_slice(b"\r\n");
    content
}
