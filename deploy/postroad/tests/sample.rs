//! The sample configuration says what the code does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use postroad::check::{Report, inspect};

/// Which lines of the sample are taken as if they were not commented out.
#[derive(Clone, Copy, PartialEq)]
enum Uncomment {
    Nothing,
    Defaults,
    Everything,
}

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../config")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// `#key = …` and `#[[list]]`, against prose: `# Key …`.
fn is_key(line: &str) -> bool {
    line.strip_prefix('#')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
}

fn uncommented(text: &str, which: Uncomment) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let example = line.contains("# example");
        let take = match which {
            Uncomment::Nothing => false,
            Uncomment::Defaults => is_key(line) && !example,
            Uncomment::Everything => is_key(line),
        };
        out.push_str(if take { &line[1..] } else { line });
        out.push('\n');
    }
    out
}

/// The sample as an operator would install it, with certificates, in a folder of its own.
fn installed(which: Uncomment) -> (tempfile::TempDir, Report) {
    let folder = tempfile::tempdir().unwrap();
    let tls = folder.path().join("tls");
    fs::create_dir(&tls).unwrap();
    let made = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()]).unwrap();
    fs::write(tls.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(tls.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(tls.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    for (new, old) in [
        ("ca.pem", "cert.pem"),
        ("agents-ca.pem", "cert.pem"),
        ("agent.pem", "cert.pem"),
        ("agent.key", "key.pem"),
    ] {
        fs::copy(tls.join(old), tls.join(new)).unwrap();
    }
    fs::write(folder.path().join("zone"), "").unwrap();
    fs::write(folder.path().join("causes.toml"), "").unwrap();
    let password = folder.path().join("smarthost.password");
    fs::write(&password, "example\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let bounces = folder.path().join("bounce.key");
    fs::write(&bounces, "a key of more than sixteen octets\n").unwrap();
    fs::set_permissions(&bounces, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(tls.join("revoked"), "").unwrap();
    fs::write(tls.join("people-crl.pem"), revocations()).unwrap();
    fs::write(
        folder.path().join("directory.toml"),
        sample("directory.toml"),
    )
    .unwrap();
    fs::set_permissions(
        folder.path().join("directory.toml"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let text = uncommented(&sample("postroad.toml"), which)
        .replace("/etc/postroad", folder.path().to_str().unwrap());
    // What the sample names by default must be found in the folder, written or not.
    let text = text.replacen("\n[common]\n", &missing_directory(&text, folder.path()), 1);
    let path = folder.path().join("postroad.toml");
    fs::write(&path, text).unwrap();
    let report = inspect(&path);
    (folder, report)
}

/// A list of an authority that took nothing back.
fn revocations() -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    let issuer = rcgen::Issuer::new(params, rcgen::KeyPair::generate().unwrap());
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2099, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(&issuer).unwrap().pem().unwrap()
}

fn missing_directory(text: &str, folder: &Path) -> String {
    match text.lines().any(|line| line.starts_with("directory = ")) {
        true => "\n[common]\n".to_owned(),
        false => format!(
            "\n[common]\ndirectory = \"{}/directory.toml\"\n",
            folder.display()
        ),
    }
}

/// Key and value, with the folder's name taken out.
fn values(which: Uncomment) -> BTreeMap<String, String> {
    let (folder, report) = installed(which);
    assert_eq!(report.problems, Vec::<String>::new());
    let folder = folder.path().display().to_string();
    let values = report.values.into_iter();
    values
        .map(|value| (value.key, value.value.replace(&folder, "/etc/postroad")))
        .collect()
}

#[test]
fn check_accepts_the_sample() {
    let (_folder, report) = installed(Uncomment::Nothing);
    assert_eq!(report.problems, Vec::<String>::new());
}

#[test]
fn what_the_sample_calls_built_in_is() {
    assert_eq!(values(Uncomment::Defaults), values(Uncomment::Nothing));
}

#[test]
fn no_key_is_missing_from_the_sample() {
    let (_folder, report) = installed(Uncomment::Everything);
    assert_eq!(report.problems, Vec::<String>::new());
    // Of a list it is enough that one of its entries has the key: not all keys go together.
    let anywhere = |key: &str| -> String {
        let parts = key.split('[').enumerate();
        let parts = parts.map(|(at, part)| match at {
            0 => part,
            _ => part.split_once(']').map_or(part, |(_, rest)| rest),
        });
        parts.collect()
    };
    let (missing, shown): (Vec<_>, Vec<_>) = report
        .values
        .iter()
        .map(|value| {
            (
                anywhere(&value.key),
                value.place == postroad_daemon::Place::Default,
            )
        })
        .partition(|(_, is_default)| *is_default);
    let missing: Vec<String> = missing.into_iter().map(|(key, _)| key).collect();
    let missing: Vec<String> = missing
        .into_iter()
        .filter(|key| {
            let is_it = |known: &str| {
                known
                    .strip_prefix(key.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            !shown.iter().any(|(known, _)| is_it(known))
        })
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_key_of_the_sample_directory_is_known() {
    let text = uncommented(&sample("directory.toml"), Uncomment::Everything);
    // The key in the sample is refused, since everybody knows it.
    let example = "decoy_key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"";
    assert!(text.contains(example));
    let text = text.replace("key = \"AAAAA", "key = \"AbCdE");
    // An account has one hash: in the file or beside it. Files beside it are not here.
    let text: String = text
        .lines()
        .filter(|line| {
            // And a password that can be read is a warning.
            let named = ["password_hash_file", "accounts_file", "recoverable_secret"];
            !named.iter().any(|key| line.starts_with(key))
        })
        .fold(String::new(), |text, line| text + line + "\n");
    let directory =
        postroad_directory::Directory::parse(Path::new("directory.toml"), &text).unwrap();
    assert_eq!(directory.check(), Vec::new());
    assert!(directory.verify("alice@example.org", b"example").is_some());
    for key in [
        "subaddress_delimiter",
        "decoy_key",
        "name",
        "tenant",
        "postmaster",
        "catch_all",
        "accounts_file",
        "address",
        "password_hash",
        "password_hash_file",
        "scram_sha_256",
        "scram_sha_1",
        "recoverable_secret",
        "aliases",
        "may_send_as",
        "disabled",
        "prefix",
        "verifier",
        "scopes",
        "networks",
        "expires",
        "to",
    ] {
        let written = sample("directory.toml")
            .lines()
            .any(|line| line.trim_start_matches('#').split(" = ").next() == Some(key));
        assert!(written, "{key}");
    }
}
