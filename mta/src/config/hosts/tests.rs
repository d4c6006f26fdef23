use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use postroad_envelope::{NextHop, RouteClass};

use super::*;
use crate::Config;

fn pattern(text: &str) -> HostPattern {
    text.parse().unwrap()
}

fn route(next_hop: Option<&str>, destination: &str) -> Route {
    Route {
        next_hop: next_hop.map(|hop| hop.parse::<NextHop>().unwrap()),
        ..Route::new(RouteClass::Relay, destination, "test")
    }
}

/// The section, in a folder with a password that only we may read.
fn read(hosts: &str) -> (tempfile::TempDir, ConfigFile, Result<Config, ConfigError>) {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    fs::write(&secret, "hunter2\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!("[mta.outbound]\nhosts = [{hosts}]\n")
        .replace("FOLDER", folder.path().to_str().unwrap());
    let file = ConfigFile::assemble([(PathBuf::from("t.toml"), text)], []).unwrap();
    let section = file.section("mta");
    (folder, file, section)
}

fn problems(hosts: &str) -> Vec<String> {
    let (_folder, file, section) = read(hosts);
    let found = check(&section.unwrap().outbound.hosts, &file);
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn patterns_are_read_and_written_alike() {
    for (text, shown) in [
        ("smtp.example.net:587", "smtp.example.net:587"),
        ("SMTP.Example.net.", "smtp.example.net"),
        ("bücher.example:25", "xn--bcher-kva.example:25"),
        ("192.0.2.1:25", "192.0.2.1:25"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:db8:0::1]:25", "[2001:db8::1]:25"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("postfix:25", "postfix:25"),
    ] {
        assert_eq!(pattern(text).to_string(), shown);
    }
    for text in [
        "",
        ":25",
        "a:0",
        "a:x",
        "a b",
        "*",
        "unix:/run/lmtp",
        "a:70000",
    ] {
        assert!(text.parse::<HostPattern>().is_err(), "{text}");
    }
}

#[test]
fn the_entry_with_the_port_counts_more_and_domains_are_meant_without_a_route() {
    let entry = |host: &str| HostConfig {
        host: pattern(host),
        tls: TlsPolicy::Verify,
        implicit_tls: None,
        tls_names: Vec::new(),
        ca_file: None,
        cert_file: None,
        key_file: None,
        user: None,
        password_file: None,
        token_file: None,
        oauth: None,
        password_needs: PasswordNeeds::default(),
        mechanisms: Vec::new(),
    };
    let hosts = [
        "smtp.example.net",
        "smtp.example.net:587",
        "partner.example",
        "::1",
    ]
    .map(entry);
    let of = |hop, destination| position(&hosts, &route(hop, destination), 25);
    assert_eq!(of(Some("smtp.example.net:25"), "x.example"), Some(0));
    assert_eq!(of(Some("SMTP.example.net:587"), "x.example"), Some(1));
    assert_eq!(of(Some("[0:0::1]:25"), "x.example"), Some(3));
    assert_eq!(of(None, "Partner.example"), Some(2));
    assert_eq!(of(None, "x.partner.example"), None);
    // A route says where mail goes; its domain then says nothing of the host.
    assert_eq!(of(Some("other.example:25"), "partner.example"), None);
    assert!(hosts[0].is_implicit(465) && !hosts[0].is_implicit(587));
}

#[test]
fn an_entry_is_verified_unless_it_says_otherwise_and_shows_no_password() {
    let login =
        r#"{ host = "smtp.example.net:587", user = "us", password_file = "FOLDER/password" }"#;
    assert_eq!(problems(login), Vec::<String>::new());
    let (_folder, file, section) = read(login);
    let section = section.unwrap();
    let [host] = section.outbound.hosts.as_slice() else {
        panic!("{section:?}")
    };
    assert_eq!(host.tls, TlsPolicy::Verify);
    let (user, password) = host.credentials().unwrap();
    assert_eq!((user.as_str(), password.reveal()), ("us", "hunter2"));
    let shown = format!("{:?} {section:?}", file.effective("mta", &section));
    assert!(
        shown.contains("(set)") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn any_mechanism_for_a_password_will_do_unless_some_are_listed() {
    let login = r#"host = "a", user = "us", password_file = "FOLDER/password""#;
    let of = |keys: &str| {
        let (_folder, _file, section) = read(&format!("{{ {login}{keys} }}"));
        section.map(|section| section.outbound.hosts[0].mechanisms())
    };
    assert_eq!(of("").unwrap(), Mechanism::BY_PASSWORD);
    let listed = of(r#", mechanisms = ["plain", "SCRAM-SHA-256"]"#).unwrap();
    assert_eq!(listed, [Mechanism::Plain, Mechanism::ScramSha256]);
    for bad in ["EXTERNAL", "GSSAPI", "NTLM"] {
        let error = of(&format!(", mechanisms = [\"{bad}\"]")).unwrap_err();
        assert!(
            error.to_string().contains("there are SCRAM-SHA-256-PLUS, "),
            "{error}"
        );
    }
}

#[test]
fn a_token_takes_the_place_of_a_password() {
    let of = |keys: &str| {
        let (_folder, file, section) = read(&format!("{{ host = \"a\", user = \"us\", {keys} }}"));
        let hosts = section.unwrap().outbound.hosts;
        let problems = check(&hosts, &file);
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        (hosts[0].mechanisms(), problems.join("\n"))
    };
    let (mechanisms, problems) = of(r#"token_file = "FOLDER/token""#);
    assert_eq!(
        (mechanisms, problems.as_str()),
        (Mechanism::BY_TOKEN.to_vec(), "")
    );
    let grant = r#"oauth = { token_url = "http://127.0.0.1/t", client_id = "c", client_secret_file = "FOLDER/password" }"#;
    let (mechanisms, problems) = of(&format!("{grant}, mechanisms = [\"XOAUTH2\"]"));
    assert_eq!(
        (mechanisms, problems.as_str()),
        (vec![Mechanism::Xoauth2], "")
    );
    for (keys, told) in [
        (
            r#"token_file = "/t", password_file = "FOLDER/password""#,
            "leave all but one of",
        ),
        (
            r#"token_file = "/t", mechanisms = ["PLAIN"]"#,
            "write OAUTHBEARER or XOAUTH2",
        ),
        (
            r#"password_file = "FOLDER/password", mechanisms = ["XOAUTH2"]"#,
            "by different mechanisms",
        ),
        (
            r#"oauth = { token_url = "http://id.example/t", client_id = "c", client_secret_file = "FOLDER/password" }"#,
            "oauth.token_url",
        ),
    ] {
        let (_, problems) = of(keys);
        assert!(problems.contains(told), "{keys}: {problems}");
    }
}

#[test]
fn a_password_that_all_may_read_is_refused() {
    let (folder, file, _) =
        read(r#"{ host = "a", user = "u", password_file = "FOLDER/password" }"#);
    let secret = folder.path().join("password");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o644)).unwrap();
    let error = file.section::<Config>("mta").unwrap_err().to_string();
    assert!(
        error.contains("t.toml:2") && error.contains("chmod 640"),
        "{error}"
    );
}

#[test]
fn what_cannot_work_or_nobody_wants_is_told_with_a_remedy() {
    let login = r#"user = "u", password_file = "FOLDER/password""#;
    for (keys, key, words) in [
        (r#"user = "u""#.to_owned(), "user", "one of them is missing"),
        (
            r#"mechanisms = ["SCRAM-SHA-256"]"#.to_owned(),
            "mechanisms",
            "nobody logs in",
        ),
        (
            r#"cert_file = "x.pem""#.to_owned(),
            "cert_file",
            "write both",
        ),
        (
            format!(r#"tls = "required", {login}"#),
            "tls",
            "password_needs = \"tls\"",
        ),
        (
            format!(r#"tls = "opportunistic", {login}"#),
            "tls",
            "whoever answers",
        ),
        (
            format!(r#"tls = "none", password_needs = "tls", {login}"#),
            "password_needs",
            "never TLS",
        ),
        (
            r#"tls = "none", implicit_tls = true"#.to_owned(),
            "implicit_tls",
            "opposite",
        ),
        (
            r#"tls = "required", ca_file = "x.pem""#.to_owned(),
            "ca_file",
            "no certificate is verified",
        ),
        (
            r#"tls_names = ["*.example.net"]"#.to_owned(),
            "tls_names",
            "without wildcards",
        ),
        (
            r#"ca_file = "FOLDER/absent.pem""#.to_owned(),
            "hosts[0]",
            "absent.pem",
        ),
    ] {
        let found = problems(&format!(r#"{{ host = "h", {keys} }}"#));
        let [told] = found.as_slice() else {
            panic!("{keys}: {found:?}")
        };
        assert!(
            told.contains("t.toml:2") && told.contains(key) && told.contains(words),
            "{keys}: {told}"
        );
    }
    for keys in [
        format!(r#"tls = "required", password_needs = "tls", {login}"#),
        format!(r#"tls = "none", password_needs = "nothing", {login}"#),
    ] {
        let found = problems(&format!(r#"{{ host = "h", {keys} }}"#));
        assert_eq!(found, Vec::<String>::new(), "{keys}");
    }
    let twice = problems(r#"{ host = "h:25" }, { host = "H:25" }"#);
    assert!(twice[0].contains("has an entry already"), "{twice:?}");
}
