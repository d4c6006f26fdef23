//! What a new configuration changes: values in, names of keys out.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::EffectiveValue;

/// The values the process works with, by key; those of a list of tables lie under the list's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce(Keys);

type Keys = BTreeMap<String, Vec<(String, String)>>;

/// Names of keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Their new values are in force.
    pub changed: Vec<String>,
    /// Their new values are not, and will not be before a restart.
    pub restart: Vec<String>,
}

impl InForce {
    /// What a process starts with.
    pub fn new(values: Vec<EffectiveValue>) -> Self {
        Self(by_key(values))
    }

    /// Takes over what is live. What is not stays as it is, and is named each time until it is written back.
    pub fn take(&mut self, values: Vec<EffectiveValue>, live: impl Fn(&str) -> bool) -> Changes {
        let mut new = by_key(values);
        let keys: BTreeSet<String> = self.0.keys().chain(new.keys()).cloned().collect();
        let mut changes = Changes::default();
        for key in keys {
            let value = new.remove(&key);
            if self.0.get(&key) == value.as_ref() {
                continue;
            }
            if !live(&key) {
                changes.restart.push(key);
                continue;
            }
            match value {
                Some(value) => self.0.insert(key.clone(), value),
                None => self.0.remove(&key),
            };
            changes.changed.push(key);
        }
        changes
    }
}

impl Changes {
    /// For people.
    pub fn words(&self) -> &'static str {
        match (self.changed.is_empty(), self.restart.is_empty()) {
            (true, true) => "nothing has changed",
            (false, true) => "the changes are in force",
            (true, false) => "what has changed needs a restart",
            (false, false) => "some changes are in force, others need a restart",
        }
    }
}

/// Whether `key` is the one named, or lies in the table named.
pub fn covers(named: &str, key: &str) -> bool {
    let rest = key.strip_prefix(named);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn by_key(values: Vec<EffectiveValue>) -> Keys {
    let mut keys = Keys::new();
    for value in values {
        let list = value.key.split('[').next().unwrap_or_default().to_owned();
        keys.entry(list).or_default().push((value.key, value.value));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    fn values(texts: &[(&str, &str)]) -> Vec<EffectiveValue> {
        let value = |(key, value): &(&str, &str)| EffectiveValue {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            place: Place::Default,
        };
        texts.iter().map(value).collect()
    }

    fn live(key: &str) -> bool {
        ["msa.size_limit", "msa.certificates", "msa.limits"]
            .iter()
            .any(|named| covers(named, key))
    }

    fn names(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn live_keys_are_taken_and_others_are_named_until_they_are_written_back() {
        let start = [
            ("msa.size_limit", "1"),
            ("msa.limits.max", "2"),
            ("msa.submission", "a"),
        ];
        let mut in_force = InForce::new(values(&start));
        let new = [
            ("msa.size_limit", "5"),
            ("msa.limits.max", "6"),
            ("msa.submission", "b"),
        ];
        let found = in_force.take(values(&new), live);
        assert_eq!(found.changed, names(&["msa.limits.max", "msa.size_limit"]));
        assert_eq!(found.restart, names(&["msa.submission"]));
        let again = in_force.take(values(&new), live);
        assert_eq!(again.changed, names(&[]));
        assert_eq!(again.restart, names(&["msa.submission"]));
        let back = [
            ("msa.size_limit", "5"),
            ("msa.limits.max", "6"),
            ("msa.submission", "a"),
        ];
        assert_eq!(in_force.take(values(&back), live), Changes::default());
    }

    #[test]
    fn a_list_of_tables_is_one_key() {
        let one = [
            ("msa.certificates[0].cert_file", "a"),
            ("msa.certificates[0].key_file", "b"),
        ];
        let mut in_force = InForce::new(values(&one));
        let two = [one.as_slice(), &[("msa.certificates[1].cert_file", "c")]].concat();
        let found = in_force.take(values(&two), live);
        assert_eq!(found.changed, names(&["msa.certificates"]));
        let none = in_force.take(values(&[("msa.certificates", "[]")]), live);
        assert_eq!(none.changed, names(&["msa.certificates"]));
        let gone = in_force.take(values(&[]), live);
        assert_eq!(gone.changed, names(&["msa.certificates"]));
        assert_eq!(in_force, InForce::new(Vec::new()));
    }

    #[test]
    fn a_name_covers_its_table_and_no_namesake() {
        assert!(covers("msa.limits", "msa.limits") && covers("msa.limits", "msa.limits.max"));
        assert!(!covers("msa.limits", "msa.limits_of") && !covers("msa.limits.max", "msa.limits"));
    }
}
