//! STARTTLS: used, refused, broken, required.

use super::*;

fn offering(starttls: StartTls) -> Script {
    Script {
        ehlo: Some(vec!["STARTTLS", "PIPELINING"]),
        starttls,
        ..Script::default()
    }
}

#[tokio::test]
async fn tls_is_used_where_it_is_offered() {
    let folder = tempfile::tempdir().unwrap();
    let script = offering(StartTls::Works(server_tls(&folder)));
    let (done, host) = sent(script, &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    let heard = &host.heard()[0];
    assert!(heard.tls);
    assert_eq!(
        heard.commands[2], "EHLO mta.ours.test",
        "RFC 3207 §4.2: greeted again"
    );
    let report = done.settled.as_ref().unwrap().outcomes[0].1.report();
    let tls = report.remote.as_ref().unwrap().tls.as_ref().unwrap();
    assert_eq!(tls.version, "TLS1.3");
    assert!(
        done.events[0].fields["tls"].starts_with("TLS1.3 TLS_"),
        "{:?}",
        done.events
    );
}

#[tokio::test]
async fn rfc_7435_broken_tls_falls_back_to_plain_text_on_a_new_connection() {
    let (done, host) = sent(offering(StartTls::Breaks), &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    assert_eq!(host.heard().len(), 2);
    let refused = StartTls::Refused("454 4.7.0 TLS not available");
    let (done, host) = sent(offering(refused), &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    assert_eq!(
        host.heard().len(),
        1,
        "RFC 3207 §4: the same connection goes on"
    );
}

#[tokio::test]
async fn tls_can_be_required_or_switched_off() {
    let refused = StartTls::Refused("454 4.7.0 not now");
    for script in [
        Script::default(),
        offering(StartTls::Breaks),
        offering(refused),
    ] {
        let host = Host::start(script).await;
        let mut config = to_port(host.address.port());
        config.outbound.tls = TlsPolicy::Encrypt;
        let done = run(config, lease("example.test", &["bob"])).await;
        assert_eq!(done.outcomes(), ["0 delayed 4.7.0"], "{}", done.text());
        let commands = host.heard()[0].commands.join(" ");
        assert!(!commands.contains("MAIL"), "{commands}");
    }
    let host = Host::start(offering(StartTls::Breaks)).await;
    let mut config = to_port(host.address.port());
    config.outbound.tls = TlsPolicy::None;
    let done = run(config, lease("example.test", &["bob"])).await;
    assert_eq!(
        (done.outcomes(), host.heard().len()),
        (vec!["0 relayed 2.0.0".to_owned()], 1)
    );
}
