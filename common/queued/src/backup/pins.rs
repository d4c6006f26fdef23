//! What must not go while a backup reads it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use postroad_journal::{ContentNonce, SegmentNumber};
use tokio::sync::MutexGuard as Turn;

/// One per running queue: who gives something up asks here first.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    held: Mutex<Held>,
    /// Held while one segment is given up, so that a backup never begins in the middle of that.
    reclaiming: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    running: bool,
    /// This segment and all later ones stay.
    segments_from: Option<SegmentNumber>,
    files: Files,
    /// Content files nobody needs but the backup.
    waiting: Vec<ContentNonce>,
}

#[derive(Debug, Default)]
enum Files {
    #[default]
    Free,
    /// It is not known yet which ones are needed.
    All,
    Those(HashSet<ContentNonce>),
}

impl Pins {
    /// Pins everything; none if a backup runs already.
    pub async fn begin(self: &Arc<Self>) -> Option<Pin> {
        let _turn = self.reclaiming.lock().await;
        let mut held = self.held();
        if std::mem::replace(&mut held.running, true) {
            return None;
        }
        held.segments_from = Some(SegmentNumber(0));
        held.files = Files::All;
        drop(held);
        Some(Pin(Arc::clone(self)))
    }

    /// Keeps backups away, and pins nothing; none if a backup runs, or someone else keeps them away.
    pub fn exclude(self: &Arc<Self>) -> Option<Pin> {
        let mut held = self.held();
        let is_free = !std::mem::replace(&mut held.running, true);
        is_free.then(|| Pin(Arc::clone(self)))
    }

    /// The right to give up a segment, as long as what is returned lives; none while a backup needs it.
    pub async fn reclaim(&self, segment: SegmentNumber) -> Option<Turn<'_, ()>> {
        let turn = self.reclaiming.lock().await;
        let pinned = self
            .held()
            .segments_from
            .is_some_and(|from| segment >= from);
        (!pinned).then_some(turn)
    }

    /// Of content files that nobody needs any more, and of those that had to wait before: the ones that may go now.
    pub fn allow(&self, files: Vec<ContentNonce>) -> Vec<ContentNonce> {
        let mut held = self.held();
        let Held {
            files: pinned,
            waiting,
            ..
        } = &mut *held;
        waiting.extend(files);
        let stays = |file: &ContentNonce| match pinned {
            Files::Free => false,
            Files::All => true,
            Files::Those(those) => those.contains(file),
        };
        let (stay, go) = std::mem::take(waiting).into_iter().partition(stays);
        *waiting = stay;
        go
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends all pins when it is dropped.
#[derive(Debug)]
pub(crate) struct Pin(Arc<Pins>);

impl Pin {
    /// Content files that living mails do not name any more, though they did when this began.
    pub fn waiting(&self) -> Vec<ContentNonce> {
        self.0.held().waiting.clone()
    }

    /// From now on only these content files stay.
    pub fn choose(&self, files: HashSet<ContentNonce>) {
        self.0.held().files = Files::Those(files);
    }

    /// Segments before this one may go; none: all may.
    pub fn segments_from(&self, from: Option<SegmentNumber>) {
        self.0.held().segments_from = from;
    }

    /// This content file may go.
    pub fn read(&self, file: ContentNonce) {
        if let Files::Those(those) = &mut self.0.held().files {
            those.remove(&file);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.0.held();
        held.running = false;
        held.segments_from = None;
        held.files = Files::Free;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(n: u8) -> ContentNonce {
        ContentNonce([n; 16])
    }

    #[tokio::test]
    async fn what_is_pinned_stays_until_it_is_read_or_the_pin_ends() {
        let pins = Arc::new(Pins::default());
        assert_eq!(pins.allow(vec![file(1)]), [file(1)]);
        let pin = pins.begin().await.unwrap();
        assert!(pins.begin().await.is_none());
        assert!(pins.reclaim(SegmentNumber(1)).await.is_none());
        assert_eq!(pins.allow(vec![file(2), file(3), file(4)]), []);
        assert_eq!(pin.waiting(), [file(2), file(3), file(4)]);
        pin.choose([file(2), file(3)].into());
        assert_eq!(pins.allow(vec![file(5)]), [file(4), file(5)]);
        pin.read(file(2));
        assert_eq!(pins.allow(Vec::new()), [file(2)]);
        pin.segments_from(Some(SegmentNumber(2)));
        assert!(pins.reclaim(SegmentNumber(1)).await.is_some());
        assert!(pins.reclaim(SegmentNumber(2)).await.is_none());
        drop(pin);
        assert_eq!(pins.allow(Vec::new()), [file(3)]);
        assert!(pins.reclaim(SegmentNumber(9)).await.is_some());
        let alone = pins.exclude().unwrap();
        assert!(pins.exclude().is_none() && pins.begin().await.is_none());
        assert!(pins.reclaim(SegmentNumber(9)).await.is_some());
        drop(alone);
        assert!(pins.begin().await.is_some());
    }
}
