use super::*;

#[test]
fn chunks_instead_of_dots() {
    let chunking = ClientConfig {
        chunking: true,
        ..config()
    };
    let ehlo = "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    let mut talk = Talk::ready(chunking.clone(), false, ehlo);
    talk.0.send(mail(&["b@mx.example"]));
    assert_eq!(
        talk.hear("250 ok\r\n250 ok\r\n"),
        Ok(Some(Progress::SendContent))
    );
    talk.0.take_output();
    talk.0.content(b".x\r\n").unwrap();
    talk.0.content_end().unwrap();
    talk.says("BDAT 4 LAST\r\n.x\r\n");
    assert_eq!(talk.done("250 mine\r\n"), ["accepted 250 mine"]);

    talk.0.send(mail(&["b@mx.example"]));
    assert_eq!(
        talk.hear("250 ok\r\n250 ok\r\n"),
        Ok(Some(Progress::SendContent))
    );
    talk.0.content(&[b'x'; 300 << 10]).unwrap();
    talk.0.content_end().unwrap();
    assert_eq!(talk.hear("452 4.3.1 full\r\n"), Ok(None));
    assert_eq!(talk.done("250 forgetful\r\n"), ["Content 452 4.3.1 full"]);
}

/// RFC 2920 §3.1: no more chunks are under way than there is surely room for the replies.
#[test]
fn chunks_wait_for_replies() {
    let mut talk = chunking_until_it_waits();
    assert_eq!(talk.hear("250 ok\r\n"), Ok(None));
    assert!(!talk.0.awaits_replies());
    talk.0.content_end().unwrap();
    talk.says("BDAT 0 LAST\r\n");
    assert_eq!(talk.hear(&"250 ok\r\n".repeat(7)), Ok(None));
    assert_eq!(talk.done("250 mine\r\n"), ["accepted 250 mine"]);
}

/// RFC 3030 §2: what was refused is not sent to its end, and RSET comes before the next mail.
#[test]
fn a_refused_chunk_ends_the_content() {
    let mut talk = chunking_until_it_waits();
    assert_eq!(talk.hear("552 5.3.4 large\r\n"), Ok(None));
    assert!(talk.0.awaits_replies());
    assert_eq!(talk.0.stage(), Stage::Content);
    talk.0.content(b"more").unwrap();
    talk.0.content_end().unwrap();
    talk.says("");
    let rest = "503 5.5.1 no\r\n".repeat(7);
    assert_eq!(talk.done(&rest), ["Content 552 5.3.4 large"]);
    assert!(!talk.0.awaits_replies());
    talk.0.send(mail(&["b@mx.example"]));
    talk.says("RSET\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n");
}

fn chunking_until_it_waits() -> Talk {
    let chunking = ClientConfig {
        chunking: true,
        ..config()
    };
    let ehlo = "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    let mut talk = Talk::ready(chunking, false, ehlo);
    talk.0.send(mail(&["b@mx.example"]));
    let go = talk.hear("250 ok\r\n250 ok\r\n");
    assert_eq!(go, Ok(Some(Progress::SendContent)));
    for chunk in 1..=8 {
        assert!(!talk.0.awaits_replies(), "{chunk}");
        talk.0.content(&[b'x'; 256 << 10]).unwrap();
    }
    assert!(talk.0.awaits_replies());
    talk.0.take_output();
    talk
}
