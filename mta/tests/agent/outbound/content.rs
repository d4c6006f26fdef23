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
