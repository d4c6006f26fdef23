//! The verbs that need no running agents, as they are typed.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const DIRECTORY: &str = "[[domain]]\nname = \"a.example\"\npostmaster = \"bob@a.example\"\n\n\
                         [[account]]\naddress = \"bob@a.example\"\naliases = [\"b@a.example\"]\n";

/// An installation in a folder of its own.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new(config: &str, directory: &str) -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let directory_file = site.path("directory.toml");
        fs::write(&directory_file, directory).unwrap();
        fs::set_permissions(&directory_file, fs::Permissions::from_mode(0o640)).unwrap();
        let text = config.replace("FOLDER", site.folder.path().to_str().unwrap());
        fs::write(site.path("postroad.toml"), text).unwrap();
        site
    }

    fn good() -> Self {
        Self::new(
            "[common]\nhostname = \"mx.a.example\"\ndirectory = \"FOLDER/directory.toml\"\n\
             [mda]\nmail_root = \"FOLDER/mail\"\n",
            DIRECTORY,
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Status, standard output, standard error, with the folder's name taken out.
    fn run(&self, arguments: &[&str]) -> (u8, String, String) {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let config = self.path("postroad.toml");
        let all = ["postroad", "--config", config.to_str().unwrap()];
        let all = all.iter().chain(arguments).map(OsString::from);
        let status = postroad::execute(all, &mut out, &mut talk);
        let folder = format!("{}/", self.folder.path().display());
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap().replace(&folder, "");
        (status, text(out), text(talk))
    }
}

fn typed(arguments: &[&str], input: &str, config: &Path) -> Output {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_postroad"))
        .arg("--config")
        .arg(config)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_exit_status_says_whose_turn_it_is() {
    let site = Site::good();
    let status = |arguments: &[&str]| site.run(arguments).0;
    assert_eq!(status(&["check"]), 0);
    assert_eq!(status(&["--version"]), 0);
    assert_eq!(status(&["frobnicate"]), 2);
    assert_eq!(status(&["account", "add", "no address"]), 2);
    assert_eq!(status(&["mailbox", "list", "ghost"]), 3);
    assert_eq!(status(&["mailbox", "show", "bob"]), 3);
    fs::remove_file(site.path("postroad.toml")).unwrap();
    let (status, out, talk) = site.run(&["account", "list"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        talk.starts_with("postroad: postroad.toml: cannot be read: "),
        "{talk}"
    );
}

#[test]
fn a_script_that_cannot_be_followed_is_told_by_its_lines() {
    let site = Site::good();
    let script = site.path("script.txt");
    fs::write(&script, "name: mx.a.example\non RCPT: 452 4.2.2 full\n").unwrap();
    let rehearse = |more: &[&str]| {
        let words = ["rehearse", "peer", script.to_str().unwrap()];
        site.run(&[&words[..], more].concat())
    };
    let (status, out, _) = rehearse(&["--check"]);
    assert_eq!(
        (status, out.as_str()),
        (0, "the script can be followed: 1 rules\n")
    );
    let (status, out, _) = rehearse(&["--json", "--end-after", "1ms"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(status, 0);
    assert!(
        lines[0].contains("\"event\":\"listening\"") && lines[1].contains("\"taken\":0"),
        "{out}"
    );
    let (status, _, talk) = rehearse(&["--listen", "192.0.2.1:25"]);
    assert!(
        status == 1 && talk.contains("write an address of loopback"),
        "{talk}"
    );
    fs::write(&script, "nmae: x\non RCTP: 451 no\n").unwrap();
    let (status, _, talk) = rehearse(&["--check"]);
    assert_eq!(status, 1);
    assert!(
        talk.starts_with("postroad: script.txt:1: there is no setting \"nmae\"; "),
        "{talk}"
    );
    assert!(
        talk.contains("\nscript.txt:2: there is no stage \"RCTP\"; "),
        "{talk}"
    );
}

#[test]
fn check_tells_every_problem_with_its_place_and_remedy() {
    let site = Site::new(
        "[common]\nhostname = \"mx.a.example\"\ndirectory = \"FOLDER/directory.toml\"\n\
         queue = \"nowhere\"\n\n[mda]\nmail_rot = \"/x\"\n\n[queued]\nsize_limit = 3\n\n[msa]\nmax_hops = 9\n",
        "[[domain]]\nname = \"a.example\"\n\n[[alias]]\naddress = \"x@a.example\"\nto = [\"ghost@a.example\"]\n",
    );
    let (status, out, talk) = site.run(&["check"]);
    assert_eq!(
        out,
        "postroad.toml:10: queued.size_limit: found integer `3`, expected a size with its unit, such as \"64KiB\", \"25MiB\" or \"1GiB\"\n\
         postroad.toml:7: unknown key `mail_rot` in [mda]; did you mean `mail_root`?\n\
         postroad.toml:12: msa.certificates: there is no certificate, and passwords are taken under TLS only; write `certificates = [{ cert_file = \"/etc/postroad/tls/cert.pem\", key_file = \"/etc/postroad/tls/key.pem\" }]` in section [msa]\n\
         directory.toml:2: mail for postmaster@a.example reaches no account; set postmaster = \"someone@a.example\" to an account that exists\n\
         directory.toml:2: mail for abuse@a.example reaches no account; set postmaster = \"someone@a.example\" to an account that exists\n\
         directory.toml:5: the alias x@a.example leads to ghost@a.example, which does not exist here; add that account, or remove it from `to`\n\
         postroad.toml:4: common.queue: \"nowhere\" is not an endpoint, such as \"unix:/run/postroad/queue.sock\" or \"tcp:queue.example.org:7700\"; write one of these forms\n",
    );
    assert_eq!((status, talk.as_str()), (1, "7 problems\n"));
}

#[test]
fn check_follows_the_routes() {
    let site = Site::new(
        "[common]\nhostname = \"mx.a.example\"\ndirectory = \"FOLDER/directory.toml\"\n\
         [queued]\nroutes = [{ domain = \"a.example\", class = \"lmtp\" }]\n",
        DIRECTORY,
    );
    assert_eq!(
        site.run(&["check"]).1,
        "postroad.toml:5: queued.routes[0]: is of class lmtp, which needs next_hop = \"host:port\" or \"unix:/path\"\n"
    );
}

#[test]
fn check_names_routes_whose_pool_of_addresses_is_not_there() {
    let told = |mta: &str| {
        let config = format!(
            "[common]\nhostname = \"mx.a.example\"\ndirectory = \"FOLDER/directory.toml\"\n\
             [queued]\nroutes = [{{ domain = \"b.example\", class = \"relay\" }}, {{ domain = \"c.example\", class = \"relay\", source = \"bulk\" }}]\n{mta}"
        );
        Site::new(&config, DIRECTORY).run(&["check"]).1
    };
    let place = "postroad.toml:5: queued.routes[1].source: mta.outbound.sources has no pool \"bulk\", so its mail waits; ";
    assert_eq!(
        told("[mta.outbound]\nport = 25\n"),
        format!("{place}write [mta.outbound.sources.bulk] with the addresses to send from\n")
    );
    assert_eq!(
        told("[mta.outbound.sources.other]\naddresses = [{ ip = \"192.0.2.1\" }]\n"),
        format!("{place}name one that is there (other), or write [mta.outbound.sources.bulk]\n")
    );
    for well in [
        "[mta.outbound.sources.bulk]\naddresses = [{ ip = \"192.0.2.1\" }]\n",
        // The mail of this queue leaves from another host.
        "[mta.outbound]\nenabled = false\n",
        "",
    ] {
        assert_eq!(told(well), "", "{well}");
    }
}

#[test]
fn check_prints_what_is_in_force_and_why() {
    let site = Site::good();
    let (status, out, talk) = site.run(&["check", "--print"]);
    assert_eq!((status, talk.as_str()), (0, "postroad.toml: all is well\n"));
    let row = |key: &str| {
        let line = out
            .lines()
            .find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("{key} is missing in\n{out}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        row("common.hostname"),
        "common.hostname \"mx.a.example\" postroad.toml:2"
    );
    assert_eq!(
        row("common.shutdown_grace"),
        "common.shutdown_grace \"30s\" default"
    );
    let json: serde_json::Value =
        serde_json::from_str(&site.run(&["check", "--print", "--json"]).1).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["ok"], true);
    assert!(json["values"].as_array().unwrap().len() > 10);
}

#[test]
fn accounts_are_added_and_listed() {
    let site = Site::good();
    let config = site.path("postroad.toml");
    let (status, out, talk) = told(&typed(
        &["account", "add", "al@a.example"],
        "pass word\n",
        &config,
    ));
    assert_eq!(
        (status, out.as_str(), talk.as_str()),
        (Some(0), "", "al@a.example is added\n")
    );
    let made = site.run(&["account", "add", "eve@a.example", "--generate"]);
    let directory = postroad_directory::Directory::load(&site.path("directory.toml")).unwrap();
    assert!(directory.verify("al@a.example", b"pass word").is_some());
    assert!(
        directory
            .verify("eve@a.example", made.1.trim_end().as_bytes())
            .is_some()
    );
    let again = site.run(&["account", "add", "AL@a.example", "--generate"]);
    assert_eq!(
        (again.0, again.2.as_str()),
        (1, "postroad: AL@a.example is in the directory already\n")
    );
    let foreign = site.run(&["account", "add", "al@b.example", "--generate"]);
    assert_eq!(
        (foreign.0, foreign.2.as_str()),
        (
            1,
            "postroad: b.example is no domain of directory.toml; add [[domain]] with name = \"b.example\"\n"
        )
    );
    assert_eq!(
        site.run(&["account", "list"]).1,
        "ADDRESS        STATE     STORE    GETS MAIL FOR\n\
         al@a.example   ok        default\n\
         bob@a.example  no login  default  b@a.example\n\
         eve@a.example  ok        default\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&site.run(&["account", "list", "--json"]).1).unwrap();
    assert_eq!(json["accounts"][1]["aliases"][0], "b@a.example");
}

#[test]
fn a_hash_needs_no_configuration_and_no_empty_password() {
    let nowhere = Path::new("/nowhere/postroad.toml");
    let (status, out, talk) = told(&typed(&["account", "hash"], "pw\n", nowhere));
    // What goes into a file is alone; the keys of SCRAM are told beside it.
    assert_eq!(status, Some(0));
    let keys = talk
        .lines()
        .last()
        .map(str::parse::<postroad_sasl::ScramKeys>);
    assert!(matches!(keys, Some(Ok(_))), "{talk}");
    assert!(
        postroad_directory::Password::parse(out.trim_end())
            .unwrap()
            .verify(b"pw")
    );
    assert_eq!(told(&typed(&["account", "hash"], "\n", nowhere)).0, Some(2));
}

#[test]
fn a_mailbox_is_listed_and_shown() {
    let site = Site::good();
    let (status, out, talk) = site.run(&["mailbox", "list", "bob"]);
    assert_eq!(
        (status, out.as_str(), talk.as_str()),
        (
            0,
            "",
            "bob@a.example has no mail in mail/a.example/bob/Maildir\n"
        )
    );
    let new = site.path("mail/a.example/bob/Maildir/new");
    fs::create_dir_all(&new).unwrap();
    let id = "06dkw3q4hr0000000000000001";
    let text =
        "From: Al <al@a.example>\nSubject: =?utf-8?q?gr=C3=BCn?= \u{1b}[2J\n\nbody\u{1b}[2J\n";
    fs::write(new.join(format!("1700000001.Q{id}R0.host,S=9")), text).unwrap();
    let listed = site.run(&["mailbox", "list", "bob@A.example"]).1;
    assert!(
        listed.contains(id) && listed.contains("grün \\u{1b}[2J"),
        "{listed}"
    );
    assert!(
        site.run(&["mailbox", "show", "bob"])
            .1
            .ends_with("\n\nbody\\u{1b}[2J\n")
    );
    assert_eq!(
        site.run(&["mailbox", "show", "bob", &id[..9], "--raw"]).1,
        text
    );
    let json: serde_json::Value =
        serde_json::from_str(&site.run(&["mailbox", "show", "bob", "--json"]).1).unwrap();
    assert_eq!(
        (json["id"].as_str(), json["content"].as_str()),
        (Some(id), Some(text))
    );
}

/// As sysexits has it: a supervisor must know whether to start it again.
#[test]
fn run_ends_as_daemons_do() {
    let site = Site::new(
        "[common]\nhostname = \"mx.a.example\"\nhostnam = 1\n",
        DIRECTORY,
    );
    let (status, out, talk) = site.run(&["run"]);
    assert_eq!(
        (status, out.as_str(), talk.as_str()),
        (
            78,
            "",
            "postroad: postroad.toml:3: unknown key `hostnam` in [common]; did you mean `hostname`?\n"
        )
    );
    assert_eq!(site.run(&["run", "--demo"]).0, 2);
    assert_eq!(site.run(&["run", "--relay"]).0, 2);
}

#[test]
fn the_command_says_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_postroad"))
        .arg("--version")
        .output()
        .unwrap();
    assert_eq!(
        told(&output),
        (
            Some(0),
            format!("postroad {}\n", env!("CARGO_PKG_VERSION")),
            String::new()
        )
    );
}

#[test]
fn a_mechanism_that_shuts_accounts_out_is_told_of_before_anybody_tries_it() {
    let hash = "$argon2id$v=19$m=1024,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw$BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    let account = |name: &str| {
        format!("[[account]]\naddress = \"{name}@a.example\"\npassword_hash = \"{hash}\"\n")
    };
    let directory = format!(
        "{DIRECTORY}{}",
        ["ada", "bea", "cleo", "dora"].map(account).concat()
    );
    let config = "[common]\nhostname = \"mx.a.example\"\ndirectory = \"FOLDER/directory.toml\"\n\
                  [msa]\nauth.mechanisms = [\"PLAIN\", \"SCRAM-SHA-256\"]\n";
    let site = Site::new(config, &directory);
    let (_, _, talk) = site.run(&["check", "msa"]);
    let note = "postroad.toml:5: msa.auth.mechanisms: SCRAM-SHA-256 is offered, and ada@a.example, bea@a.example, cleo@a.example \
                and 1 more cannot log in by it: give them keys with `postroad account password`, or take it out";
    assert!(talk.contains(note), "{talk}");
    assert!(!talk.contains("PLAIN is offered"), "{talk}");
    let site = Site::new(&config.replace(", \"SCRAM-SHA-256\"", ""), &directory);
    let (_, _, talk) = site.run(&["check", "msa"]);
    assert!(!talk.contains("is offered"), "{talk}");
}

#[test]
fn a_host_that_asks_the_queue_for_accounts_needs_no_directory() {
    let site = Site::new(
        "[common]\nhostname = \"mx.a.example\"\ndomain = \"a.example\"\ndirectory = \"FOLDER/none.toml\"\n\
         accounts.from = \"queue\"\n[mda]\nmail_root = \"FOLDER/mail\"\n",
        DIRECTORY,
    );
    let (status, out, talk) = site.run(&["check", "mda"]);
    assert_eq!((status, out.as_str()), (0, ""), "{talk}");
    let note = "postroad.toml:5: common.accounts.from: msa, mta and mda ask the queue for accounts; common.directory is read by queued alone\n";
    assert!(talk.starts_with(note), "{talk}");
    let (status, out, _) = site.run(&["check", "queued"]);
    assert_eq!(status, 1);
    assert!(out.contains("postroad.toml:4: common.directory: "), "{out}");

    let new = site.path("mail/a.example/bob/Maildir/new");
    fs::create_dir_all(&new).unwrap();
    fs::write(new.join("1700000001.x.host"), "Subject: hi\n\nbody\n").unwrap();
    for name in ["bob", "Bob@A.example"] {
        let (status, out, talk) = site.run(&["mailbox", "list", name]);
        assert_eq!(status, 0, "{talk}");
        assert!(out.contains("hi"), "{out}");
    }
    let (status, _, talk) = site.run(&["mailbox", "list", "ghost"]);
    assert_eq!(
        (status, talk.as_str()),
        (3, "postroad: there is no mailbox of ghost here\n")
    );
}

/// Dovecot's passwd-file; a file that is there keeps its owner.
#[test]
fn accounts_are_exported_for_dovecot() {
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$3/5bfUlmQk4v/oYMLdQl+g$1FjGRXiv2nhxdJy3o8ufdjFDKss77/L72MRE1LV7igM";
    let site = Site::new(
        "[common]\nhostname = \"mx.a.example\"\ndirectory = \"FOLDER/directory.toml\"\n",
        &format!(
            "{DIRECTORY}[[account]]\naddress = \"Carol@A.example\"\npassword_hash = \"{hash}\"\n\n\
             [[account]]\naddress = \"'a:b'@a.example\"\n\n\
             [[account]]\naddress = \"dave@a.example\"\ndisabled = true\n"
        )
        .replace("'a:b'", "\\\"a:b\\\""),
    );
    let wanted =
        format!("bob@a.example:{{CRYPT}}*::::::\ncarol@a.example:{{ARGON2ID}}{hash}::::::\n");
    let (status, out, talk) = site.run(&["account", "export"]);
    assert_eq!((status, out.as_str()), (0, wanted.as_str()), "{talk}");

    let file = site.path("users");
    let (status, out, talk) = site.run(&["account", "export", "--to", file.to_str().unwrap()]);
    assert_eq!(
        (status, out.as_str(), talk.as_str()),
        (0, "", "2 accounts are in users\n")
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), wanted);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}
