use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use postroad_envelope::{NextHop, RouteClass, StoreName};

use super::*;
use crate::Config;

fn pattern(text: &str) -> HostPattern {
    text.parse().unwrap()
}

fn route(next_hop: Option<&str>, destination: &str) -> Route {
    Route {
        store: StoreName::default(),
        class: RouteClass::Relay,
        destination: destination.to_owned(),
        next_hop: next_hop.map(|hop| hop.parse::<NextHop>().unwrap()),
        rule: "test".to_owned(),
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
        tls: TlsPolicy::Verified,
        implicit_tls: None,
        tls_names: Vec::new(),
        ca_file: None,
        cert_file: None,
        key_file: None,
        user: None,
        password_file: None,
        password_needs: PasswordNeeds::default(),
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
    assert_eq!(host.tls, TlsPolicy::Verified);
    let (user, password) = host.credentials().unwrap();
    assert_eq!((user.as_str(), password.reveal()), ("us", "hunter2"));
    let shown = format!("{:?} {section:?}", file.effective("mta", &section));
    assert!(
        shown.contains("(set)") && !shown.contains("hunter2"),
        "{shown}"
    );
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
