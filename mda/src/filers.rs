//! Mails whose content is at hand, filed in groups: what comes while one group waits for the disk is the next.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use postroad_maildir::{Begin, Delivered, Delivery, Store};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::filing::{Copy, Filed, FilingError, Mail, write_whole};

/// Threads that file groups: some write the files of theirs while the others wait for the disk. Of two, both wait at times.
const THREADS: usize = 4;
/// Mails of a group, each of which waits for the last.
const LARGEST: usize = 64;

/// The threads, which are there while there is something to file.
pub struct Filers {
    store: Store,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Task>,
    threads: usize,
}

/// One copy of one mail.
struct Task {
    copy: Copy,
    mail: Mail,
    content: Bytes,
    /// Who does not listen any more has given the lease up, and the next one finds the mail filed.
    told: oneshot::Sender<Filed>,
}

impl Filers {
    /// Of this store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            state: Arc::default(),
        }
    }

    /// Whether groups are of use now.
    pub fn are_of_use(&self) -> bool {
        self.store.is_of_groups()
    }

    /// Not cancelled half-way: the copy is filed also when this is dropped.
    pub async fn file(&self, copy: Copy, mail: Mail, content: Bytes) -> Filed {
        let index = copy.index;
        let (told, filed) = oneshot::channel();
        let task = Task {
            copy,
            mail,
            content,
            told,
        };
        if self.add(task) {
            let (store, state) = (self.store.clone(), Arc::clone(&self.state));
            drop(spawn_blocking(move || file_all(&store, &state)));
        }
        let fault = |_| (index, Err(FilingError::Fault("it ended early".to_owned())));
        filed.await.unwrap_or_else(fault)
    }

    /// Tells whether another thread is to begin.
    fn add(&self, task: Task) -> bool {
        let mut state = lock(&self.state);
        state.waiting.push_back(task);
        let begins = state.threads < THREADS;
        state.threads += usize::from(begins);
        begins
    }
}

/// Until nothing waits.
fn file_all(store: &Store, state: &Mutex<State>) {
    while let Some(group) = next_group(state) {
        // Those of the group learn of a fault of ours by what it drops; the others are not to wait for ever.
        let _ = catch_unwind(AssertUnwindSafe(|| file_group(store, group)));
    }
}

fn next_group(state: &Mutex<State>) -> Option<Vec<Task>> {
    let mut state = lock(state);
    let count = state.waiting.len().min(LARGEST);
    if count == 0 {
        // In one step with the look: whoever comes now begins a thread.
        state.threads -= 1;
        return None;
    }
    Some(state.waiting.drain(..count).collect())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file_group(store: &Store, group: Vec<Task>) {
    let (mut open, mut deliveries, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    for task in group {
        let begun = task.try_begin(store);
        match begun.and_then(|begun| begun.map(|begun| task.write(begun)).transpose()) {
            Ok(Some(Written::Open(delivery))) => {
                open.push(task);
                deliveries.push(delivery);
            }
            Ok(Some(Written::Already(delivered))) => task.tell(Ok(delivered)),
            Ok(None) => busy.push(task),
            Err(error) => task.tell(Err(error)),
        }
    }
    for (task, filed) in open.into_iter().zip(store.commit_all(deliveries)) {
        task.tell(filed.map_err(FilingError::from));
    }
    // Whoever has their turn may be of a group that waits for ours: one at a time, and with nothing held.
    for task in busy {
        let filed = task.file(store);
        task.tell(filed);
    }
}

/// A copy whose content is written.
enum Written {
    Open(Delivery),
    Already(Delivered),
}

impl Task {
    fn try_begin(&self, store: &Store) -> Result<Option<Begin>, FilingError> {
        let (target, id) = (&self.copy.target, self.copy.id.clone());
        Ok(store.try_begin(target, id, self.mail.received_sec)?)
    }

    fn write(&self, begun: Begin) -> Result<Written, FilingError> {
        Ok(match begun {
            Begin::Already(delivered) => Written::Already(delivered),
            Begin::Write(mut delivery) => {
                write_whole(&mut delivery, &self.copy, &self.mail, &self.content)?;
                Written::Open(delivery)
            }
        })
    }

    /// By itself. Waits for its turn.
    fn file(&self, store: &Store) -> Result<Delivered, FilingError> {
        let (target, id) = (&self.copy.target, self.copy.id.clone());
        let begun = store.begin(target, id, self.mail.received_sec)?;
        match self.write(begun)? {
            Written::Already(delivered) => Ok(delivered),
            Written::Open(delivery) => Ok(delivery.commit()?),
        }
    }

    fn tell(self, filed: Result<Delivered, FilingError>) {
        let _ = self.told.send((self.copy.index, filed));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures::future::join_all;
    use postroad_envelope::RecipientIndex;
    use postroad_maildir::{DeliveryId, Target, list};

    use super::*;

    const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

    fn copy(mail: &str, index: u32, to: &str) -> Copy {
        Copy {
            index: RecipientIndex(index),
            id: DeliveryId::new(mail, index).unwrap(),
            target: Target::new("example.org", to, None).unwrap(),
            edits: Vec::new(),
        }
    }

    fn filers(root: &Path) -> Filers {
        Filers::new(Store::open(root, "mx.example.org").unwrap().0)
    }

    async fn file_at_once(filers: &Filers, copies: Vec<Copy>) -> Vec<Filed> {
        let mail = Mail {
            received_sec: 1_800_000_000,
            is_binary: false,
        };
        let content = Bytes::from_static(CONTENT);
        let one = |copy| filers.file(copy, mail, content.clone());
        join_all(copies.into_iter().map(one)).await
    }

    #[tokio::test]
    async fn each_is_told_and_its_mail_is_there_once() {
        let root = tempfile::tempdir().unwrap();
        let filers = filers(root.path());
        let copies: Vec<_> = (0..300)
            .map(|index| copy("q1", index, ["alice", "bob"][index as usize % 2]))
            .collect();
        for filed in [(); 2].map(|()| file_at_once(&filers, copies.clone())) {
            let filed = filed.await;
            let indices: Vec<u32> = filed.iter().map(|(index, _)| index.0).collect();
            assert_eq!(indices, (0..300).collect::<Vec<_>>());
            assert!(filed.iter().all(|(_, filed)| filed.is_ok()), "{filed:?}");
        }
        for to in ["alice", "bob"] {
            let mailbox = root.path().join("example.org").join(to).join("Maildir");
            assert_eq!(list(&mailbox).unwrap().len(), 150);
        }
    }

    #[tokio::test]
    async fn one_id_several_times_at_once_is_filed_once() {
        let root = tempfile::tempdir().unwrap();
        let filers = filers(root.path());
        // In one group, and in two at a time.
        let all = (0..200).map(|number| copy("q1", number % 7, "bob"));
        let filed = file_at_once(&filers, all.collect()).await;
        assert!(filed.iter().all(|(_, filed)| filed.is_ok()), "{filed:?}");
        let mailbox = root.path().join("example.org/bob/Maildir");
        assert_eq!(list(&mailbox).unwrap().len(), 7);
    }

    #[tokio::test]
    async fn what_one_group_ends_by_is_no_fault_of_the_next() {
        let root = tempfile::tempdir().unwrap();
        let filers = filers(root.path());
        // A file stands where a folder must be made.
        std::fs::write(root.path().join("example.org"), "").unwrap();
        let filed = file_at_once(&filers, vec![copy("q1", 0, "bob")]).await;
        assert!(matches!(&filed[..], [(_, Err(FilingError::Store(_)))]));
        std::fs::remove_file(root.path().join("example.org")).unwrap();
        let filed = file_at_once(&filers, vec![copy("q1", 0, "bob")]).await;
        assert!(matches!(&filed[..], [(_, Ok(_))]), "{filed:?}");
    }
}
