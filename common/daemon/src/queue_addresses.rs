//! Where the queue is: one address, or those of several nodes.

use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

/// The addresses of a queue's nodes, as the configuration writes them; at least one, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueAddresses(Vec<String>);

impl QueueAddresses {
    /// Nodes, at most: each agent holds connections to all of them.
    pub const MOST: usize = 16;

    /// Several nodes. The error says what is wrong and what to do.
    pub fn several(addresses: Vec<String>) -> Result<Self, String> {
        if addresses.is_empty() {
            return Err("is an empty list; name at least one queue".to_owned());
        }
        if addresses.len() > Self::MOST {
            return Err(format!(
                "names {} queues; name at most {}",
                addresses.len(),
                Self::MOST
            ));
        }
        for (at, address) in addresses.iter().enumerate() {
            let before = addresses.iter().take(at);
            if before.into_iter().any(|other| is_same(other, address)) {
                return Err(format!("names {address} twice; name each queue once"));
            }
        }
        Ok(Self(addresses))
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How many there are; never none.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The address of a queue that is one node.
    pub fn only(&self) -> Option<&str> {
        match self.0.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// Hosts are named in either case (RFC 4343), paths are not.
fn is_same(one: &str, other: &str) -> bool {
    match one.starts_with("unix:") {
        true => one == other,
        false => one.eq_ignore_ascii_case(other),
    }
}

impl From<&str> for QueueAddresses {
    fn from(address: &str) -> Self {
        Self(vec![address.to_owned()])
    }
}

impl From<String> for QueueAddresses {
    fn from(address: String) -> Self {
        Self(vec![address])
    }
}

impl fmt::Display for QueueAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// One is written as it always was.
impl Serialize for QueueAddresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(only) = self.only() {
            return serializer.serialize_str(only);
        }
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for address in &self.0 {
            list.serialize_element(address)?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for QueueAddresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As a list, so that one of the environment is read as such; a text comes as a text all the same.
        deserializer.deserialize_seq(OneOrSeveral)
    }
}

struct OneOrSeveral;

impl<'de> Visitor<'de> for OneOrSeveral {
    type Value = QueueAddresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the address of a queue, or a list of them")
    }

    fn visit_str<E: de::Error>(self, address: &str) -> Result<QueueAddresses, E> {
        Ok(address.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<QueueAddresses, A::Error> {
        let mut addresses = Vec::new();
        while let Some(address) = list.next_element()? {
            // What is beyond the bound is told of, and need not be kept.
            if addresses.len() <= QueueAddresses::MOST {
                addresses.push(address);
            }
        }
        QueueAddresses::several(addresses).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{CommonConfig, ConfigError, ConfigFile};

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<CommonConfig, ConfigError> {
        let file = (PathBuf::from("postroad.toml"), text.to_owned());
        let variables = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ConfigFile::assemble([file], variables)?.section("common")
    }

    fn addresses(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let common = read(text, environment).unwrap();
        common.queue.iter().map(str::to_owned).collect()
    }

    #[test]
    fn one_is_a_text_and_several_are_a_list_in_the_file_and_in_the_environment() {
        let one = "[common]\nqueue = \"tcp:q1:7700\"\n";
        let two = "[common]\nqueue = [\"tcp:q1:7700\", \"tcp:q2:7700\"]\n";
        assert_eq!(addresses("", &[]), ["unix:/run/postroad/queue.sock"]);
        assert_eq!(addresses(one, &[]), ["tcp:q1:7700"]);
        assert_eq!(addresses(two, &[]), ["tcp:q1:7700", "tcp:q2:7700"]);
        let name = "POSTROAD__COMMON__QUEUE";
        assert_eq!(addresses(two, &[(name, "unix:/q")]), ["unix:/q"]);
        let list = "[\"unix:/q\", \"unix:/r\"]";
        assert_eq!(addresses(one, &[(name, list)]), ["unix:/q", "unix:/r"]);
    }

    #[test]
    fn what_cannot_be_is_told_with_its_line_and_what_to_do() {
        let many: Vec<_> = (0..17).map(|at| format!("\"tcp:q{at}:1\"")).collect();
        for (list, told) in [
            ("[]".to_owned(), "is an empty list; name at least one queue"),
            (
                "[\"tcp:q1:1\", \"tcp:Q1:1\"]".to_owned(),
                "names tcp:Q1:1 twice; name each queue once",
            ),
            (
                format!("[{}]", many.join(",")),
                "names 17 queues; name at most 16",
            ),
        ] {
            let error = read(&format!("[common]\nqueue = {list}\n"), &[]).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("postroad.toml:2: "), "{error}");
            assert!(error.contains(told), "{error}");
        }
        assert!(read("[common]\nqueue = [\"unix:/Q\", \"unix:/q\"]\n", &[]).is_ok());
    }

    #[test]
    fn it_is_written_as_it_was_read() {
        let two = QueueAddresses::several(vec!["unix:/q".into(), "unix:/r".into()]).unwrap();
        let written = serde_json::to_string(&("unix:/q".to_owned(), &two)).unwrap();
        assert_eq!(written, r#"["unix:/q",["unix:/q","unix:/r"]]"#);
        let one = QueueAddresses::from("unix:/q");
        assert_eq!(serde_json::to_string(&one).unwrap(), r#""unix:/q""#);
    }
}
