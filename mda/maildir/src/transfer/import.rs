//! A mailbox from a stream.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::log::{Known, Log};
use super::names::{Listing, base, delivery, folder_path, instead};
use super::receipt::{self, same_account};
use super::stream::{KEYWORDS, Mail, Part, Reader, SUBSCRIPTIONS};
use super::{Progress, TransferError, lock, measure};
use crate::MaildirError;
use crate::disk::{if_there, make_folder, make_folders, sync_folder};
use crate::error::at;
use crate::mailbox::{make_leaves, mark_folder};

/// Mails, and octets of them, that are made visible and durable together.
const GROUP: usize = 64;
const GROUP_OCTETS: u64 = 8 << 20;
/// Names in tmp of mails that are on their way in.
const TMP: &str = "postroad-import.";

/// What came out of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Mails that are here now and were not before.
    pub mails: u64,
    /// Octets of these.
    pub octets: u64,
    /// Mails that were here, or came with an earlier import, whatever readers did with them since.
    pub known: u64,
    /// What could not be taken over beside the mails.
    pub left_out: Vec<String>,
}

/// Takes a stream into a mailbox (`…/Maildir`), which is made when missing, and writes a receipt of what is durable there.
///
/// A mail becomes visible only when it is whole and durable. An error leaves those before it, and a receipt without an end.
pub fn import(
    maildir: &Path,
    account: &str,
    from: impl BufRead,
    receipt: impl Write,
    progress: Progress<'_>,
) -> Result<Imported, TransferError> {
    let mut reader = Reader::begin(from)?;
    if !same_account(&reader.account, account) {
        return Err(TransferError::OtherAccount {
            theirs: reader.account,
            ours: account.to_owned(),
        });
    }
    make_folders(maildir)?;
    let _turn = lock(maildir)?;
    make_leaves(maildir)?;
    sync_folder(maildir)?;
    let mut import = Import::new(maildir, receipt::Writer::begin(receipt, account)?)?;
    let mut mails = 0;
    loop {
        match reader.next()? {
            Part::Folder(folder) => import.make(&folder)?,
            Part::File {
                folder,
                name,
                content,
            } => import.file(&folder, name, &content)?,
            Part::Mail(mail) => {
                import.mail(mail, &mut reader)?;
                mails += 1;
                progress(mails);
            }
            Part::End(count) if count == mails => break,
            Part::End(_) => return Err(TransferError::damaged("mails are missing in the stream")),
        }
    }
    import.commit()?;
    import.receipt.end()?;
    Ok(import.imported)
}

struct Import<'a, W> {
    maildir: &'a Path,
    log: Log,
    here: Here,
    receipt: receipt::Writer<W>,
    group: Vec<Coming>,
    octets: u64,
    /// Mails that were found here, to be made durable with the group.
    found: Vec<(Known, Option<PathBuf>)>,
    folders: HashSet<String>,
    imported: Imported,
    number: u64,
}

/// A mail that lies whole in tmp.
struct Coming {
    tmp: PathBuf,
    mail: Mail,
    known: Known,
}

/// What the mailbox had when the import began.
struct Here {
    /// By names without flags.
    files: HashMap<String, Vec<(String, PathBuf)>>,
    /// Mails that the agent of this store has filed, by queue id and recipient; without those that were imported.
    filed: HashMap<String, PathBuf>,
}

impl Here {
    fn look(maildir: &Path, log: &Log) -> Result<Self, TransferError> {
        let (mut files, mut filed) = (HashMap::<_, Vec<_>>::new(), HashMap::new());
        for mail in Listing::of(maildir)?.mails {
            let path = mail.path(maildir);
            if let Some(delivery) = delivery(mail.base()).filter(|_| !log.all.has_name(mail.base()))
            {
                filed.insert(delivery.to_owned(), path.clone());
            }
            let named = files.entry(mail.base().to_owned()).or_default();
            named.push((mail.folder.clone(), path));
        }
        Ok(Self { files, filed })
    }
}

/// What is to be done with a mail of the stream.
enum Fate {
    /// An earlier import brought it.
    Logged,
    /// It is here, at this place.
    Here(PathBuf),
    Comes,
}

impl<'a, W: Write> Import<'a, W> {
    fn new(maildir: &'a Path, receipt: receipt::Writer<W>) -> Result<Self, TransferError> {
        let log = Log::open(maildir)?;
        sync_folder(maildir)?;
        let here = Here::look(maildir, &log)?;
        let import = Self {
            maildir,
            log,
            here,
            receipt,
            group: Vec::new(),
            octets: 0,
            found: Vec::new(),
            folders: HashSet::from([String::new()]),
            imported: Imported::default(),
            number: 0,
        };
        import.sweep()?;
        Ok(import)
    }

    /// Files of an import that was interrupted: nobody else has the mailbox's lock.
    fn sweep(&self) -> Result<(), MaildirError> {
        let tmp = self.maildir.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(at("list", &tmp))? {
            let entry = entry.map_err(at("list", &tmp))?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TMP.as_bytes())
            {
                let path = entry.path();
                if_there(fs::remove_file(&path)).map_err(at("remove", &path))?;
            }
        }
        Ok(())
    }

    fn make(&mut self, folder: &str) -> Result<(), MaildirError> {
        if !self.folders.insert(folder.to_owned()) {
            return Ok(());
        }
        let path = folder_path(self.maildir, folder);
        make_folder(&path)?;
        make_leaves(&path)?;
        mark_folder(&path.join("maildirfolder"))?;
        sync_folder(&path)?;
        sync_folder(self.maildir)
    }

    /// Subscriptions are added; keywords stand for letters in the names of mails, so those that are here already stay.
    fn file(
        &mut self,
        folder: &str,
        name: &'static str,
        content: &[u8],
    ) -> Result<(), TransferError> {
        self.make(folder)?;
        let path = folder_path(self.maildir, folder).join(name);
        let here = if_there(fs::read(&path)).map_err(at("read", &path))?;
        let content = match (here, name) {
            (None, _) => content.to_vec(),
            (Some(here), _) if here == content => return Ok(()),
            (Some(here), SUBSCRIPTIONS) if is_new_form(&here) == is_new_form(content) => {
                joined(&here, content)
            }
            (Some(_), _) => {
                let what = if name == KEYWORDS {
                    "flags with names of their own may be called otherwise"
                } else {
                    "it has another form"
                };
                let left_out = format!("{}: the one that is here stays; {what}", path.display());
                self.imported.left_out.push(left_out);
                return Ok(());
            }
        };
        let (tmp, mut file) = self.create()?;
        let written = file.write_all(&content).and_then(|()| file.sync_all());
        written.map_err(at("write", &tmp))?;
        fs::rename(&tmp, &path).map_err(at("rename to", &path))?;
        Ok(sync_folder(&folder_path(self.maildir, folder))?)
    }

    fn mail<R: BufRead>(
        &mut self,
        mail: Mail,
        reader: &mut Reader<R>,
    ) -> Result<(), TransferError> {
        let known = Known {
            folder: mail.folder.clone(),
            base: base(&mail.name).to_owned(),
            size: mail.size,
            crc: mail.crc,
        };
        // Its twin may be on its way in.
        if self
            .group
            .iter()
            .any(|coming| coming.known.base == known.base)
        {
            self.commit()?;
        }
        let place = match self.fate(&mail, &known)? {
            Fate::Comes => {
                self.take(mail, known, reader)?;
                return match self.group.len() >= GROUP || self.octets >= GROUP_OCTETS {
                    true => self.commit(),
                    false => Ok(()),
                };
            }
            Fate::Logged => None,
            Fate::Here(path) => Some(path),
        };
        reader.content(mail.size, mail.crc, &mut |_| Ok(()))?;
        self.found.push((known, place));
        self.imported.known += 1;
        match self.found.len() >= GROUP {
            true => self.commit(),
            false => Ok(()),
        }
    }

    fn fate(&self, mail: &Mail, known: &Known) -> Result<Fate, TransferError> {
        if self.log.all.has(known, mail.copies) {
            return Ok(Fate::Logged);
        }
        let other = instead(&mail.name, mail.crc);
        for name in [known.base.as_str(), base(&other)] {
            for (folder, path) in self.here.files.get(name).into_iter().flatten() {
                let fits = mail.copies < 2 || *folder == mail.folder;
                if fits && self.is_same(path, mail)? {
                    return Ok(Fate::Here(path.clone()));
                }
            }
        }
        let filed = delivery(&known.base).and_then(|delivery| self.here.filed.get(delivery));
        Ok(filed.map_or(Fate::Comes, |path| Fate::Here(path.clone())))
    }

    /// Gone is another: it comes again.
    fn is_same(&self, path: &Path, mail: &Mail) -> Result<bool, MaildirError> {
        let found = if_there(measure(path)).map_err(at("read", path))?;
        Ok(found == Some((mail.size, mail.crc)))
    }

    /// The content into tmp, durably.
    fn take<R: BufRead>(
        &mut self,
        mail: Mail,
        known: Known,
        reader: &mut Reader<R>,
    ) -> Result<(), TransferError> {
        self.make(&mail.folder)?;
        let (tmp, mut file) = self.create()?;
        let taken = (|| {
            reader.content(mail.size, mail.crc, &mut |piece| {
                Ok(file.write_all(piece).map_err(at("write", &tmp))?)
            })?;
            let modified = UNIX_EPOCH.checked_add(Duration::from_millis(mail.modified));
            let times = FileTimes::new().set_modified(modified.unwrap_or(UNIX_EPOCH));
            let synced = file.set_times(times).and_then(|()| file.sync_all());
            Ok(synced.map_err(at("sync", &tmp))?)
        })();
        if let Err(error) = taken {
            // What stays for any reason goes with the next import.
            let _ = fs::remove_file(&tmp);
            return Err(error);
        }
        self.octets += mail.size;
        self.group.push(Coming { tmp, mail, known });
        Ok(())
    }

    fn create(&mut self) -> Result<(PathBuf, File), MaildirError> {
        self.number += 1;
        let name = format!("{TMP}{}.{}", std::process::id(), self.number);
        let tmp = self.maildir.join("tmp").join(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&tmp);
        let file = file.map_err(at("create", &tmp))?;
        Ok((tmp, file))
    }

    /// Makes the group visible and durable, then writes it down, then tells of it. A crash in between leaves mails that are
    /// here and not written down: the next import finds them by their names.
    fn commit(&mut self) -> Result<(), TransferError> {
        let mut folders = BTreeSet::new();
        let mut mails = Vec::new();
        let mut logged = Vec::new();
        for (known, place) in std::mem::take(&mut self.found) {
            let Some(path) = place else {
                logged.push(known);
                continue;
            };
            // The agent and other imports have synced it; a reader that copied it may not have.
            if let Some(file) = if_there(File::open(&path)).map_err(at("open", &path))? {
                file.sync_all().map_err(at("sync", &path))?;
            }
            folders.extend(path.parent().map(Path::to_owned));
            mails.push(known);
        }
        let group = std::mem::take(&mut self.group);
        for coming in &group {
            let leaf =
                folder_path(self.maildir, &coming.mail.folder).join(coming.mail.leaf.as_str());
            link(coming, &leaf)?;
            fs::remove_file(&coming.tmp).map_err(at("remove", &coming.tmp))?;
            folders.insert(leaf);
            self.imported.mails += 1;
            self.imported.octets += coming.mail.size;
        }
        for folder in &folders {
            sync_folder(folder)?;
        }
        mails.extend(group.into_iter().map(|coming| coming.known));
        if !mails.is_empty() {
            self.log.add(&mails)?;
        }
        mails.extend(logged);
        self.octets = 0;
        match mails.is_empty() {
            true => Ok(()),
            false => self.receipt.mails(&mails),
        }
    }
}

/// A link and not a rename, which would take the place of another mail of this name.
fn link(coming: &Coming, leaf: &Path) -> Result<(), TransferError> {
    let name = &coming.mail.name;
    for name in [name.clone(), instead(name, coming.mail.crc)] {
        let path = leaf.join(name);
        match fs::hard_link(&coming.tmp, &path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let here = if_there(measure(&path)).map_err(at("read", &path))?;
                if here == Some((coming.mail.size, coming.mail.crc)) {
                    return Ok(());
                }
            }
            Err(error) => return Err(at("link to", &path)(error).into()),
        }
    }
    Err(TransferError::damaged(format!(
        "{} has two other mails of the name {}; move one away",
        leaf.display(),
        coming.mail.name
    )))
}

/// Dovecot's second form.
fn is_new_form(subscriptions: &[u8]) -> bool {
    subscriptions.starts_with(b"V\t2")
}

/// The lines of the one, and those of the other that are not among them.
fn joined(here: &[u8], more: &[u8]) -> Vec<u8> {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let lines = text
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        lines.map(<[u8]>::to_vec).collect()
    };
    let mut all = lines(here);
    for line in lines(more) {
        if !all.contains(&line) {
            all.push(line);
        }
    }
    let mut text = all.join(&b'\n');
    text.push(b'\n');
    text
}
