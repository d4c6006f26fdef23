use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

#[test]
fn what_issuers_answer_is_read() {
    let given = read(200, br#"{"access_token":"ya29.a","expires_in":"3599","token_type":"Bearer","refresh_token":"1//b"}"#);
    let given = given.map_err(|error| error.to_string()).unwrap();
    assert_eq!(
        (given.token.reveal(), given.life.as_secs()),
        ("ya29.a", 3599)
    );
    assert_eq!(given.refresh.unwrap().reveal(), "1//b");
    let told = |status, body: &str| read(status, body.as_bytes()).err().unwrap();
    assert_eq!(
        told(
            400,
            r#"{"error":"invalid_grant","error_description":"Token has been expired\nor revoked."}"#
        ),
        GrantError::Refused("invalid_grant: Token has been expiredor revoked.".to_owned())
    );
    for (status, body) in [
        (503, "busy"),
        (500, "{}"),
        (503, r#"{"error":"temporarily_unavailable"}"#),
        (200, r#"{"access_token":""}"#),
        (200, r#"{"access_token":"two words"}"#),
        (200, r#"{"access_token":"x","token_type":"mac"}"#),
    ] {
        let error = told(status, body);
        assert!(
            matches!(error, GrantError::Unreachable(_)),
            "{body}: {error}"
        );
        assert!(!error.to_string().contains("two words"), "no token is told");
    }
}

#[test]
fn what_cannot_work_is_told() {
    let config = |url: &str| GrantConfig {
        token_url: url.to_owned(),
        client_id: String::new(),
        client_secret_file: None,
        refresh_token_file: None,
        scope: None,
        ca_file: Some("/nowhere.pem".into()),
    };
    let keys = |url| {
        config(url)
            .faults()
            .iter()
            .map(|fault| fault.0)
            .collect::<Vec<_>>()
    };
    let all = ["client_id", "client_secret_file", "token_url"];
    assert_eq!(keys("http://id.example/token"), all);
    assert_eq!(
        keys("https://id.example/token"),
        ["client_id", "client_secret_file", "ca_file"]
    );
    assert_eq!(
        keys("http://127.0.0.1/token"),
        ["client_id", "client_secret_file"]
    );
}

#[tokio::test]
async fn a_token_is_asked_for_once_in_its_life_and_by_the_latest_refresh_token() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        SecretFile::read(path.to_str().unwrap()).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = GrantConfig {
        token_url: format!("http://127.0.0.1:{port}/token"),
        client_id: "a b".to_owned(),
        client_secret_file: Some(secret("secret", "s&cret\n")),
        refresh_token_file: Some(secret("refresh", "first\n")),
        scope: Some("https://mail.example/".to_owned()),
        ca_file: None,
    };
    let tokens = AccessTokens::new(&config).unwrap();
    let issuer = tokio::spawn(async move {
        let mut asked = Vec::new();
        for number in 1..=2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut octets = vec![0; 4096];
            let mut count = 0;
            while !octets[..count].ends_with(b"mail.example%2F") {
                count += stream.read(&mut octets[count..]).await.unwrap();
            }
            asked.push(String::from_utf8_lossy(&octets[..count]).into_owned());
            let body = format!(
                r#"{{"access_token":"token{number}","expires_in":3600,"refresh_token":"second"}}"#
            );
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    for _ in 0..3 {
        assert_eq!(tokens.token().await.unwrap().reveal(), "token1");
    }
    tokens.forget();
    assert_eq!(tokens.token().await.unwrap().reveal(), "token2");
    let asked = issuer.await.unwrap();
    assert!(
        asked[0].starts_with("POST /token HTTP/1.1\r\n"),
        "{}",
        asked[0]
    );
    assert!(asked[0].ends_with(
        "\r\n\r\ngrant_type=refresh_token&client_id=a%20b&client_secret=s%26cret&refresh_token=first&scope=https%3A%2F%2Fmail.example%2F"
    ), "{}", asked[0]);
    assert!(asked[1].contains("&refresh_token=second&"), "{}", asked[1]);
    let gone = tokens.token().await;
    assert_eq!(gone.unwrap().reveal(), "token2", "it is still kept");
    tokens.forget();
    assert!(matches!(
        tokens.token().await,
        Err(GrantError::Unreachable(_))
    ));
}
