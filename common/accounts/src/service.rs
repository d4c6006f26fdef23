//! `postroad.directory.v1.Directory`: tells other agents of the accounts of a directory file.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use postroad_address::{AddressError, ForwardPath, ReversePath};
use postroad_directory::{Changes, DecoyKey, Directory as Snapshot, DirectoryHandle};
use postroad_net::PeerRole;
use postroad_proto::directory::v1::{
    self,
    directory_server::{Directory, DirectoryServer},
};
use postroad_rpc::{peer_identity, require_agent, require_role};
use postroad_sasl::SecretKind;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::{
    desk::{Desk, Turn},
    wire,
};

const AGENTS: [PeerRole; 3] = [PeerRole::Msa, PeerRole::Mta, PeerRole::Mda];
/// Secrets are for those who take passwords.
const SUBMISSION: [PeerRole; 1] = [PeerRole::Msa];
/// Longer than any address (RFC 5321 §4.5.3.1), so no account is called so.
const LONGEST_NAME: usize = 1024;

/// On what terms accounts are told of, now.
#[derive(Debug, Clone, Copy)]
pub struct ServiceTerms {
    /// How long an answer may be used without asking again.
    pub max_age: Duration,
    /// Verifiers that one caller may have in a minute, and at once after a pause.
    pub verifiers_per_minute: u32,
}

/// Serves a directory.
pub struct DirectoryService {
    directory: DirectoryHandle,
    key: DecoyKey,
    terms: Box<dyn Fn() -> ServiceTerms + Send + Sync>,
    desk: Arc<Desk>,
    /// Ends streams that clients would keep open.
    stopping: CancellationToken,
}

impl DirectoryService {
    /// Of this directory, kept current by its owner. `key` makes decoys where the file has no key for that. Streams of changes end with `stopping`.
    pub fn new(
        directory: DirectoryHandle,
        key: DecoyKey,
        terms: impl Fn() -> ServiceTerms + Send + Sync + 'static,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            directory,
            key,
            terms: Box::new(terms),
            desk: Arc::default(),
            stopping,
        }
    }

    /// For a gRPC server.
    pub fn into_server(self) -> DirectoryServer<Self> {
        DirectoryServer::new(self)
    }
}

#[tonic::async_trait]
impl Directory for DirectoryService {
    /// For msa, mta and mda.
    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        require_role(&request, &AGENTS)?;
        let path = ForwardPath::parse(&request.get_ref().address).map_err(invalid)?;
        let directory = self.directory.current();
        Ok(Response::new(v1::ResolveResponse {
            max_age_ms: self.max_age_ms(),
            generation: directory.generation(),
            ..wire::from_resolved(&directory.look_up(&path))
        }))
    }

    /// For msa.
    async fn sender(
        &self,
        request: Request<v1::SenderRequest>,
    ) -> Result<Response<v1::SenderResponse>, Status> {
        require_role(&request, &SUBMISSION)?;
        let asked = request.get_ref();
        if !peer_identity(&request)?.only.allow(&asked.account) {
            require_agent(&request)?;
        }
        let sender = ReversePath::parse(&asked.sender).map_err(invalid)?;
        let directory = self.directory.current();
        let verdict = directory.check_sender(&asked.account, &sender);
        Ok(Response::new(v1::SenderResponse {
            max_age_ms: self.max_age_ms(),
            generation: directory.generation(),
            ..wire::from_sender(&verdict)
        }))
    }

    /// For msa.
    async fn verifier(
        &self,
        request: Request<v1::VerifierRequest>,
    ) -> Result<Response<v1::VerifierResponse>, Status> {
        require_role(&request, &SUBMISSION)?;
        require_agent(&request)?;
        let peer = peer_identity(&request)?.name.clone();
        let v1::VerifierRequest {
            account,
            mechanism,
            app_password,
        } = request.into_inner();
        if account.len() > LONGEST_NAME
            || app_password
                .as_ref()
                .is_some_and(|prefix| prefix.len() > LONGEST_NAME)
        {
            return Err(Status::invalid_argument("the name is too long"));
        }
        let Some(kind) = wire::verifier_kind(&mechanism) else {
            let text = "there are no verifiers for this mechanism";
            return Err(Status::invalid_argument(text));
        };
        self.take_turn(&peer)?;
        info!(event = "verifier_given", peer, account, mechanism);
        let directory = self.directory.current();
        // Nodes with the same file agree by its key.
        let key = directory.written_decoy_key().unwrap_or(&self.key);
        let mut terms = None;
        let mut verifier = match kind {
            None if app_password.is_some() => {
                let prefix = app_password.unwrap_or_default();
                let (verifier, found) = directory.app_verifier(&account, &prefix, key);
                terms = found.as_ref().map(wire::from_app);
                verifier.to_text().into()
            }
            None => directory.verifier(&account, key),
            Some(SecretKind::Scram(hash)) => {
                let keys = directory.scram_keys(&account, hash, key);
                keys.to_string().into()
            }
            Some(SecretKind::Cram) => {
                let secret = directory.recoverable_secret(&account, key);
                secret.to_text()
            }
        };
        Ok(Response::new(v1::VerifierResponse {
            verifier: Some(std::mem::take(&mut *verifier)),
            max_age_ms: self.max_age_ms(),
            generation: directory.generation(),
            app_password: terms,
            ..v1::VerifierResponse::default()
        }))
    }

    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    /// For msa, mta and mda.
    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        require_role(&request, &AGENTS)?;
        let stopping = self.stopping.clone();
        if stopping.is_cancelled() {
            // A stream that begins and ends at once would look like a queue that came back.
            return Err(Status::unavailable("the queue is stopping"));
        }
        let mut snapshots = self.directory.subscribe();
        let told = Arc::clone(&snapshots.borrow_and_update());
        let begin = Ok(response(&told, Vec::new()));
        let changes = stream::unfold((snapshots, told), move |(mut snapshots, mut told)| {
            let stopping = stopping.clone();
            async move {
                loop {
                    tokio::select! {
                        () = stopping.cancelled() => return None,
                        changed = snapshots.changed() => changed.ok()?,
                    }
                    let now = Arc::clone(&snapshots.borrow_and_update());
                    let changes = now.changed_since(&told);
                    told = now;
                    let addresses = match changes {
                        Changes::Nothing => continue,
                        Changes::Accounts(addresses) => addresses,
                        Changes::Everything => Vec::new(),
                    };
                    return Some((Ok(response(&told, addresses)), (snapshots, told)));
                }
            }
        });
        let stream = stream::once(async { begin }).chain(changes);
        Ok(Response::new(stream.boxed()))
    }
}

impl DirectoryService {
    fn max_age_ms(&self) -> u64 {
        let max_age = (self.terms)().max_age;
        u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX)
    }

    /// Refuses who wants too many; the log says so once, or it would be filled by them.
    fn take_turn(&self, peer: &str) -> Result<(), Status> {
        let per_minute = (self.terms)().verifiers_per_minute;
        let turn = self.desk.take(peer, per_minute, Instant::now());
        if turn == Turn::RefusedFirst {
            warn!(
                event = "rejected",
                peer,
                rule = "queued.accounts.verifiers_per_minute",
                "this agent asks for more verifiers of passwords than it may"
            );
        }
        match turn {
            Turn::Granted => Ok(()),
            _ => Err(Status::resource_exhausted(
                "too many verifiers, come again later",
            )),
        }
    }
}

fn response(directory: &Snapshot, addresses: Vec<String>) -> v1::WatchResponse {
    v1::WatchResponse {
        addresses,
        generation: directory.generation(),
    }
}

fn invalid(error: AddressError) -> Status {
    Status::invalid_argument(error.to_string())
}
