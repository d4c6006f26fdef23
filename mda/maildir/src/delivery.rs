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

/// The whole mail is in tmp/, and nothing of it is durable.
#[derive(Debug)]
struct Ended {
    delivery: Delivery,
    /// Folders whose names must be durable with it.
    folders: Vec<PathBuf>,
    /// That all of it is on, if it is one.
    device: Option<u64>,
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
        self.begin_in_turn(target, self.inner.turn(id), received_sec)
    }

    /// The same; none while a delivery of this id is under way, of another thread or of this one.
    pub fn try_begin(
        &self,
        target: &Target,
        id: DeliveryId,
        received_sec: u64,
    ) -> Result<Option<Begin>, MaildirError> {
        let turn = self.inner.try_turn(id);
        let begun = turn.map(|turn| self.begin_in_turn(target, turn, received_sec));
        begun.transpose()
    }

    fn begin_in_turn(
        &self,
        target: &Target,
        turn: Turn,
        received_sec: u64,
    ) -> Result<Begin, MaildirError> {
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

    /// Files several mails, each as [`Delivery::commit`] does, in their order: what they wait for they wait for together.
    pub fn commit_all(&self, deliveries: Vec<Delivery>) -> Vec<Result<Delivered, MaildirError>> {
        let written = self.finish(deliveries);
        let recorded = self.record(written).into_iter();
        recorded
            .map(|recorded| recorded.and_then(Recorded::publish))
            .collect()
    }

    /// tmp/ holds each whole mail, durably and under its name: an entry must never name a
    /// file that a power cut can take away, for that would read as delivered.
    fn finish(&self, deliveries: Vec<Delivery>) -> Vec<Result<Written, MaildirError>> {
        let ended = deliveries.into_iter().map(Delivery::end).collect();
        let synced = self.inner.syncs.sync(ended, Ended::wish).into_iter();
        synced.map(|ended| Ok(ended?.written())).collect()
    }

    /// The one instant of commit.
    fn record(
        &self,
        mut written: Vec<Result<Written, MaildirError>>,
    ) -> Vec<Result<Recorded, MaildirError>> {
        let mut entries = Vec::new();
        for Written { entry, tmp, .. } in written.iter_mut().flatten() {
            entries.push(entry.clone());
            tmp.removable = false;
        }
        let ledger = &self.inner.ledger;
        let fate = ledger.record(entries);
        let each = written.into_iter();
        each.map(|written| written?.recorded(ledger.told(fate)))
            .collect()
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
        let store = self.store.clone();
        let mut filed = store.commit_all(vec![self]);
        // As many come back as go.
        filed.remove(0)
    }

    /// The file has all of it.
    fn end(mut self) -> Result<Ended, MaildirError> {
        if let Some(lines) = &mut self.lines {
            lines.finish(&mut self.buffer);
        }
        self.flush()?;
        let meta = self.file.metadata();
        let meta = meta.map_err(at("look at", &self.tmp.path))?;
        let mailbox = self.store.inner.root.join(&self.mailbox.name);
        let mut folders = vec![mailbox.join("tmp")];
        folders.extend_from_slice(&self.mailbox.unsynced);
        Ok(Ended {
            folders,
            device: self.mailbox.is_on_one_device.then_some(meta.dev()),
            delivery: self,
        })
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

impl Ended {
    /// The file, its name, and the folders it is in.
    fn wish(&self) -> Wish<'_> {
        Wish {
            file: &self.delivery.file,
            path: &self.delivery.tmp.path,
            folders: &self.folders,
            device: self.device,
        }
    }

    /// What was wished has been done.
    fn written(self) -> Written {
        let Delivery {
            store,
            turn,
            mailbox,
            received_sec,
            tmp,
            size,
            ..
        } = self.delivery;
        if !mailbox.unsynced.is_empty() {
            store.inner.learn(&mailbox.name);
        }
        let entry = Entry {
            id: turn.id.clone(),
            mailbox: mailbox.name,
            tmp_name: tmp.name.clone(),
            final_name: final_name(received_sec, &turn.id, &store.inner.host, size),
        };
        Written {
            store,
            turn,
            entry,
            tmp,
        }
    }
}

impl Written {
    fn recorded(self, told: Result<(), Unrecorded>) -> Result<Recorded, MaildirError> {
        let Self {
            store,
            turn,
            entry,
            mut tmp,
        } = self;
        match told {
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
        self.store.inner.show(&self.entry)?;
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
