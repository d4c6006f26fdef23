//! What other servers answer, and where that is not what we do.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{Answer, Transcript};

/// The file of their answers.
pub const PEERS: &str = "peers.txt";

/// By server and file, the codes in order.
pub type Peers = BTreeMap<&'static str, BTreeMap<String, Vec<String>>>;

const NAMES: [(&str, &str); 2] = [("postfix", "Postfix"), ("exim", "Exim")];

/// The record as a file.
pub fn peers_text(peers: &Peers) -> String {
    let mut text = String::from(
        "# What Debian's Postfix and Exim answer to the client's lines of each file: generated, see tests/tests/interop/differences.rs.\n",
    );
    let files: Vec<&String> = peers
        .values()
        .next()
        .into_iter()
        .flat_map(BTreeMap::keys)
        .collect();
    for file in files {
        let _ = writeln!(text, "{file}");
        for (name, answers) in peers {
            let codes = answers.get(file).map_or(&[][..], Vec::as_slice);
            let _ = writeln!(text, "  {name}: {}", shortened(codes).join(", "));
        }
    }
    text
}

/// `250*5` for five in a row.
fn shortened(codes: &[String]) -> Vec<String> {
    let runs = codes.chunk_by(|one, other| one == other);
    let short = runs.map(|run| match run {
        [one] => one.clone(),
        many => format!("{}*{}", many.first().map_or("", String::as_str), many.len()),
    });
    short.collect()
}

fn lengthened(run: &str) -> Vec<String> {
    let (code, times) = run.split_once('*').unwrap_or((run, "1"));
    vec![code.to_owned(); times.parse().unwrap_or(1)]
}

/// Reads the record.
pub fn parse_peers(text: &str) -> Peers {
    let mut peers = Peers::new();
    let mut file = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(answer) = line.strip_prefix("  ") else {
            file = line;
            continue;
        };
        for (key, _) in NAMES {
            if let Some(codes) = answer
                .strip_prefix(key)
                .and_then(|rest| rest.strip_prefix(": "))
            {
                let codes = codes.split(", ").flat_map(lengthened).collect();
                peers.entry(key).or_default().insert(file.to_owned(), codes);
            }
        }
    }
    peers
}

/// What somebody answers otherwise than we do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The line of the client.
    pub question: String,
    /// Our code.
    pub ours: String,
    /// Theirs, first Postfix's, then Exim's.
    pub theirs: Vec<String>,
}

impl Difference {
    /// Whether the outcome is another, and not only the number for it.
    pub fn matters(&self) -> bool {
        let digits = |codes: &str| -> Vec<Option<char>> {
            codes.split(' ').map(|code| code.chars().next()).collect()
        };
        let asked = self.theirs.iter().filter(|their| !their.is_empty());
        asked
            .into_iter()
            .any(|their| digits(their) != digits(&self.ours))
    }
}
/// Where answers differ in one file.
pub fn differences(transcript: &Transcript, peers: &Peers) -> Vec<Difference> {
    let Some(interview) = transcript.interview() else {
        return Vec::new();
    };
    let ours = interview.ours();
    let at = |peer: &str, index: usize| {
        let answers = peers.get(peer)?.get(&transcript.name)?;
        answers.get(index).cloned()
    };
    let differ = |(index, Answer { question, codes }): (usize, Answer)| {
        let theirs: Vec<String> = NAMES
            .iter()
            .map(|(peer, _)| at(peer, index).unwrap_or_default())
            .collect();
        let same = theirs.iter().all(|their| same(&codes, their));
        (!same).then_some(Difference {
            question,
            ours: codes,
            theirs,
        })
    };
    ours.into_iter().enumerate().filter_map(differ).collect()
}

fn same(ours: &str, theirs: &str) -> bool {
    // Nothing is asked of who has closed.
    let unasked = ours.is_empty() || theirs.is_empty();
    let starts = |start| theirs.starts_with::<&str>(start);
    unasked || ours == theirs || ours.strip_suffix('…').is_some_and(starts)
}
