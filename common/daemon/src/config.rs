//! The configuration file, its fragments and the environment, as one tree of values that know where
//! they were written.

mod deserialize;
mod effective;
mod error;
mod node;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use deserialize::text;
pub use effective::{EffectiveValue, effective};
pub use error::{ConfigError, Place};

use crate::common::CommonConfig;
use node::{Node, Value};

/// Where the configuration is looked for when `--config` names no other file.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/postroad/postroad.toml";

/// The top-level sections a file may hold. Each binary reads `[common]` and its own.
pub const SECTIONS: [&str; 7] = [
    "common", "queued", "msa", "mta", "mda", "postroad", "sendmail",
];

/// Environment variables with this prefix override keys: `POSTROAD__MSA__SIZE_LIMIT=30MiB` is
/// `size_limit` in `[msa]`. Every `__` is a step inwards, names are lowered. A value is read as the
/// type of its key; lists and tables are written as in TOML (`["a", "b"]`).
pub const ENVIRONMENT_PREFIX: &str = "POSTROAD__";

/// The merged configuration: file, then `conf.d/*.toml` beside it in the order of their names, then
/// the environment. Later values win key by key; tables are merged, arrays replaced.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    main: PathBuf,
    root: Node,
}

impl ConfigFile {
    /// Reads the file at `path`, its `conf.d` and the environment of this process.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut files = vec![read(path)?];
        for fragment in fragments(path)? {
            files.push(read(&fragment)?);
        }
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self::assemble(files, environment)
    }

    /// Merges texts that were read already: `(name, text)` of each file, the main one first, then
    /// the variables of an environment (those without the prefix are ignored).
    pub fn assemble(
        files: impl IntoIterator<Item = (PathBuf, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut main = None;
        let mut root = Node::new(Place::Default, Value::Table(BTreeMap::new()));
        for (name, text) in files {
            root.merge(node::parse(&name, &text)?);
            main.get_or_insert(name);
        }
        let mut variables: Vec<_> = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
            .collect();
        variables.sort();
        for (name, value) in variables {
            root.merge(node::from_environment(&name, &value)?);
        }
        let config = Self {
            main: main.unwrap_or_default(),
            root,
        };
        config.refuse_foreign_sections()?;
        Ok(config)
    }

    /// The main file.
    pub fn path(&self) -> &Path {
        &self.main
    }

    /// Reads one section. A missing section is an empty one. Unknown keys are refused at any depth
    /// as far as `T` is made of structs; `#[serde(flatten)]` and untagged enums hide them.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, ConfigError> {
        let empty = Node::new(
            Place::File {
                file: self.main.as_path().into(),
                line: None,
            },
            Value::Table(BTreeMap::new()),
        );
        deserialize::from_node(self.root.find(name).unwrap_or(&empty), name)
    }

    /// Reads `[common]` and fills in the name of this host if it is not configured.
    pub fn common(&self) -> Result<CommonConfig, ConfigError> {
        let mut common: CommonConfig = self.section("common")?;
        if let Some(tls) = &mut common.tls {
            tls.warning = Some(common.certificate_warning);
        }
        if self.is_set("common.hostname") {
            return Ok(common);
        }
        let hostname = crate::common::system_hostname().map_err(|name| {
            self.error(
                "common.hostname",
                format!("this host calls itself {name:?}, which is not a fully qualified name"),
                "write `hostname = \"mail.example.org\"` in section [common]",
            )
        })?;
        Ok(CommonConfig { hostname, ..common })
    }

    /// True if the dotted key was written somewhere.
    pub fn is_set(&self, key: &str) -> bool {
        self.root.find(key).is_some()
    }

    /// Where the value of a dotted key comes from; elements of arrays are `listeners[0].address`.
    pub fn place(&self, key: &str) -> Place {
        self.root.place(key)
    }

    /// An error an agent found in the meaning of a key: says where the key was written, or the
    /// nearest table around it.
    pub fn error(
        &self,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        let mut around = key;
        let place = loop {
            match (self.root.find(around), around.rfind(['.', '['])) {
                (Some(node), _) => break node.place.clone(),
                (None, Some(end)) => around = &around[..end],
                (None, None) => {
                    break Place::File {
                        file: self.main.as_path().into(),
                        line: None,
                    };
                }
            }
        };
        ConfigError::Meaning {
            place,
            key: key.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// The effective values of a section that was read, each with its origin.
    pub fn effective<T: Serialize>(&self, section: &str, value: &T) -> Vec<EffectiveValue> {
        effective(self, section, value)
    }

    fn refuse_foreign_sections(&self) -> Result<(), ConfigError> {
        let Value::Table(sections) = &self.root.value else {
            return Ok(());
        };
        for (name, node) in sections {
            if !SECTIONS.contains(&name.as_str()) {
                return Err(ConfigError::unknown_key(
                    node.place.clone(),
                    "",
                    name,
                    &SECTIONS,
                ));
            }
            if !matches!(node.value, Value::Table(_)) {
                return Err(ConfigError::Value {
                    place: node.place.clone(),
                    key: name.clone(),
                    problem: format!("is a section; write `[{name}]` and its keys below"),
                });
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<(PathBuf, String), ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((path.to_owned(), text)),
        Err(source) => Err(ConfigError::unreadable(path, source)),
    }
}

fn fragments(main: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = main.with_file_name("conf.d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::unreadable(&folder, source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|source| ConfigError::unreadable(&folder, source))?
            .path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
