//! Serde over [`Node`]s. It sees the field list of each struct before the struct does, so it can
//! refuse unknown keys with their place and the nearest known one, and it hands every fault the
//! place of the value that caused it; nobody has to read error texts.

use std::collections::btree_map;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::error::suggest;
use super::node::{Node, Value, parse_value};
use super::{ConfigError, Place};

pub(super) fn from_node<T: DeserializeOwned>(node: &Node, key: &str) -> Result<T, ConfigError> {
    let reader = Reader { node, key };
    T::deserialize(reader).map_err(|fault| fault.at(node, key).into_error())
}

/// A fault on its way out, until a value claims it.
#[derive(Debug)]
enum Fault {
    Value(String),
    Missing(&'static str),
    Placed(Box<ConfigError>),
}

impl Fault {
    fn at(self, node: &Node, key: &str) -> Self {
        let place = node.place.clone();
        let error = match self {
            Self::Placed(error) => return Self::Placed(error),
            Self::Value(problem) => ConfigError::Value {
                place,
                key: key.to_owned(),
                problem,
            },
            Self::Missing(field) => ConfigError::MissingKey {
                place,
                key: field.to_owned(),
                section: key.to_owned(),
            },
        };
        Self::Placed(Box::new(error))
    }

    fn into_error(self) -> ConfigError {
        match self {
            Self::Placed(error) => *error,
            Self::Value(problem) => ConfigError::Syntax {
                place: Place::Default,
                problem,
            },
            Self::Missing(field) => ConfigError::MissingKey {
                place: Place::Default,
                key: field.to_owned(),
                section: String::new(),
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(problem) => f.write_str(problem),
            Self::Missing(field) => write!(f, "the required key `{field}` is missing"),
            Self::Placed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Value(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::Value(format!("found {found}, expected {expected}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::Value(format!("found {found}, expected {expected}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let remedy = suggest(variant, expected);
        Self::Value(format!("unknown value \"{variant}\"; {remedy}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    key: &'a str,
}

impl<'a> Reader<'a> {
    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Boolean(value) => visitor.visit_bool(*value),
            // The sign decides, so that unsigned fields name what they found as it was written.
            Value::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) | Value::Untyped(text) => visitor.visit_str(text),
            Value::Array(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
                key: self.key,
            }),
            Value::Table(table) => visitor.visit_map(Entries {
                entries: table.iter(),
                pending: None,
                key: self.key,
            }),
        }
    }

    /// Reads a text of the environment as the TOML value its field asks for.
    fn visit_typed<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Value::Untyped(text) = &self.node.value
            && let Some(value) = parse_value(&self.node.place, text)
        {
            let node = Node::new(self.node.place.clone(), value);
            return Reader {
                node: &node,
                key: self.key,
            }
            .visit(visitor);
        }
        self.visit(visitor)
    }

    fn refuse_unknown(self, known: &'static [&'static str]) -> Result<(), Fault> {
        let Value::Table(table) = &self.node.value else {
            return Ok(());
        };
        match table.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, node)) => Err(Fault::Placed(Box::new(ConfigError::unknown_key(
                node.place.clone(),
                self.key,
                key,
                known,
            )))),
            None => Ok(()),
        }
    }
}

macro_rules! typed {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.visit_typed(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit(visitor)
    }

    typed! {
        deserialize_bool deserialize_seq deserialize_map
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if let Value::Untyped(text) = &self.node.value
            && let Some(value @ Value::Table(_)) = parse_value(&self.node.place, text)
        {
            let node = Node::new(self.node.place.clone(), value);
            let typed = Reader {
                node: &node,
                key: self.key,
            };
            typed.refuse_unknown(fields)?;
            return typed.visit(visitor);
        }
        self.refuse_unknown(fields)?;
        self.visit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) | Value::Untyped(text) => {
                let variant: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(variant)
            }
            Value::Table(table) => visitor.visit_enum(MapAccessDeserializer::new(Entries {
                entries: table.iter(),
                pending: None,
                key: self.key,
            })),
            _ => self.visit(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        str string char bytes byte_buf unit unit_struct identifier
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.visit_typed(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.visit_typed(visitor)
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    key: &'a str,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let key = format!("{}[{index}]", self.key);
        seed.deserialize(Reader { node, key: &key })
            .map(Some)
            .map_err(|fault| fault.at(node, &key))
    }
}

struct Entries<'a> {
    entries: btree_map::Iter<'a, String, Node>,
    pending: Option<(&'a String, &'a Node)>,
    key: &'a str,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.pending = self.entries.next();
        let Some((key, node)) = self.pending else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(name)
            .map(Some)
            .map_err(|fault| fault.at(node, &format!("{}.{key}", self.key)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, node)) = self.pending.take() else {
            return Err(de::Error::custom("a value without its key"));
        };
        let key = format!("{}.{key}", self.key);
        seed.deserialize(Reader { node, key: &key })
            .map_err(|fault| fault.at(node, &key))
    }
}

/// Serialises and reads any type by its text: `#[serde(with = "postroad_daemon::text")]`.
pub mod text {
    use super::*;

    /// Writes the `Display` form.
    pub fn serialize<T: fmt::Display, S: serde::Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Reads by `FromStr`.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: std::str::FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}
