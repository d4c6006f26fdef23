//! A whole process as its supervisor sees it: status, last words, signals, readiness.
//!
//! This program is both sides: called with an agent's arguments it is the agent, else the test.

#![allow(clippy::print_stdout)] // the report of a test

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use postroad_daemon::{
    AgentConfig, Apply, DaemonError, HttpConfig, ReloadPart, Start, query_health, run_main,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Config {
    work: Work,
    #[serde(default)]
    http: HttpConfig,
    #[serde(default)]
    limit: u32,
    #[serde(default)]
    port: u32,
}

impl AgentConfig for Config {
    fn http(&self) -> &HttpConfig {
        &self.http
    }
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Work {
    Serve,
    Hang,
    Fail,
}

async fn serve(start: Start<Config>) -> Result<(), DaemonError> {
    let check = start.health.check("work");
    if let Work::Fail = start.config.work {
        return Err(DaemonError::temporary("port 25 is busy"));
    }
    check.ready();
    let live = ReloadPart::new("msa", &["msa.limit"], |file, _, config: Config| {
        if config.limit > 99 {
            return Err(file.error("msa.limit", "is too much", "write less"));
        }
        Ok(Apply::new(move || {
            tracing::warn!(event = "listening", count = config.limit)
        }))
    });
    let stop = start.shutdown.token().clone();
    start.reload.serve(vec![live], stop).await;
    match start.config.work {
        Work::Hang => std::future::pending().await,
        _ => Ok(()),
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--config") {
        return run_main("msa", "0.0.0", serve);
    }
    let tests: [(&str, fn()); 7] = [
        (
            "a_wrong_configuration_ends_with_78",
            a_wrong_configuration_ends_with_78,
        ),
        (
            "checking_says_nothing_when_all_is_well",
            checking_says_nothing_when_all_is_well,
        ),
        (
            "a_failing_task_decides_the_status",
            a_failing_task_decides_the_status,
        ),
        ("a_signal_stops_in_order", a_signal_stops_in_order),
        ("a_second_signal_ends_at_once", a_second_signal_ends_at_once),
        (
            "a_watchdog_hears_of_the_process_again_and_again",
            a_watchdog_hears_of_the_process_again_and_again,
        ),
        (
            "sighup_reads_the_configuration_again",
            sighup_reads_the_configuration_again,
        ),
    ];
    let only: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let mut all_passed = true;
    for (name, test) in tests {
        if only.is_empty() || only.iter().any(|wanted| name.contains(wanted.as_str())) {
            let passed = std::panic::catch_unwind(test).is_ok();
            println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
            all_passed &= passed;
        }
    }
    match all_passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A process that does not outlive a failing test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // One that was waited for is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Host {
    folder: tempfile::TempDir,
    notify: UnixDatagram,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let notify = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        notify
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self { folder, notify }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, msa: &str) -> PathBuf {
        let config = self.path("postroad.toml");
        let run = self.path("run");
        let text = format!(
            "[common]\nhostname = \"mx.test\"\nallow_root = true\nrun_dir = {run:?}\n\
             shutdown_grace = \"1h\"\n[msa]\n{msa}\n"
        );
        fs::write(&config, text).unwrap();
        config
    }

    fn start(&self, msa: &str, arguments: &[&str]) -> Agent {
        Agent(self.command(msa).args(arguments).spawn().unwrap())
    }

    fn command(&self, msa: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .arg("--config")
            .arg(self.configure(msa))
            .env("NOTIFY_SOCKET", self.path("notify"))
            .env_remove("POSTROAD_LOG")
            .stderr(Stdio::piped());
        command
    }

    fn heard(&self) -> String {
        let mut buffer = [0; 128];
        let length = self.notify.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

fn signal(agent: &Agent, signal: Signal) {
    kill_process(Pid::from_child(&agent.0), signal).unwrap();
}

/// The status and the last words; times cut off.
fn end(mut agent: Agent) -> (i32, Vec<String>) {
    let mut said = String::new();
    let mut stderr = agent.0.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    let status = agent.0.wait().unwrap().code().unwrap();
    let lines = said
        .lines()
        .map(|line| match line.split_once("Z ") {
            Some((_, rest)) => rest.to_owned(),
            None => line.to_owned(),
        })
        .collect();
    (status, lines)
}

fn a_wrong_configuration_ends_with_78() {
    let host = Host::new();
    let (status, said) = end(host.start("wrok = \"serve\"", &[]));
    let file = host.path("postroad.toml");
    let expected = format!(
        "postroad-msa: {}:7: unknown key `wrok` in [msa]; did you mean `work`?",
        file.display()
    );
    assert_eq!((status, said), (78, vec![expected]));
}

fn checking_says_nothing_when_all_is_well() {
    let (status, said) = end(Host::new().start("work = \"fail\"", &["--check"]));
    assert_eq!((status, said), (0, vec![]));
}

fn a_failing_task_decides_the_status() {
    let (status, said) = end(Host::new().start("work = \"fail\"", &[]));
    assert_eq!(status, 75);
    assert_eq!(
        said.last().unwrap(),
        "ERROR msa stopped status=75 error=\"port 25 is busy\""
    );
}

fn a_signal_stops_in_order() {
    let host = Host::new();
    let agent = host.start("work = \"serve\"", &[]);
    assert_eq!(host.heard(), "READY=1");
    let health = health(&host.path("run/msa.health"));
    assert!(health.ready && health.checks["work"].ready, "{health:?}");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.0.id())).unwrap();
    assert!(status.contains("THP_enabled:\t0"), "{status}");
    assert!(status.contains("Umask:\t0077"), "{status}");
    signal(&agent, Signal::TERM);
    assert_eq!(host.heard(), "STOPPING=1");
    let (status, said) = end(agent);
    assert_eq!(status, 0, "{said:?}");
    let facts: Vec<&str> = said
        .iter()
        .filter_map(|line| line.strip_prefix("INFO msa "))
        .map(|line| line.split(" path=").next().unwrap())
        .collect();
    assert_eq!(
        facts,
        [
            "config_loaded",
            "ready",
            "stopping reason=SIGTERM",
            "stopped status=0"
        ]
    );
    assert!(!host.path("run/msa.health").exists());
}

fn a_watchdog_hears_of_the_process_again_and_again() {
    let host = Host::new();
    let mut command = host.command("work = \"serve\"");
    let agent = Agent(command.env("WATCHDOG_USEC", "100000").spawn().unwrap());
    // It is fed while the process still starts, so READY comes anywhere among them.
    let (mut ready, mut fed) = (0, 0);
    while ready == 0 || fed < 3 {
        match host.heard().as_str() {
            "READY=1" => ready += 1,
            "WATCHDOG=1" => fed += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(ready, 1);
    signal(&agent, Signal::TERM);
    assert_eq!(end(agent).0, 0);
}

fn a_second_signal_ends_at_once() {
    let host = Host::new();
    let mut agent = host.start("work = \"hang\"", &[]);
    assert_eq!(host.heard(), "READY=1");
    signal(&agent, Signal::TERM);
    // Two equal signals may be merged into one; the first must have been heard.
    let mut lines = BufReader::new(agent.0.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("stopping")));
    signal(&agent, Signal::INT);
    let dropped = lines.find(|line| line.as_ref().unwrap().contains("task=serve"));
    let dropped = dropped.unwrap().unwrap();
    assert!(
        dropped.ends_with("WARN msa fault task=serve reason=SIGINT dropped before its end"),
        "{dropped}"
    );
    lines.for_each(drop);
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
}

fn sighup_reads_the_configuration_again() {
    let host = Host::new();
    let mut agent = host.start("work = \"serve\"", &[]);
    assert_eq!(host.heard(), "READY=1");
    let mut lines = BufReader::new(agent.0.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ready")));
    let mut reload = |msa: &str| {
        host.configure(msa);
        signal(&agent, Signal::HUP);
        let told = host.heard();
        let since = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
        assert_eq!(host.heard(), "READY=1");
        let mut said = Vec::new();
        for line in &mut lines {
            let line = line.unwrap();
            let last = line.contains("reload");
            said.push(line);
            if last {
                break;
            }
        }
        said
    };
    let said = reload("work = \"serve\"\nlimit = 7\nport = 5");
    assert!(said[0].ends_with("WARN msa listening count=7"), "{said:?}");
    assert!(
        said[1].contains("INFO msa reloaded path=")
            && said[1].contains(" changed=msa.limit restart=msa.port "),
        "{said:?}"
    );
    let said = reload("work = \"serve\"\nlimit = 100");
    assert!(
        said[0].contains("ERROR msa reload_failed path=")
            && said[0].contains("postroad.toml:8: msa.limit: is too much; write less; "),
        "{said:?}"
    );
    let said = reload("wrok = 1");
    assert!(said[0].contains("unknown key `wrok` in [msa]"), "{said:?}");
    // The port it was started with is back; the format follows at once.
    let json = "work = \"serve\"\nlimit = 7\n[common.log]\nformat = \"json\"";
    let said = reload(json);
    let last: serde_json::Value = serde_json::from_str(said.last().unwrap()).unwrap();
    assert_eq!(last["event"], "reloaded");
    assert_eq!(last["changed"], "common.log.format");
    assert!(last["restart"].is_null(), "{last}");
    let said = reload(
        &json
            .replace("json\"", "json\"\nlevel = \"error\"")
            .replace('7', "500"),
    );
    let last: serde_json::Value = serde_json::from_str(&said[0]).unwrap();
    assert_eq!((said.len(), &last["event"]), (1, &"reload_failed".into()));
    signal(&agent, Signal::TERM);
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
}

fn health(socket: &Path) -> postroad_daemon::Health {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // READY and the socket are independent: the socket may be a moment later.
    runtime.block_on(async {
        loop {
            match query_health(socket).await {
                Ok(health) => break health,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
}
