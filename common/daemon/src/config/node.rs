//! A tree of values, each with the place it was written at.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::{ConfigError, ENVIRONMENT_PREFIX, Place};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

/// What TOML can say, and a text of the environment whose type its reader decides.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Untyped(String),
    Array(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    pub fn new(place: Place, value: Value) -> Self {
        Self { place, value }
    }

    /// Lays `other` over this tree: tables are merged, anything else is replaced.
    pub fn merge(&mut self, other: Node) {
        let other = other.typed_as(&self.value);
        match (&mut self.value, other.value) {
            (Value::Table(below), Value::Table(above)) => {
                for (key, node) in above {
                    match below.get_mut(&key) {
                        Some(existing) => existing.merge(node),
                        None => {
                            below.insert(key, node);
                        }
                    }
                }
            }
            (below, above) => {
                *below = above;
                self.place = other.place;
            }
        }
    }

    /// A text of the environment laid over a table is meant as a table.
    fn typed_as(self, below: &Value) -> Self {
        match (&self.value, below) {
            (Value::Untyped(text), Value::Table(_)) => match parse_value(&self.place, text) {
                Some(value) => Node::new(self.place, value),
                None => self,
            },
            _ => self,
        }
    }

    /// The place of a dotted key; what lies within a text of the environment has its place.
    pub fn place(&self, key: &str) -> Place {
        let ends = key
            .match_indices(['.', '['])
            .map(|(end, _)| end)
            .chain([key.len()]);
        ends.filter_map(|end| self.find(key.get(..end)?).map(|node| (end, node)))
            .find(|(end, node)| *end == key.len() || matches!(node.value, Value::Untyped(_)))
            .map_or(Place::Default, |(_, node)| node.place.clone())
    }

    /// The node of a dotted key; elements of arrays are written `[n]`. A name may have dots of its own, as a realm or a domain has.
    pub fn find(&self, key: &str) -> Option<&Node> {
        if key.is_empty() {
            return Some(self);
        }

        match &self.value {
            Value::Table(table) => {
                let ends = key.match_indices(['.', '[']).map(|(end, _)| end);
                ends.chain([key.len()]).find_map(|end| {
                    let (name, rest) = key.split_at_checked(end)?;
                    table
                        .get(name)?
                        .find(rest.strip_prefix('.').unwrap_or(rest))
                })
            }
            Value::Array(items) => {
                let (index, rest) = key.strip_prefix('[')?.split_once(']')?;
                let index: usize = index.parse().ok()?;
                items
                    .get(index)?
                    .find(rest.strip_prefix('.').unwrap_or(rest))
            }
            _ => None,
        }
    }
}

/// Reads one file.
pub(super) fn parse(name: &Path, text: &str) -> Result<Node, ConfigError> {
    let lines = Lines {
        file: name.into(),
        text,
    };
    match DeTable::parse(text) {
        Ok(table) => {
            let place = Place::File {
                file: name.into(),
                line: None,
            };
            Ok(Node::new(place, lines.table(table.get_ref())))
        }
        Err(error) => Err(ConfigError::Syntax {
            place: lines.at(error.span().map_or(0, |span| span.start)),
            problem: error.message().replace('\n', ", "),
        }),
    }
}

/// Turns `POSTROAD__MSA__SIZE_LIMIT` into a tree of one leaf.
pub(super) fn from_environment(name: &str, text: &str) -> Result<Node, ConfigError> {
    let place = Place::Environment(name.into());
    let path = name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(name);
    let steps: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    if steps.len() < 2 || steps.iter().any(String::is_empty) {
        return Err(ConfigError::Meaning {
            key: name.to_owned(),
            place,
            problem: "names no key".to_owned(),
            remedy: "write POSTROAD__SECTION__KEY, for example POSTROAD__COMMON__HOSTNAME"
                .to_owned(),
        });
    }
    let leaf = Node::new(place.clone(), Value::Untyped(text.to_owned()));
    Ok(steps.into_iter().rev().fold(leaf, |inner, step| {
        Node::new(place.clone(), Value::Table(BTreeMap::from([(step, inner)])))
    }))
}

/// Reads a text of the environment as a TOML value.
pub(super) fn parse_value(place: &Place, text: &str) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    Some(convert(value.get_ref(), &|_| place.clone()))
}

struct Lines<'a> {
    file: Arc<Path>,
    text: &'a str,
}

impl Lines<'_> {
    fn at(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        Place::File {
            file: Arc::clone(&self.file),
            line: Some(1 + before.iter().filter(|byte| **byte == b'\n').count()),
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        convert_table(table, &|offset| self.at(offset))
    }
}

fn convert(value: &DeValue<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Text(value.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Text(number.to_string()), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or_else(|_| Value::Text(number.to_string()), Value::Float),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| Node::new(place(item.span().start), convert(item.get_ref(), place)))
                .collect(),
        ),
        DeValue::Table(table) => convert_table(table, place),
    }
}

fn convert_table(table: &DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    Value::Table(
        table
            .iter()
            .map(|(key, value)| {
                let node = Node::new(place(key.span().start), convert(value.get_ref(), place));
                (key.get_ref().to_string(), node)
            })
            .collect(),
    )
}
