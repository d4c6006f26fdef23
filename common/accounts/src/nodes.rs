//! Which node of the queue is asked for accounts: one after the other, each for as long as it answers.
//!
//! Changes are heard from the node that is asked, so answers and changes come in one order. All nodes have the same accounts;
//! that is the business of who runs them.

use postroad_daemon::TlsFiles;
use postroad_proto::directory::v1::directory_client::DirectoryClient;
use postroad_rpc::{Endpoint, Error, dial};
use tokio::sync::watch;
use tonic::transport::Channel;

/// A client of one node.
pub type Client = DirectoryClient<Channel>;

/// All nodes, and whose turn it is.
pub struct Nodes {
    clients: Vec<Client>,
    turn: watch::Sender<usize>,
}

impl Nodes {
    pub fn dial(endpoints: &[Endpoint], tls: Option<&TlsFiles>) -> Result<Self, Error> {
        let clients = endpoints
            .iter()
            .map(|endpoint| Ok(DirectoryClient::new(dial(endpoint, tls)?)));
        Ok(Self {
            clients: clients.collect::<Result<_, Error>>()?,
            turn: watch::Sender::new(0),
        })
    }

    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// The node whose turn it is.
    pub fn current(&self) -> Option<(usize, Client)> {
        let at = *self.turn.borrow();
        Some((at, self.clients.get(at)?.clone()))
    }

    /// It did not answer: the next one's turn, if it is still that one's. True if there is another.
    pub fn move_on(&self, from: usize) -> bool {
        let count = self.clients.len();
        if count < 2 {
            return false;
        }
        self.turn.send_if_modified(|turn| {
            let is_its = *turn == from;
            if is_its {
                *turn = (from + 1) % count;
            }
            is_its
        });
        true
    }

    /// Returns once it is another one's turn.
    pub async fn moved_from(&self, at: usize) {
        // The sender lives in `self`.
        let _ = self.turn.subscribe().wait_for(|turn| *turn != at).await;
    }
}
