//! Configurations of Postfix as they are met (tests/postfix), and what `postroad migrate postfix` makes of them.
//!
//! That they are real ones is for `interop` to see, which has a Postfix read them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use postroad_postfix::{main_cf, master_cf};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;

/// In every password of the samples.
const SECRET: &str = "not-a-real-secret";
const LEAST_PERCENT: u64 = 90;

/// What must be in the files that come of a sample.
const EXPECTED: &[(&str, &[&str])] = &[
    (
        "internet-site",
        &[
            "hostname = \"host.workshop.example\"",
            "domain = \"workshop.example\"",
            "relay_networks = [\"127.0.0.0/8\", \"::1/128\"]",
            "listeners = { smtp = \"[::]:25\" }",
            "name = \"workshop.example\"",
            "address = \"anna@workshop.example\"\naliases = [\"anna@host.workshop.example\"]",
            "address = \"office@workshop.example\"\nto = [\"anna@workshop.example\", \"ben@workshop.example\"]",
            "to = [\"ben@workshop.example\", \"partner@elsewhere.example\"]",
        ],
    ),
    (
        "satellite",
        &[
            "routes = [{ domain = \"*\", class = \"relay\", next_hop = \"mail.provider.example:587\" }]",
            "host = \"mail.provider.example:587\", tls = \"verify\", user = \"office-printer\"",
            "listeners = { smtp = \"127.0.0.1:25\", smtp2 = \"[::1]:25\" }",
            "tls = \"encrypt\"",
        ],
    ),
    (
        "virtual-dovecot",
        &[
            "{ domain = \"meadow.example\", class = \"lmtp\", next_hop = \"unix:/var/spool/postfix/private/dovecot-lmtp\" }",
            "submission = [\"0.0.0.0:587\"]",
            "submissions = [\"0.0.0.0:465\"]",
            "give_up_after = \"3d\"",
            "first = \"5m\"",
            "size_limit = \"50MiB\"",
            "catch_all = \"info@hill.example\"",
            "may_send_as = [\"team@meadow.example\"]",
            "may_send_as = [\"news@hill.example\"]",
        ],
    ),
    (
        "mysql-tutorial",
        &[
            "name = \"beacon.example\"",
            "address = \"ben@beacon.example\"",
            "address = \"info@beacon.example\"\nto = [\"ben@beacon.example\"]",
        ],
    ),
    (
        "container-suite",
        &[
            "next_hop = \"unix:/var/run/dovecot/lmtp\"",
            "\"172.18.0.0/16\"",
            "listeners = { smtp = \"[::]:25\" }",
        ],
    ),
    (
        "groupware-suite",
        &[
            "give_up_after = \"4h\"",
            "max_hops = 50",
            "size_limit = \"15MiB\"",
        ],
    ),
    (
        "lists",
        &[
            "{ domain = \"lists.choir.example\", class = \"lmtp\", next_hop = \"127.0.0.1:8024\" }",
            "allow_networks = [\"127.0.0.1\"]",
            "bind_ipv4 = \"192.0.2.25\"",
            "helo_name = \"out.choir.example\"",
            "address = \"alto-join@lists.choir.example\"",
            "max_connections = 200",
        ],
    ),
    (
        "milter-maildir",
        &[
            "smtp = \"192.0.2.10:25\", smtp2 = \"127.0.0.1:25\"",
            "submissions = [\"192.0.2.10:465\", \"127.0.0.1:465\"]",
            "subaddress_delimiter = \"-\"",
            "dnssec = true",
            "\"2001:db8:10::/64\"",
        ],
    ),
    (
        "backup-mx",
        &[
            "{ domain = \"valley.example\", class = \"relay\" }",
            "{ domain = \"ridge.example\", class = \"relay\", next_hop = \"mail.ridge.example:2525\" }",
            "own_addresses = [\"203.0.113.9\"]",
            "give_up_after = \"30d\"",
            "address = \"ben@ridge.example\"",
        ],
    ),
    (
        "null-client",
        &[
            "next_hop = \"mailhub.cluster.example:25\"",
            "listeners = { smtp = \"127.0.0.1:25\" }",
        ],
    ),
    (
        "submission-only",
        &[
            "enabled = false",
            "tls_policies = { \"bank.example\" = \"encrypt\" }",
            "next_hop = \"store.glade.example:24\"",
            "prefer = \"ipv4\"",
            "max_recipients = 200",
        ],
    ),
    (
        "provider",
        &[
            "{ domain = \"big.example\", class = \"relay\", max_leases = 2 }",
            "{ domain = \"customer-b.example\", class = \"relay\", next_hop = \"[2001:db8::b]:26\" }",
            "{ domain = \"test.example\", class = \"relay\", next_hop = \"192.0.2.99:2599\" }",
            "{ domain = \"sink.example\", class = \"discard\" }",
            "concurrency = 250",
            "address = \"hello@old-name.example\"\nto = [\"info@customer-a.example\"]",
        ],
    ),
    (
        "cloud-relay",
        &[
            "host = \"email-smtp.region-1.cloud.example:587\", tls = \"verify\", user = \"AKIDNOTREAL\"",
            "catch_all = \"anna@quarry.example\"",
        ],
    ),
    (
        "edge",
        &[
            "xforward_networks = [\"10.1.2.0/24\"]",
            "allow_networks = [\"10.1.2.3\"]",
            "subaddress_delimiter = \"\"",
            "{ domain = \"castle.example\", class = \"relay\", next_hop = \"10.1.2.3:25\" }",
        ],
    ),
];

fn samples() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("postfix");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut samples: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    samples.sort();
    Ok(samples)
}

fn name(sample: &Path) -> &str {
    let name = sample.file_name().and_then(|name| name.to_str());
    name.unwrap_or_default()
}

/// Exit status and standard output.
fn postroad(arguments: &[&str]) -> (u8, String) {
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let all = ["postroad"].iter().chain(arguments).map(Into::into);
    let status = postroad::execute(all, &mut out, &mut talk);
    (status, String::from_utf8_lossy(&out).into_owned())
}

fn migrated(sample: &Path) -> Result<Value> {
    let path = sample.to_str().context("a plain path")?;
    let (status, told) = postroad(&["--json", "migrate", "postfix", path]);
    let told: Value = serde_json::from_str(&told)?;
    ensure!(
        (status == 0) == (told["complete"] == true),
        "{}: status {status}",
        name(sample)
    );
    Ok(told)
}

/// Each parameter where it stands, in one list and with a reason.
#[test]
fn every_parameter_is_named_once_and_nine_of_ten_are_handled() -> Result<()> {
    let samples = samples()?;
    ensure!(samples.len() >= 12, "{} samples", samples.len());
    for sample in samples {
        let told = migrated(&sample)?;
        let parameters = told["parameters"].as_array().context("parameters")?;
        let mut found = BTreeMap::new();
        for one in parameters {
            let place = (
                one["file"].as_str().unwrap_or_default().to_owned(),
                one["line"].as_u64().unwrap_or_default(),
                one["name"].as_str().unwrap_or_default().to_owned(),
            );
            let told = one["told"].as_array().context("told")?;
            ensure!(
                !told.is_empty() && told.iter().all(|part| part["text"] != ""),
                "{one} has no reason"
            );
            ensure!(found.insert(place, ()).is_none(), "{one} is there twice");
        }
        let mut wanted = BTreeMap::new();
        let main = fs::read_to_string(sample.join("main.cf"))?;
        for setting in main_cf::parse(&main).0 {
            wanted.insert(
                ("main.cf".to_owned(), setting.line as u64, setting.name),
                (),
            );
        }
        let master = fs::read_to_string(sample.join("master.cf"))?;
        let services = master_cf::parse(&master).0;
        for option in services.iter().flat_map(|service| &service.options) {
            let place = (
                "master.cf".to_owned(),
                option.line as u64,
                option.name.clone(),
            );
            wanted.insert(place, ());
        }
        assert_eq!(found, wanted, "{}", name(&sample));
        let listed = told["services"].as_array().map(Vec::len);
        assert_eq!(listed, Some(services.len()), "{}", name(&sample));
        let percent = told["counts"]["handled_percent"]
            .as_u64()
            .unwrap_or_default();
        ensure!(percent >= LEAST_PERCENT, "{}: {percent} %", name(&sample));
    }
    Ok(())
}

#[test]
fn what_comes_of_them_passes_our_own_check() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["mail.example".to_owned()])?;
    let both = folder.path().join("both.pem");
    fs::write(&both, signing_key.serialize_pem() + &cert.pem())?;
    fs::set_permissions(&both, fs::Permissions::from_mode(0o600))?;
    for sample in samples()? {
        let to = folder.path().join(name(&sample));
        let (from, target) = (
            sample.to_str().context("a path")?,
            to.to_str().context("a path")?,
        );
        postroad(&["migrate", "postfix", from, "--to", target]);
        let config = to.join("postroad.toml");
        let text = fs::read_to_string(&config)?;
        // The certificates of the samples are nowhere.
        fs::write(
            &config,
            with_certificate(&text, &both.display().to_string()),
        )?;
        let report = postroad::check::inspect(&config);
        ensure!(
            report.problems.is_empty(),
            "{}: {:#?}",
            name(&sample),
            report.problems
        );
    }
    Ok(())
}

fn with_certificate(text: &str, path: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = ["cert_file = \"", "key_file = \""]
        .iter()
        .filter_map(|key| Some(rest.find(key)? + key.len()))
        .min()
    {
        let (before, behind) = rest.split_at(at);
        out += before;
        out += path;
        rest = behind.find('"').map_or("", |end| &behind[end..]);
    }
    out + rest
}

#[test]
fn the_important_keys_are_as_expected() -> Result<()> {
    let samples = samples()?;
    let without: Vec<&str> = samples
        .iter()
        .map(|sample| name(sample))
        .filter(|one| !EXPECTED.iter().any(|(known, _)| known == one))
        .collect();
    ensure!(without.is_empty(), "nothing is expected of {without:?}");
    for sample in samples {
        let told = migrated(&sample)?;
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let both = text("config") + &text("directory");
        let expected = EXPECTED.iter().find(|(known, _)| *known == name(&sample));
        for line in expected.map(|(_, lines)| *lines).unwrap_or_default() {
            ensure!(
                both.contains(line),
                "{}: {line} is not in\n{both}",
                name(&sample)
            );
        }
    }
    Ok(())
}

#[test]
fn passwords_are_in_files_of_their_own_and_nowhere_else() -> Result<()> {
    for sample in samples()? {
        let path = sample.to_str().context("a plain path")?;
        for json in [true, false] {
            let arguments: &[&str] = &["migrate", "postfix", path, "--json"];
            let (_, told) = postroad(&arguments[..if json { 4 } else { 3 }]);
            ensure!(!told.contains(SECRET), "{} tells a password", name(&sample));
        }
    }
    let folder = tempfile::tempdir()?;
    let to = folder.path().join("new");
    let sample = samples()?
        .into_iter()
        .find(|one| name(one) == "satellite")
        .context("the sample")?;
    let arguments = [
        "migrate",
        "postfix",
        sample.to_str().context("a path")?,
        "--to",
        to.to_str().context("a path")?,
    ];
    assert_eq!(postroad(&arguments).0, 0);
    let secret = fs::read_to_string(to.join("mail.provider.example-587.password"))?;
    assert_eq!(secret.trim(), SECRET);
    // What is there stays.
    assert_eq!(postroad(&arguments).0, 1);
    Ok(())
}

#[test]
fn a_hash_of_our_kind_is_taken_along_and_others_are_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("users");
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$3/5bfUlmQk4v/oYMLdQl+g$1FjGRXiv2nhxdJy3o8ufdjFDKss77/L72MRE1LV7igM";
    fs::write(
        &file,
        format!(
            "anna@meadow.example:{{ARGON2ID}}{hash}::::::\nben@meadow.example:{{SHA512-CRYPT}}$6$x$y\n"
        ),
    )?;
    let sample = samples()?
        .into_iter()
        .find(|one| name(one) == "virtual-dovecot")
        .context("the sample")?;
    let (_, told) = postroad(&[
        "--json",
        "migrate",
        "postfix",
        sample.to_str().context("a path")?,
        "--passwords",
        file.to_str().context("a path")?,
    ]);
    let told: Value = serde_json::from_str(&told)?;
    ensure!(
        told["directory"]
            .as_str()
            .is_some_and(|text| text.contains(hash))
    );
    ensure!(
        told["to_do"]
            .to_string()
            .contains("cannot be taken along: ben@meadow.example"),
        "{}",
        told["to_do"]
    );
    Ok(())
}

#[test]
fn a_folder_without_a_configuration_is_told() {
    assert_eq!(postroad(&["migrate", "postfix", "/no/such/folder"]).0, 1);
    assert_eq!(postroad(&["migrate", "postfix"]).0, 2);
}
