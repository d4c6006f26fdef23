//! `postroad.queue.v1.QueueAdmin`. What is not built answers UNIMPLEMENTED; README.md lists it.

use std::sync::Arc;

use futures::stream::Empty;
use postroad_envelope::QueueIdPrefix;
use postroad_net::PeerRole;
use postroad_proto::{
    convert,
    queue::v1::{self, queue_admin_server::QueueAdmin as Service},
};
use postroad_queue_client::{QueueAdmin, Selection};
use postroad_rpc::{peer_identity, require_role};
use tonic::{Request, Response, Status};
use tracing::info;

use super::agents::{invalid, refused};

/// Serves a [`QueueAdmin`].
pub(crate) struct AdminRpc<A> {
    pub queue: Arc<A>,
}

type Answer<T> = Result<Response<T>, Status>;

/// Checks the role, and records who changes what.
fn selection(verb: &str, request: Request<v1::ChangeRequest>) -> Result<Selection, Status> {
    require_role(&request, &[PeerRole::Admin])?;
    let peer = peer_identity(&request)?.name.clone();
    let change = request.into_inner();
    if change.dry_run {
        return Err(Status::unimplemented("dry_run is not built yet"));
    }
    info!(
        event = "admin",
        verb,
        peer,
        by = change.by,
        reason = change.reason
    );
    change
        .filter
        .unwrap_or_default()
        .try_into()
        .map_err(invalid)
}

fn unbuilt<Q, T>(request: &Request<Q>) -> Result<T, Status> {
    require_role(request, &[PeerRole::Admin])?;
    Err(Status::unimplemented("this method is not built yet"))
}

fn changed(mails: u64) -> Response<v1::ChangeResponse> {
    Response::new(v1::ChangeResponse { mails })
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
        let selection = selection("hold", request)?;
        Ok(changed(self.queue.hold(selection).await.map_err(refused)?))
    }

    async fn release(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        let selection = selection("release", request)?;
        Ok(changed(
            self.queue.release(selection).await.map_err(refused)?,
        ))
    }

    async fn retry(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        let selection = selection("retry", request)?;
        Ok(changed(self.queue.retry(selection).await.map_err(refused)?))
    }

    async fn drop(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        let selection = selection("drop", request)?;
        Ok(changed(
            self.queue.drop_mails(selection).await.map_err(refused)?,
        ))
    }

    async fn trace(&self, request: Request<v1::TraceRequest>) -> Answer<v1::TraceResponse> {
        require_role(&request, &[PeerRole::Admin])?;
        let id = request.into_inner().queue_id;
        let id = convert::queue_id("queue_id", &id).map_err(invalid)?;
        let events = self.queue.trace(id).await.map_err(refused)?;
        let events = events.iter().map(Into::into).collect();
        Ok(Response::new(v1::TraceResponse { events }))
    }

    async fn put_hold_rule(&self, request: Request<v1::HoldRule>) -> Answer<v1::ChangeResponse> {
        unbuilt(&request)
    }

    async fn remove_hold_rule(&self, request: Request<v1::HoldRule>) -> Answer<v1::ChangeResponse> {
        unbuilt(&request)
    }

    async fn list_hold_rules(
        &self,
        request: Request<v1::ListHoldRulesRequest>,
    ) -> Answer<v1::ListHoldRulesResponse> {
        unbuilt(&request)
    }

    async fn fail(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        unbuilt(&request)
    }

    async fn reroute(&self, request: Request<v1::RerouteRequest>) -> Answer<v1::ChangeResponse> {
        unbuilt(&request)
    }

    async fn expire(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        unbuilt(&request)
    }

    async fn priority(&self, request: Request<v1::PriorityRequest>) -> Answer<v1::ChangeResponse> {
        unbuilt(&request)
    }

    async fn purge(&self, request: Request<v1::ChangeRequest>) -> Answer<v1::ChangeResponse> {
        unbuilt(&request)
    }

    async fn resend(&self, request: Request<v1::ResendRequest>) -> Answer<v1::ResendResponse> {
        unbuilt(&request)
    }

    async fn stats(&self, request: Request<v1::StatsRequest>) -> Answer<v1::StatsResponse> {
        unbuilt(&request)
    }

    async fn agents(&self, request: Request<v1::AgentsRequest>) -> Answer<v1::AgentsResponse> {
        unbuilt(&request)
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Answer<v1::ChangeResponse> {
        unbuilt(&request)
    }

    type VerifyStream = Empty<Result<v1::VerifyProgress, Status>>;

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Answer<Self::VerifyStream> {
        unbuilt(&request)
    }

    type BackupStream = Empty<Result<v1::BackupChunk, Status>>;

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Answer<Self::BackupStream> {
        unbuilt(&request)
    }

    type WatchStream = Empty<Result<v1::WatchEvent, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        unbuilt(&request)
    }
}
