//! Where a file that a configuration names is looked for: in the copied folder first.

use std::path::{Path, PathBuf};

/// Where Postfix has its configuration.
const CONFIG: &str = "/etc/postfix";

/// A folder with main.cf, and the file system around it if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The folder with main.cf.
    pub folder: PathBuf,
    /// What `/` was to that Postfix: known where the folder ends with `etc/postfix`.
    pub root: Option<PathBuf>,
}

impl Layout {
    /// Of the folder with main.cf.
    pub fn of(folder: &Path) -> Self {
        let root = folder
            .ends_with("etc/postfix")
            .then(|| folder.parent()?.parent());
        Self {
            folder: folder.to_owned(),
            root: root
                .flatten()
                .map(|root| match root.as_os_str().is_empty() {
                    true => PathBuf::from("."),
                    false => root.to_owned(),
                }),
        }
    }

    /// The places of a file, in the order in which they are looked at.
    pub fn places(&self, named: &str, config: &str) -> Vec<PathBuf> {
        let named = Path::new(named);
        let mut places = Vec::new();
        let mut add = |place: PathBuf| {
            if !places.contains(&place) {
                places.push(place);
            }
        };
        for config in [config, CONFIG] {
            if let Ok(inside) = named.strip_prefix(config) {
                add(self.folder.join(inside));
            }
        }
        let relative = named.strip_prefix("/").unwrap_or(named);
        add(self.folder.join(relative));
        if let (Some(root), true) = (&self.root, named.is_absolute()) {
            add(root.join(relative));
        }
        if let Some(name) = named.file_name() {
            add(self.folder.join(name));
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &str, named: &str) -> Vec<String> {
        let places = Layout::of(Path::new(folder)).places(named, "/etc/postfix");
        places
            .iter()
            .map(|place| place.display().to_string())
            .collect()
    }

    #[test]
    fn a_copy_comes_first() {
        assert_eq!(
            places("/copy", "/etc/postfix/maps/virtual"),
            [
                "/copy/maps/virtual",
                "/copy/etc/postfix/maps/virtual",
                "/copy/virtual"
            ]
        );
        assert_eq!(
            places("/copy", "/etc/aliases"),
            ["/copy/etc/aliases", "/copy/aliases"]
        );
        assert_eq!(
            places("/mnt/etc/postfix", "/etc/aliases"),
            [
                "/mnt/etc/postfix/etc/aliases",
                "/mnt/etc/aliases",
                "/mnt/etc/postfix/aliases"
            ]
        );
        assert_eq!(places("/etc/postfix", "/etc/aliases")[1], "/etc/aliases");
    }
}
