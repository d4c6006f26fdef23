//! `postroad pki` and `postroad setup`, as they are typed.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A folder for certificates and one for the configuration.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Status, standard output, standard error, with the folder's name taken out.
    fn run(&self, arguments: &[&str]) -> (u8, String, String) {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let all = ["postroad"].iter().chain(arguments).map(OsString::from);
        let status = postroad::execute(all, &mut out, &mut talk);
        let folder = format!("{}/", self.folder.path().display());
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap().replace(&folder, "");
        (status, text(out), text(talk))
    }

    fn pki(&self, arguments: &[&str]) -> (u8, String, String) {
        let folder = self.path("pki");
        let place = ["--pki-dir", folder.to_str().unwrap()];
        self.run(&[&["pki"], arguments, &place].concat())
    }

    fn setup(&self, more: &[&str]) -> (u8, String, String) {
        self.setup_for("bob", more)
    }

    fn setup_for(&self, account: &str, more: &[&str]) -> (u8, String, String) {
        let (config, pki) = (self.path("config"), self.path("pki"));
        let all = [
            "setup",
            "--hostname",
            "mail.a.example",
            "--domain",
            "a.example",
            "--account",
            account,
            "--config-dir",
            config.to_str().unwrap(),
            "--pki-dir",
            pki.to_str().unwrap(),
        ];
        self.run(&[&all, more].concat())
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_issues_shows_and_renews() {
    let site = Site::new();
    assert_eq!(
        site.pki(&["issue", "mta"]),
        (
            1,
            String::new(),
            "postroad: pki/ca/ca.pem: is missing; `postroad pki init` makes an authority\n"
                .to_owned()
        )
    );
    let (status, out, talk) = site.pki(&["init", "--permit", "a.example", "--permit", "mta"]);
    assert_eq!((status, out.as_str()), (0, "pki/ca/ca.pem made\n"));
    assert!(talk.contains("Keep pki/ca/ca.key secret"), "{talk}");
    let (status, out, talk) = site.pki(&["init"]);
    assert_eq!((status, out.as_str()), (0, ""));
    assert!(talk.contains("is there already"), "{talk}");

    let names = ["--name", "mta2.a.example", "--days", "30", "--to", "mta2"];
    let (status, out, _) = site.pki(&[&["issue", "mta"][..], &names].concat());
    assert_eq!((status, out.as_str()), (0, "pki/mta2/agent.pem made\n"));
    let (status, _, talk) = site.pki(&["issue", "mta", "--name", "mta.b.example"]);
    assert_eq!(status, 1);
    assert!(talk.contains("may not vouch for mta.b.example"), "{talk}");
    assert_eq!(site.pki(&["issue", "mta", "--name", "a b"]).0, 2);
    assert_eq!(site.pki(&["issue", "mta", "--to", "../x"]).0, 2);
    assert_eq!(site.pki(&["issue", "postmaster"]).0, 2);
    assert_eq!(site.pki(&["issue", "server"]).0, 2);

    let (_, out, _) = site.pki(&["show"]);
    let row = out.lines().nth(2).unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..3], ["mta2", "mta", "mta2.a.example"]);
    assert!(matches!(words[6], "29" | "30"), "{row}");
    assert_eq!(words[7].len(), 64, "{row}");
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&site.pki(&[arguments, &["--json"]].concat()).1).unwrap()
    };
    let shown = &json(&["show"])["certificates"][1];
    assert_eq!(shown["roles"], serde_json::json!(["mta"]));
    let young = json(&["renew"]);
    assert_eq!(young["certificates"][0]["done"], "kept");
    assert_eq!(young["certificates"][0]["sha256"], shown["sha256"]);
    let key = fs::read(site.path("pki/mta2/agent.key")).unwrap();
    let renewed = json(&["renew", "mta2", "--within", "31"]);
    assert_eq!(renewed["certificates"][0]["done"], "renewed");
    assert_ne!(renewed["certificates"][0]["sha256"], shown["sha256"]);
    assert_eq!(fs::read(site.path("pki/mta2/agent.key")).unwrap(), key);
    assert_eq!(site.pki(&["renew", "mda"]).0, 3);
    let other = json(&["renew", "--within", "31", "--new-key"]);
    assert_eq!(other["certificates"][0]["done"], "renewed");
    assert_ne!(fs::read(site.path("pki/mta2/agent.key")).unwrap(), key);
}

#[test]
fn a_revoked_certificate_is_shown_as_such_and_not_renewed() {
    let site = Site::new();
    site.pki(&["init"]);
    for role in ["mta", "mda"] {
        assert_eq!(site.pki(&["issue", role]).0, 0);
    }
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&site.pki(&[arguments, &["--json"]].concat()).1).unwrap()
    };
    let serial = json(&["show"])["certificates"][2]["serial"].clone();
    let (status, out, talk) = site.pki(&["revoke", "mta"]);
    assert_eq!(status, 0, "{talk}");
    assert!(
        out.contains(&format!("{} (mta, until ", serial.as_str().unwrap())),
        "{out}"
    );
    assert!(out.ends_with("added to pki/revoked\n"), "{out}");
    let again = json(&["revoke", "--serial", serial.as_str().unwrap()]);
    assert_eq!(again["done"], "kept");
    let (status, _, talk) = site.pki(&["revoke", "--serial", "mta"]);
    assert_eq!(status, 2, "{talk}");
    assert_eq!(site.pki(&["revoke"]).0, 2);
    assert_eq!(site.pki(&["revoke", "msa"]).0, 3);
    let revoked: Vec<_> = json(&["show"])["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].clone(), one["revoked"].clone()))
        .collect();
    assert_eq!(
        revoked,
        [
            ("ca".into(), false.into()),
            ("mda".into(), false.into()),
            ("mta".into(), true.into())
        ]
    );
    assert!(site.pki(&["show"]).1.contains("revoked"));
    let renewed = json(&["renew", "--within", "9999"]);
    assert_eq!(renewed["certificates"][0]["done"], "renewed");
    assert_eq!(renewed["certificates"][1]["done"], "revoked");
    assert_eq!(renewed["certificates"][1]["serial"], serial);

    let other = site.path("list");
    let other = other.to_str().unwrap();
    let file = site.path("pki/mda/agent.pem");
    let by_file = ["revoke", "--file", file.to_str().unwrap(), "--list", other];
    let (status, out, _) = site.pki(&by_file);
    assert!(status == 0 && out.ends_with("added to list\n"), "{out}");
    fs::write(other, "what\n").unwrap();
    let (status, _, talk) = site.pki(&["show", "--list", other]);
    assert_eq!(status, 1);
    assert!(talk.contains("list: line 1: \"what\""), "{talk}");
}

#[test]
fn keys_are_never_printed() {
    let site = Site::new();
    let all = [
        site.pki(&["init", "--json"]),
        site.pki(&["issue", "mta", "--host"]),
        site.pki(&["renew", "--within", "999", "--json"]),
        site.pki(&["show", "--json"]),
        site.setup(&[]),
        site.setup(&["--json"]),
    ];
    for (status, out, talk) in all {
        assert_eq!(status, 0, "{talk}");
        assert!(!format!("{out}{talk}").contains("PRIVATE"), "{out}{talk}");
    }
}

#[test]
fn setup_completes_what_an_earlier_run_has_left_out() {
    let site = Site::new();
    assert_eq!(site.setup(&[]).0, 0);
    assert_eq!(mode(&site.path("config/first-account.password")), 0o600);
    assert_eq!(mode(&site.path("config/directory.toml")), 0o640);
    let password = fs::read_to_string(site.path("config/first-account.password")).unwrap();
    for file in [
        "config/postroad.toml",
        "config/directory.toml",
        "pki/mda/agent.pem",
    ] {
        fs::remove_file(site.path(file)).unwrap();
        let (status, out, talk) = site.setup(&[]);
        assert_eq!(status, 0, "{talk}");
        let done = out
            .lines()
            .filter(|line| line.ends_with(" made") || line.ends_with(" completed"));
        assert_eq!(done.collect::<Vec<_>>().len(), 1, "{out}");
    }
    let directory =
        postroad_directory::Directory::load(&site.path("config/directory.toml")).unwrap();
    let password = password.trim();
    assert!(
        directory
            .verify("bob@a.example", password.as_bytes())
            .is_some()
    );

    // What a person changed stays.
    fs::remove_file(site.path("config/first-account.password")).unwrap();
    let (status, out, _) = site.setup_for("eve", &[]);
    assert_eq!(status, 0);
    assert!(out.contains("nothing was changed"), "{out}");
    assert!(
        out.contains("`postroad account add eve@a.example`"),
        "{out}"
    );
    assert!(!out.contains("The password"), "{out}");
    fs::remove_file(site.path("pki/msa/agent.key")).unwrap();
    let (status, _, talk) = site.setup(&[]);
    assert_eq!(status, 1);
    assert!(talk.contains("pki/msa/agent.key: is missing"), "{talk}");
}

#[test]
fn a_certificate_that_was_given_is_kept() {
    let site = Site::new();
    let made = rcgen::generate_simple_self_signed(["mail.a.example".to_owned()]).unwrap();
    fs::create_dir_all(site.path("pki/server")).unwrap();
    fs::write(site.path("pki/server/cert.pem"), made.cert.pem()).unwrap();
    fs::write(
        site.path("pki/server/key.pem"),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    assert_eq!(site.setup(&[]).0, 0);
    let kept = fs::read_to_string(site.path("pki/server/cert.pem")).unwrap();
    assert_eq!(kept, made.cert.pem());
    assert!(!site.path("pki/server/ca.pem").exists());
    let (_, out, _) = site.pki(&["renew"]);
    let row = out
        .lines()
        .find(|line| line.starts_with("server "))
        .unwrap();
    assert!(row.contains("another authority's"), "{row}");
}

#[test]
fn each_agent_finds_what_setup_wrote_in_its_own_container() {
    let site = Site::new();
    let (agent, server) = (site.path("agent"), site.path("server"));
    let (status, _, talk) = site.setup(&[
        "--tls-dir",
        agent.to_str().unwrap(),
        "--server-cert-dir",
        server.to_str().unwrap(),
    ]);
    assert_eq!(status, 0, "{talk}");
    let config = site.path("config/postroad.toml");
    let check = |name: &str| site.run(&["--config", config.to_str().unwrap(), "check", name]);
    assert_ne!(check("mda").0, 0, "nothing is mounted yet");
    for name in ["queued", "mda", "msa", "mta"] {
        let _ = fs::remove_file(&agent);
        std::os::unix::fs::symlink(site.path("pki").join(name), &agent).unwrap();
        if name == "msa" {
            assert_ne!(check(name).0, 0, "its server certificate is missing");
            std::os::unix::fs::symlink(site.path("pki/server"), &server).unwrap();
        }
        let (status, out, _) = check(name);
        assert_eq!((status, out.as_str()), (0, ""), "{name}");
    }
}

#[test]
fn setup_says_what_it_must_know() {
    let site = Site::new();
    let (status, out, talk) = site.run(&["setup", "--hostname", "mail"]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(
        talk.contains("POSTROAD_DOMAIN is not set; write POSTROAD_DOMAIN=example.org"),
        "{talk}"
    );
    assert_eq!(site.setup(&["--owner", "bob"]).0, 2);
}
