//! Following events as they come, from a cursor on.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use postroad_envelope::{EventKind, QueueId};
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
    record::{self, Entry, Named},
};
use crate::core::Front;

/// Events read from the disk at one time.
const PAGE: usize = 500;
/// Mails by Message-ID or recipient: of the past, and followed at one time.
const NAMED_BEFORE: usize = 100;
const NAMED: usize = 10_000;

type Live = broadcast::Receiver<Arc<Written>>;
type Out = mpsc::Sender<Result<Watched, QueueError>>;

/// What a follower wants to hear of.
#[derive(Clone, Debug)]
struct Wanted {
    ids: BTreeSet<QueueId>,
    named: Option<Named>,
    kinds: Vec<EventKind>,
}

impl Wanted {
    fn all_mails(&self) -> bool {
        self.ids.is_empty() && self.named.is_none()
    }

    fn mail(&self, id: QueueId) -> bool {
        self.all_mails() || self.ids.contains(&id)
    }

    fn event(&self, watched: &Watched) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&watched.event.kind)
    }

    /// A mail that fits joins; of too many the oldest is let go.
    fn notice(&mut self, written: &Written) {
        let fits = self.named.as_ref().is_some_and(|named| {
            let mut entries = written.entries.iter();
            entries.any(|entry| named.is_meant(entry))
        });
        if fits {
            self.add([written.queue_id]);
        }
    }

    fn add(&mut self, ids: impl IntoIterator<Item = QueueId>) {
        self.ids.extend(ids);
        while self.named.is_some() && self.ids.len() > NAMED {
            self.ids.pop_first();
        }
    }
}

/// Begins to send events, until the queue stops or nobody listens.
pub(crate) async fn watch(core: &Arc<Front>, query: WatchQuery, out: Out) {
    let wanted = Wanted {
        ids: query.ids.into_iter().collect(),
        named: query.text.as_deref().map(Named::by),
        kinds: query.kinds,
    };
    // Without a cursor: all that is known of these mails; of all mails only what is new.
    let past = query.after.is_some() || !wanted.all_mails();
    if !past {
        let asked = Arc::clone(core);
        let _ = spawn_blocking(move || asked.timeline.flush()).await;
    }
    let live = core.timeline.shared.written.subscribe();
    let after = query.after.unwrap_or_default();
    let follow = follow(Arc::clone(core), wanted, after, past, live, out);
    core.tasks.spawn(follow);
}

async fn follow(
    core: Arc<Front>,
    mut wanted: Wanted,
    mut after: Cursor,
    mut past: bool,
    mut live: Live,
    out: Out,
) {
    loop {
        while past {
            let asked = Arc::clone(&core);
            let page = spawn_blocking(move || asked.timeline.page(after, wanted)).await;
            let Ok(page) = page else { return };
            wanted = page.wanted;
            past = page.more.is_some();
            after = page.more.unwrap_or(after);
            for watched in page.events {
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
            Ok(written) => {
                wanted.notice(&written);
                if wanted.mail(written.queue_id) {
                    let events = numbered(written.lsn, &written.entries, after);
                    for watched in events.filter(|watched| wanted.event(watched)) {
                        if !send(&core, &out, watched).await {
                            return;
                        }
                    }
                }
                after = after.max(Cursor::end_of(written.lsn.0));
            }
            Err(RecvError::Lagged(_)) => past = true,
            Err(RecvError::Closed) => return,
        }
    }
}

async fn send(core: &Front, out: &Out, watched: Watched) -> bool {
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

/// Events from the disk.
struct Page {
    events: Vec<Watched>,
    /// Where to go on, if that was not all.
    more: Option<Cursor>,
    wanted: Wanted,
}

impl Timeline {
    /// The next events behind the cursor. Blocks.
    fn page(&self, after: Cursor, mut wanted: Wanted) -> Page {
        self.flush();
        if let Some(named) = &wanted.named {
            wanted.add(self.newest_named(named, NAMED_BEFORE));
        }
        let (events, more) = match wanted.all_mails() {
            true => self.page_of_all(after, &wanted),
            false => self.page_of(after, &wanted),
        };
        Page {
            events,
            more,
            wanted,
        }
    }

    fn page_of_all(&self, after: Cursor, wanted: &Wanted) -> (Vec<Watched>, Option<Cursor>) {
        let (mut events, mut more) = (Vec::new(), None);
        let Some(reader) = self.shared.reader().clone() else {
            return (events, more);
        };
        // What cannot be read was told of when the index was made.
        let _ = reader.replay(Lsn(after.lsn), |seen| {
            let decoded = (seen.kind == record::EVENTS).then(|| record::decode(seen.payload));
            if let Some(decoded) = decoded.flatten() {
                let found = numbered(seen.lsn, &decoded.entries, after);
                events.extend(found.filter(|watched| wanted.event(watched)));
            }
            if events.len() < PAGE {
                return ControlFlow::Continue(());
            }
            more = Some(Cursor::end_of(seen.lsn.0));
            ControlFlow::Break(())
        });
        (events, more)
    }

    fn page_of(&self, after: Cursor, wanted: &Wanted) -> (Vec<Watched>, Option<Cursor>) {
        let places = wanted.ids.iter().flat_map(|id| self.find(Key::of_id(*id)));
        let mut places: Vec<Location> = places.filter(|place| place.lsn.0 >= after.lsn).collect();
        places.sort_unstable_by_key(|place| place.lsn);
        places.dedup();
        let mut events: Vec<Watched> = Vec::new();
        for place in places {
            let record = self.shared.read(&place);
            if let Some(record) = record.filter(|record| wanted.mail(record.queue_id)) {
                let found = numbered(place.lsn, &record.entries, after);
                events.extend(found.filter(|watched| wanted.event(watched)));
            }
            if events.len() >= PAGE {
                return (events, Some(Cursor::end_of(place.lsn.0)));
            }
        }
        (events, None)
    }
}
