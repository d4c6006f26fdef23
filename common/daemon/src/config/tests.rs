use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::sync::Arc;

use serde::Deserialize;

use super::*;
use crate::{ByteSize, Interval, SecretFile};

#[derive(Debug, Serialize, Deserialize)]
struct Msa {
    banner: String,
    #[serde(default = "mib25")]
    size_limit: ByteSize,
    #[serde(default)]
    timeout: Option<Interval>,
    #[serde(default)]
    verbose: bool,
    #[serde(default)]
    workers: u16,
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    listeners: Vec<Listener>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    token_file: Option<SecretFile>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    routes: BTreeMap<String, Limits>,
}

fn mib25() -> ByteSize {
    ByteSize::mib(25)
}

#[derive(Debug, Serialize, Deserialize)]
struct Listener {
    address: String,
    #[serde(default)]
    tls: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Limits {
    connections: u32,
    recipients: u32,
}

#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Plain,
    Strict,
}

fn config(text: &str) -> Result<ConfigFile, ConfigError> {
    ConfigFile::assemble([("p.toml".into(), text.to_owned())], [])
}

fn with_env(text: &str, variables: &[(&str, &str)]) -> Result<ConfigFile, ConfigError> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    ConfigFile::assemble([("p.toml".into(), text.to_owned())], variables)
}

fn refused(text: &str) -> String {
    match config(text).and_then(|config| config.section::<Msa>("msa")) {
        Ok(read) => panic!("{text:?} was read as {read:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_fault_names_file_line_key_and_remedy() {
    for (text, expected) in [
        (
            "[msa]\nbanner = \"x\"\nsiz_limit = \"1MiB\"\n",
            "p.toml:3: unknown key `siz_limit` in [msa]; did you mean `size_limit`?",
        ),
        (
            "[msa]\nbanner = \"x\"\n[msa.limits]\nzzz = 1\n",
            "p.toml:4: unknown key `zzz` in [msa.limits]; known are connections, recipients",
        ),
        (
            "[msa]\nbanner = \"x\"\n[[msa.listeners]]\naddress = \"a\"\n[[msa.listeners]]\nadress = \"b\"\n",
            "p.toml:6: unknown key `adress` in [msa.listeners[1]]; did you mean `address`?",
        ),
        (
            "[msa]\nbanner = \"x\"\n\n[[msa.listeners]]\ntls = true\n",
            "p.toml:4: the required key `address` is missing; add `address = …` to [msa.listeners[0]]",
        ),
        (
            "[common]\n\n[msa]\nworkers = 3\n",
            "p.toml:3: the required key `banner` is missing; add `banner = …` to [msa]",
        ),
        (
            "",
            "p.toml: the required key `banner` is missing; add `banner = …` to [msa]",
        ),
        (
            "[msa]\nbanner = 5\n",
            "p.toml:2: msa.banner: found integer `5`, expected a string",
        ),
        (
            "[msa]\nbanner = \"x\"\nsize_limit = 25\n",
            "p.toml:3: msa.size_limit: found integer `25`, expected a size with its unit, such as \"64KiB\", \"25MiB\" or \"1GiB\"",
        ),
        (
            "[msa]\nbanner = \"x\"\ntimeout = \"30\"\n",
            "p.toml:3: msa.timeout: found string \"30\", expected an interval with its unit, such as \"30s\", \"4m\", \"1h30m\" or \"5d\"",
        ),
        (
            "[msa]\nbanner = \"x\"\nworkers = 70000\n",
            "p.toml:3: msa.workers: found integer `70000`, expected u16",
        ),
        (
            "[msa]\nbanner = \"x\"\nworkers = -1\n",
            "p.toml:3: msa.workers: found integer `-1`, expected u16",
        ),
        (
            "[msa]\nbanner = \"x\"\nmode = \"strikt\"\n",
            "p.toml:3: msa.mode: unknown value \"strikt\"; did you mean `strict`?",
        ),
        (
            "[msa]\nbanner = \"x\"\nnetworks = [\n  \"a\",\n  7,\n]\n",
            "p.toml:5: msa.networks[1]: found integer `7`, expected a string",
        ),
        (
            "[msa]\nbanner = \"x\"\n[msa.routes.\"example.org\"]\nrecipient = 1\n",
            "p.toml:4: unknown key `recipient` in [msa.routes.example.org]; did you mean `recipients`?",
        ),
        (
            "[msa]\nbanner = \"x\"\nlimits = 3\n",
            "p.toml:3: msa.limits: found integer `3`, expected struct Limits",
        ),
        (
            "[mas]\n",
            "p.toml:1: unknown section `mas`; did you mean `msa`?",
        ),
        (
            "msa = 1\n",
            "p.toml:1: msa: is a section; write `[msa]` and its keys below",
        ),
        (
            "[msa]\nbanner = \"x\n",
            "p.toml:2: invalid basic string, expected `\"`",
        ),
    ] {
        assert_eq!(refused(text), expected, "{text}");
    }
}

#[test]
fn later_fragments_win_key_by_key_and_replace_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("postroad.toml");
    let conf_d = folder.path().join("conf.d");
    fs::create_dir(&conf_d).unwrap();
    fs::write(
        &main,
        "[msa]\nbanner = \"main\"\nnetworks = [\"a\", \"b\"]\nlimits.connections = 1\nlimits.recipients = 2\n",
    )
    .unwrap();
    fs::write(conf_d.join("20-b.toml"), "[msa]\nbanner = \"b\"\n").unwrap();
    fs::write(
        conf_d.join("10-a.toml"),
        "[msa]\nbanner = \"a\"\nnetworks = [\"c\"]\n[msa.limits]\nconnections = 10\n",
    )
    .unwrap();
    fs::write(conf_d.join("30-ignored.toml~"), "not toml").unwrap();
    fs::write(conf_d.join(".40-hidden.toml"), "not toml").unwrap();

    let config = ConfigFile::load(&main).unwrap();
    let msa: Msa = config.section("msa").unwrap();
    assert_eq!(msa.banner, "b");
    assert_eq!(msa.networks, ["c"]);
    assert_eq!((msa.limits.connections, msa.limits.recipients), (10, 2));
    let place = |key| config.place(key).to_string();
    let at = |file: &str| folder.path().join(file).display().to_string();
    assert_eq!(place("msa.banner"), at("conf.d/20-b.toml:2"));
    assert_eq!(place("msa.limits.connections"), at("conf.d/10-a.toml:5"));
    assert_eq!(place("msa.limits.recipients"), at("postroad.toml:5"));
    assert_eq!(place("msa.networks[0]"), at("conf.d/10-a.toml:3"));
    assert_eq!(place("msa.workers"), "default");
}

#[test]
fn a_missing_file_says_what_to_do() {
    assert_eq!(
        ConfigFile::load(Path::new("/nowhere/postroad.toml"))
            .unwrap_err()
            .to_string(),
        "/nowhere/postroad.toml: cannot be read: No such file or directory (os error 2); \
         create it, or name another file with --config FILE"
    );
}

#[test]
fn the_environment_overrides_with_the_type_of_the_key() {
    let config = with_env(
        "[msa]\nbanner = \"x\"\nworkers = 1\nlimits = { connections = 1, recipients = 2 }\n",
        &[
            ("HOME", "/root"),
            ("POSTROAD_LOG", "debug"),
            ("POSTROAD__MSA__BANNER", "42"),
            ("POSTROAD__MSA__WORKERS", "7"),
            ("POSTROAD__MSA__VERBOSE", "true"),
            ("POSTROAD__MSA__SIZE_LIMIT", "3MiB"),
            ("POSTROAD__MSA__MODE", "strict"),
            ("POSTROAD__MSA__NETWORKS", "[\"a\", \"b\"]"),
            ("POSTROAD__MSA__LISTENERS", "[{ address = \"c\" }]"),
            ("POSTROAD__MSA__LIMITS__CONNECTIONS", "9"),
        ],
    )
    .unwrap();
    let msa: Msa = config.section("msa").unwrap();
    assert_eq!(msa.banner, "42");
    assert_eq!((msa.workers, msa.verbose), (7, true));
    assert_eq!(msa.size_limit, ByteSize::mib(3));
    assert_eq!(msa.mode, Mode::Strict);
    assert_eq!(msa.networks, ["a", "b"]);
    assert_eq!(msa.listeners[0].address, "c");
    assert_eq!((msa.limits.connections, msa.limits.recipients), (9, 2));
    let variable = |name| Place::Environment(Arc::from(name));
    assert_eq!(
        config.place("msa.listeners[0].address"),
        variable("POSTROAD__MSA__LISTENERS")
    );
    let merged = with_env(
        "[msa]\nbanner = \"x\"\nlimits = { connections = 1, recipients = 2 }\n",
        &[("POSTROAD__MSA__LIMITS", "{ recipients = 5 }")],
    )
    .unwrap();
    let limits = merged.section::<Msa>("msa").unwrap().limits;
    assert_eq!((limits.connections, limits.recipients), (1, 5));
}

#[test]
fn faults_of_the_environment_name_the_variable() {
    for (name, value, expected) in [
        (
            "POSTROAD__MSA__WORKER",
            "1",
            "environment variable POSTROAD__MSA__WORKER: unknown key `worker` in [msa]; did you mean `workers`?",
        ),
        (
            "POSTROAD__MSA__WORKERS",
            "many",
            "environment variable POSTROAD__MSA__WORKERS: msa.workers: found string \"many\", expected u16",
        ),
        (
            "POSTROAD__MSA",
            "1",
            "environment variable POSTROAD__MSA: POSTROAD__MSA: names no key; write POSTROAD__SECTION__KEY, for example POSTROAD__COMMON__HOSTNAME",
        ),
        (
            "POSTROAD__MAA__X",
            "1",
            "environment variable POSTROAD__MAA__X: unknown section `maa`; known are common, queued, msa, mta, mda, postroad, sendmail",
        ),
    ] {
        let error = with_env("[msa]\nbanner = \"x\"\n", &[(name, value)])
            .and_then(|config| config.section::<Msa>("msa"))
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_world_readable_secret_is_refused_at_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("token");
    let path = secret.display();
    fs::write(&secret, "hunter2\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o604)).unwrap();
    let text = format!("[msa]\nbanner = \"x\"\ntoken_file = \"{path}\"\n");
    assert_eq!(
        refused(&text),
        format!(
            "p.toml:3: msa.token_file: the secret file {path} is open to everyone (mode 604); \
             run `chmod 640 {path}`"
        )
    );
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    let config = config(&text).unwrap();
    let msa: Msa = config.section("msa").unwrap();
    assert_eq!(msa.token_file.as_ref().unwrap().reveal(), b"hunter2");
    let rows = config.effective("msa", &msa);
    assert!(!format!("{rows:?}").contains("hunter2"), "{rows:?}");
}

#[test]
fn effective_values_say_where_they_come_from() {
    let config = with_env(
        "[msa]\nbanner = \"x\"\n[[msa.listeners]]\naddress = \"a\"\n",
        &[("POSTROAD__MSA__WORKERS", "7")],
    )
    .unwrap();
    let msa: Msa = config.section("msa").unwrap();
    let mut rows: Vec<String> = config
        .effective("msa", &msa)
        .into_iter()
        .map(|row| format!("{} = {} ({})", row.key, row.value, row.place))
        .collect();
    rows.sort();
    assert_eq!(
        rows,
        [
            "msa.banner = \"x\" (p.toml:2)",
            "msa.limits.connections = 0 (default)",
            "msa.limits.recipients = 0 (default)",
            "msa.listeners[0].address = \"a\" (p.toml:4)",
            "msa.listeners[0].tls = false (default)",
            "msa.mode = \"plain\" (default)",
            "msa.networks = [] (default)",
            "msa.routes = {} (default)",
            "msa.size_limit = \"25MiB\" (default)",
            "msa.timeout = (unset) (default)",
            "msa.token_file = (unset) (default)",
            "msa.verbose = false (default)",
            "msa.workers = 7 (environment variable POSTROAD__MSA__WORKERS)",
        ]
    );
}

#[test]
fn an_agent_can_report_a_fault_of_meaning_at_its_key() {
    let config = config("[msa]\nbanner = \"x\"\n\n[[msa.listeners]]\naddress = \"a\"\n").unwrap();
    let error = |key| config.error(key, "is wrong", "right it").to_string();
    assert_eq!(
        error("msa.listeners[0].address"),
        "p.toml:5: msa.listeners[0].address: is wrong; right it"
    );
    assert_eq!(
        error("msa.listeners[0].tls.cert_file"),
        "p.toml:4: msa.listeners[0].tls.cert_file: is wrong; right it"
    );
    assert_eq!(error("mda.root"), "p.toml: mda.root: is wrong; right it");
}

#[test]
fn common_reads_whole_and_refuses_the_unknown() {
    let common = config(
        "[common]\nhostname = \"mx.example.org\"\ndomain = \"example.org\"\n\
         log = { format = \"json\", level = \"debug\" }\n\
         dns = { servers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"], prefer = \"ipv4\" }\n",
    )
    .unwrap()
    .common()
    .unwrap();
    assert_eq!(common.hostname.as_str(), "mx.example.org");
    assert_eq!(common.domain().as_str(), "example.org");
    assert_eq!(common.shutdown_grace, Interval::seconds(30));
    let servers: Vec<String> = common.dns.servers.iter().map(|s| s.to_string()).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:5353"]);
    let refused = |text| config(text).unwrap().common().unwrap_err().to_string();
    assert_eq!(
        refused("[common]\nhostname = \"a.b\"\n[common.dns]\nserver = []\n"),
        "p.toml:4: unknown key `server` in [common.dns]; did you mean `servers`?"
    );
    assert_eq!(
        refused("[common]\nhostname = \"a.b\"\ndns.servers = [\"ns\"]\n"),
        "p.toml:3: common.dns.servers[0]: \"ns\" is no name server; write \"192.0.2.53\" or \"192.0.2.53:53\""
    );
    assert!(refused("[common]\nhostname = \"-\"\n").starts_with("p.toml:2: common.hostname: "));
}

/// Which of the two a host gets depends on its name; each must be right.
#[test]
fn the_host_name_comes_from_the_system_or_is_asked_for() {
    let read = config("[common]\n").unwrap().common();
    match crate::common::system_hostname() {
        Ok(name) => assert_eq!(read.unwrap().hostname, name),
        Err(name) => assert_eq!(
            read.unwrap_err().to_string(),
            format!(
                "p.toml:1: common.hostname: this host calls itself {name:?}, which is not a fully \
                 qualified name; write `hostname = \"mail.example.org\"` in section [common]"
            )
        ),
    }
}

#[test]
fn a_name_with_dots_has_its_place() {
    let text = "[msa.realms]\n\"A.ORG\" = \"a.org\"\n[[msa.list]]\n\"b.c\" = 1\n".to_owned();
    let file = ConfigFile::assemble([(PathBuf::from("p.toml"), text)], []).unwrap();
    for (key, place) in [
        ("msa.realms.A.ORG", "p.toml:2"),
        ("msa.list[0].b.c", "p.toml:4"),
    ] {
        let error = file.error(key, "wrong", "mend it").to_string();
        assert!(error.starts_with(place), "{error}");
    }
}
