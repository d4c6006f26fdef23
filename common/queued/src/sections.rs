//! State that is not a mail: named sections, all of them in the newest snapshot of the journal.

use std::{collections::BTreeMap, sync::Arc};

use postroad_journal::Reader;
use postroad_queue::{Queue, record::Snapshot};
use postroad_queue_client::QueueError;
use tokio::{sync::Mutex, task::spawn_blocking};
use tracing::error;

use crate::core::{Core, ReadError, to_client_error};

/// Octets of one section.
const LONGEST: usize = 1 << 20;

/// The sections as they are durable. Those that this release does not know are kept.
#[derive(Debug, Default)]
pub(crate) struct Sections(Mutex<BTreeMap<String, Vec<u8>>>);

impl Sections {
    /// A section as it is durable.
    pub async fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().await.get(name).cloned()
    }
}

/// Reads the newest snapshot. What cannot be read is told of, and is not there.
pub(crate) async fn load(queue: &Arc<Queue>, reader: &Reader) -> Sections {
    let (queue, reader) = (Arc::clone(queue), reader.clone());
    let reading = spawn_blocking(move || newest(&queue, &reader)).await;
    Sections(Mutex::new(reading.unwrap_or_default()))
}

/// The sections as they were kept; what cannot be read is told of. Blocks.
pub(crate) fn newest(queue: &Queue, reader: &Reader) -> BTreeMap<String, Vec<u8>> {
    read(queue, reader).unwrap_or_else(|error| {
        error!(event = "corruption", error = %error, "hold rules cannot be read; put them anew");
        BTreeMap::new()
    })
}

fn read(queue: &Queue, reader: &Reader) -> Result<BTreeMap<String, Vec<u8>>, ReadError> {
    let Some(place) = queue.snapshot_location()? else {
        return Ok(BTreeMap::new());
    };
    Ok(Snapshot::decode(&reader.read(&place)?)?.0)
}

/// Changes a section, one change after the other: `change` is given what is durable, and tells what is to be. When this
/// returns it is durable, and `then` has been called with it. It happens even if the caller stops waiting.
pub(crate) async fn change<T, C, F>(
    core: &Arc<Core>,
    name: &'static str,
    change: C,
    then: F,
) -> Result<T, QueueError>
where
    T: Send + 'static,
    C: FnOnce(Option<&[u8]>) -> Result<(Vec<u8>, T), QueueError> + Send + 'static,
    F: FnOnce(&Core, &T) + Send + 'static,
{
    let owner = Arc::clone(core);
    let changing = core.tasks.spawn(async move {
        let mut sections = owner.sections.0.lock().await;
        let (octets, told) = change(sections.get(name).map(Vec::as_slice))?;
        if octets.len() > LONGEST {
            return Err(QueueError::Invalid("there is too much of it".to_owned()));
        }
        let mut snapshot = Snapshot(sections.clone());
        snapshot.0.insert(name.to_owned(), octets);
        let durable = snapshot.clone();
        let commit = move |queue: &Queue, _| Ok((Some(queue.prepare_snapshot(&snapshot)), ()));
        let committed = owner.committer.commit(commit).await;
        committed.map_err(to_client_error)?;
        *sections = durable.0;
        then(&owner, &told);
        Ok(told)
    });
    let changed = changing.await;
    changed.map_err(|error| QueueError::Unavailable(error.to_string()))?
}
