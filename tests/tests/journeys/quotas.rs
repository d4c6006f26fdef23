//! Who has as much mail in the queue as it may have hears 452 before 354, others go on; what has left makes room again, and
//! a killed queue counts the same after its restart.

use anyhow::{Result, ensure};
use postroad_queue_client::{QueueAdmin as _, RemoteAdmin, Usage, UsageQuery, UsageScope};
use postroad_rpc::Endpoint;
use postroad_tests::{Agent, Client, Peer, Stack, mail, mail_of, stack, wait_for};

const ALICE: &str = "alice@demo.test";
const FRIEND: &str = "friend@world.test";
const QUOTAS: &str = "[queued.quota]\naccount_mails = 2\n\
                      [[queued.quota.domains]]\nname = \"demo.test\"\nmails = 1\n";

#[tokio::test]
async fn an_account_that_is_full_waits_while_others_go_on() -> Result<()> {
    let mut stack = stack!().settings(QUOTAS).start().await?;
    let mut peer = Peer::down(stack.peer_address(1));
    let mut alice = stack.login(ALICE).await?;
    for number in 0..2 {
        let content = mail(&format!("mail {number}"), "a\r\n");
        alice.deliver(ALICE, &[FRIEND], &content).await?;
    }
    is_refused_before_content(&mut alice).await?;
    let mut bob = stack.login("bob@demo.test").await?;
    let content = mail_of("bob@demo.test", "of bob", "a\r\n");
    bob.deliver("bob@demo.test", &[FRIEND], &content).await?;
    let before = usage(&stack).await?;
    let of_alice = before.iter().find(|one| one.name == ALICE);
    ensure!(
        of_alice.is_some_and(|one| one.mails == 2 && one.percent() == Some(100)),
        "{before:?}"
    );

    stack.kill_nine(Agent::Queued).await?;
    stack.bring_up(&[Agent::Queued]).await?;
    ensure!(
        usage(&stack).await? == before,
        "another usage after the restart"
    );
    let mut alice = stack.login(ALICE).await?;
    is_refused_before_content(&mut alice).await?;

    peer.go_up().await?;
    wait_for("three mails", async || {
        (peer.kept().len() == 3).then_some(())
    })
    .await?;
    let again = mail("again", "a\r\n");
    let reply = stack.submit_while("452 4.2.2", FRIEND, &again).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    wait_for("four mails", async || {
        (peer.kept().len() == 4).then_some(())
    })
    .await?;
    stack.wait_for_empty_queue().await?;
    ensure!(
        usage(&stack).await?.is_empty(),
        "something is counted in an empty queue"
    );
    stack.end().await
}

#[tokio::test]
async fn a_domain_that_is_full_takes_no_mail_of_the_world_for_a_time() -> Result<()> {
    let mut stack = stack!().settings(QUOTAS).start().await?;
    stack.terminate(Agent::Mda).await?;
    let mut world = stack.world_client().await?;
    let send = async |world: &mut Client, number: usize| {
        let content = mail(&format!("mail {number}"), "a\r\n");
        let reply = world
            .attempt("a@world.test", &["bob@demo.test"], &content)
            .await?;
        world.expect("RSET", "250").await?;
        anyhow::Ok(reply)
    };
    let taken = send(&mut world, 0).await?;
    ensure!(taken.starts_with("250"), "{taken}");
    let refused = send(&mut world, 1).await?;
    ensure!(
        refused.starts_with("452 4.3.1 demo.test has no room") && !refused.contains("of 1 mails"),
        "{refused}"
    );
    // Quotas of the domain are no business of mail that leaves.
    let mut alice = stack.login(ALICE).await?;
    alice
        .deliver(ALICE, &[FRIEND], &mail("out", "a\r\n"))
        .await?;

    stack.start(Agent::Mda)?;
    stack.wait_for_mails("bob@demo.test", 1).await?;
    let reply = wait_for("room", async || {
        let reply = send(&mut world, 2).await.ok()?;
        (!reply.starts_with("452 4.3.1")).then_some(reply)
    });
    let reply = reply.await?;
    ensure!(reply.starts_with("250"), "{reply}");
    stack.wait_for_mails("bob@demo.test", 2).await?;
    let log = stack.log(Agent::Queued);
    ensure!(
        log.contains("over_quota") && log.contains("demo.test"),
        "{log}"
    );
    stack.end().await
}

async fn is_refused_before_content(alice: &mut Client) -> Result<()> {
    alice
        .expect(&format!("MAIL FROM:<{ALICE}> SIZE=1000"), "250")
        .await?;
    alice.expect(&format!("RCPT TO:<{FRIEND}>"), "250").await?;
    alice
        .expect(
            "DATA",
            "452 4.2.2 alice@demo.test has 2 of 2 mails in the queue",
        )
        .await?;
    alice.expect("RSET", "250").await?;
    Ok(())
}

/// Of accounts, once the queue knows all of its mail.
async fn usage(stack: &Stack) -> Result<Vec<Usage>> {
    let socket = stack.folder().join("run/queue-admin.sock");
    let admin = RemoteAdmin::connect(&Endpoint::Unix(socket), None, "journey")?;
    let query = UsageQuery {
        scope: Some(UsageScope::Account),
        limit: 0,
    };
    wait_for("usage", async || admin.usage(query).await.ok()).await
}
