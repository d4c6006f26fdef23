//! The host over sockets: what only they show.

use std::io::ErrorKind;
use std::time::Duration;

use postroad_net::{ClientTls, Stream, Trust, connect_tcp, connect_unix};
use postroad_rehearsal::{Ended, EventKind, Keep, Options, Place, Script, Watched};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(20);

async fn host(text: &str) -> Watched {
    let script = Script::parse(text).unwrap();
    Watched::start(script, Place::default()).await.unwrap()
}

async fn connect(host: &Watched) -> Stream {
    connect_tcp(host.address(), PATIENCE, None).await.unwrap()
}

/// Says something and reads until a line begins like this.
async fn ask(stream: &mut Stream, say: &str, until: &str) -> String {
    stream.write_all(say.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = String::new();
    while !heard.lines().any(|line| line.starts_with(until)) || !heard.ends_with('\n') {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.unwrap();
        assert_ne!(count, 0, "it hung up after {heard:?}");
        heard += &String::from_utf8_lossy(&part[..count]);
    }
    heard
}

const MAIL: &str = "EHLO a.test\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n";

#[tokio::test]
async fn a_mail_is_taken_and_told() {
    let host = host("login: alice secret\n").await;
    let mut stream = connect(&host).await;
    ask(&mut stream, MAIL, "354").await;
    ask(&mut stream, "hello\r\n.\r\n", "250 2.0.0").await;
    ask(&mut stream, "QUIT\r\n", "221").await;
    let taken = host.wait_for_mails(1, PATIENCE).await.unwrap();
    assert_eq!(taken[0].content, b"hello\r\n");
    drop(stream);
    let closed = host.wait_for(PATIENCE, |events| {
        let mut kinds = events.iter().map(|event| &event.kind);
        kinds.find_map(|kind| match kind {
            EventKind::Closed(ended) => Some(*ended),
            _ => None,
        })
    });
    assert_eq!(closed.await, Some(Ended::ByHost));
    let totals = host.totals();
    assert_eq!((totals.connections, totals.open, totals.taken), (1, 0, 1));
}

#[tokio::test]
async fn each_certificate_is_what_it_says() {
    let kinds = [
        ("good", true),
        ("expired", false),
        ("for another name", false),
        ("of an unknown authority", false),
    ];
    for (kind, verified) in kinds {
        let host = host(&format!("tls: at once\ncertificate: {kind}\n")).await;
        let trust = Trust::Files(vec![host.authority_file().to_owned()]);
        let tls = ClientTls::verified(trust).unwrap();
        let stream = connect(&host).await;
        let upgraded = stream
            .upgrade_client(&tls, "mx.peer.test", &[], PATIENCE)
            .await;
        match upgraded {
            Ok(mut stream) => {
                assert!(verified, "{kind}");
                ask(&mut stream, "", "220").await;
                host.follow(Script::parse("on NOOP: reset\n").unwrap());
                ask(&mut stream, "NOOP\r\n", "250").await;
            }
            Err(error) => assert!(!verified, "{kind}: {error}"),
        }
    }
}

#[tokio::test]
async fn connections_end_as_the_script_says() {
    let host =
        host("on greeting connection 1: reset\non greeting connection 2: close\non NOOP: reset\n")
            .await;
    let mut octets = [0; 64];
    let mut first = connect(&host).await;
    let error = first.read(&mut octets).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let mut second = connect(&host).await;
    assert_eq!(second.read(&mut octets).await.unwrap(), 0);
    let tls = ClientTls::opportunistic(Trust::Files(Vec::new())).unwrap();
    let mut third = connect(&host).await;
    ask(&mut third, "STARTTLS\r\n", "220 2.0.0").await;
    let third = third.upgrade_client(&tls, "mx.peer.test", &[], PATIENCE);
    let mut third = third.await.unwrap();
    third.write_all(b"NOOP\r\n").await.unwrap();
    third.flush().await.unwrap();
    let error = third.read(&mut octets).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn a_door_may_be_shut_or_deaf() {
    let shut = host("door: shut\n").await;
    let error = connect_tcp(shut.address(), PATIENCE, None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    let deaf = host("door: deaf\n").await;
    let soon = Duration::from_millis(300);
    let error = connect_tcp(deaf.address(), soon, None).await.unwrap_err();
    assert!(matches!(error, postroad_net::Error::TimedOut(_)), "{error}");
    let script = Script::default();
    let open = Watched::start(script, Place::Tcp(([192, 0, 2, 1], 0).into())).await;
    assert!(open.err().unwrap().to_string().contains("loopback"));
}

#[tokio::test]
async fn mails_lie_in_a_folder_before_they_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        keep: Keep::In(folder.path().join("mails")),
        ..Options::default()
    };
    let place = Place::Unix(folder.path().join("lmtp.sock"));
    let script = Script::parse("speaks: lmtp\non end: drip 1ms 250 2.0.0 slowly\n").unwrap();
    let host = Watched::start_with(script, place, options).await.unwrap();
    let socket = folder.path().join("lmtp.sock");
    let mut stream = connect_unix(&socket, PATIENCE).await.unwrap();
    ask(&mut stream, &MAIL.replace("EHLO", "LHLO"), "354").await;
    ask(&mut stream, "hello\r\n.\r\n", "250 2.0.0 slowly").await;
    let read = |name| std::fs::read_to_string(folder.path().join("mails").join(name)).unwrap();
    assert_eq!(read("000001.eml"), "hello\r\n");
    assert!(read("000001.json").contains("\"to\":[\"b@b.test\"]"));
    assert!(
        host.events()
            .iter()
            .all(|event| !matches!(event.kind, EventKind::Said(_)))
    );
}
