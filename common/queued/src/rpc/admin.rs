//! `postroad.queue.v1.QueueAdmin`.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use postroad_envelope::QueueIdPrefix;
use postroad_net::{PeerIdentity, PeerRole};
use postroad_proto::{
    convert,
    queue::v1::{self, import_request::Part, queue_admin_server::QueueAdmin as Service},
};
use postroad_queue_client::{
    Change, HoldOrder, ImportedMail, Order, QueueAdmin, QueueError, Removal, Resend, wire,
};
use postroad_rpc::{peer_identity, require_role};
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::agents::{Stream as Answers, invalid, refused};

/// Serves a [`QueueAdmin`].
pub(crate) struct AdminRpc<A> {
    pub queue: Arc<A>,
}

type Answer<T> = Result<Response<T>, Status>;

/// Characters of the name a caller gives itself.
const LONGEST_NAME: usize = 64;

/// Who asks: what the connection proves, after what the caller says of itself.
fn asked_by(peer: &PeerIdentity, says: &str) -> String {
    let says: String = says.chars().take(LONGEST_NAME).collect();
    match says.as_str() {
        "" => peer.name.clone(),
        says => format!("{says} ({})", peer.name),
    }
}

impl<A: QueueAdmin> AdminRpc<A> {
    /// Carries a change out for a peer of the right role, and records who changes what.
    async fn change(
        &self,
        peer: &PeerIdentity,
        change: Change,
        request: v1::ChangeRequest,
    ) -> Answer<v1::ChangeResponse> {
        let mut order = Order::try_from(request).map_err(invalid)?;
        order.by = asked_by(peer, &order.by);
        let (verb, by, reason) = (change.as_str(), order.by.clone(), order.reason.clone());
        let dry_run = order.dry_run;
        let changed = self.queue.change(change, order).await;
        if !dry_run {
            let count = changed.as_ref().map_or(0, |changed| changed.mails);
            let error = changed.as_ref().err().map(tracing::field::display);
            info!(event = "admin", verb, by, reason, count, error);
        }
        Ok(Response::new(changed.map_err(refused)?.into()))
    }

    async fn simple(
        &self,
        request: Request<v1::ChangeRequest>,
        change: Change,
    ) -> Answer<v1::ChangeResponse> {
        let peer = operator(&request)?;
        self.change(&peer, change, request.into_inner()).await
    }
}

fn operator<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    require_role(request, &[PeerRole::Admin])?;
    Ok(peer_identity(request)?.clone())
}

/// The chunks; an error unless the end follows them.
fn imported_content(
    parts: Streaming<v1::ImportRequest>,
) -> impl Stream<Item = Result<Bytes, QueueError>> {
    let cut = || QueueError::Invalid("the stream ended before the mail did".to_owned());
    stream::unfold(Some(parts), move |parts| async move {
        let mut parts = parts?;
        match parts.message().await {
            Ok(Some(v1::ImportRequest { part })) => match part {
                Some(Part::Chunk(chunk)) => Some((Ok(chunk), Some(parts))),
                Some(Part::End(_)) => None,
                _ => {
                    let only = QueueError::Invalid("only chunks, then the end".to_owned());
                    Some((Err(only), None))
                }
            },
            Ok(None) => Some((Err(cut()), None)),
            Err(status) => Some((Err(wire::from_status(&status)), None)),
        }
    })
}

#[tonic::async_trait]
impl<A: QueueAdmin> Service for AdminRpc<A> {
    async fn list(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListResponse> {
        require_role(&request, &[PeerRole::Admin])?;
        let query = request.into_inner().try_into().map_err(invalid)?;
        let page = self.queue.list(query).await.map_err(refused)?;
        Ok(Response::new((&page).into()))
    }

    async fn find(&self, request: Request<v1::FindRequest>) -> Answer<v1::FindResponse> {
        require_role(&request, &[PeerRole::Admin])?;
        let prefix: QueueIdPrefix = request
            .into_inner()
            .prefix
            .parse()
            .map_err(|error| invalid(convert::ConvertError::new("prefix", error)))?;
        let found = self.queue.find(prefix).await.map_err(refused)?;
        Ok(Response::new(v1::FindResponse {
            queue_id: convert::queue_id_bytes(found),
        }))
    }

    async fn show(&self, request: Request<v1::ShowRequest>) -> Answer<v1::ShowResponse> {
        require_role(&request, &[PeerRole::Admin])?;
        let id = request.into_inner().queue_id;
        let id = convert::queue_id("queue_id", &id).map_err(invalid)?;
        let details = self.queue.show(id).await.map_err(refused)?;
        Ok(Response::new((&details).into()))
    }

    async fn hold(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        self.simple(request, Change::Hold).await
    }

    async fn release(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        self.simple(request, Change::Release).await
    }

    async fn retry(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        self.simple(request, Change::Retry).await
    }

    async fn fail(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        self.simple(request, Change::Fail).await
    }

    async fn expire(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        self.simple(request, Change::Expire).await
    }

    async fn drop(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        self.simple(request, Change::Drop).await
    }

    async fn reroute(&self, request: Request<v1::RerouteRequest>) -> Answer<v1::ChangeResponse> {
        let peer = operator(&request)?;
        let v1::RerouteRequest { change, route } = request.into_inner();
        let route = route.ok_or_else(|| Status::invalid_argument("route is missing"))?;
        let class = route.class().try_into().map_err(invalid)?;
        let next_hop = route.next_hop.map(|next_hop| next_hop.parse()).transpose();
        let next_hop =
            next_hop.map_err(|error| invalid(convert::ConvertError::new("next_hop", error)))?;
        let reroute = Change::Reroute { class, next_hop };
        self.change(&peer, reroute, change.unwrap_or_default())
            .await
    }

    async fn priority(&self, request: Request<v1::PriorityRequest>) -> Answer<v1::ChangeResponse> {
        let peer = operator(&request)?;
        let v1::PriorityRequest { change, priority } = request.into_inner();
        // Too great or too small for its type is refused as any other that is too great or too small.
        let priority = Change::Priority(i8::try_from(priority).unwrap_or(i8::MAX));
        self.change(&peer, priority, change.unwrap_or_default())
            .await
    }

    async fn stats(&self, request: Request<v1::StatsRequest>) -> Answer<v1::StatsResponse> {
        require_role(&request, &[PeerRole::Admin])?;
        let limit = request.into_inner().limit;
        let stats = self.queue.stats(limit).await.map_err(refused)?;
        Ok(Response::new((&stats).into()))
    }

    async fn trace(&self, request: Request<v1::TraceRequest>) -> Answer<v1::TraceResponse> {
        require_role(&request, &[PeerRole::Admin])?;
        let trace = request.into_inner();
        let events = if trace.queue_id.is_empty() && !trace.text.is_empty() {
            self.queue.trace_by(&trace.text, trace.limit).await
        } else {
            let id = convert::queue_id("queue_id", &trace.queue_id).map_err(invalid)?;
            self.queue.trace(id).await
        };
        let events = events.map_err(refused)?;
        let events = events.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::TraceResponse { events }))
    }

    async fn put_hold_rule(&self, request: Request<v1::HoldRule>) -> Answer<v1::ChangeResponse> {
        let peer = operator(&request)?;
        let mut order = HoldOrder::try_from(request.into_inner()).map_err(invalid)?;
        order.by = asked_by(&peer, &order.by);
        let changed = self.queue.put_hold_rule(order).await.map_err(refused)?;
        Ok(Response::new(changed.into()))
    }

    async fn remove_hold_rule(&self, request: Request<v1::HoldRule>) -> Answer<v1::ChangeResponse> {
        let peer = operator(&request)?;
        let mut removal = Removal::from(request.into_inner());
        removal.by = asked_by(&peer, &removal.by);
        let changed = self.queue.remove_hold_rule(removal).await;
        Ok(Response::new(changed.map_err(refused)?.into()))
    }

    async fn list_hold_rules(
        &self,
        request: Request<v1::ListHoldRulesRequest>,
    ) -> Answer<v1::ListHoldRulesResponse> {
        operator(&request)?;
        let rules = self.queue.hold_rules().await.map_err(refused)?;
        let rules = rules.iter().map(Into::into).collect();
        Ok(Response::new(v1::ListHoldRulesResponse { rules }))
    }

    async fn put_suppression(
        &self,
        request: Request<v1::Suppression>,
    ) -> Answer<v1::ChangeResponse> {
        let peer = operator(&request)?;
        let mut one = convert::suppression_from_wire(request.into_inner());
        one.by = asked_by(&peer, &one.by);
        self.queue.put_suppression(one).await.map_err(refused)?;
        Ok(Response::new(v1::ChangeResponse::default()))
    }

    async fn release_suppression(
        &self,
        request: Request<v1::Suppression>,
    ) -> Answer<v1::ChangeResponse> {
        let peer = operator(&request)?;
        let wire = request.into_inner();
        let (address, account) = (&wire.address, wire.account.as_deref());
        let by = asked_by(&peer, &wire.by);
        let released = self
            .queue
            .release_suppression(address, &wire.tenant, account, &by);
        let mails = released.await.map_err(refused)?;
        Ok(Response::new(v1::ChangeResponse { mails, busy: 0 }))
    }

    async fn list_suppressions(
        &self,
        request: Request<v1::ListSuppressionsRequest>,
    ) -> Answer<v1::ListSuppressionsResponse> {
        operator(&request)?;
        let entries = self.queue.suppressions().await.map_err(refused)?;
        let entries = entries.iter().map(convert::suppression_to_wire).collect();
        Ok(Response::new(v1::ListSuppressionsResponse { entries }))
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Answer<v1::UsageResponse> {
        operator(&request)?;
        let query = request.into_inner().try_into().map_err(invalid)?;
        let usages = self.queue.usage(query).await.map_err(refused)?;
        let usages = usages.iter().map(Into::into).collect();
        Ok(Response::new(v1::UsageResponse { usages }))
    }

    async fn counters(
        &self,
        request: Request<v1::CountersRequest>,
    ) -> Answer<v1::CountersResponse> {
        operator(&request)?;
        let query = request.into_inner().try_into().map_err(invalid)?;
        let list = self.queue.counters(query).await.map_err(refused)?;
        Ok(Response::new((&list).into()))
    }

    async fn clear_counters(
        &self,
        request: Request<v1::ClearCountersRequest>,
    ) -> Answer<v1::ClearCountersResponse> {
        let peer = operator(&request)?;
        let v1::ClearCountersRequest { keys, by } = request.into_inner();
        let keys = convert::counter_keys(&keys).map_err(invalid)?;
        let by = asked_by(&peer, &by);
        let cleared = self.queue.clear_counters(keys, &by).await;
        let cleared = cleared.map_err(refused)?;
        Ok(Response::new(v1::ClearCountersResponse { cleared }))
    }

    async fn sites(&self, request: Request<v1::SitesRequest>) -> Answer<v1::SitesResponse> {
        operator(&request)?;
        let list = self.queue.sites(request.into_inner().into()).await;
        Ok(Response::new(list.map_err(refused)?.into()))
    }

    async fn lift_site(
        &self,
        request: Request<v1::LiftSiteRequest>,
    ) -> Answer<v1::LiftSiteResponse> {
        let peer = operator(&request)?;
        let v1::LiftSiteRequest { name, by } = request.into_inner();
        let lifted = self.queue.lift_site(&name, &asked_by(&peer, &by)).await;
        let sites = lifted.map_err(refused)?;
        Ok(Response::new(v1::LiftSiteResponse { sites }))
    }

    async fn purge(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        let peer = operator(&request)?;
        let mut order = Order::try_from(request.into_inner()).map_err(invalid)?;
        order.by = asked_by(&peer, &order.by);
        let (by, reason, dry_run) = (order.by.clone(), order.reason.clone(), order.dry_run);
        let purged = self.queue.purge(order).await;
        if let (Err(error), false) = (&purged, dry_run) {
            info!(event = "admin", verb = "purge", by, reason, error = %error);
        }
        Ok(Response::new(purged.map_err(refused)?.into()))
    }

    async fn resend(&self, request: Request<v1::ResendRequest>) -> Answer<v1::ResendResponse> {
        let peer = operator(&request)?;
        let mut resend = Resend::try_from(request.into_inner()).map_err(invalid)?;
        resend.by = asked_by(&peer, &resend.by);
        let (by, reason, id) = (resend.by.clone(), resend.reason.clone(), resend.queue_id);
        let dry_run = resend.dry_run;
        let resent = self.queue.resend(resend).await;
        if let (Err(error), false) = (&resent, dry_run) {
            info!(event = "admin", verb = "resend", queue_id = %id, by, reason, error = %error);
        }
        Ok(Response::new(resent.map_err(refused)?.into()))
    }

    async fn agents(&self, request: Request<v1::AgentsRequest>) -> Answer<v1::AgentsResponse> {
        operator(&request)?;
        let agents = self.queue.agents().await.map_err(refused)?;
        let agents = agents.iter().map(Into::into).collect();
        Ok(Response::new(v1::AgentsResponse { agents }))
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Answer<v1::ChangeResponse> {
        let peer = operator(&request)?;
        let v1::DrainAgentRequest { name, by } = request.into_inner();
        let by = asked_by(&peer, &by);
        let count = self.queue.drain_agent(&name, &by).await.map_err(refused)?;
        Ok(Response::new(v1::ChangeResponse {
            mails: count,
            busy: 0,
        }))
    }

    type VerifyStream = Answers<v1::VerifyProgress>;

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Answer<Self::VerifyStream> {
        operator(&request)?;
        let progress = self.queue.verify().await.map_err(refused)?;
        let progress = progress.map(|told| match told {
            Ok(told) => Ok(told.into()),
            Err(error) => Err(wire::to_status(&error)),
        });
        Ok(Response::new(progress.boxed()))
    }

    type BackupStream = Answers<v1::BackupChunk>;

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Answer<Self::BackupStream> {
        let peer = operator(&request)?;
        let pieces = self.queue.backup().await.map_err(refused)?;
        info!(event = "admin", verb = "backup", by = peer.name);
        let pieces = pieces.map(|piece| match piece {
            Ok(piece) => Ok(piece.into()),
            Err(error) => Err(wire::to_status(&error)),
        });
        Ok(Response::new(pieces.boxed()))
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Answer<v1::ImportResponse> {
        let peer = operator(&request)?;
        let mut parts = request.into_inner();
        let begin = match parts.message().await?.and_then(|first| first.part) {
            Some(Part::Begin(mail)) => mail,
            _ => return Err(Status::invalid_argument("the first part is the mail")),
        };
        let mut mail = ImportedMail::try_from(begin).map_err(invalid)?;
        mail.by = asked_by(&peer, &mail.by);
        let content = imported_content(parts).boxed();
        let known = self.queue.import(mail, content).await.map_err(refused)?;
        Ok(Response::new(v1::ImportResponse { known }))
    }

    type WatchStream = Answers<v1::WatchEvent>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        require_role(&request, &[PeerRole::Admin])?;
        let query = request.into_inner().try_into().map_err(invalid)?;
        let events = self.queue.watch(query).await.map_err(refused)?;
        let events = events.map(|watched| match watched {
            Ok(watched) => Ok(watched.into()),
            Err(error) => Err(wire::to_status(&error)),
        });
        Ok(Response::new(events.boxed()))
    }
}
