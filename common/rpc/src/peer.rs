//! Who calls, as handlers see it.

use std::sync::Arc;

use postroad_net::{PeerIdentity, PeerRole, Roles};
use tonic::{Extensions, Request, Status};
use tracing::warn;

/// What tonic puts into the extensions of every request of a connection.
pub type ConnectInfo = Arc<PeerIdentity>;

/// The caller, established by the transport.
pub fn peer_identity<T>(request: &Request<T>) -> Result<&PeerIdentity, Status> {
    identity(request.extensions())
}

/// Refuses callers that have none of `roles`. They read a general text; the log has the cause.
pub fn require_role<T>(request: &Request<T>, roles: &[PeerRole]) -> Result<(), Status> {
    let peer = peer_identity(request)?;
    if roles.iter().any(|role| peer.roles.contains(*role)) {
        return Ok(());
    }
    let needed: Roles = roles.iter().copied().collect();
    warn!(event = "rejected", peer = peer.name, role = %peer.roles, "role missing, needs one of: {needed}");
    Err(Status::permission_denied("not allowed for this caller"))
}

/// Refuses programs that may submit mail of some accounts and are no agents, whatever their role.
pub fn require_agent<T>(request: &Request<T>) -> Result<(), Status> {
    let peer = peer_identity(request)?;
    if !peer.only.is_limit() {
        return Ok(());
    }
    warn!(event = "rejected", peer = peer.name, role = %peer.roles, "only for agents, and this caller is limited to some accounts");
    Err(Status::permission_denied("not allowed for this caller"))
}

fn identity(extensions: &Extensions) -> Result<&PeerIdentity, Status> {
    extensions
        .get::<ConnectInfo>()
        .map(AsRef::as_ref)
        .ok_or_else(|| {
            warn!(
                event = "rejected",
                "a request without a caller's identity; served by something else than this crate?"
            );
            Status::unauthenticated("no identity")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroad_net::{OnlyAccounts, Transport};
    use tonic::Code;

    fn request(roles: &[PeerRole]) -> Request<()> {
        let roles: Roles = roles.iter().copied().collect();
        let mut request = Request::new(());
        let identity = PeerIdentity {
            roles,
            name: "edge".to_owned(),
            transport: Transport::MutualTls,
            serial: None,
            only: OnlyAccounts::default(),
        };
        request
            .extensions_mut()
            .insert::<ConnectInfo>(Arc::new(identity));
        request
    }

    #[test]
    fn a_program_of_some_accounts_is_no_agent() {
        let mut request = request(&[PeerRole::Msa]);
        assert!(require_agent(&request).is_ok());
        let mut identity = peer_identity(&request).unwrap().clone();
        identity.only = vec!["www@example.org".to_owned()].into();
        let program: ConnectInfo = Arc::new(identity);
        request.extensions_mut().insert(program);
        let refused = require_agent(&request).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }

    #[test]
    fn one_of_the_roles_is_enough_and_the_reason_stays_here() {
        let request = request(&[PeerRole::Mta]);
        assert!(require_role(&request, &[PeerRole::Msa, PeerRole::Mta]).is_ok());
        let refused = require_role(&request, &[PeerRole::Admin]).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(!refused.message().contains("admin"));
    }

    #[test]
    fn without_an_identity_nothing_is_allowed() {
        let refused = require_role(&Request::new(()), &PeerRole::ALL).unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
}
