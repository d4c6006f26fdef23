//! Our own queue passes with a certificate of each role; one that hands all on to it and lies does not.

use std::{collections::BTreeSet, ffi::OsString, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream::BoxStream};
use postroad_conformance::queue::{self, Target};
use postroad_proto::queue::v1::{
    self, queue_client::QueueClient, queue_server::Queue, queue_server::QueueServer, work_down,
    work_up,
};
use postroad_rpc::{Endpoint, ServeOptions, TlsFiles, dial};
use postroad_tests::{
    Agent,
    setup::{FIRST, clear, place, set_up},
    stack, wait_for,
};
use serde_json::Value;
use tokio::{sync::Mutex, task::spawn_blocking};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::Routes, transport::Channel};

use crate::{deed, must_pass, stopped};

#[tokio::test(flavor = "multi_thread")]
async fn our_own_queue_passes_in_every_role() -> Result<()> {
    let mut stack = stack!().prepare()?;
    clear(&stack)?;
    set_up(stack.folder())?;
    let port = place(&mut stack)?;
    // Some rules wait for its end.
    let grace = "POSTROAD__QUEUED__LEASE__STREAM_GRACE";
    stack.set_variable(Agent::Queued, grace, "2s");
    stack.bring_up(&[Agent::Queued]).await?;
    let endpoint = Endpoint::Tcp {
        host: "localhost".to_owned(),
        port,
    };
    let channel = |agent: &str| {
        let folder = stack.folder().join("pki").join(agent);
        let tls = TlsFiles {
            ca_file: folder.join("agents-ca.pem"),
            cert_file: folder.join("agent.pem"),
            key_file: folder.join("agent.key"),
            revoked: None,
            warning: None,
        };
        dial(&endpoint, Some(&tls))
    };
    let (msa, mda) = (channel("msa")?, channel("mda")?);
    let stack = Arc::new(Mutex::new(stack));
    let restart = deed(&stack, |stack| {
        Box::pin(async {
            stack.kill_nine(Agent::Queued).await?;
            stack.start(Agent::Queued)
        })
    });
    let target = Target {
        msa,
        mda,
        has_single_roles: true,
        account: FIRST.to_owned(),
        recipient: FIRST.to_owned(),
        restart: Some(restart),
        patience: Duration::from_secs(60),
        quiet: Duration::from_millis(300),
    };
    must_pass(&queue::run(&target, |_| {}).await, &[])?;
    drop(target);
    stopped(stack).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_queue_fails_where_it_is_wrong() -> Result<()> {
    let mut stack = stack!().prepare()?;
    stack.bring_up(&[Agent::Queued]).await?;
    let right = Endpoint::Unix(stack.folder().join("run/queue.sock"));
    let wrong = Endpoint::Unix(stack.folder().join("run/wrong.sock"));
    let stop = CancellationToken::new();
    let queue = Wrong(QueueClient::new(dial(&right, None)?));
    let routes = Routes::new(QueueServer::new(queue));
    let serving = postroad_rpc::serve(&wrong, None, routes, stop.clone(), ServeOptions::default());
    let task = async {
        let outcome = try_it(&wrong).await;
        stop.cancel();
        outcome
    };
    let (served, broken) = tokio::join!(serving, task);
    served?;
    let wanted = [
        "submit.duplicate",
        "work.credits",
        "settle.twice",
        "settle.fence",
        "hand_back.attempt",
        "resume.held",
        "late.result",
        "withdraw.untried",
        "withdraw.leased",
    ];
    let wanted = BTreeSet::from(wanted.map(ToOwned::to_owned));
    let broken = broken?;
    ensure!(broken == wanted, "{broken:?} instead of {wanted:?}");
    stack.end().await
}

/// The rules that do not hold there, as the command tells of them.
async fn try_it(endpoint: &Endpoint) -> Result<BTreeSet<String>> {
    if let Endpoint::Unix(path) = endpoint {
        wait_for("the wrong queue", async || {
            Path::new(path).exists().then_some(())
        })
        .await?;
    }
    let line = [
        "postroad".to_owned(),
        "--json".to_owned(),
        "conformance".to_owned(),
        "queue".to_owned(),
        endpoint.to_string(),
        "--account=alice@demo.test".to_owned(),
        "--recipient=bob@demo.test".to_owned(),
        "--patience=60".to_owned(),
    ];
    let told = spawn_blocking(move || {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let status = postroad::execute(line.map(OsString::from), &mut out, &mut talk);
        (status, out)
    });
    let (status, out) = told.await?;
    ensure!(status == 1, "it ended with {status}");
    let told: Value = serde_json::from_slice(&out)?;
    let rules = told["rules"].as_array().context("no rules")?;
    let failed = rules.iter().filter(|rule| rule["verdict"] == "failed");
    let failed = failed.filter_map(|rule| rule["rule"].as_str());
    Ok(failed.map(ToOwned::to_owned).collect())
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// Hands all on to a right queue, and lies: no duplicate is one, credits are one too many, no settlement is stale, and
/// nothing is too late to be taken back.
struct Wrong(QueueClient<Channel>);

impl Wrong {
    fn client(&self) -> QueueClient<Channel> {
        self.0.clone()
    }
}

/// What a client sends, until it breaks off.
fn sent<T: Send + 'static>(messages: Streaming<T>) -> impl futures::Stream<Item = T> + Send {
    messages
        .take_while(|message| std::future::ready(message.is_ok()))
        .filter_map(|message| std::future::ready(message.ok()))
}

#[tonic::async_trait]
impl Queue for Wrong {
    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<v1::Accepted>, Status> {
        let mut answer = self.client().submit(sent(request.into_inner())).await?;
        answer.get_mut().duplicate = false;
        Ok(answer)
    }

    type SubmitManyStream = Answers<v1::SubmitManyResponse>;

    async fn submit_many(
        &self,
        request: Request<Streaming<v1::SubmitManyRequest>>,
    ) -> Result<Response<Self::SubmitManyStream>, Status> {
        let answers = self
            .client()
            .submit_many(sent(request.into_inner()))
            .await?;
        Ok(answers.map(|answers| answers.boxed()))
    }

    async fn admit(
        &self,
        request: Request<v1::AdmitRequest>,
    ) -> Result<Response<v1::AdmitResponse>, Status> {
        self.client().admit(request.into_inner()).await
    }

    type WorkStream = Answers<v1::WorkDown>;

    async fn work(
        &self,
        request: Request<Streaming<v1::WorkUp>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let up = sent(request.into_inner()).map(|mut up| {
            if let Some(work_up::Message::Credits(count)) = &mut up.message {
                *count = count.saturating_add(1);
            }
            up
        });
        let down = self.client().work(up).await?.into_inner().map(|down| {
            let mut down = down?;
            if let Some(work_down::Message::Settled(settled)) = &mut down.message {
                settled.stale = false;
            }
            Ok(down)
        });
        Ok(Response::new(down.boxed()))
    }

    type ReadStream = Answers<v1::ReadResponse>;

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let chunks = self.client().read(request.into_inner()).await?;
        Ok(chunks.map(|chunks| chunks.boxed()))
    }

    async fn record(
        &self,
        request: Request<v1::RecordRequest>,
    ) -> Result<Response<v1::RecordResponse>, Status> {
        self.client().record(request.into_inner()).await
    }

    async fn count(
        &self,
        request: Request<v1::CountRequest>,
    ) -> Result<Response<v1::CountResponse>, Status> {
        self.client().count(request.into_inner()).await
    }

    async fn withdraw(
        &self,
        request: Request<v1::WithdrawRequest>,
    ) -> Result<Response<v1::WithdrawResponse>, Status> {
        let mut answer = self.client().withdraw(request.into_inner()).await?;
        let told = answer.get_mut();
        if told.result() == v1::withdraw_response::Result::TooLate {
            told.set_result(v1::withdraw_response::Result::Withdrawn);
        }
        Ok(answer)
    }
}
