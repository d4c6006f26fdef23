//! XCLIENT through a real socket.

use std::time::Duration;

use postroad_address::Domain;
use postroad_envelope::{HeaderEdit, Protocol};
use postroad_net::Networks;
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::SmtpdConfig;

use crate::fakes::MemoryQueue;
use crate::server::Server;

const GRACE: Duration = Duration::from_secs(20);

fn config() -> SmtpdConfig {
    let name = Domain::parse("mx.example").unwrap();
    let mut config = SmtpdConfig::new("test", ServerConfig::new(name, Flavour::Smtp));
    config.xclient_networks = Networks::parse(["127.0.0.1"]).unwrap();
    config
}

#[tokio::test]
async fn a_listed_proxy_tells_for_whom_it_speaks() {
    let server = Server::start(config(), MemoryQueue::default(), GRACE);
    let mut client = server.connect().await;
    client.reply().await;
    client.say("EHLO proxy.example").await;
    let told = "XCLIENT NAME=client.example ADDR=192.0.2.7 PORT=40021 HELO=hello.example";
    assert_eq!(client.say(told).await, "220 mx.example ESMTP Postroad");
    client.say("EHLO proxy.example").await;
    client.mail().await;
    let [mail] = &server.mails()[..] else {
        panic!("one mail")
    };
    let origin = &mail.envelope.origin;
    assert_eq!(origin.client, Some("192.0.2.7:40021".parse().unwrap()));
    assert_eq!(origin.rdns.as_deref(), Some("client.example"));
    assert_eq!(origin.helo.as_deref(), Some("hello.example"));
    assert_eq!(origin.peer, None, "not hearsay");
    let HeaderEdit::Add { field, .. } = &mail.envelope.header_edits[0] else {
        panic!("{:?}", mail.envelope.header_edits)
    };
    let field = String::from_utf8_lossy(field);
    let start = "Received: from hello.example (client.example [192.0.2.7])\r\n\tby mx.example ";
    assert!(field.starts_with(start), "{field}");
}

#[tokio::test]
async fn what_was_not_told_is_not_known_and_never_the_proxys() {
    let server = Server::start(config(), MemoryQueue::default(), GRACE);
    let mut client = server.connect().await;
    client.reply().await;
    assert!(client.say("XCLIENT PROTO=SMTP").await.starts_with("220 "));
    client.say("EHLO c.example").await;
    client.mail().await;
    let [mail] = &server.mails()[..] else {
        panic!("one mail")
    };
    let origin = &mail.envelope.origin;
    assert_eq!((origin.client, &origin.rdns), (None, &None));
    assert_eq!(origin.protocol, Protocol::Smtp);
}

#[tokio::test]
async fn a_client_behind_a_proxy_is_no_neighbour() {
    let mut config = config();
    config.xforward_networks = Networks::parse(["127.0.0.1"]).unwrap();
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut client = server.connect().await;
    client.reply().await;
    client.say("EHLO proxy.example").await;
    assert!(client.say("XFORWARD NAME=a").await.starts_with("250 "));
    client.say("XCLIENT ADDR=192.0.2.7").await;
    client.say("EHLO c.example").await;
    assert!(
        client
            .say("XFORWARD NAME=a")
            .await
            .starts_with("550 5.7.1 ")
    );
}

#[tokio::test]
async fn a_client_has_as_many_connections_as_any_other() {
    let server = Server::start(config(), MemoryQueue::default(), GRACE);
    let mut all = Vec::new();
    for _ in 0..50 {
        let mut client = server.connect().await;
        client.reply().await;
        assert!(
            client
                .say("XCLIENT ADDR=192.0.2.7")
                .await
                .starts_with("220 ")
        );
        all.push(client);
    }
    let mut client = server.connect().await;
    client.reply().await;
    let said = client.say("XCLIENT ADDR=192.0.2.7").await;
    assert!(
        said.starts_with("421 4.7.0 too many connections from your"),
        "{said}"
    );
    // The proxy has room for others.
    let mut client = server.connect().await;
    client.reply().await;
    assert!(
        client
            .say("XCLIENT ADDR=192.0.2.8")
            .await
            .starts_with("220 ")
    );
}
