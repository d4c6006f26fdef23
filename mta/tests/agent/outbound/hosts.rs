//! Which host is asked, and when another one.

use super::*;

#[tokio::test]
async fn rfc_5321_5_1_the_next_host_is_asked_when_one_has_no_time() {
    let ok = Script::default;
    for refusing in [
        Script {
            greeting: "421 4.3.2 busy",
            ..ok()
        },
        Script {
            greeting: "554 5.7.1 we do not like you",
            ..ok()
        },
        Script {
            greeting: "this is not SMTP",
            ..ok()
        },
        Script {
            mail: "451 4.7.1 greylisted",
            ..ok()
        },
        Script {
            mail: "421 4.7.0 leaving",
            ..ok()
        },
        Script {
            rcpt: vec![("bob", "421 4.7.0 leaving")],
            ..ok()
        },
        Script {
            hang_up_at: Some("greeting"),
            ..ok()
        },
        Script {
            hang_up_at: Some("EHLO"),
            ..ok()
        },
        Script {
            hang_up_at: Some("RCPT"),
            ..ok()
        },
        Script {
            hang_up_at: Some("DATA"),
            ..ok()
        },
    ] {
        let told = format!(
            "{} {} {:?}",
            refusing.greeting, refusing.mail, refusing.hang_up_at
        );
        let (first, second) = two_hosts(refusing, ok()).await;
        let config = to_port(first.address.port());
        let done = run(config, lease("two.test", &["bob"])).await;
        assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{told}");
        assert_eq!(first.heard().len(), 1, "{told}");
        assert_eq!(second.heard().len(), 1, "{told}");
        assert!(
            done.text().starts_with("backup.test [127.0.0.2]"),
            "{}",
            done.text()
        );
    }
}

#[tokio::test]
async fn a_dead_host_is_passed_over_and_both_dead_is_a_delay() {
    let (first, second) = two_hosts(Script::default(), Script::default()).await;
    let port = first.address.port();
    drop(first);
    tokio::task::yield_now().await;
    let done = run(to_port(port), lease("two.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    drop(second);
    tokio::task::yield_now().await;
    let done = run(to_port(port), lease("two.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.4.1"]);
    for told in ["mx.test [127.0.0.1]", "backup.test [127.0.0.2]", "refused"] {
        assert!(done.text().contains(told), "{}", done.text());
    }
}

#[tokio::test]
async fn only_if_every_host_greets_with_5xx_it_is_for_good() {
    let no = |greeting| Script {
        greeting,
        ..Script::default()
    };
    let (first, _second) = two_hosts(no("554 5.7.1 go away"), no("554 no service")).await;
    let done = run(to_port(first.address.port()), lease("two.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 failed 5.0.0"]);
    assert!(done.text().contains("go away") && done.text().contains("no service"));
    let (first, _second) = two_hosts(no("554 5.7.1 go away"), no("421 4.3.2 later")).await;
    let done = run(to_port(first.address.port()), lease("two.test", &["bob"])).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.3.2"]);
}

#[tokio::test]
async fn rfc_1047_after_the_final_dot_no_other_host_is_asked() {
    let hangs_up = Script {
        hang_up_at: Some("."),
        ..Script::default()
    };
    let silent = Script {
        silent_at: Some("."),
        ..Script::default()
    };
    for script in [hangs_up, silent] {
        let (first, second) = two_hosts(script, Script::default()).await;
        let mut config = to_port(first.address.port());
        config.outbound.timeouts.end = postroad_daemon::Interval::millis(300);
        let done = run(config, lease("two.test", &["bob"])).await;
        assert_eq!(done.outcomes(), ["0 delayed 4.4.2"]);
        assert!(
            done.text().contains("may have taken the mail"),
            "{}",
            done.text()
        );
        assert!(second.heard().is_empty());
    }
}

#[tokio::test]
async fn a_silent_host_is_left_after_its_time() {
    for step in ["greeting", "EHLO", "MAIL", "RCPT", "DATA"] {
        let host = Host::start(Script {
            silent_at: Some(step),
            ..Script::default()
        })
        .await;
        let mut config = to_port(host.address.port());
        let timeouts = &mut config.outbound.timeouts;
        let short = postroad_daemon::Interval::millis(300);
        (timeouts.greeting, timeouts.command, timeouts.data) = (short, short, short);
        let done = run(config, lease("example.test", &["bob"])).await;
        assert_eq!(done.outcomes(), ["0 delayed 4.4.2"], "{step}");
        assert!(
            done.text().contains("did not answer in time"),
            "{step}: {}",
            done.text()
        );
    }
}

#[tokio::test]
async fn rfc_5321_3_2_a_host_without_ehlo_is_spoken_to_with_helo() {
    let (done, host) = sent(
        Script {
            ehlo: None,
            ..Script::default()
        },
        &["bob"],
    )
    .await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    let commands = &host.heard()[0].commands;
    assert_eq!(
        commands[1..3],
        ["HELO mta.ours.test", "MAIL FROM:<alice@ours.test>"]
    );
}

#[tokio::test]
async fn the_next_host_is_asked_for_those_without_an_outcome_alone() {
    let first = Script {
        ehlo: Some(Vec::new()),
        rcpt: vec![
            ("never", "550 5.1.1 no such user"),
            ("bob", "421 4.7.0 leaving"),
        ],
        ..Script::default()
    };
    let (first, second) = two_hosts(first, Script::default()).await;
    let mail = lease("two.test", &["never", "bob", "eve"]);
    let done = run(to_port(first.address.port()), mail).await;
    let expected = ["0 failed 5.1.1", "1 relayed 2.0.0", "2 relayed 2.0.0"];
    assert_eq!(done.outcomes(), expected);
    let commands = second.heard()[0].commands.join(" ");
    assert!(!commands.contains("never"), "{commands}");
}
