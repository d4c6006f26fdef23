use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use postroad_counters::{Count, Counted};
use postroad_envelope::{Envelope, Event, QueueId};

use super::{Inner, RemoteQueue};
use crate::{
    AdmitRequest, ContentStream, QueueError, QueueService, Submission, Withdrawn, WorkChannel,
    WorkDown, WorkHello,
};

/// One node among several: what is leased from it is seen to be there.
pub(super) struct Via {
    inner: Arc<Inner>,
    node: usize,
}

impl Via {
    pub(super) fn new(inner: &Arc<Inner>, node: usize) -> Self {
        let inner = Arc::clone(inner);
        Self { inner, node }
    }

    fn queue(&self) -> Result<&RemoteQueue, QueueError> {
        let node = self.inner.nodes.get(self.node);
        let none = || QueueError::Unavailable("there is no such node".to_owned());
        node.map(|node| &node.queue).ok_or_else(none)
    }
}

#[async_trait]
impl QueueService for Via {
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError> {
        self.queue()?.admit(request).await
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        self.queue()?.submit(envelope).await
    }

    async fn withdraw(&self, queue_id: QueueId, account: &str) -> Result<Withdrawn, QueueError> {
        self.queue()?.withdraw(queue_id, account).await
    }

    async fn work(&self, hello: WorkHello) -> Result<WorkChannel, QueueError> {
        let WorkChannel { up, down } = self.queue()?.work(hello).await?;
        let (inner, node) = (Arc::clone(&self.inner), self.node);
        let down = down.inspect(move |down| {
            if let Ok(WorkDown::Lease(lease)) = down {
                inner.whereabouts().saw(lease.envelope.queue_id, node);
            }
        });
        let down = down.boxed();
        Ok(WorkChannel { up, down })
    }

    async fn read(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        self.queue()?.read(queue_id, offset).await
    }

    async fn read_part(
        &self,
        queue_id: QueueId,
        offset: u64,
        length: u64,
    ) -> Result<ContentStream, QueueError> {
        self.queue()?.read_part(queue_id, offset, length).await
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), QueueError> {
        self.queue()?.record(events).await
    }
    async fn count(&self, count: Count) -> Result<Counted, QueueError> {
        self.queue()?.count(count).await
    }
}
