//! What a host bears (RFC 9422), and what it wants to be told (RFC 3461, RFC 6710).

use super::*;

/// The commands of each connection that name recipients or begin a mail, without their parameters.
fn asked(host: &Host) -> Vec<Vec<String>> {
    let of_mail = |command: &&String| command.starts_with("MAIL") || command.starts_with("RCPT");
    let short = |command: &String| {
        let word = &command[..4];
        let local = command.split(['<', '@']).nth(1).unwrap();
        format!("{word} {local}")
    };
    let heard = host.heard();
    let each = heard.iter().map(|heard| {
        let commands = heard.commands.iter().filter(of_mail);
        commands.map(short).collect()
    });
    each.collect()
}

#[tokio::test]
async fn recipients_come_in_as_many_transactions_as_the_host_bears() {
    let script = Script {
        ehlo: Some(vec!["PIPELINING", "LIMITS RCPTMAX=2"]),
        rcpt: vec![("never", "550 5.1.1 no such user")],
        ..Script::default()
    };
    let (done, host) = sent(script, &["a", "b", "never", "c", "d"]).await;
    let expected = [
        "0 relayed 2.0.0",
        "1 relayed 2.0.0",
        "2 failed 5.1.1",
        "3 relayed 2.0.0",
        "4 relayed 2.0.0",
    ];
    assert_eq!(done.outcomes(), expected);
    let one = [
        "MAIL alice",
        "RCPT a",
        "RCPT b",
        "MAIL alice",
        "RCPT never",
        "RCPT c",
        "MAIL alice",
        "RCPT d",
    ];
    assert_eq!(asked(&host), [one]);
}

#[tokio::test]
async fn a_host_that_bears_few_mails_a_connection_is_connected_to_again() {
    let script = Script {
        ehlo: Some(vec!["LIMITS MAILMAX=2 RCPTMAX=1"]),
        ..Script::default()
    };
    let (done, host) = sent(script, &["a", "b", "c"]).await;
    assert_eq!(done.outcomes().len(), 3);
    assert!(
        done.outcomes()
            .iter()
            .all(|one| one.ends_with("relayed 2.0.0"))
    );
    let first = vec!["MAIL alice", "RCPT a", "MAIL alice", "RCPT b"];
    assert_eq!(asked(&host), [first, vec!["MAIL alice", "RCPT c"]]);
    assert!(
        host.heard()
            .iter()
            .all(|heard| heard.content.ends_with(b"..dot\r\n"))
    );
}

/// RFC 5321 §4.5.3.1.10: a host that told no limit says it at RCPT.
#[tokio::test]
async fn one_too_many_comes_in_a_transaction_of_its_own() {
    let script = Script {
        rcpt_max: Some(2),
        ..Script::default()
    };
    let (done, host) = sent(script, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(done.outcomes().len(), 5);
    assert!(
        done.outcomes()
            .iter()
            .all(|one| one.ends_with("relayed 2.0.0"))
    );
    let asked = asked(&host);
    assert_eq!(asked.len(), 1, "one connection: {asked:?}");
    let mails = asked[0]
        .iter()
        .filter(|command| command.starts_with("MAIL"));
    assert_eq!(mails.count(), 3, "{asked:?}");
}

#[tokio::test]
async fn a_host_that_leaves_between_two_transactions_keeps_what_it_took() {
    let script = Script {
        ehlo: Some(vec!["LIMITS RCPTMAX=1"]),
        rcpt: vec![("b", "421 4.3.2 enough for now")],
        ..Script::default()
    };
    let (done, _host) = sent(script, &["a", "b", "c"]).await;
    let expected = ["0 relayed 2.0.0", "1 delayed 4.3.2", "2 delayed 4.3.2"];
    assert_eq!(done.outcomes(), expected);
}

/// RFC 3461 §5.2.1 and §5.2.2: who was told of NOTIFY reports, and the queue knows whom it need not report.
#[tokio::test]
async fn the_queue_hears_who_reports_success() {
    let success = Notify::On {
        success: true,
        failure: true,
        delay: false,
    };
    for (ehlo, reporting, command) in [
        (
            vec!["DSN"],
            vec![RecipientIndex(0)],
            "RCPT TO:<bob@example.test> NOTIFY=SUCCESS,FAILURE",
        ),
        (vec!["PIPELINING"], vec![], "RCPT TO:<bob@example.test>"),
    ] {
        let script = Script {
            ehlo: Some(ehlo),
            rcpt: vec![("never", "550 5.1.1 no such user")],
            ..Script::default()
        };
        let host = Host::start(script).await;
        let mut lease = lease("example.test", &["bob", "never"]);
        lease.envelope.recipients[0].notify = success;
        lease.envelope.recipients[1].notify = success;
        let done = run(to_port(host.address.port()), lease).await;
        assert_eq!(done.outcomes(), ["0 relayed 2.0.0", "1 failed 5.1.1"]);
        assert_eq!(done.settled.as_ref().unwrap().reporting, reporting);
        let heard = &host.heard()[0];
        assert!(
            heard.commands.iter().any(|said| said == command),
            "{heard:?}"
        );
    }
}

#[tokio::test]
async fn urgency_is_told_where_it_is_understood() {
    for (ehlo, priority, expected) in [
        ("MT-PRIORITY", 4, " MT-PRIORITY=4"),
        ("MT-PRIORITY MIXER", -2, " MT-PRIORITY=-2"),
        ("MT-PRIORITY", 0, ""),
        // RFC 6710 §5: where it is not, nothing is lost but the urgency.
        ("PIPELINING", 4, ""),
    ] {
        let script = Script {
            ehlo: Some(vec![ehlo]),
            ..Script::default()
        };
        let host = Host::start(script).await;
        let mut lease = lease("example.test", &["bob"]);
        lease.envelope.priority = priority;
        let done = run(to_port(host.address.port()), lease).await;
        assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
        let heard = host.heard();
        let said = &heard[0].commands[1];
        assert_eq!(*said, format!("MAIL FROM:<alice@ours.test>{expected}"));
    }
}

/// RFC 2852 §4.1.4: the queue hears who was told of the time, and what cannot be kept is not begun.
#[tokio::test]
async fn what_is_left_of_the_time_goes_with_the_mail() {
    for (ehlo, return_after, outcome, timed) in [
        ("DELIVERBY 30", true, "0 relayed 2.0.0", true),
        ("DELIVERBY 240", false, "0 relayed 2.0.0", true),
        ("DELIVERBY 240", true, "0 failed 5.4.7", false),
        ("PIPELINING", false, "0 relayed 2.0.0", false),
        ("PIPELINING", true, "0 failed 5.3.3", false),
    ] {
        let script = Script {
            ehlo: Some(vec![ehlo]),
            ..Script::default()
        };
        let host = Host::start(script).await;
        let mut lease = lease("example.test", &["bob"]);
        let now = Timestamp::from(std::time::SystemTime::now());
        lease.envelope.deliver_by = Some(DeliverBy {
            at: now.plus(Duration::from_secs(120)),
            return_after,
            trace: false,
        });
        let done = run(to_port(host.address.port()), lease).await;
        assert_eq!(done.outcomes(), [outcome], "{ehlo}");
        let expected: Vec<_> = timed.then_some(RecipientIndex(0)).into_iter().collect();
        assert_eq!(done.settled.as_ref().unwrap().timed, expected, "{ehlo}");
        let heard = host.heard();
        let mut said = heard.iter().flat_map(|heard| &heard.commands);
        let mail = said.find(|said| said.starts_with("MAIL"));
        let by = mail.and_then(|said| said.split(" BY=").nth(1));
        assert_eq!(by.is_some(), timed, "{mail:?}");
        if let Some(by) = by {
            let (seconds, mode) = by.split_once(';').unwrap();
            assert_eq!(mode, if return_after { "R" } else { "N" });
            assert!((90..=120).contains(&seconds.parse::<u64>().unwrap()));
        }
    }
}
