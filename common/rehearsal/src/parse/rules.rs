//! `on STAGE WHEN…: ACTION`.

use super::{Wrong, certificate, interval, number, reply, size, wrong};
use crate::script::{Action, Pattern, Range, Rule, Stage, When};

/// Octets of one deed.
const MOST_GARBAGE: u64 = 1 << 20;

/// `RCPT to full@*: 452 4.2.2 full`, without its `on`.
pub fn rule(text: &str, line: usize) -> Result<Rule, Wrong> {
    // A literal in an address has colons, too, but no blank behind them.
    let (head, rest) = match text.split_once(": ") {
        Some((head, rest)) => (head, rest.trim()),
        None => match text.strip_suffix(':') {
            Some(head) => (head, ""),
            None => {
                return wrong(
                    "the rule has no colon",
                    "write `on STAGE: action`, or `on STAGE:` and actions below",
                );
            }
        },
    };
    let mut words = head.split_whitespace();
    let stage = stage(words.next().unwrap_or_default())?;
    let when = when(&mut words, stage)?;
    let mut rule = Rule {
        line,
        stage,
        when,
        actions: Vec::new(),
    };
    if !rest.is_empty() {
        rule.actions.push(action(rest, stage)?);
    }
    Ok(rule)
}

fn stage(word: &str) -> Result<Stage, Wrong> {
    let alias = match word.to_ascii_uppercase().as_str() {
        "HELO" | "LHLO" => "EHLO".to_owned(),
        other => other.to_owned(),
    };
    let known = Stage::ALL
        .into_iter()
        .find(|stage| stage.as_str().eq_ignore_ascii_case(&alias));
    match known {
        Some(stage) => Ok(stage),
        None => wrong(
            format!("there is no stage {word:?}"),
            "stages are connect, handshake, greeting, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, content, BDAT, end, RSET, NOOP, QUIT and other",
        ),
    }
}

fn when<'a>(words: &mut impl Iterator<Item = &'a str>, stage: Stage) -> Result<When, Wrong> {
    let mut when = When::default();
    while let Some(word) = words.next() {
        let Some(value) = words.next() else {
            return wrong(format!("{word:?} has no value"), CONDITIONS);
        };
        match word {
            "to" => when.to = Some(Pattern(value.trim_matches(['<', '>']).to_owned())),
            "from" => when.from = Some(Pattern(value.trim_matches(['<', '>']).to_owned())),
            "connection" => when.connection = Some(range(value)?),
            "mail" => when.mail = Some(range(value)?),
            "time" => when.time = Some(range(value)?),
            "after" if stage == Stage::Content => when.after = Some(size(value)?),
            "chance" => when.chance = Some(percent(value)?),
            "with" | "without" if value == "tls" => when.tls = Some(word == "with"),
            "with" | "without" if value == "login" => when.login = Some(word == "with"),
            _ => {
                return wrong(
                    format!("{word:?} with {value:?} is no condition here"),
                    CONDITIONS,
                );
            }
        }
    }
    Ok(when)
}

const CONDITIONS: &str = "conditions are `to ADDRESS`, `from ADDRESS`, `connection N`, `mail N..M`, `time N..M`, `chance N%`, `with tls`, `without login`, and of \
     content `after SIZE`";

fn range(text: &str) -> Result<Range, Wrong> {
    let (first, last) = match text.split_once("..") {
        None => {
            let only = number(text)?;
            (only, only)
        }
        Some((first, "")) => (number(first)?, u64::MAX),
        Some(("", last)) => (1, number(last)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    match 0 < first && first <= last {
        true => Ok(Range { first, last }),
        false => wrong(
            format!("no number is {text}"),
            "write `2`, `1..3` or `4..`; counting begins at 1",
        ),
    }
}

fn percent(text: &str) -> Result<u8, Wrong> {
    let number = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok());
    match number.filter(|number| *number <= 100) {
        Some(number) => Ok(number),
        None => wrong(format!("{text:?} is no chance"), "write such as `10%`"),
    }
}

/// One action.
pub fn action(text: &str, stage: Stage) -> Result<Action, Wrong> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return reply(text).map(Action::Say);
    }
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    let alone = |action: Action, at: Option<Stage>| {
        if !rest.is_empty() {
            return wrong(
                format!("{word:?} stands alone"),
                "leave out what follows it",
            );
        }
        match at {
            Some(at) if at != stage => wrong(
                format!("{word:?} has no meaning at {}", stage.as_str()),
                "`keep` belongs to `on end`, `plain` and `certificate` to `on handshake`",
            ),
            _ => Ok(action),
        }
    };
    match word {
        "ok" => alone(Action::Well, None),
        "silence" => alone(Action::Silence, None),
        "deaf" => alone(Action::Deaf, None),
        "close" => alone(Action::Close, None),
        "reset" => alone(Action::Reset, None),
        "keep" => alone(Action::Keep, Some(Stage::End)),
        "plain" => alone(Action::Plain, Some(Stage::Handshake)),
        "certificate" if stage == Stage::Handshake => certificate(rest).map(Action::Show),
        "wait" => interval(rest).map(Action::Wait),
        "drip" => {
            let (pause, words) = rest.split_once(' ').unwrap_or((rest, ""));
            Ok(Action::Drip(interval(pause)?, reply(words.trim())?))
        }
        "half" => reply(rest).map(Action::Half),
        "garbage" => match number(rest)? {
            count @ 1..=MOST_GARBAGE => {
                Ok(Action::Garbage(usize::try_from(count).unwrap_or_default()))
            }
            _ => wrong("this is no number of octets", "write one from 1 to 1048576"),
        },
        "octets" => octets(rest).map(Action::Octets),
        _ => wrong(
            format!("there is no action {word:?} at {}", stage.as_str()),
            "actions are a reply, ok, wait, silence, deaf, drip, half, garbage, octets, keep, close, reset, plain and certificate",
        ),
    }
}

/// `\r`, `\n`, `\0`, `\\` and `\xff`.
fn octets(text: &str) -> Result<Vec<u8>, Wrong> {
    const REMEDY: &str = r"escapes are \r, \n, \0, \\ and \xff";
    let mut octets = Vec::new();
    let mut left = text.chars();
    while let Some(c) = left.next() {
        if c != '\\' {
            octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        octets.push(match left.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = left.by_ref().take(2).collect();
                match u8::from_str_radix(&digits, 16) {
                    Ok(octet) => octet,
                    Err(_) => return wrong(format!(r"\x{digits} is no octet"), REMEDY),
                }
            }
            _ => return wrong("a backslash stands before nothing known", REMEDY),
        });
    }
    match octets.is_empty() {
        true => wrong("there are no octets", REMEDY),
        false => Ok(octets),
    }
}
