//! The client's half of a conversation, put to another server: it may answer otherwise, so what follows goes by its answers.

use std::collections::VecDeque;

use crate::{Listener, Needs, Transcript, What};

/// What is no question.
const ASIDE: &str = "(aside)";

/// What the client asks, one question at a time.
#[derive(Debug)]
pub struct Interview {
    packets: VecDeque<Packet>,
    /// What is not said yet of a packet.
    rest: Vec<u8>,
    content: bool,
    /// A packet of several lines goes out as one.
    together: bool,
    /// All goes out unheard, and the answers are taken at the end.
    blind: bool,
    /// How many those are with us.
    expected: usize,
    /// What was said then.
    said: String,
    waiting: Option<String>,
    quit: bool,
    over: bool,
    /// What we answer, in order.
    ours: Vec<String>,
    /// Whether we close by ourselves.
    closes: bool,
    /// Said without being a question, so that one other answer does not make all others: the state is ours again.
    aside: Option<&'static str>,
    answers: Vec<Answer>,
}

#[derive(Debug)]
struct Packet {
    octets: Vec<u8>,
    /// Behind 354.
    content: bool,
    /// How many replies of ours follow it.
    replies: usize,
}

/// What was answered to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The line, shortened.
    pub question: String,
    /// The code, or several in a row for questions put all at once; `-` if it was not asked.
    pub codes: String,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Send this.
    Send(Vec<u8>),
    /// Take a whole reply, and give its code to [`Interview::heard`].
    Hear,
    /// Take all replies until the server closes, and give their codes to [`Interview::heard`].
    HearAll,
}

impl Transcript {
    /// The questions of this file for a mail host of the world, and what we answer; none if it is about TLS, log-ins or
    /// something else that the others would need to be set up for.
    pub fn interview(&self) -> Option<Interview> {
        let fits = matches!(self.needs, Needs::Nothing | Needs::Hello | Needs::Ready);
        if !fits || !self.listeners.contains(&Listener::Inbound) {
            return None;
        }
        let steps = self.player(Listener::Inbound).ok()?.into_steps();
        let (mut packets, mut ours) = (VecDeque::new(), Vec::new());
        let (mut content, mut closes) = (false, false);
        for step in steps {
            match step.what {
                What::Client(octets) => packets.push_back(Packet {
                    octets,
                    content,
                    replies: 0,
                }),
                What::Line(line) => {
                    if let Some(packet) = packets.back_mut() {
                        packet.replies += 1;
                    }
                    let code: String = line.to_string().chars().take(3).collect();
                    content = code == "354";
                    ours.push(code);
                }
                What::Reply(reply) => {
                    if let Some(packet) = packets.back_mut() {
                        packet.replies += 1;
                    }
                    content = false;
                    ours.push(reply.code().to_owned());
                }
                What::Tls | What::ClientCloses | What::LogIn(_) => return None,
                What::ServerCloses => closes = true,
                What::Mail(_) => {}
            }
        }
        Some(Interview {
            packets,
            rest: Vec::new(),
            content: false,
            blind: false,
            together: self.one_packet,
            expected: 0,
            said: String::new(),
            waiting: Some("(greeting)".to_owned()),
            quit: false,
            over: false,
            ours,
            closes,
            aside: None,
            answers: Vec::new(),
        })
    }
}

impl Interview {
    /// What comes next; none: it is over.
    #[allow(
        clippy::should_implement_trait,
        reason = "what was heard comes between two calls"
    )]
    pub fn next(&mut self) -> Option<Ask> {
        loop {
            if self.waiting.is_some() {
                return Some(Ask::Hear);
            }
            if self.over {
                return None;
            }
            if let Some(aside) = self.aside.take() {
                self.waiting = Some(ASIDE.to_owned());
                return Some(Ask::Send(aside.into()));
            }
            if self.rest.is_empty() {
                let Some(packet) = self.packets.pop_front() else {
                    return Some(self.farewell());
                };
                self.rest = packet.octets;
                // Whether another took DATA or not, this is no command.
                if packet.content && !self.content && !self.blind {
                    self.rest = behind_content(&self.rest).map_or(Vec::new(), |(_, rest)| rest);
                    self.answers.push(Answer::new("(content)", "-"));
                    continue;
                }
                if !packet.content && self.content && !self.blind {
                    // It takes for content what we do not.
                    self.over = true;
                    return None;
                }
                if packet.content && has_bare_line_ends(&self.rest) {
                    // Nobody knows what it takes for an end, so there is nothing more to ask but QUIT.
                    self.blind = true;
                    self.packets.clear();
                }
                let lines = self.rest.iter().filter(|&&octet| octet == b'\n').count();
                self.blind |= self.together && (lines != 1 || !self.rest.ends_with(b"\n"));
                if self.blind {
                    self.expected += packet.replies;
                    self.said = match packet.content {
                        true => "(content with such line ends, QUIT)".to_owned(),
                        false => {
                            let text = String::from_utf8_lossy(&self.rest);
                            let lines: Vec<_> = text.lines().collect();
                            shown(&format!("{} … QUIT", lines.join(" … ")))
                        }
                    };
                }
            }
            let octets = self.take();
            return Some(Ask::Send(octets));
        }
    }

    /// The next piece that has one answer, or none.
    fn take(&mut self) -> Vec<u8> {
        let all = std::mem::take(&mut self.rest);
        if self.blind {
            return all;
        }
        if self.content {
            return match behind_content(&all) {
                None => all,
                Some((content, rest)) => {
                    (self.rest, self.content) = (rest, false);
                    self.waiting = Some("(content)".to_owned());
                    content
                }
            };
        }
        let Some(end) = all.iter().position(|&octet| octet == b'\n') else {
            return all;
        };
        let line = String::from_utf8_lossy(all.get(..=end).unwrap_or_default()).into_owned();
        let mut words = line.split_whitespace();
        let chunk = match (words.next(), words.next()) {
            (Some("BDAT"), Some(size)) => size.parse().unwrap_or(0),
            _ => 0,
        };
        let cut = end.saturating_add(1).saturating_add(chunk).min(all.len());
        let (now, later) = all.split_at(cut);
        self.rest = later.to_vec();
        self.waiting = Some(shown(&line));
        now.to_vec()
    }

    fn farewell(&mut self) -> Ask {
        if !self.quit && (self.blind || !self.content) {
            self.quit = true;
            return Ask::Send(b"QUIT\r\n".to_vec());
        }
        self.waiting = Some(match self.blind {
            true => std::mem::take(&mut self.said),
            false => "QUIT".to_owned(),
        });
        self.over = true;
        Ask::HearAll
    }

    /// Takes the code of a reply, or all codes that came; none: the server closed.
    pub fn heard(&mut self, codes: Option<&str>) {
        let Some(question) = self.waiting.take() else {
            return;
        };
        self.over |= codes.is_none() || question.trim().eq_ignore_ascii_case("QUIT");
        if question == ASIDE {
            return;
        }
        self.content = codes == Some("354");
        let ours = self.ours.get(self.answers.len());
        let ours = ours.is_some_and(|code| code.starts_with('2'));
        let theirs = codes.is_some_and(|code| code.starts_with('2'));
        if question.to_ascii_uppercase().starts_with("MAIL") {
            self.aside = match (ours, theirs) {
                (false, true) => Some("RSET\r\n"),
                (true, false) => Some("MAIL FROM:<>\r\n"),
                _ => None,
            };
        }
        self.answers
            .push(Answer::new(&question, codes.unwrap_or("closed")));
    }

    /// All answers.
    pub fn answers(self) -> Vec<Answer> {
        self.answers
    }

    /// What we answer.
    pub fn ours(mut self) -> Vec<Answer> {
        let mut codes = self.ours.clone().into_iter();
        while let Some(ask) = self.next() {
            match ask {
                Ask::Send(_) => {}
                Ask::Hear => self.heard(codes.next().as_deref()),
                Ask::HearAll => {
                    // What we would answer to questions that are not put any more is left out.
                    let mut all: Vec<String> = codes.by_ref().take(self.expected).collect();
                    if !self.closes {
                        all.push("221".to_owned());
                    }
                    self.heard(Some(&all.join(" ")));
                }
            }
        }
        self.answers()
    }
}

impl Answer {
    fn new(question: &str, codes: &str) -> Self {
        Self {
            question: question.to_owned(),
            codes: codes.to_owned(),
        }
    }
}

/// Content with its end, and what follows.
fn behind_content(octets: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let end = match octets.strip_prefix(b".\r\n") {
        Some(_) => 3,
        None => octets.windows(5).position(|five| five == b"\r\n.\r\n")? + 5,
    };
    let (content, rest) = octets.split_at_checked(end)?;
    Some((content.to_vec(), rest.to_vec()))
}

fn has_bare_line_ends(octets: &[u8]) -> bool {
    let count = |part: &[u8]| {
        octets
            .windows(part.len())
            .filter(|some| *some == part)
            .count()
    };
    let pairs = count(b"\r\n");
    count(b"\n") != pairs || count(b"\r") != pairs || octets.contains(&0)
}

fn shown(line: &str) -> String {
    let line = line.strip_suffix("\r\n").unwrap_or(line);
    let escaped: String = line
        .chars()
        .flat_map(
            |c| match c.is_control() || c == char::REPLACEMENT_CHARACTER {
                true => c.escape_default().collect::<Vec<char>>(),
                false => vec![c],
            },
        )
        .collect();
    match escaped.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", escaped.get(..end).unwrap_or_default()),
        None => escaped,
    }
}
