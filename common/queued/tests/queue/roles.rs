//! Who may do what over a socket: roles by uid, which here is ours.

mod operators;
mod submitters;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use postroad_daemon::CommonConfig;
use postroad_envelope::{Envelope, Protocol, QueueId, RouteClass, TlsFacts};
use postroad_net::{Networks, OnlyAccounts, PeerRole, Roles, UnixRole};
use postroad_queue_client::{
    Accepted, AdmitRequest, Change, Changed, Filter, ImportedMail, ListQuery, Order, QueueAdmin,
    QueueError, QueueService, RemoteAdmin, RemoteQueue, WorkHello,
};
use postroad_queued::{Config, serve_rpc};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    retired::finish,
    setup::{Stack, change, common, config, failed, mail, submit},
};

/// A queue behind sockets where whoever calls has this one role.
pub struct Served {
    pub stack: Stack,
    pub remote: RemoteQueue,
    pub admin: RemoteAdmin,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Served {
    async fn to(role: PeerRole) -> Self {
        Self::with(role, config()).await
    }

    pub async fn with(role: PeerRole, config: Config) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::in_folder(role, folder, config).await
    }

    pub async fn in_folder(role: PeerRole, folder: Arc<TempDir>, mut config: Config) -> Self {
        let uid = Some(rustix::process::geteuid().as_raw());
        let roles = Roles::from(vec![role]);
        if config.listen.unix_roles.is_empty() {
            config.listen.unix_roles = vec![UnixRole {
                uid,
                gid: None,
                roles,
                accounts: OnlyAccounts::default(),
            }];
        }
        let stack = Stack::in_folder(folder, config).await;
        let common: CommonConfig = common(stack.folder.path());
        let stop = CancellationToken::new();
        let agents = stack.config.agents_endpoint(&common);
        let operators = stack.config.admin_endpoint(&common);
        let (queue, stopping) = (stack.queue.clone(), stop.clone());
        let served = tokio::spawn(async move {
            serve_rpc(&queue, &common, stopping).await.unwrap();
        });
        let remote = RemoteQueue::connect(&agents, None).unwrap();
        let admin = RemoteAdmin::connect(&operators, None, "a test").unwrap();
        let up = async {
            while let Err(QueueError::Unavailable(_)) = admin.list(ListQuery::default()).await {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(crate::setup::PATIENCE, up)
            .await
            .expect("serves in time");
        Self {
            stack,
            remote,
            admin,
            stop,
            served,
        }
    }

    pub async fn submit(&self, envelope: &Envelope) -> Result<Accepted, QueueError> {
        submit(&self.remote, envelope, b"\r\nhi").await
    }

    async fn works(&self, classes: &[RouteClass]) -> bool {
        let hello = WorkHello {
            stores: Vec::new(),
            agent: "test".into(),
            version: "0".into(),
            host: "here".into(),
            classes: classes.to_vec(),
            held: Vec::new(),
            former: None,
            joins: false,
        };
        match self.remote.work(hello).await {
            Ok(mut channel) => {
                matches!(
                    futures::StreamExt::next(&mut channel.down).await,
                    Some(Ok(_))
                )
            }
            Err(_) => false,
        }
    }

    pub async fn end(self) {
        drop((self.remote, self.admin));
        self.stop.cancel();
        self.served.await.unwrap();
        Arc::new(self.stack.stop().await);
    }
}

fn refused(result: &Result<Accepted, QueueError>) -> bool {
    matches!(result, Err(QueueError::NotAllowed(_)))
}

fn by_account(mut envelope: Envelope) -> Envelope {
    envelope.account = Some("alice@local.test".to_owned());
    envelope
}
