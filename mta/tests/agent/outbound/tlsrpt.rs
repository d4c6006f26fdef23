//! Reports of TLS (RFC 8460): what is counted, and the mail of the day after.

use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;

fn common_in(folder: &Path) -> CommonConfig {
    CommonConfig {
        state_dir: folder.to_owned(),
        ..common()
    }
}

/// The one file of counts that is there, and what is in it.
fn counted(folder: &Path) -> Value {
    let files = std::fs::read_dir(folder.join("mta/tlsrpt")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    serde_json::from_slice(&std::fs::read(files.pop().unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn each_connection_is_counted_by_what_the_domain_wished() {
    let folder = tempfile::tempdir().unwrap();
    let common = common_in(folder.path());
    let tls = tempfile::tempdir().unwrap();
    let script = Script {
        ehlo: Some(vec!["STARTTLS"]),
        starttls: StartTls::Works(server_tls(&tls)),
        ..Script::default()
    };
    let host = Host::start(script).await;
    let zeros = "00".repeat(32);
    let port = host.address.port();
    let wrong = format!("{ZONE}test. SIGNED\n_{port}._tcp.mx.test. TLSA 3 1 1 {zeros}\n");
    for zone in [ZONE, &wrong, ZONE] {
        let mail = lease("example.test", &["bob"]);
        run_in(zone, &common, to_port(port), mail, &FakeQueue::default()).await;
    }
    let plain = Host::start(Script::default()).await;
    let mail = lease("example.test", &["bob"]);
    let config = to_port(plain.address.port());
    run_in(ZONE, &common, config, mail, &FakeQueue::default()).await;
    let counted = &counted(folder.path())["domains"]["example.test"];
    let told: Vec<String> = counted
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let kinds = one["failures"].as_array().unwrap().iter();
            let kinds: Vec<_> = kinds
                .map(|pair| format!("{} {}", pair[0]["kind"], pair[1]))
                .collect();
            format!("{} {} {kinds:?}", one["policy"]["kind"], one["successes"])
        })
        .collect();
    assert_eq!(
        told,
        [
            r#""no-policy-found" 2 ["\"starttls-not-supported\" 1"]"#,
            r#""tlsa" 0 ["\"validation-failure\" 1"]"#,
        ]
    );
}

#[tokio::test]
async fn who_asks_for_it_is_told_of_the_day_before_by_mail() {
    let folder = tempfile::tempdir().unwrap();
    let days = folder.path().join("mta/tlsrpt");
    std::fs::create_dir_all(&days).unwrap();
    let today = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let yesterday = today.yesterday().unwrap();
    let policy = r#"{"policy":{"kind":"no-policy-found","lines":[],"hosts":[]},"successes":3,"failures":[]}"#;
    let day = format!(r#"{{"domains":{{"example.test":[{policy}],"silent.test":[{policy}]}}}}"#);
    std::fs::write(days.join(format!("{yesterday}.json")), day).unwrap();
    let zone =
        format!("{ZONE}_smtp._tls.example.test. TXT \"v=TLSRPTv1; rua=mailto:tls@example.test\"\n");

    let queue = FakeQueue::default();
    let (told, mut tells) = mpsc::unbounded_channel();
    queue.with(|data| data.told = Some(told));
    let mut config = config();
    config.outbound.tls_reports.spread = "0s".parse().unwrap();
    let (deps, common) = (deps(&queue, &zone).await, common_in(folder.path()));
    let shutdown = CancellationToken::new();
    let agent = postroad_mta::serve(config, &common, deps, shutdown.clone());
    let wait = async {
        timeout(PATIENCE, tells.recv())
            .await
            .expect("a report is sent");
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(agent, wait);
    served.unwrap();

    let mails = queue.with(|data| std::mem::take(&mut data.mails));
    assert_eq!(mails.len(), 1, "silent.test asks for nothing");
    let (envelope, _, content) = &mails[0];
    assert!(envelope.reverse_path.is_null());
    assert_eq!(
        envelope.recipients[0].address.to_string(),
        "tls@example.test"
    );
    let text = String::from_utf8(content.clone()).unwrap();
    assert!(
        text.contains("\r\nTLS-Report-Domain: example.test\r\n"),
        "{text}"
    );
    let (_, packed) = text.rsplit_once(".json.gz\"\r\n\r\n").unwrap();
    let (packed, _) = packed.split_once("\r\n\r\n").unwrap();
    let packed = STANDARD.decode(packed.replace("\r\n", "")).unwrap();
    let mut report = String::new();
    let mut unpacked = flate2::read::GzDecoder::new(packed.as_slice());
    unpacked.read_to_string(&mut report).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        report["policies"][0]["summary"]["total-successful-session-count"],
        3
    );
    assert_eq!(
        report["date-range"]["start-datetime"],
        format!("{yesterday}T00:00:00Z")
    );
    assert!(days.join(format!("{yesterday}.sent")).exists());
}
