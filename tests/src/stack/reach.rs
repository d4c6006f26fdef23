//! How programs and tests reach what a stack runs.

use anyhow::Result;
use postroad_queue_client::{RemoteAdmin, RemoteQueue};
use postroad_rpc::Endpoint;

use super::{PASSWORD, Stack};
use crate::{Client, wait::wait_for};

impl Stack {
    /// The queue, as an agent on this host reaches it.
    pub fn queue(&self) -> Result<RemoteQueue> {
        let socket = self.folder().join("run/queue.sock");
        Ok(RemoteQueue::connect(&Endpoint::Unix(socket), None)?)
    }

    /// A mail program that has logged in with STARTTLS.
    pub async fn login(&self, account: &str) -> Result<Client> {
        let (client, _) = Client::connect(self.ports.submission()).await?;
        let mut client = client.starttls(&self.ca_file()).await?;
        client.login(account, PASSWORD).await?;
        Ok(client)
    }

    /// The same with implicit TLS.
    pub async fn login_tls(&self, account: &str) -> Result<Client> {
        let (mut client, _) =
            Client::connect_tls(self.ports.submissions(), &self.ca_file()).await?;
        client.expect("EHLO client.test", "250").await?;
        client.login(account, PASSWORD).await?;
        Ok(client)
    }

    /// Submits a mail of alice, over a new connection each time, until the reply is not `refused`; that reply.
    pub async fn submit_while(&self, refused: &str, to: &str, content: &[u8]) -> Result<String> {
        wait_for(&format!("reply other than {refused}"), async || {
            let mut client = self.login("alice@demo.test").await.ok()?;
            let reply = client
                .attempt("alice@demo.test", &[to], content)
                .await
                .ok()?;
            (!reply.starts_with(refused)).then_some(reply)
        })
        .await
    }

    /// A foreign mail server that comes to port 25.
    pub async fn world_client(&self) -> Result<Client> {
        let (mut client, _) = Client::connect(self.ports.smtp()).await?;
        client.expect("EHLO mx.world.test", "250").await?;
        Ok(client)
    }

    /// The queue, as an operator on this host reaches it.
    pub fn admin(&self) -> Result<RemoteAdmin> {
        let socket = self.folder().join("run/queue-admin.sock");
        Ok(RemoteAdmin::connect(
            &Endpoint::Unix(socket),
            None,
            "journey",
        )?)
    }
}
