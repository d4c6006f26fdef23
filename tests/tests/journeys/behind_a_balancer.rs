//! Behind a balancer the client it tells of is the one that policy, limits, log and Received know.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Client, MetricsPage, PASSWORD, free_port, mail, stack};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

const SETTINGS: &str = r#"
[queued]
relay_networks = ["192.0.2.0/24"]
[msa]
proxy_networks = ["127.0.0.1"]
limits.max_connections_per_ip = 1
[mta.inbound]
proxy_networks = ["127.0.0.1"]
relay_networks = ["192.0.2.0/24"]
[mda.lmtp]
proxy_networks = ["127.0.0.1"]
allow_networks = ["198.51.100.7"]
"#;

/// Version 1, as text.
fn text(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 203.0.113.1 4711 25\r\n").into_bytes()
}

/// Version 2, for a client with IPv6, with an addition (an authority).
fn binary(client: &str) -> Vec<u8> {
    let addresses = [client, "2001:db8::25"].map(|ip| ip.parse::<Ipv6Addr>().unwrap().octets());
    [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x2a",
        &addresses.concat()[..],
        &[0x12, 0x67, 0, 25],
        b"\x02\0\x03a.b",
    ]
    .concat()
}

#[tokio::test]
async fn the_world_reaches_the_mta_through_a_balancer() -> Result<()> {
    let stack = stack!().settings(SETTINGS).start().await?;
    let smtp = stack.ports.smtp();
    let (mut world, _) = Client::carried(smtp, &binary("2001:db8::7")).await?;
    world.expect("EHLO mx.world.test", "250").await?;
    world
        .deliver(
            "friend@world.test",
            &["bob@demo.test"],
            &mail("by IPv6", "a\r\n"),
        )
        .await?;
    let found = stack
        .wait_for_mail_with("bob@demo.test", "Subject: by IPv6")
        .await?;
    ensure!(found.contains("[IPv6:2001:db8::7]"), "{}", found.text());
    let opened = [
        "connection_opened",
        r#""peer":"[2001:db8::7]:4711""#,
        r#""proxy":"[127.0.0.1]:"#,
    ];
    stack.wait_for_log(Agent::Mta, &opened).await?;
    let accepted = [r#""event":"accepted""#, r#""peer":"[2001:db8::7]:4711""#];
    stack.wait_for_log(Agent::Mta, &accepted).await?;

    // Whom we relay for is decided by the client's address, not by the balancer's.
    for (client, answer) in [("192.0.2.9", "250"), ("198.51.100.7", "550 5.7.1")] {
        let (mut client, _) = Client::carried(smtp, &text(client)).await?;
        client.expect("EHLO client.test", "250").await?;
        client.expect("MAIL FROM:<a@client.test>", "250").await?;
        client.expect("RCPT TO:<b@elsewhere.test>", answer).await?;
    }

    // Nothing that an uninvited client sends is taken for its words.
    ensure!(
        Client::carried(smtp, b"EHLO client.test\r\n")
            .await
            .is_err()
    );
    let refused = ["connection_refused", r#""rule":"proxy_networks""#];
    stack.wait_for_log(Agent::Mta, &refused).await?;
    stack.end().await
}

/// A look is no client: it is answered and leaves no trace. One whose client the balancer cannot tell is a client.
#[tokio::test]
async fn a_look_of_the_balancer_is_neither_told_nor_counted() -> Result<()> {
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let settings = format!("{SETTINGS}[msa.http]\nlisten = \"{http}\"\n");
    let stack = stack!().settings(&settings).start().await?;
    let (submission, submissions) = (stack.ports.submission(), stack.ports.submissions());
    let own = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    // The limit of one connection for each address does not hold for looks.
    let mut looks = Vec::new();
    for _ in 0..3 {
        let (look, greeting) = Client::carried(submission, own).await?;
        ensure!(greeting.starts_with("220 "), "{greeting}");
        looks.push(look);
    }
    // As HAProxy looks: it says whose connection it is and goes, without a word of TLS.
    let mut look = TcpStream::connect(submissions).await?;
    look.write_all(own).await?;
    drop((looks, look));

    let (mut client, _) = Client::carried(submission, b"PROXY UNKNOWN\r\n").await?;
    client.expect("QUIT", "221").await?;
    let (header, ca_file) = (text("198.51.100.7"), stack.ca_file());
    let (mut client, _) = Client::carried_tls(submissions, &header, &ca_file).await?;
    client.expect("QUIT", "221").await?;
    for listener in ["submission", "submissions"] {
        let listener = format!(r#""listener":"{listener}""#);
        let closed = [r#""event":"connection_closed""#, &listener];
        stack.wait_for_log(Agent::Msa, &closed).await?;
    }
    let log = stack.log(Agent::Msa);
    for (event, times) in [
        ("connection_opened", 2),
        ("connection_closed", 2),
        ("tls_failed", 0),
    ] {
        ensure!(log.matches(event).count() == times, "{event}:\n{log}");
    }
    let counted = MetricsPage::of(http).await?;
    let connections = counted.value("postroad_connections_total", &[])?;
    ensure!((connections - 2.0).abs() < 0.5, "{connections}");
    stack.end().await
}

#[tokio::test]
async fn people_reach_the_msa_through_a_balancer_on_both_ports() -> Result<()> {
    let stack = stack!().settings(SETTINGS).start().await?;
    let ca_file = stack.ca_file();
    let (submission, submissions) = (stack.ports.submission(), stack.ports.submissions());
    let (client, _) = Client::carried(submission, &text("198.51.100.7")).await?;
    let mut starttls = client.starttls(&ca_file).await?;
    starttls.login("alice@demo.test", PASSWORD).await?;
    let header = binary("2001:db8::7");
    let (mut implicit, _) = Client::carried_tls(submissions, &header, &ca_file).await?;
    implicit.expect("EHLO client.test", "250").await?;
    implicit.login("alice@demo.test", PASSWORD).await?;
    for (client, port, address) in [
        (&mut starttls, "587", "[198.51.100.7]"),
        (&mut implicit, "465", "[IPv6:2001:db8::7]"),
    ] {
        let content = mail(&format!("by port {port}"), "a\r\n");
        client
            .deliver("alice@demo.test", &["bob@demo.test"], &content)
            .await?;
        let subject = format!("Subject: by port {port}");
        let found = stack.wait_for_mail_with("bob@demo.test", &subject).await?;
        ensure!(found.contains(address), "{}", found.text());
    }
    let logged_in = ["auth_succeeded", r#""peer":"[2001:db8::7]:4711""#];
    stack.wait_for_log(Agent::Msa, &logged_in).await?;

    // One connection each, by the client's address: the balancer has more.
    let (_, greeting) = Client::carried(submission, &text("198.51.100.7")).await?;
    ensure!(greeting.starts_with("421 4.7.0"), "{greeting}");
    let (_, greeting) = Client::carried(submission, &text("198.51.100.8")).await?;
    ensure!(greeting.starts_with("220 "), "{greeting}");
    stack.end().await
}

#[tokio::test]
async fn lmtp_serves_the_clients_it_knows_through_a_balancer() -> Result<()> {
    let stack = stack!().settings(SETTINGS).start().await?;
    let (mut lmtp, _) = Client::carried(stack.ports.lmtp(), &text("198.51.100.7")).await?;
    lmtp.expect("LHLO mta.test", "250").await?;
    lmtp.deliver(
        "friend@world.test",
        &["bob@demo.test"],
        &mail("by LMTP", "a\r\n"),
    )
    .await?;
    let found = stack
        .wait_for_mail_with("bob@demo.test", "Subject: by LMTP")
        .await?;
    ensure!(found.contains("[198.51.100.7]"), "{}", found.text());
    let (_, greeting) = Client::carried(stack.ports.lmtp(), &text("127.0.0.1")).await?;
    ensure!(greeting.starts_with("554 5.7.1"), "{greeting}");
    stack.end().await
}
