//! What is in force, and why: the table `postroad check --print` shows.

use serde::Serialize;
use serde_json::Value as Json;

use super::{ConfigFile, Place};

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveValue {
    /// Dotted key, from the section inwards.
    pub key: String,
    /// The value as one would write it; secrets show as `(set)`, absent values as `(unset)`.
    pub value: String,
    /// Where it was written.
    pub place: Place,
}

/// Flattens a section as it was read, and looks up where each value was written.
pub fn effective<T: Serialize>(
    config: &ConfigFile,
    section: &str,
    value: &T,
) -> Vec<EffectiveValue> {
    let mut rows = Vec::new();
    // Only a map with keys that are no text cannot be shown; such a section has no rows.
    if let Ok(json) = serde_json::to_value(value) {
        flatten(config, section.to_owned(), &json, &mut rows);
    }
    rows
}

fn flatten(config: &ConfigFile, key: String, value: &Json, rows: &mut Vec<EffectiveValue>) {
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            for (field, value) in fields {
                flatten(config, format!("{key}.{field}"), value, rows);
            }
        }
        Json::Array(items) if items.iter().any(Json::is_object) => {
            for (index, item) in items.iter().enumerate() {
                flatten(config, format!("{key}[{index}]"), item, rows);
            }
        }
        value => rows.push(EffectiveValue {
            value: match value {
                Json::Null => "(unset)".to_owned(),
                Json::String(secret) if secret == crate::secret::SHOWN => secret.clone(),
                value => value.to_string(),
            },
            place: config.place(&key),
            key,
        }),
    }
}
