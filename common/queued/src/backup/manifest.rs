//! The list of what a backup holds, as text.
//!
//! ```text
//! postroad-backup 1
//! made-at 2026-11-26T12:00:00.000Z
//! last-record 4711
//! mails 3
//! problem content/… is not what its mail says
//! file 19 1a2b3c4d FORMAT
//! end 1 8c9d0e1f
//! ```
//!
//! The last line names the number of files and the CRC32C of all lines before.

use std::{
    collections::HashSet,
    fmt::Write as _,
    path::{Component, Path},
};

use postroad_envelope::Timestamp;
use postroad_journal::Lsn;

/// Its name in a backup.
pub const MANIFEST: &str = "MANIFEST";
const FIRST_LINE: &str = "postroad-backup 1";
/// What may be in a backup, beside `FORMAT`.
const FOLDERS: [&str; 4] = ["segments", "content", "timeline", "retired"];

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// When it was begun.
    pub made_at: Timestamp,
    /// The last record of the journal that is in it.
    pub last_record: Lsn,
    /// Mails that lived then.
    pub mails: u64,
    /// What was wrong with the queue's files already when they were read.
    pub problems: Vec<String>,
    /// Every file but the manifest.
    pub files: Vec<ListedFile>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Below the folder of the backup; see [`is_sound`].
    pub path: String,
    /// Octets.
    pub len: u64,
    /// CRC32C of all of them.
    pub crc: u32,
}

/// A manifest that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadManifest(String);

impl Manifest {
    /// Octets of all files.
    pub fn octets(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    /// As it is stored.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nmade-at {}\nlast-record {}\nmails {}\n",
            self.made_at, self.last_record.0, self.mails
        );
        for problem in &self.problems {
            let problem = problem.replace(['\n', '\r'], " ");
            let _ = writeln!(text, "problem {problem}");
        }
        for ListedFile { path, len, crc } in &self.files {
            let _ = writeln!(text, "file {len} {crc:08x} {path}");
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "end {} {crc:08x}", self.files.len());
        text
    }

    /// Reads what [`Manifest::to_text`] made.
    pub fn parse(text: &str) -> Result<Self, BadManifest> {
        let bad = |why: &str| BadManifest(why.to_owned());
        let body = text.strip_suffix('\n');
        let cut = body.and_then(|body| body.rfind('\n')).map(|at| at + 1);
        let (lines, end) = cut
            .and_then(|cut| text.split_at_checked(cut))
            .ok_or_else(|| bad("it is empty"))?;
        if lines.lines().next() != Some(FIRST_LINE) {
            let first = text.lines().next().unwrap_or_default();
            return Err(BadManifest(format!(
                "it begins with {first:?}, not {FIRST_LINE:?}: made by another release, or no manifest"
            )));
        }
        let mut end = end.trim_end().strip_prefix("end ").unwrap_or("").split(' ');
        let count = end.next().and_then(|count| count.parse::<usize>().ok());
        let crc = end
            .next()
            .and_then(|crc| u32::from_str_radix(crc, 16).ok())
            .ok_or_else(|| bad("its last line is missing: it was cut off"))?;
        if crc != crc32c::crc32c(lines.as_bytes()) {
            return Err(bad("its checksum is another: it was changed or is damaged"));
        }
        let manifest = Self::parse_lines(lines)?;
        if count != Some(manifest.files.len()) {
            return Err(bad("it does not list as many files as it says"));
        }
        Ok(manifest)
    }

    fn parse_lines(lines: &str) -> Result<Self, BadManifest> {
        let mut manifest = Self {
            made_at: Timestamp::from_millis(0),
            last_record: Lsn(0),
            mails: 0,
            problems: Vec::new(),
            files: Vec::new(),
        };
        let mut seen = HashSet::new();
        for line in lines.lines().skip(1) {
            let bad = || BadManifest(format!("this line makes no sense: {line:?}"));
            let (word, rest) = line.split_once(' ').ok_or_else(bad)?;
            let number = || rest.parse::<u64>().map_err(|_| bad());
            match word {
                "made-at" => manifest.made_at = rest.parse().map_err(|_| bad())?,
                "last-record" => manifest.last_record = Lsn(number()?),
                "mails" => manifest.mails = number()?,
                "problem" => manifest.problems.push(rest.to_owned()),
                "file" => {
                    let file = parse_file(rest).ok_or_else(bad)?;
                    if !seen.insert(file.path.clone()) {
                        return Err(bad());
                    }
                    manifest.files.push(file);
                }
                // What a later release adds to this format can be passed over.
                _ => {}
            }
        }
        Ok(manifest)
    }
}

fn parse_file(rest: &str) -> Option<ListedFile> {
    let mut parts = rest.splitn(3, ' ');
    let len = parts.next()?.parse().ok()?;
    let crc = u32::from_str_radix(parts.next()?, 16).ok()?;
    let path = parts.next().filter(|path| is_sound(path))?.to_owned();
    Some(ListedFile { path, len, crc })
}

/// Whether a path may stand in a backup: below it, and one of the folders of a queue.
pub fn is_sound(path: &str) -> bool {
    if path == "FORMAT" {
        return true;
    }
    let mut parts = Path::new(path).components();
    let first = parts.next();
    let known = matches!(first, Some(Component::Normal(name)) if FOLDERS.iter().any(|known| name == *known));
    let rest: Vec<_> = parts.collect();
    let deep = (1..=4).contains(&rest.len());
    let normal = rest.iter().all(|part| matches!(part, Component::Normal(_)));
    known && deep && normal && !path.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let file = |path: &str, len, crc| ListedFile {
            path: path.to_owned(),
            len,
            crc,
        };
        Manifest {
            made_at: Timestamp::from_millis(1_700_000_000_000),
            last_record: Lsn(77),
            mails: 2,
            problems: vec!["one\nthing".to_owned()],
            files: vec![
                file("FORMAT", 19, 7),
                file("segments/0000000001.seg", 4096, u32::MAX),
            ],
        }
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let parsed = Manifest::parse(&sample().to_text()).unwrap();
        let wanted = Manifest {
            problems: vec!["one thing".to_owned()],
            ..sample()
        };
        assert_eq!(parsed, wanted);
        assert_eq!(parsed.octets(), 4115);
    }

    #[test]
    fn no_octet_of_it_can_be_lost_or_changed() {
        let text = sample().to_text();
        for end in 0..text.len() {
            let cut = Manifest::parse(&text[..end]);
            // Only the last line end may be missing.
            assert!(cut.is_err(), "cut at {end}");
        }
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_ne!(Manifest::parse(&changed), Ok(sample()), "changed at {at}");
        }
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "segments/../../x",
            "segments",
            "index/db",
            "LOCK",
            "content/a\nb",
            "content/1/2/3/4/5",
        ] {
            assert!(!is_sound(path), "{path:?}");
        }
        for path in [
            "FORMAT",
            "segments/0000000001.seg",
            "timeline/segments/1.seg",
        ] {
            assert!(is_sound(path), "{path:?}");
        }
    }
}
