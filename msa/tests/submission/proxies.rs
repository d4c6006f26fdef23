//! Clients behind a proxy that says XCLIENT.

use super::*;

const TOLD: &str = "XCLIENT NAME=laptop.example ADDR=198.51.100.7 PORT=40021 HELO=laptop";

async fn agent(change: impl FnOnce(&mut Config)) -> Agent {
    Agent::with(|config| {
        config.xclient_networks = Networks::parse(["127.0.0.1"]).unwrap();
        change(config);
    })
    .await
}

/// A proxy under TLS, and what it hears of a client that it tells of.
async fn tells(agent: &Agent, told: &str) -> (Client, String) {
    let mut client = agent.client().await;
    let reply = client.ask(told).await;
    (client, reply)
}

#[tokio::test]
async fn a_login_is_believed_where_it_is_said_to_be() {
    let login = format!("{TOLD} LOGIN=Alice@example.org");
    let agent = agent(|config| config.xclient_login = true).await;
    let (mut client, reply) = tells(&agent, &login).await;
    assert!(reply.starts_with("220 mail.example.org ESMTP"), "{reply}");
    client.expect("EHLO proxy", "250-").await;
    let reply = send(&mut client, &["bob@example.org"], "Subject: x\r\n").await;
    assert!(reply.starts_with("250 "), "{reply}");
    let mails = agent.queue.mails();
    let envelope = &mails[0].envelope;
    assert_eq!(envelope.account.as_deref(), Some("alice@example.org"));
    let client = envelope.origin.client.unwrap();
    assert_eq!(client.to_string(), "198.51.100.7:40021");
    let edited = mails[0].edited();
    let from = "Received: from laptop (laptop.example [198.51.100.7])";
    assert!(edited.starts_with(from), "{edited}");
    // Who is no account, or none any more, is nobody.
    for nobody in ["none@example.org", "away@example.org", "alice"] {
        let (mut client, reply) = tells(&agent, &format!("{TOLD} LOGIN={nobody}")).await;
        assert!(reply.starts_with("535 5.7.8 "), "{nobody}: {reply}");
        client.expect("EHLO proxy", "503").await;
    }
    // A handshake forgets a log-in (RFC 3207 §4.2), and who the client is stays.
    let mut client = Client::connect(agent.submission).await;
    client.hear().await;
    client.expect(&login, "220 ").await;
    client.expect("EHLO proxy", "250-").await;
    client.expect("STARTTLS", "220").await;
    let mut client = client.start_tls(&agent.tls).await;
    client.expect("EHLO proxy", "250-").await;
    client.expect("MAIL FROM:<alice@example.org>", "530").await;
    client.expect("XCLIENT ADDR=127.0.0.1", "503 5.5.1").await;
    drop(client);
    agent.stop().await;

    let agent = self::agent(|_| {}).await;
    let (mut client, reply) = tells(&agent, &login).await;
    assert!(
        reply.starts_with("550 5.7.1 LOGIN is not believed"),
        "{reply}"
    );
    client.expect("MAIL FROM:<alice@example.org>", "530").await;
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn failures_and_bans_are_the_clients_and_not_the_proxys() {
    let agent = agent(|config| {
        config.auth.ban_after = 2;
        config.auth.max_delay = Interval::millis(1);
        config.auth.ban_except = Networks::default();
    })
    .await;
    let (mut client, _) = tells(&agent, TOLD).await;
    client.expect("EHLO proxy", "250-").await;
    for _ in 0..2 {
        client.ask(&plain("alice@example.org", "wrong")).await;
    }
    let (_, reply) = tells(&agent, TOLD).await;
    assert!(
        reply.starts_with("421 4.7.0 too many failed log-ins from 198.51.100.7"),
        "{reply}"
    );
    let (mut other, reply) = tells(&agent, "XCLIENT ADDR=198.51.100.8").await;
    assert!(reply.starts_with("220 "), "{reply}");
    other.expect("EHLO proxy", "250-").await;
    other
        .expect(&plain("alice@example.org", "secret"), "235")
        .await;
    drop((client, other));
    agent.stop().await;
}

#[tokio::test]
async fn a_listener_has_its_own_mechanisms_certificate_and_lists() {
    let own = TempDir::new().unwrap();
    let files = certificate(own.path());
    let shown = files.clone();
    let agent = Agent::with(|config| {
        let special = ListenerConfig {
            mechanisms: mechanisms(&["LOGIN"]),
            certificates: Some(vec![shown]),
            xclient_networks: Some(Networks::loopback()),
            max_connections: Some(1),
            ..ListenerConfig::from("127.0.0.1:0".parse::<ListenAddr>().unwrap())
        };
        config.listeners.insert("special".to_owned(), special);
    })
    .await;
    let mut client = Client::connect(agent.others[0]).await;
    client.hear().await;
    let hello = client.ask("EHLO laptop").await;
    assert!(hello.contains("XCLIENT NAME"), "{hello}");
    client.expect("STARTTLS", "220").await;
    let tls = ClientTls::verified(Trust::Files(vec![files.cert_file])).unwrap();
    let mut client = client.start_tls(&tls).await;
    let hello = client.ask("EHLO laptop").await;
    assert!(hello.contains("AUTH LOGIN\n"), "{hello}");
    let mut second = Client::connect(agent.others[0]).await;
    let reply = second.hear().await;
    assert!(
        reply.starts_with("421 4.7.0 too many connections"),
        "{reply}"
    );
    let mut ordinary = agent.client().await;
    let hello = ordinary.ask("EHLO laptop").await;
    assert!(
        hello.contains("AUTH PLAIN LOGIN") && !hello.contains("XCLIENT"),
        "{hello}"
    );
    drop((client, second, ordinary));
    agent.stop().await;
}

fn mechanisms(names: &[&str]) -> Option<Vec<postroad_msa::MechanismName>> {
    let all = names.iter().map(|name| (*name).to_owned().try_into());
    all.collect::<Result<_, _>>().ok()
}
