//! Content on its way out, and what a host must offer for it.

use super::*;

#[tokio::test]
async fn what_the_host_lacks_is_found_before_content_is_sent() {
    let small = Script {
        ehlo: Some(vec!["SIZE 10"]),
        ..Script::default()
    };
    let (done, host) = sent(small, &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 failed 5.3.4"]);
    assert!(!host.heard()[0].commands.join(" ").contains("MAIL"));

    let bare = || Script {
        ehlo: Some(vec!["SIZE"]),
        ..Script::default()
    };
    let host = Host::start(bare()).await;
    let mut mail = lease("example.test", &["bob"]);
    mail.envelope.body = BodyKind::EightBitMime;
    let done = run(to_port(host.address.port()), mail).await;
    assert_eq!(done.outcomes(), ["0 failed 5.6.3"]);
    let bare = || Script {
        ehlo: Some(vec!["8BITMIME"]),
        ..Script::default()
    };
    let host = Host::start(bare()).await;
    let mut mail = lease("example.test", &["bob"]);
    mail.envelope.smtputf8 = true;
    // Asked for, and nothing in it needs it.
    let done = run(to_port(host.address.port()), mail.clone()).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    mail.envelope.body = BodyKind::EightBitMime;
    let content = "Subject: Gr\u{fc}\u{df}e\r\n\r\nbody\r\n";
    mail.content = Some(Bytes::from_static(content.as_bytes()));
    mail.envelope.size = content.len() as u64;
    let done = run(to_port(host.address.port()), mail).await;
    assert_eq!(done.outcomes(), ["0 failed 5.6.7"]);
}

/// RFC 6152 §3, RFC 3461 §6.2: a report has nobody who could be told that it did not arrive.
#[tokio::test]
async fn a_report_in_eight_bits_is_said_in_seven_to_a_host_without_8bitmime() {
    let report = "From: MAILER-DAEMON@ours.test\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n\
        \tboundary=\"line\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--line\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
        Gr\u{fc}\u{df}e\r\n--line\r\nContent-Type: message/rfc822\r\n\r\nSubject: it\r\n\r\nb\u{f8}dy\r\n\r\n--line--\r\n";
    let mut mail = lease("example.test", &["alice"]);
    mail.envelope.reverse_path = ReversePath::Null;
    mail.envelope.body = BodyKind::EightBitMime;
    mail.envelope.size = report.len() as u64;
    for (ehlo, parameter, expected) in [
        ("SIZE", "SIZE", "Gr=C3=BC=C3=9Fe"),
        ("8BITMIME", "BODY=8BITMIME", "Gr\u{fc}\u{df}e"),
    ] {
        for inline in [true, false] {
            let queue = FakeQueue::default();
            let content = Bytes::from_static(report.as_bytes());
            mail.content = Some(content.clone()).filter(|_| inline);
            queue.with(|data| data.content.insert(mail.envelope.queue_id, content));
            let script = Script {
                ehlo: Some(vec![ehlo]),
                ..Script::default()
            };
            let host = Host::start(script).await;
            let done = run_with(to_port(host.address.port()), mail.clone(), &queue).await;
            assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
            let heard = &host.heard()[0];
            assert!(
                heard.commands[1].contains(parameter),
                "{:?}",
                heard.commands
            );
            let content = String::from_utf8(heard.content.clone()).unwrap();
            assert!(content.contains(expected), "{content}");
            assert_eq!(content.is_ascii(), ehlo == "SIZE");
        }
    }
}

/// RFC 6531 §3.5 and §3.2: a domain has a form for every host, a local part has not.
#[tokio::test]
async fn who_needs_smtputf8_is_asked_for_only_where_it_is_offered() {
    let mut mail = lease("example.test", &["bob"]);
    mail.envelope.smtputf8 = true;
    let strange = "b\u{f8}b@example.test".parse().unwrap();
    let strange = Recipient::new(RecipientIndex(1), strange);
    mail.envelope.recipients.push(strange);
    for (ehlo, outcome, parameter) in [
        ("PIPELINING", "1 failed 5.6.7", ""),
        ("SMTPUTF8", "1 relayed 2.0.0", " SMTPUTF8"),
    ] {
        let script = Script {
            ehlo: Some(vec![ehlo]),
            ..Script::default()
        };
        let host = Host::start(script).await;
        let done = run(to_port(host.address.port()), mail.clone()).await;
        assert_eq!(done.outcomes(), ["0 relayed 2.0.0", outcome]);
        let command = format!("MAIL FROM:<alice@ours.test>{parameter}");
        assert_eq!(host.heard()[0].commands[1], command);
    }
}

/// Lines of every kind: leading dots, 8-bit, empty, long.
fn large_body() -> Vec<u8> {
    let mut body = Vec::new();
    for number in 0..40_000_u32 {
        let line = match number % 5 {
            0 => format!(".{number} leads with a dot\r\n").into_bytes(),
            1 => b"..\r\n".to_vec(),
            // No bare line ends, as in everything that was accepted.
            2 => {
                let eight_bit = number.to_be_bytes().map(|octet| octet | 0x80);
                [b"8-bit \xe4 ".as_slice(), &eight_bit, b"\r\n"].concat()
            }
            3 => b"\r\n".to_vec(),
            _ => [vec![b'x'; 600], b"\r\n".to_vec()].concat(),
        };
        body.extend_from_slice(&line);
    }
    body
}

fn unstuffed(content: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        lines.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    lines
}

#[tokio::test]
async fn large_content_is_streamed_octet_for_octet_with_its_edits() {
    let header = b"Subject: large\r\nX-Gone: yes\r\n\r\n";
    let body = large_body();
    let content = [header.as_slice(), &body].concat();
    assert!(content.len() > 4 << 20, "{}", content.len());
    let mut mail = lease("example.test", &["bob"]);
    mail.content = None;
    mail.envelope.size = content.len() as u64;
    mail.envelope.header_edits = vec![
        HeaderEdit::Add {
            place: EditPlace::Top,
            field: b"Received: by us\r\n".to_vec(),
        },
        HeaderEdit::Remove {
            name: "x-gone".to_owned(),
            occurrence: None,
        },
    ];
    let queue = FakeQueue::default();
    queue.with(|data| data.content.insert(mail.envelope.queue_id, content.into()));
    let host = Host::start(Script::default()).await;
    let done = run_with(to_port(host.address.port()), mail, &queue).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    let expected = [
        b"Received: by us\r\nSubject: large\r\n\r\n".as_slice(),
        &body,
    ]
    .concat();
    let heard = &host.heard()[0];
    assert!(
        unstuffed(&heard.content) == expected,
        "the content arrives as it was"
    );
    assert!(
        heard.commands[1].ends_with(&format!("SIZE={}", expected.len())),
        "{}",
        heard.commands[1]
    );
}

#[tokio::test]
async fn content_that_breaks_off_is_never_ended_with_a_dot() {
    let mut mail = lease("example.test", &["bob"]);
    let content = [b"Subject: x\r\n\r\n".to_vec(), large_body()].concat();
    mail.content = None;
    mail.envelope.size = content.len() as u64;
    let queue = FakeQueue::default();
    queue.with(|data| {
        data.content.insert(mail.envelope.queue_id, content.into());
        data.read_breaks_after = Some(300_000);
    });
    let host = Host::start(Script::default()).await;
    let done = run_with(to_port(host.address.port()), mail, &queue).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.3.0"]);
    assert!(
        host.heard()[0].content.is_empty(),
        "no whole content arrived"
    );
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_delays() {
    let mut mail = lease("example.test", &["bob"]);
    mail.content = None;
    let done = run(to_port(2525), mail).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.3.0"]);
    assert!(
        done.text().contains(&QueueError::NotFound.to_string()),
        "{}",
        done.text()
    );
}

#[tokio::test]
async fn content_that_ends_too_early_is_never_ended_with_a_dot() {
    let mut mail = lease("example.test", &["bob"]);
    let content = [b"Subject: x\r\n\r\n".to_vec(), large_body()].concat();
    mail.content = None;
    mail.envelope.size = content.len() as u64 + 1;
    let queue = FakeQueue::default();
    queue.with(|data| data.content.insert(mail.envelope.queue_id, content.into()));
    let host = Host::start(Script::default()).await;
    let done = run_with(to_port(host.address.port()), mail, &queue).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.3.0"]);
    assert!(host.heard()[0].content.is_empty());
}

/// RFC 5321 §2.3.8: no mail is smuggled through us, and none is changed so that it cannot be.
#[tokio::test]
async fn what_is_not_made_of_lines_is_not_sent() {
    for body in [
        &b"a\n.\nMAIL FROM:<>\r\n"[..],
        b"a\r.\r\n",
        b"a\r\n\n",
        b"a\r",
    ] {
        let host = Host::start(Script::default()).await;
        let content = [b"Subject: s\r\n\r\n", body].concat();
        let mut mail = lease("example.test", &["bob", "eve"]);
        mail.envelope.size = content.len() as u64;
        mail.content = Some(Bytes::from(content));
        let done = run(to_port(host.address.port()), mail).await;
        assert_eq!(done.outcomes(), ["0 failed 5.6.0", "1 failed 5.6.0"]);
        assert!(done.text().contains("bare"), "{}", done.text());
        assert!(host.heard().is_empty(), "nobody was asked");
    }
}

/// Content that is not at hand is looked at as it goes; without its end the host has no mail.
#[tokio::test]
async fn large_content_that_is_not_made_of_lines_never_ends() {
    let host = Host::start(Script::default()).await;
    let mut content = [&b"Subject: s\r\n\r\n"[..], &large_body()].concat();
    let smuggled = b"\n.\r\nMAIL FROM:<eve@else.test>\r\n";
    content.splice(2_000_000..2_000_000, smuggled.iter().copied());
    let mut mail = lease("example.test", &["bob"]);
    mail.content = None;
    mail.envelope.size = content.len() as u64;
    let queue = FakeQueue::default();
    queue.with(|data| data.content.insert(mail.envelope.queue_id, content.into()));
    let done = run_with(to_port(host.address.port()), mail, &queue).await;
    assert_eq!(done.outcomes(), ["0 failed 5.6.0"]);
    assert!(host.heard()[0].content.is_empty(), "no end came");
}
