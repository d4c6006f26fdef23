use async_trait::async_trait;
use futures::StreamExt as _;
use postroad_counters::Key;
use postroad_envelope::{Event, QueueId, QueueIdPrefix, Suppression};
use postroad_proto::{
    convert,
    queue::v1::{self, import_request::Part, queue_admin_client::QueueAdminClient},
};
use postroad_rpc::{Endpoint, TlsFiles, dial};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, transport::Channel};

use crate::{
    AgentDetails, BackupStream, Change, Changed, ContentStream, CounterList, CountersQuery,
    HoldOrder, HoldRuleDetails, ImportedMail, ListPage, ListQuery, MailDetails, Order, QueueAdmin,
    QueueError, QueueStats, Removal, Resend, Resent, SiteList, SitesQuery, Usage, UsageQuery,
    VerifyStream, WatchQuery, WatchStream, wire::from_status,
};

/// Chunks of an imported mail under way before its sender waits.
const BACKLOG: usize = 8;

/// The operators' side of a queue, over its admin socket or mutual TLS.
pub struct RemoteAdmin {
    channel: Channel,
    by: String,
}

impl RemoteAdmin {
    /// `by` is recorded with each change: who asks.
    pub fn connect(
        endpoint: &Endpoint,
        tls: Option<&TlsFiles>,
        by: impl Into<String>,
    ) -> Result<Self, postroad_rpc::Error> {
        Ok(Self {
            channel: dial(endpoint, tls)?,
            by: by.into(),
        })
    }

    fn client(&self) -> QueueAdminClient<Channel> {
        QueueAdminClient::new(self.channel.clone())
    }
}

fn inner<T>(answer: Result<Response<T>, Status>) -> Result<T, QueueError> {
    answer
        .map(Response::into_inner)
        .map_err(|status| from_status(&status))
}

#[async_trait]
impl QueueAdmin for RemoteAdmin {
    async fn list(&self, query: ListQuery) -> Result<ListPage, QueueError> {
        Ok(inner(self.client().list(v1::ListRequest::from(&query)).await)?.try_into()?)
    }

    async fn find(&self, prefix: QueueIdPrefix) -> Result<QueueId, QueueError> {
        let found = inner(
            self.client()
                .find(v1::FindRequest {
                    prefix: prefix.to_string(),
                })
                .await,
        )?;
        Ok(convert::queue_id("queue_id", &found.queue_id)?)
    }

    async fn show(&self, queue_id: QueueId) -> Result<MailDetails, QueueError> {
        let request = v1::ShowRequest {
            queue_id: convert::queue_id_bytes(queue_id),
        };
        Ok(inner(self.client().show(request).await)?.try_into()?)
    }

    async fn change(&self, change: Change, mut order: Order) -> Result<Changed, QueueError> {
        if order.by.is_empty() {
            order.by.clone_from(&self.by);
        }
        let request = v1::ChangeRequest::from(&order);
        let mut client = self.client();
        let answer = match change {
            Change::Retry => client.retry(request).await,
            Change::Hold => client.hold(request).await,
            Change::Release => client.release(request).await,
            Change::Fail => client.fail(request).await,
            Change::Expire => client.expire(request).await,
            Change::Drop => client.drop(request).await,
            Change::Reroute { class, next_hop } => {
                let route = v1::RouteOverride {
                    class: v1::RouteClass::from(class).into(),
                    next_hop: next_hop.map(|next_hop| next_hop.to_string()),
                };
                let request = v1::RerouteRequest {
                    change: Some(request),
                    route: Some(route),
                };
                client.reroute(request).await
            }
            Change::Priority(priority) => {
                let request = v1::PriorityRequest {
                    change: Some(request),
                    priority: priority.into(),
                };
                client.priority(request).await
            }
        };
        Ok(inner(answer)?.into())
    }

    async fn resend(&self, mut resend: Resend) -> Result<Resent, QueueError> {
        if resend.by.is_empty() {
            resend.by.clone_from(&self.by);
        }
        let request = v1::ResendRequest::from(&resend);
        Ok(inner(self.client().resend(request).await)?.try_into()?)
    }

    async fn purge(&self, mut order: Order) -> Result<Changed, QueueError> {
        if order.by.is_empty() {
            order.by.clone_from(&self.by);
        }
        let request = v1::ChangeRequest::from(&order);
        Ok(inner(self.client().purge(request).await)?.into())
    }

    async fn put_hold_rule(&self, mut order: HoldOrder) -> Result<Changed, QueueError> {
        if order.by.is_empty() {
            order.by.clone_from(&self.by);
        }
        let rule = v1::HoldRule::from(&order);
        Ok(inner(self.client().put_hold_rule(rule).await)?.into())
    }

    async fn remove_hold_rule(&self, mut removal: Removal) -> Result<Changed, QueueError> {
        if removal.by.is_empty() {
            removal.by.clone_from(&self.by);
        }
        let rule = v1::HoldRule::from(&removal);
        Ok(inner(self.client().remove_hold_rule(rule).await)?.into())
    }

    async fn hold_rules(&self) -> Result<Vec<HoldRuleDetails>, QueueError> {
        let request = v1::ListHoldRulesRequest {};
        let rules = inner(self.client().list_hold_rules(request).await)?.rules;
        let rules = rules.into_iter().map(TryInto::try_into);
        Ok(rules.collect::<Result<_, _>>()?)
    }

    async fn put_suppression(&self, mut one: Suppression) -> Result<(), QueueError> {
        if one.by.is_empty() {
            one.by.clone_from(&self.by);
        }
        let wire = convert::suppression_to_wire(&one);
        inner(self.client().put_suppression(wire).await).map(drop)
    }

    async fn release_suppression(
        &self,
        address: &str,
        tenant: &str,
        account: Option<&str>,
        by: &str,
    ) -> Result<u64, QueueError> {
        let by = if by.is_empty() { &self.by } else { by };
        let wire = v1::Suppression {
            address: address.to_owned(),
            tenant: tenant.to_owned(),
            account: account.map(str::to_owned),
            by: by.to_owned(),
            ..v1::Suppression::default()
        };
        Ok(inner(self.client().release_suppression(wire).await)?.mails)
    }

    async fn suppressions(&self) -> Result<Vec<Suppression>, QueueError> {
        let request = v1::ListSuppressionsRequest {};
        let entries = inner(self.client().list_suppressions(request).await)?.entries;
        let entries = entries.into_iter();
        Ok(entries.map(convert::suppression_from_wire).collect())
    }

    async fn usage(&self, query: UsageQuery) -> Result<Vec<Usage>, QueueError> {
        let answer = self.client().usage(v1::UsageRequest::from(query)).await;
        let usages = inner(answer)?.usages.into_iter().map(TryInto::try_into);
        Ok(usages.collect::<Result<_, _>>()?)
    }

    async fn counters(&self, query: CountersQuery) -> Result<CounterList, QueueError> {
        let request = v1::CountersRequest::from(query);
        Ok(inner(self.client().counters(request).await)?.try_into()?)
    }

    async fn clear_counters(&self, keys: Vec<Key>, by: &str) -> Result<u64, QueueError> {
        let by = if by.is_empty() { &self.by } else { by };
        let request = v1::ClearCountersRequest {
            keys: keys.iter().map(ToString::to_string).collect(),
            by: by.to_owned(),
        };
        Ok(inner(self.client().clear_counters(request).await)?.cleared)
    }

    async fn sites(&self, query: SitesQuery) -> Result<SiteList, QueueError> {
        let request = v1::SitesRequest::from(query);
        Ok(inner(self.client().sites(request).await)?.into())
    }

    async fn lift_site(&self, name: &str, by: &str) -> Result<u64, QueueError> {
        let by = if by.is_empty() { &self.by } else { by };
        let request = v1::LiftSiteRequest {
            name: name.to_owned(),
            by: by.to_owned(),
        };
        Ok(inner(self.client().lift_site(request).await)?.sites)
    }

    async fn stats(&self, limit: u32) -> Result<QueueStats, QueueError> {
        Ok(inner(self.client().stats(v1::StatsRequest { limit }).await)?.into())
    }

    async fn agents(&self) -> Result<Vec<AgentDetails>, QueueError> {
        let agents = inner(self.client().agents(v1::AgentsRequest {}).await)?.agents;
        Ok(agents
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?)
    }

    async fn drain_agent(&self, name: &str, by: &str) -> Result<u64, QueueError> {
        let by = if by.is_empty() { &self.by } else { by };
        let request = v1::DrainAgentRequest {
            name: name.to_owned(),
            by: by.to_owned(),
        };
        Ok(inner(self.client().drain_agent(request).await)?.mails)
    }

    async fn trace(&self, queue_id: QueueId) -> Result<Vec<Event>, QueueError> {
        let request = v1::TraceRequest {
            queue_id: convert::queue_id_bytes(queue_id),
            ..v1::TraceRequest::default()
        };
        events(self.client().trace(request).await)
    }

    async fn trace_by(&self, text: &str, limit: u32) -> Result<Vec<Event>, QueueError> {
        let request = v1::TraceRequest {
            text: text.to_owned(),
            limit,
            ..v1::TraceRequest::default()
        };
        events(self.client().trace(request).await)
    }

    async fn watch(&self, query: WatchQuery) -> Result<WatchStream, QueueError> {
        let stream = inner(self.client().watch(v1::WatchRequest::from(&query)).await)?;
        let watched = stream.map(|watched| match watched {
            Ok(watched) => Ok(watched.try_into()?),
            Err(status) => Err(from_status(&status)),
        });
        Ok(watched.boxed())
    }

    async fn verify(&self) -> Result<VerifyStream, QueueError> {
        let stream = inner(self.client().verify(v1::VerifyRequest {}).await)?;
        let progress = stream.map(|told| match told {
            Ok(told) => Ok(told.into()),
            Err(status) => Err(from_status(&status)),
        });
        Ok(progress.boxed())
    }

    async fn backup(&self) -> Result<BackupStream, QueueError> {
        let stream = inner(self.client().backup(v1::BackupRequest {}).await)?;
        let pieces = stream.map(|piece| match piece {
            Ok(piece) => Ok(piece.into()),
            Err(status) => Err(from_status(&status)),
        });
        Ok(pieces.boxed())
    }

    async fn import(
        &self,
        mut mail: ImportedMail,
        content: ContentStream,
    ) -> Result<bool, QueueError> {
        if mail.by.is_empty() {
            mail.by.clone_from(&self.by);
        }
        let dry_run = mail.dry_run;
        let (parts, stream) = mpsc::channel(BACKLOG);
        let mut client = self.client();
        let call = async move { client.import(ReceiverStream::new(stream)).await };
        // What is known already is answered at once: then nobody takes the content, and that is no failure.
        let feed = async move {
            let part = Part::Begin((&mail).into());
            if parts.send(import(part)).await.is_err() || dry_run {
                return Ok::<(), QueueError>(());
            }
            let mut content = content;
            while let Some(chunk) = content.next().await {
                if parts.send(import(Part::Chunk(chunk?))).await.is_err() {
                    return Ok(());
                }
            }
            let _ = parts.send(import(Part::End(v1::ImportEnd {}))).await;
            Ok(())
        };
        tokio::pin!(call);
        let answer = tokio::select! {
            answer = &mut call => answer,
            fed = feed => {
                fed?;
                call.await
            }
        };
        Ok(inner(answer)?.known)
    }
}

fn import(part: Part) -> v1::ImportRequest {
    v1::ImportRequest { part: Some(part) }
}

fn events(answer: Result<Response<v1::TraceResponse>, Status>) -> Result<Vec<Event>, QueueError> {
    let events = inner(answer)?.events.into_iter();
    Ok(events.map(TryInto::try_into).collect::<Result<_, _>>()?)
}
