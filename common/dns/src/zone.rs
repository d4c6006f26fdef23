//! A zone that is plain data, so that everything can be rehearsed offline.

mod parse;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use async_trait::async_trait;

use crate::{Answer, DnsError, HostName, Prefer, Record, RecordType, Resolver, SetupError};

/// A zone file larger than this is refused.
const MAX_ZONE_BYTES: u64 = 1024 * 1024;
/// Aliases followed for one question.
const MAX_ALIASES: usize = 8;

/// Answers from a zone file, and from nothing else: a name without a line does not exist.
///
/// One record per line; `;` and `#` begin a comment; a final dot, a TTL and `IN` may be written and
/// mean nothing; names are absolute. `*` as the first label stands for any name below the rest.
///
/// ```text
/// example.com.       MX    10 mx1.example.com.
/// mx1.example.com.   A     127.0.0.1
/// mx1.example.com.   AAAA  ::1
/// example.com.       TXT   "v=spf1 -all"
/// www.example.com.   CNAME example.com.
/// 127.0.0.1          PTR   mx1.example.com.    ; or 1.0.0.127.in-addr.arpa.
/// nomail.test.       MX    0 .                 ; null MX, RFC 7505
/// *.sink.test.       MX    10 mx1.example.com. ; every name below sink.test
/// broken.test.       SERVFAIL                  ; every question fails for now
/// slow.test.         TIMEOUT                   ; the same with another text, at once
/// ```
#[derive(Clone, Debug, Default)]
pub struct FixedZone {
    nodes: HashMap<String, Node>,
    prefer: Prefer,
}

/// What a zone knows of a name.
pub(crate) enum Found {
    /// The zone knows the name: an answer, or the lack of one.
    Here(Result<Answer<Record>, DnsError>),
    /// The zone does not know this name, to which the question led.
    Elsewhere(HostName),
}

#[derive(Clone, Debug)]
enum Node {
    Records(Vec<(RecordType, Record)>),
    Alias(HostName),
    Failing(&'static str),
}

impl FixedZone {
    /// Reads a zone file.
    pub fn load(file: &Path) -> Result<Self, SetupError> {
        let unreadable = |source| SetupError::Unreadable {
            file: file.to_owned(),
            source,
        };
        let mut text = String::new();
        let opened = File::open(file).map_err(unreadable)?;
        opened
            .take(MAX_ZONE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Self::parse(file, &text)
    }

    /// Reads the text of a zone; `file` is for error messages.
    pub fn parse(file: &Path, text: &str) -> Result<Self, SetupError> {
        let at = |line, problem| SetupError::Zone {
            file: file.to_owned(),
            line,
            problem,
        };
        if text.len() as u64 > MAX_ZONE_BYTES {
            return Err(at(
                1,
                format!("over {MAX_ZONE_BYTES} octets; a zone for rehearsal is small"),
            ));
        }
        let mut nodes = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            if let Some((owner, node)) = parse::line(line).map_err(|e| at(number, e))? {
                parse::add(&mut nodes, owner, node).map_err(|e| at(number, e))?;
            }
        }
        Ok(Self {
            nodes,
            prefer: Prefer::default(),
        })
    }

    /// The same zone with another address family first.
    pub fn preferring(self, prefer: Prefer) -> Self {
        Self { prefer, ..self }
    }

    pub(crate) fn resolve(&self, asked: &HostName, kind: RecordType) -> Found {
        let mut name = asked.clone();
        let mut seen = HashSet::new();
        loop {
            let detail = match self.node(&name) {
                None => return Found::Elsewhere(name),
                Some(Node::Records(all)) => {
                    let of_kind = all.iter().filter(|(k, _)| *k == kind);
                    let records: Vec<_> = of_kind.map(|(_, record)| record.clone()).collect();
                    return Found::Here(match records.is_empty() {
                        true => Err(DnsError::NoRecords {
                            name: asked.clone(),
                            kind,
                        }),
                        false => Ok(Answer {
                            records,
                            authenticated: false,
                        }),
                    });
                }
                Some(Node::Alias(target)) if seen.len() < MAX_ALIASES => {
                    if seen.insert(name) {
                        name = target.clone();
                        continue;
                    }
                    "its aliases go in a circle"
                }
                Some(Node::Alias(_)) => "too many aliases",
                Some(Node::Failing(detail)) => detail,
            };
            let (name, detail) = (asked.clone(), detail.to_owned());
            return Found::Here(Err(DnsError::Temporary { name, kind, detail }));
        }
    }

    /// The node of a name, else that of the nearest wildcard above it (RFC 4592 §2.1.1).
    fn node(&self, name: &HostName) -> Option<&Node> {
        let exact = self.nodes.get(name.as_str());
        exact.or_else(|| {
            let mut below = name.as_str();
            while let Some((_, parent)) = below.split_once('.') {
                if let Some(node) = self.nodes.get(&format!("*.{parent}")) {
                    return Some(node);
                }
                below = parent;
            }
            self.nodes.get("*")
        })
    }
}

#[async_trait]
impl Resolver for FixedZone {
    async fn lookup(&self, name: &HostName, kind: RecordType) -> Result<Answer<Record>, DnsError> {
        match self.resolve(name, kind) {
            Found::Here(answer) => answer,
            Found::Elsewhere(_) => Err(DnsError::NoSuchDomain {
                name: name.clone(),
                kind,
            }),
        }
    }

    fn prefer(&self) -> Prefer {
        self.prefer
    }
}
