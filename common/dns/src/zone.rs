//! A zone that is plain data, so that everything can be rehearsed offline.

mod parse;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use async_trait::async_trait;

use crate::{AddressFamily, Answer, DnsError, HostName, Record, RecordType, Resolver, SetupError};

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
/// signed.test.       SIGNED                    ; as if DNSSEC vouched for it and every name below it
/// _25._tcp.mx1.signed.test. TLSA 3 1 1 0123…   ; for DANE, RFC 6698
/// ```
#[derive(Clone, Debug, Default)]
pub struct FixedZone {
    nodes: HashMap<String, Node>,
    /// What is vouched for, with all below.
    signed: HashSet<String>,
    prefer: AddressFamily,
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
    /// Not a node of its own: said of a name and all below it.
    Signed,
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
        let mut signed = HashSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            if let Some((owner, node)) = parse::line(line).map_err(|e| at(number, e))? {
                match node {
                    Node::Signed => _ = signed.insert(owner),
                    node => parse::add(&mut nodes, owner, node).map_err(|e| at(number, e))?,
                }
            }
        }
        Ok(Self {
            nodes,
            signed,
            prefer: AddressFamily::default(),
        })
    }

    /// The same zone with another address family first.
    pub fn preferring(self, prefer: AddressFamily) -> Self {
        Self { prefer, ..self }
    }

    pub(crate) fn resolve(&self, asked: &HostName, kind: RecordType) -> Found {
        let mut name = asked.clone();
        let mut seen = HashSet::new();
        let mut signed = true;
        loop {
            signed &= self.is_signed(&name);
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
                            authenticated: signed,
                            ttl: None,
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
                Some(Node::Signed) => return Found::Elsewhere(name),
            };
            let (name, detail) = (asked.clone(), detail.to_owned());
            return Found::Here(Err(DnsError::Temporary { name, kind, detail }));
        }
    }

    /// Whether the name lies in a part that is vouched for.
    fn is_signed(&self, name: &HostName) -> bool {
        let mut below = name.as_str();
        loop {
            if self.signed.contains(below) {
                return true;
            }
            match below.split_once('.') {
                Some((_, parent)) => below = parent,
                None => return false,
            }
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

    fn prefer(&self) -> AddressFamily {
        self.prefer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(text: &str) -> Result<FixedZone, String> {
        FixedZone::parse(Path::new("test.zone"), text).map_err(|error| error.to_string())
    }

    async fn texts(zone: &FixedZone, name: &str) -> Result<Vec<String>, DnsError> {
        zone.txt(&HostName::parse(name).unwrap())
            .await
            .map(|answer| answer.records)
    }

    #[tokio::test]
    async fn lines_are_read_with_comments_quotes_ttl_and_class() {
        let zone = zone(concat!(
            "; a comment\n\n",
            "A.test. 3600 IN TXT \"one \" \"two;\" # not a comment inside\n",
            "b.test txt \"say \\\"hi\\\" \\\\\"\r\n",
            "c.test.\tTXT\tplain\n",
        ))
        .unwrap();
        assert_eq!(texts(&zone, "a.TEST").await.unwrap(), ["one two;"]);
        assert_eq!(texts(&zone, "b.test").await.unwrap(), ["say \"hi\" \\"]);
        assert_eq!(texts(&zone, "c.test").await.unwrap(), ["plain"]);
    }

    #[test]
    fn a_wrong_line_is_named_with_its_remedy() {
        for (line, told) in [
            ("a.test.", "no type after the name; write A, AAAA, MX"),
            ("a.test. NS b.test.", "unknown type \"NS\"; write A, AAAA"),
            (
                "a.test. A ::1",
                "\"::1\" is no IPv4 address; write A 192.0.2.1",
            ),
            ("a.test. AAAA 192.0.2.1", "is no IPv6 address"),
            ("a.test. A", "A takes one address"),
            ("a.test. MX mx.test.", "write MX 10 mx.test."),
            ("a.test. MX 70000 mx.test.", "not 0 to 65535"),
            (
                "a.test. CNAME 192.0.2.1",
                "an IP address is not a host name",
            ),
            ("a.test. TXT", "TXT takes a text"),
            ("a.test. TXT \"open", "close it with \""),
            ("a.test. SERVFAIL now", "SERVFAIL takes nothing after it"),
            ("_25._tcp.a.test. TLSA 3 1 1", "write TLSA 3 1 1 0123"),
            ("_25._tcp.a.test. TLSA 3 1 1 abc", "write TLSA 3 1 1 0123"),
            ("_25._tcp.a.test. TLSA 3 1 256 ab", "write TLSA 3 1 1 0123"),
            ("a..test. A 192.0.2.1", "write a full name such as"),
            ("ok.test. CNAME b.test.", "ok.test has another line"),
        ] {
            let error = zone(&format!("ok.test. A 192.0.2.1\n{line}\n")).unwrap_err();
            assert!(
                error.starts_with("test.zone:2: ") && error.contains(told),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn the_size_is_bounded() {
        let error = zone(&";\n".repeat(600_000)).unwrap_err();
        assert!(error.contains("over 1048576 octets"), "{error}");
    }

    #[tokio::test]
    async fn a_wildcard_stands_for_names_without_a_line() {
        let zone = zone("*.a.test. TXT wild\nx.a.test. TXT x\n*.b.a.test. TXT deep\n").unwrap();
        assert_eq!(texts(&zone, "y.a.test").await.unwrap(), ["wild"]);
        assert_eq!(texts(&zone, "z.y.a.test").await.unwrap(), ["wild"]);
        assert_eq!(texts(&zone, "x.a.test").await.unwrap(), ["x"]);
        assert_eq!(texts(&zone, "y.b.a.test").await.unwrap(), ["deep"]);
        assert!(matches!(
            texts(&zone, "a.test").await,
            Err(DnsError::NoSuchDomain { .. })
        ));
    }

    #[tokio::test]
    async fn what_is_signed_is_vouched_for_with_all_below_and_along_aliases() {
        let zone = zone(concat!(
            "a.test. SIGNED\na.test. TXT x\nb.a.test. TXT y\nc.test. TXT z\n",
            "in.a.test. CNAME b.a.test.\nout.a.test. CNAME c.test.\n",
            "_25._tcp.b.a.test. TLSA 3 1 1 00ff ABCD\n",
        ))
        .unwrap();
        for (name, signed) in [
            ("a.test", true),
            ("b.a.test", true),
            ("in.a.test", true),
            ("out.a.test", false),
            ("c.test", false),
        ] {
            let answer = zone.txt(&HostName::parse(name).unwrap()).await.unwrap();
            assert_eq!(answer.authenticated, signed, "{name}");
        }
        let host = HostName::parse("b.a.test").unwrap();
        let answer = zone.tlsa(&host, 25).await.unwrap();
        assert_eq!(answer.records[0].to_string(), "3 1 1 00ffabcd");
        assert!(answer.authenticated && zone.tlsa(&host, 26).await.is_err());
    }

    #[tokio::test]
    async fn aliases_in_a_circle_or_a_long_row_are_temporary() {
        let mut lines = "a.test. CNAME b.test.\nb.test. CNAME a.test.\n".to_owned();
        for n in 0..20 {
            lines += &format!("n{n}.test. CNAME n{}.test.\n", n + 1);
        }
        let zone = zone(&lines).unwrap();
        let circle = texts(&zone, "a.test").await.unwrap_err();
        assert!(
            circle.is_temporary() && circle.to_string().contains("circle"),
            "{circle}"
        );
        let row = texts(&zone, "n0.test").await.unwrap_err();
        assert!(
            row.is_temporary() && row.to_string().contains("too many aliases"),
            "{row}"
        );
    }

    #[test]
    fn an_unknown_target_of_an_alias_is_elsewhere() {
        let zone = zone("a.test. CNAME out.example.\n").unwrap();
        let name = HostName::parse("a.test").unwrap();
        let found = zone.resolve(&name, RecordType::A);
        assert!(matches!(found, Found::Elsewhere(n) if n.as_str() == "out.example"));
    }
}
