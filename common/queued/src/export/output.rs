//! The files of an export: under other names until all of them are whole and on the disk.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use postroad_envelope::Envelope;
use serde::{Deserialize, Serialize};

use super::{
    Exported, Mail,
    form::SCHEMA,
    mbox::{Lines, Quoter},
};
use crate::{clock, store::OfflineError};

pub(super) const MBOX: &str = "queue.mbox";
pub(super) const ENVELOPES: &str = "envelopes.jsonl";
pub(super) const SUMMARY: &str = "export.json";
const BUFFER: usize = 256 << 10;

/// What stands in `export.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) schema: u64,
    pub(super) made_at: String,
    pub(super) mails: u64,
    pub(super) octets: u64,
    /// Length of the mbox.
    pub(super) mbox: u64,
    /// Length of the envelopes.
    pub(super) envelopes: u64,
    pub(super) problems: Vec<String>,
    pub(super) problem_count: u64,
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OfflineError {
    let path = path.to_owned();
    move |source| OfflineError::Io {
        doing,
        path,
        source,
    }
}

/// One file on its way.
struct Draft {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    len: u64,
}

impl Draft {
    fn create(folder: &Path, name: &str) -> Result<Self, OfflineError> {
        let part = folder.join(format!("{name}.part"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&part).map_err(at("create", &part))?;
        Ok(Self {
            path: folder.join(name),
            part,
            file: BufWriter::with_capacity(BUFFER, file),
            len: 0,
        })
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), OfflineError> {
        self.file
            .write_all(octets)
            .map_err(at("write", &self.part))?;
        self.len += u64::try_from(octets.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn cut(&mut self, len: u64) -> Result<(), OfflineError> {
        self.file
            .seek(SeekFrom::Start(len))
            .and_then(|_| self.file.get_ref().set_len(len))
            .map_err(at("write", &self.part))?;
        self.len = len;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), OfflineError> {
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(at("sync", &self.part))
    }

    fn place(&self) -> Result<(), OfflineError> {
        fs::rename(&self.part, &self.path).map_err(at("name", &self.path))
    }
}

pub(super) struct Output {
    folder: PathBuf,
    is_ours: bool,
    mbox: Draft,
    envelopes: Draft,
    /// Where the mail that is being written begins, and its content.
    mail_at: u64,
    content_at: u64,
    quoter: Quoter,
    last: Option<u8>,
    quoted: Vec<u8>,
}

impl Output {
    pub fn create(folder: &Path) -> Result<Self, OfflineError> {
        let is_ours = !folder.exists();
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(at("create", folder))?;
        let mut entries = fs::read_dir(folder).map_err(at("read", folder))?;
        if entries.next().is_some() {
            return Err(OfflineError::NotEmpty(folder.to_owned()));
        }
        Ok(Self {
            folder: folder.to_owned(),
            is_ours,
            mbox: Draft::create(folder, MBOX)?,
            envelopes: Draft::create(folder, ENVELOPES)?,
            mail_at: 0,
            content_at: 0,
            quoter: Quoter::new(Lines::Raw),
            last: None,
            quoted: Vec::new(),
        })
    }

    /// The line before a mail: RFC 4155, appendix A.
    pub fn begin(&mut self, envelope: &Envelope, lines: Lines) -> Result<(), OfflineError> {
        let sender = match envelope.reverse_path.to_string() {
            sender if sender.is_empty() => "MAILER-DAEMON".to_owned(),
            sender => sender
                .chars()
                .map(|c| match c {
                    c if c.is_whitespace() || c.is_control() => '-',
                    c => c,
                })
                .collect(),
        };
        self.mail_at = self.mbox.len;
        let line = format!("From {sender} {}\n", envelope.received_at.to_asctime());
        self.mbox.write(line.as_bytes())?;
        self.content_at = self.mbox.len;
        self.quoter = Quoter::new(lines);
        self.last = None;
        Ok(())
    }

    pub fn content(&mut self, octets: &[u8]) -> Result<(), OfflineError> {
        self.quoted.clear();
        self.quoter.push(octets, &mut self.quoted);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), OfflineError> {
        self.last = self.quoted.last().copied().or(self.last);
        self.mbox.write(&self.quoted)
    }

    /// Tells where the content is, and how long. Behind it comes an empty line, which is not of it.
    pub fn end(&mut self) -> Result<(u64, u64), OfflineError> {
        self.quoted.clear();
        let quoter = std::mem::replace(&mut self.quoter, Quoter::new(Lines::Raw));
        quoter.finish(&mut self.quoted);
        self.flush()?;
        let length = self.mbox.len.saturating_sub(self.content_at);
        let is_whole_line = self.last == Some(b'\n');
        let behind: &[u8] = if is_whole_line { b"\n" } else { b"\n\n" };
        self.mbox.write(behind)?;
        Ok((self.content_at, length))
    }

    /// As if the mail had not been begun.
    pub fn take_back(&mut self) -> Result<(), OfflineError> {
        self.mbox.cut(self.mail_at)
    }

    pub fn line(&mut self, mail: &Mail) -> Result<(), OfflineError> {
        let mut line = json(mail)?;
        line.push(b'\n');
        self.envelopes.write(&line)
    }

    pub fn finish(mut self, exported: &Exported) -> Result<(), OfflineError> {
        let outcome = self.place(exported);
        if outcome.is_err() {
            self.discard();
        }
        outcome
    }

    fn place(&mut self, exported: &Exported) -> Result<(), OfflineError> {
        let summary = Summary {
            schema: SCHEMA,
            made_at: clock::now().to_string(),
            mails: exported.mails,
            octets: exported.octets,
            mbox: self.mbox.len,
            envelopes: self.envelopes.len,
            problems: exported.problems.clone(),
            problem_count: exported.problem_count,
        };
        let mut last = Draft::create(&self.folder, SUMMARY)?;
        last.write(&json(&summary)?)?;
        last.write(b"\n")?;
        for draft in [&mut self.mbox, &mut self.envelopes, &mut last] {
            draft.sync()?;
        }
        self.mbox.place()?;
        self.envelopes.place()?;
        self.sync_folder()?;
        last.place()?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<(), OfflineError> {
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(at("sync folder", &self.folder))
    }

    /// Nothing half-way stays.
    pub fn discard(&self) {
        let last = self.folder.join(SUMMARY);
        let parts = [&self.mbox, &self.envelopes].map(|draft| [&draft.part, &draft.path]);
        let part = self.folder.join(format!("{SUMMARY}.part"));
        for path in parts.into_iter().flatten().chain([&last, &part]) {
            let _ = fs::remove_file(path);
        }
        if self.is_ours {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, OfflineError> {
    // It cannot fail for what we write: no map has keys that are no text.
    serde_json::to_vec(value).map_err(|error| OfflineError::Store(error.to_string()))
}
