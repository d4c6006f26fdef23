//! A queue as agents find it, played by rules: it gives the leases it is told to give, and answers submissions as it is told.
//!
//! ```text
//! agent ─Work──► Session (a rule speaks for the queue)        agent ─Submit, SubmitMany──► Desk: answered as a rule wants
//!       ─Read──► Desk: contents                                     ─Admit, Count, Record─► Desk
//! ```

mod answers;
mod desk;
mod service;
mod session;
mod work;

use std::{sync::Arc, time::Duration};

use postroad_proto::queue::v1::queue_server::QueueServer;
use postroad_rpc::{Endpoint, Error, ServeOptions, Server, TlsFiles};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::service::Routes;

pub use self::{
    answers::{Answer, Form, Submitted},
    desk::{Content, Desk},
    session::{Arrival, End, Session},
};
use self::{service::Service, work::WithWork};

/// How long calls of agents may go on when the queue stops.
const GRACE: Duration = Duration::from_millis(100);
/// Workers that have come and are not welcomed yet.
const ARRIVALS: usize = 64;

/// The queue, at a place of its own.
pub struct Played {
    endpoint: Endpoint,
    tls: Option<TlsFiles>,
    pub desk: Arc<Desk>,
    arrivals: mpsc::Sender<Arrival>,
    pub arriving: mpsc::Receiver<Arrival>,
    /// None: it is down.
    serving: Option<(CancellationToken, AbortOnDropHandle<Result<(), Error>>)>,
}

impl Played {
    /// A queue that will be there and is down.
    pub fn at(endpoint: Endpoint, tls: Option<TlsFiles>) -> Self {
        let (arrivals, arriving) = mpsc::channel(ARRIVALS);
        Self {
            endpoint,
            tls,
            desk: Arc::default(),
            arrivals,
            arriving,
            serving: None,
        }
    }

    /// Begins to serve.
    pub async fn go_up(&mut self) -> Result<(), Error> {
        if self.serving.is_some() {
            return Ok(());
        }
        let mut options = ServeOptions::default();
        options.limits.grace = GRACE;
        let server = Server::bind(&self.endpoint, self.tls.as_ref(), options).await?;
        let service = QueueServer::new(Service(Arc::clone(&self.desk)));
        let (desk, arrivals) = (Arc::clone(&self.desk), self.arrivals.clone());
        let routes = Routes::new(WithWork::new(service, desk, arrivals));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(routes, stop.clone()));
        self.serving = Some((stop, AbortOnDropHandle::new(serving)));
        Ok(())
    }

    /// Cuts every connection and gives the place up.
    pub async fn go_down(&mut self) {
        if let Some((stop, serving)) = self.serving.take() {
            stop.cancel();
            // How it ended matters to nobody.
            let _ = serving.await;
        }
        while self.arriving.try_recv().is_ok() {}
    }
}
