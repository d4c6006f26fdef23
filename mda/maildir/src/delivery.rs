//! One delivery, step by step. A crash after any of them leaves a state that [`Store::begin`] or
//! [`Store::open`] brings to the one right end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::error::at;
use crate::ledger::{Entry, Unrecorded};
use crate::lines::Lines;
use crate::mailbox::Mailbox;
use crate::path::{Target, final_name, tmp_name};
use crate::store::{Store, Turn};
use crate::syncs::Wish;
use crate::{DeliveryId, MaildirError};

/// What is gathered before it goes to the file.
const BUFFER: usize = 64 * 1024;

/// How a delivery begins.
#[derive(Debug)]
pub enum Begin {
    /// Write the mail, then commit.
    Write(Delivery),
    /// The ledger says that this id is decided: the mail is or was in the mailbox. Settle as delivered.
    Already(Delivered),
}

/// Where a mail was filed. By now a reader may have moved or removed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The mailbox or Maildir++ folder (the one with tmp, new and cur).
    pub mailbox: PathBuf,
    /// The name in new/.
    pub file_name: String,
}

/// A mail on its way into tmp/. Dropped without [`commit`](Delivery::commit), it leaves no trace.
#[derive(Debug)]
pub struct Delivery {
    store: Store,
    turn: Turn,
    mailbox: Mailbox,
    received_sec: u64,
    file: File,
    tmp: TmpFile,
    /// None: line ends stay as they come.
    lines: Option<Lines>,
    buffer: Vec<u8>,
    size: u64,
}

/// The mail is durable in tmp/, and nobody has decided anything.
#[derive(Debug)]
struct Written {
    store: Store,
    turn: Turn,
    entry: Entry,
    tmp: TmpFile,
}

/// The ledger names it: from here on it is delivered, come what may.
#[derive(Debug)]
struct Recorded {
    store: Store,
    /// Held until the end, so that nobody else finishes it meanwhile.
    _turn: Turn,
    entry: Entry,
}

/// A tmp file that goes when it is dropped, unless the ledger (perhaps) names it.
#[derive(Debug)]
struct TmpFile {
    path: PathBuf,
    name: String,
    removable: bool,
}

impl Store {
    /// Starts a delivery of one recipient's copy of one mail, received at `received_sec` (Unix time).
    /// Blocks while another thread delivers the same id.
    pub fn begin(
        &self,
        target: &Target,
        id: DeliveryId,
        received_sec: u64,
    ) -> Result<Begin, MaildirError> {
        let turn = self.inner.turn(id);
        if let Some(entry) = self.inner.ledger.find(&turn.id) {
            self.inner.finish(&entry)?;
            return Ok(Begin::Already(self.delivered(entry)));
        }
        let mut mailbox = self.inner.ensure(target)?;
        let (file, tmp) = match self.create_tmp(&mailbox.name, &turn.id, received_sec) {
            Err(error) if error.is_missing() => {
                self.inner.unlearn(&mailbox.name);
                mailbox = self.inner.ensure(target)?;
                self.create_tmp(&mailbox.name, &turn.id, received_sec)?
            }
            other => other?,
        };
        Ok(Begin::Write(Delivery {
            store: self.clone(),
            turn,
            mailbox,
            received_sec,
            file,
            tmp,
            lines: Some(Lines::default()),
            buffer: Vec::new(),
            size: 0,
        }))
    }

    /// What became of an id that was decided before, brought to its end; none: nothing was decided. For a recipient
    /// whose mailbox can no longer be told.
    pub fn decided(&self, id: DeliveryId) -> Result<Option<Delivered>, MaildirError> {
        let turn = self.inner.turn(id);
        let Some(entry) = self.inner.ledger.find_for_sure(&turn.id)? else {
            return Ok(None);
        };
        self.inner.finish(&entry)?;
        Ok(Some(self.delivered(entry)))
    }

    fn create_tmp(
        &self,
        mailbox: &str,
        id: &DeliveryId,
        received_sec: u64,
    ) -> Result<(File, TmpFile), MaildirError> {
        let folder = self.inner.root.join(mailbox).join("tmp");
        loop {
            let attempt = self.inner.next_attempt();
            let name = tmp_name(received_sec, id, &self.inner.host, attempt);
            let path = folder.join(&name);
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
            {
                Ok(file) => {
                    return Ok((
                        file,
                        TmpFile {
                            path,
                            name,
                            removable: true,
                        },
                    ));
                }
                // A dead process of our number left it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(at("create", &path)(error)),
            }
        }
    }

    fn delivered(&self, entry: Entry) -> Delivered {
        let mailbox = self.inner.root.join(entry.mailbox);
        Delivered {
            mailbox,
            file_name: entry.final_name,
        }
    }
}

impl Delivery {
    /// From here on the file has the octets as they come, CRLF too: content that is not made of lines (BODY=BINARYMIME, RFC 3030 §3)
    /// would be another with its line ends changed. Readers of a Maildir take lines that end with CRLF for what they are.
    pub fn keep_octets(&mut self) {
        self.lines = None;
    }

    /// Takes the next piece, of any size, with the line ends of SMTP.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), MaildirError> {
        match &mut self.lines {
            Some(lines) => lines.convert(piece, &mut self.buffer),
            None => self.buffer.extend_from_slice(piece),
        }
        if self.buffer.len() >= BUFFER {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Files the mail. On an error either nothing happened, or the ledger names the mail and
    /// the next attempt with this id finishes it.
    pub fn commit(self) -> Result<Delivered, MaildirError> {
        self.finish()?.record()?.publish()
    }

    /// tmp/ holds the whole mail, durably and under its name: an entry must never name a
    /// file that a power cut can take away, for that would read as delivered.
    fn finish(mut self) -> Result<Written, MaildirError> {
        if let Some(lines) = &mut self.lines {
            lines.finish(&mut self.buffer);
        }
        self.flush()?;
        self.sync()?;
        let Self {
            store,
            turn,
            mailbox,
            received_sec,
            tmp,
            size,
            ..
        } = self;
        let final_name = final_name(received_sec, &turn.id, &store.inner.host, size);
        let tmp_name = tmp.name.clone();
        let entry = Entry {
            id: turn.id.clone(),
            mailbox: mailbox.name,
            tmp_name,
            final_name,
        };
        Ok(Written {
            store,
            turn,
            entry,
            tmp,
        })
    }

    /// The file, its name, and the folders it is in.
    fn sync(&self) -> Result<(), MaildirError> {
        let (inner, mailbox) = (&self.store.inner, &self.mailbox);
        let path = &self.tmp.path;
        let meta = self.file.metadata().map_err(at("look at", path))?;
        let mut folders = vec![inner.root.join(&mailbox.name).join("tmp")];
        folders.extend_from_slice(&mailbox.unsynced);
        inner.syncs.sync(&Wish {
            file: &self.file,
            path,
            folders,
            device: mailbox.is_on_one_device.then_some(meta.dev()),
        })?;
        if !mailbox.unsynced.is_empty() {
            inner.learn(&mailbox.name);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MaildirError> {
        self.file
            .write_all(&self.buffer)
            .map_err(at("write", &self.tmp.path))?;
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Written {
    /// The one instant of commit.
    fn record(self) -> Result<Recorded, MaildirError> {
        let Self {
            store,
            turn,
            entry,
            mut tmp,
        } = self;
        tmp.removable = false;
        match store.inner.ledger.record(entry.clone()) {
            Ok(()) => Ok(Recorded {
                store,
                _turn: turn,
                entry,
            }),
            Err(Unrecorded::Unknown(error)) => Err(error),
            Err(Unrecorded::Refused(error)) => {
                tmp.removable = true;
                Err(error)
            }
        }
    }
}

impl Recorded {
    /// Visible to readers.
    fn publish(self) -> Result<Delivered, MaildirError> {
        self.store.inner.finish(&self.entry)?;
        Ok(self.store.delivered(self.entry))
    }
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        if self.removable {
            // What stays for any reason is swept after 36 hours.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
