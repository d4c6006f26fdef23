use super::*;

#[test]
fn passwords_are_shown_under_tls_alone() {
    let with_auth = || ClientConfig {
        auth: Some(("bob".into(), Password::new("secret"))),
        ..config()
    };
    let mut talk = Talk(ClientSession::new(with_auth(), false));
    assert_eq!(
        talk.hear("220 mx\r\n250-mx\r\n250 AUTH PLAIN\r\n"),
        Err(ClientError::AuthWithoutTls)
    );
    let mut talk = Talk(ClientSession::new(with_auth(), true));
    assert_eq!(
        talk.hear("220 mx\r\n250-mx\r\n250 AUTH LOGIN\r\n"),
        Ok(None)
    );
    assert_eq!(
        talk.hear("334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"),
        Ok(None)
    );
    talk.says("EHLO client.example\r\nAUTH LOGIN\r\nYm9i\r\nc2VjcmV0\r\n");
    assert_eq!(talk.hear("235 ok\r\n"), Ok(Some(Progress::Ready)));

    let anywhere = ClientConfig {
        auth_without_tls: true,
        ..with_auth()
    };
    let mut talk = Talk(ClientSession::new(anywhere, false));
    assert_eq!(
        talk.hear("220 mx\r\n250-mx\r\n250 AUTH PLAIN LOGIN\r\n"),
        Ok(None)
    );
    talk.says("EHLO client.example\r\nAUTH PLAIN AGJvYgBzZWNyZXQ=\r\n");
}

#[test]
fn what_the_host_offers_instead_of_our_mechanisms_is_told() {
    let with_auth = || ClientConfig {
        auth: Some(("bob".into(), Password::new("secret"))),
        ..config()
    };
    let told = |ehlo: &str| {
        let mut talk = Talk(ClientSession::new(with_auth(), true));
        talk.hear(ehlo).unwrap_err().to_string()
    };
    let none = told("220 mx\r\n250 mx\r\n");
    assert!(none.ends_with("(it offers none)"), "{none}");
    let others = told("220 mx\r\n250-mx\r\n250 AUTH GSSAPI XOAUTH2\r\n");
    assert!(others.ends_with("(it offers GSSAPI XOAUTH2)"), "{others}");
}

#[test]
fn rfc_4954_who_submitted_is_told_where_we_have_logged_in() {
    let from = |auth: &str| OutgoingMail {
        auth: Some(auth.to_owned()),
        ..mail(&["b@mx.example"])
    };
    let mut stranger = Talk::ready(config(), true, "250-mx\r\n250 AUTH PLAIN\r\n");
    stranger.0.send(from("a@client.example"));
    stranger.says("MAIL FROM:<a@client.example>\r\n");

    let with_auth = ClientConfig {
        auth: Some(("bob".into(), Password::new("secret"))),
        ..config()
    };
    for (auth, said) in [("a+b@client.example", "a+2Bb@client.example"), ("", "<>")] {
        let mut talk = Talk(ClientSession::new(with_auth.clone(), true));
        talk.hear("220 mx\r\n250-mx\r\n250 AUTH PLAIN\r\n").unwrap();
        assert_eq!(talk.hear("235 ok\r\n"), Ok(Some(Progress::Ready)));
        talk.0.take_output();
        talk.0.send(from(auth));
        talk.says(&format!("MAIL FROM:<a@client.example> AUTH={said}\r\n"));
    }
}
