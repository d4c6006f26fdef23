//! Reads transcripts.
//!
//! `! word` sets the server up, `C: ` is a line of the client (CRLF is added), `C! ` raw octets with escapes, `S: ` a
//! line the server must answer (`…` at its end stands for any text), `== TLS` the handshake, `== mail "…"` the content
//! of the mail just accepted, `== closed` the end. `#` is a comment. Client lines in a row go out in one packet.

use std::{fs, path::Path};

#[derive(Debug, Default, Clone)]
pub struct Transcript {
    pub name: String,
    pub setup: Vec<String>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Client(Vec<u8>),
    Server(Vec<String>),
    Tls,
    Mail(Vec<u8>),
    Closed,
}

impl Transcript {
    pub fn all(folder: &Path) -> Vec<Self> {
        let mut all: Vec<Self> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| Self::read(&entry.unwrap().path()))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(!all.is_empty());
        all
    }

    fn read(path: &Path) -> Self {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut transcript = Self {
            name,
            ..Self::default()
        };
        for line in fs::read_to_string(path).unwrap().lines() {
            transcript.add(line);
        }
        transcript
    }

    fn add(&mut self, line: &str) {
        let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "" | "#" => {}
            "!" => self.setup.push(text.to_owned()),
            "C:" => self.client(format!("{text}\r\n").as_bytes()),
            "C!" => self.client(&unescape(text)),
            "S:" => self.server(text),
            "==" => self.steps.push(match text.split_once(' ') {
                None if text == "TLS" => Step::Tls,
                None if text == "closed" => Step::Closed,
                Some(("mail", content)) => Step::Mail(unescape(content.trim_matches('"'))),
                _ => panic!("{}: {line}", self.name),
            }),
            _ => panic!("{}: {line}", self.name),
        }
    }

    fn client(&mut self, octets: &[u8]) {
        match self.steps.last_mut() {
            Some(Step::Client(packet)) => packet.extend_from_slice(octets),
            _ => self.steps.push(Step::Client(octets.to_vec())),
        }
    }

    fn server(&mut self, line: &str) {
        match self.steps.last_mut() {
            Some(Step::Server(lines)) => lines.push(line.to_owned()),
            _ => self.steps.push(Step::Server(vec![line.to_owned()])),
        }
    }

    pub fn is_set(&self, word: &str) -> bool {
        self.setup.iter().any(|set| set == word)
    }

    pub fn number(&self, word: &str) -> Option<u64> {
        self.setup
            .iter()
            .find_map(|set| set.strip_prefix(word)?.trim().parse().ok())
    }
}

pub fn line_matches(expected: &str, said: &str) -> bool {
    match expected.strip_suffix('…') {
        Some(start) => said.starts_with(start),
        None => said == expected,
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => octets.push(match rest.next() {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('0') => 0,
                Some('f') => 0xff,
                other => panic!("\\{other:?}"),
            }),
            c => octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    octets
}
