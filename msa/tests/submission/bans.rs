//! Networks that guess.

use super::*;

#[tokio::test]
async fn a_network_with_too_many_failed_log_ins_is_banned() {
    let agent = Agent::with(|config| {
        config.auth.ban_after = 4;
        config.auth.ban_except = Networks::default();
    })
    .await;
    let mut early = agent.client().await;
    let mut client = agent.client().await;
    let wrong = plain("alice@example.org", "wrong");
    for _ in 0..3 {
        client.expect(&wrong, "535 5.7.8").await;
    }
    let mut client = agent.client().await;
    client.expect(&wrong, "535 5.7.8").await;
    // The right password does not help now, neither there nor where nobody failed.
    let right = plain("alice@example.org", "secret");
    let says = "421 4.7.0 too many failed log-ins from 127.0.0.1, try again in 10 minutes";
    for client in [&mut client, &mut early] {
        client.expect(&right, says).await;
        assert_eq!(client.hear().await, "");
    }
    let mut late = Client::connect(agent.submission).await;
    let greeting = late.hear().await;
    assert!(greeting.starts_with(says), "{greeting}");
    assert_eq!(late.hear().await, "");
    drop((early, client, late));
    agent.stop().await;
}

#[tokio::test]
async fn a_network_that_is_excepted_is_not_banned() {
    let agent = Agent::with(|config| config.auth.ban_after = 1).await;
    let mut client = agent.client().await;
    let wrong = plain("alice@example.org", "wrong");
    client.expect(&wrong, "535 5.7.8").await;
    client.expect(&wrong, "535 5.7.8").await;
    let alice = agent.alice().await;
    drop((client, alice));
    agent.stop().await;
}
