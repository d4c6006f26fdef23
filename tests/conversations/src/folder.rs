//! The files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Fault, Transcript};

/// Where the files are.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files, by name. Anything beside the folders of RFCs and this crate's own is a fault, since nobody would play it.
///
/// # Errors
///
/// All that is wrong.
pub fn all() -> Result<Vec<Transcript>, Vec<Fault>> {
    let (mut all, mut faults) = (Vec::new(), Vec::new());
    let stray = |file: String, problem: &str| Fault {
        file,
        line: 0,
        problem: problem.to_owned(),
    };
    for path in entries(&folder()) {
        let name = file_name(&path);
        if ["Cargo.toml", "src", crate::PEERS].contains(&&*name) || name.ends_with(".md") {
            continue;
        }
        if !path.is_dir() || !(name.starts_with("rfc") || name == "postfix") {
            faults.push(stray(name, "nobody plays what is not in a folder rfcNNNN"));
            continue;
        }
        for file in entries(&path) {
            let name = format!("{name}/{}", file_name(&file));
            if !name.ends_with(".txt") {
                faults.push(stray(name, "nobody plays what is not called .txt"));
                continue;
            }
            let read = fs::read_to_string(&file)
                .map_err(|error| stray(name.clone(), &error.to_string()))
                .and_then(|text| Transcript::parse(&name, &text));
            match read {
                Ok(transcript) => all.push(transcript),
                Err(fault) => faults.push(fault),
            }
        }
    }
    if faults.is_empty() {
        Ok(all)
    } else {
        Err(faults)
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
