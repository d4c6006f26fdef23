//! Following events as they come, from a cursor on.

use std::{ops::ControlFlow, sync::Arc};

use postroad_envelope::QueueId;
use postroad_journal::{Location, Lsn};
use postroad_queue_client::{Cursor, QueueError, WatchQuery, Watched};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    task::spawn_blocking,
};

use super::{
    Timeline, Written,
    index::Key,
    record::{self, Entry},
};
use crate::core::Core;

/// Events read from the disk at one time.
const PAGE: usize = 500;

type Live = broadcast::Receiver<Arc<Written>>;
type Out = mpsc::Sender<Result<Watched, QueueError>>;

/// Begins to send events, until the queue stops or nobody listens.
pub(crate) async fn watch(core: &Arc<Core>, query: WatchQuery, out: Out) {
    // Without a cursor: all that is known of these mails; of all mails only what is new.
    let past = query.after.is_some() || !query.ids.is_empty();
    if !past {
        let asked = Arc::clone(core);
        let _ = spawn_blocking(move || asked.timeline.flush()).await;
    }
    let live = core.timeline.shared.written.subscribe();
    core.tasks
        .spawn(follow(Arc::clone(core), query, past, live, out));
}

async fn follow(core: Arc<Core>, query: WatchQuery, mut past: bool, mut live: Live, out: Out) {
    let ids: Arc<[QueueId]> = query.ids.into();
    let mut after = query.after.unwrap_or_default();
    loop {
        while past {
            let (asked, wanted) = (Arc::clone(&core), Arc::clone(&ids));
            let page = spawn_blocking(move || asked.timeline.page(after, &wanted)).await;
            let Ok((events, last)) = page else { return };
            past = last.is_some();
            after = last.unwrap_or(after);
            for watched in events {
                after = after.max(watched.cursor);
                if !send(&core, &out, watched).await {
                    return;
                }
            }
        }
        let written = tokio::select! {
            written = live.recv() => written,
            () = out.closed() => return,
            () = core.stopping.cancelled() => return,
        };
        match written {
            Ok(written) if ids.is_empty() || ids.contains(&written.queue_id) => {
                for watched in numbered(written.lsn, &written.entries, after) {
                    if !send(&core, &out, watched).await {
                        return;
                    }
                }
                after = after.max(Cursor::end_of(written.lsn.0));
            }
            Ok(written) => after = after.max(Cursor::end_of(written.lsn.0)),
            Err(RecvError::Lagged(_)) => past = true,
            Err(RecvError::Closed) => return,
        }
    }
}

async fn send(core: &Core, out: &Out, watched: Watched) -> bool {
    tokio::select! {
        sent = out.send(Ok(watched)) => sent.is_ok(),
        () = core.stopping.cancelled() => false,
    }
}

/// Those behind the cursor.
fn numbered(lsn: Lsn, entries: &[Entry], after: Cursor) -> impl Iterator<Item = Watched> {
    let cursors = (0..).map(move |position| Cursor {
        lsn: lsn.0,
        position,
    });
    let events = cursors
        .zip(entries)
        .filter(move |(cursor, _)| *cursor > after);
    events.map(|(cursor, entry)| Watched {
        cursor,
        event: entry.event.clone(),
    })
}

impl Timeline {
    /// The next events behind the cursor, and where to go on, if that was not all. Blocks.
    fn page(&self, after: Cursor, ids: &[QueueId]) -> (Vec<Watched>, Option<Cursor>) {
        self.flush();
        match ids {
            [] => self.page_of_all(after),
            ids => self.page_of(after, ids),
        }
    }

    fn page_of_all(&self, after: Cursor) -> (Vec<Watched>, Option<Cursor>) {
        let (mut events, mut more) = (Vec::new(), None);
        let Some(reader) = self.shared.reader().clone() else {
            return (events, more);
        };
        // What cannot be read was told of when the index was made.
        let _ = reader.replay(Lsn(after.lsn), |seen| {
            let decoded = (seen.kind == record::EVENTS).then(|| record::decode(seen.payload));
            if let Some(decoded) = decoded.flatten() {
                events.extend(numbered(seen.lsn, &decoded.entries, after));
            }
            if events.len() < PAGE {
                return ControlFlow::Continue(());
            }
            more = Some(Cursor::end_of(seen.lsn.0));
            ControlFlow::Break(())
        });
        (events, more)
    }

    fn page_of(&self, after: Cursor, ids: &[QueueId]) -> (Vec<Watched>, Option<Cursor>) {
        let places = ids.iter().flat_map(|id| self.find(Key::of_id(*id)));
        let mut places: Vec<Location> = places.filter(|place| place.lsn.0 >= after.lsn).collect();
        places.sort_unstable_by_key(|place| place.lsn);
        places.dedup();
        let mut events: Vec<Watched> = Vec::new();
        for place in places {
            let record = self.shared.read(&place);
            if let Some(record) = record.filter(|record| ids.contains(&record.queue_id)) {
                events.extend(numbered(place.lsn, &record.entries, after));
            }
            if events.len() >= PAGE {
                return (events, Some(Cursor::end_of(place.lsn.0)));
            }
        }
        (events, None)
    }
}
