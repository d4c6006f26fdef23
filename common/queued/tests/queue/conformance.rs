//! One suite, both ways to the queue.

use std::{sync::Arc, time::Duration};

use postroad_queue_client::{RemoteQueue, conformance};
use postroad_queued::serve_rpc;
use tokio_util::sync::CancellationToken;

use crate::{
    nodes::{Node, as_one},
    setup::{Stack, common},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_local_queue_is_as_agents_expect_it() {
    let stack = Stack::new().await;
    conformance::all(Arc::new(stack.queue.clone())).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_behind_a_socket_is_too() {
    let stack = Stack::new().await;
    let mut common = common(stack.folder.path());
    common.shutdown_grace = postroad_daemon::Interval::seconds(4);
    let stop = CancellationToken::new();
    let (queue, stopping, endpoint) = (
        stack.queue.clone(),
        stop.clone(),
        stack.config.agents_endpoint(&common),
    );
    let served = tokio::spawn(async move { serve_rpc(&queue, &common, stopping).await });
    let remote = RemoteQueue::connect(&endpoint, None).unwrap();
    let admitted = async {
        let request = || postroad_queue_client::AdmitRequest {
            tenant: "default".into(),
            account: None,
            size: None,
            recipients: Vec::new(),
        };
        while postroad_queue_client::QueueService::admit(&remote, request())
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::setup::PATIENCE, admitted)
        .await
        .expect("serves in time");
    conformance::all(Arc::new(remote)).await;
    stop.cancel();
    served.await.unwrap().unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_used_as_one_are_too() {
    let nodes = [Node::start().await, Node::start().await];
    conformance::all(as_one(&nodes)).await;
    for node in nodes {
        node.stop().await;
    }
}
