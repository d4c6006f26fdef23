use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;
use crate::config::ConfigFile;

const SOON: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    health: HealthState,
    stop: Shutdown,
    serving: JoinHandle<()>,
}

async fn serve(agents: &[&'static str]) -> Running {
    let server = HttpServer::bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let (address, health, stop) = (server.address(), HealthState::new(), Shutdown::new());
    let agents = agents.iter().map(|&agent| Observed {
        health: health.clone(),
        metrics: Metrics::new(agent),
    });
    let serving = tokio::spawn(server.serve(agents.collect(), None, stop.clone()));
    Running {
        address,
        health,
        stop,
        serving,
    }
}

impl Running {
    /// All that comes back for what is sent.
    async fn says(&self, request: &str) -> String {
        let ask = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        };
        timeout(SOON, ask).await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self
            .says(&format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n"))
            .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }
}

#[tokio::test]
async fn readiness_has_a_line_for_each_check() {
    let running = serve(&["msa"]).await;
    assert_eq!(running.get("/healthz").await, (200, "alive\n".to_owned()));
    let (status, lines) = running.get("/readyz").await;
    assert_eq!((status, &*lines), (503, "not ready process: starting\n"));

    let (listeners, queue) = (
        running.health.check("listeners"),
        running.health.dependency("queue"),
    );
    listeners.ready();
    queue.not_ready("no answer");
    let (status, lines) = running.get("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(lines, "ready listeners\nnot ready queue: no answer\n");
    queue.ready_but("reading its journal");
    let (status, lines) = running.get("/readyz?verbose").await;
    assert_eq!(status, 200);
    assert_eq!(lines, "ready listeners\nready queue: reading its journal\n");
    running.stop.request();
    timeout(SOON, running.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn several_agents_are_told_apart() {
    let running = serve(&["msa", "mta"]).await;
    running.health.check("listeners").ready();
    let (_, lines) = running.get("/readyz").await;
    assert_eq!(lines, "ready msa listeners\nready mta listeners\n");
    let (status, page) = running.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "postroad_ready{agent=\"msa\"} 1\n",
        "postroad_ready{agent=\"mta\"} 1\n",
        "postroad_check_ready{agent=\"mta\",check=\"listeners\"} 1\n",
    ] {
        assert!(page.contains(line), "{page}");
    }
}

#[tokio::test]
async fn nothing_but_reading_three_paths_is_answered() {
    let running = serve(&["msa"]).await;
    for path in ["/", "/metrics/", "/healthz/x", "//metrics", "/debug"] {
        assert_eq!(running.get(path).await.0, 404, "{path}");
    }
    let posted = running
        .says("POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
    assert!(posted.contains("allow: GET, HEAD\r\n"), "{posted}");
    let head = running
        .says("HEAD /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
        .await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn heads_that_are_too_long_or_no_http_are_refused() {
    let running = serve(&["msa"]).await;
    let long = "x".repeat(LONGEST_HEAD);
    let answer = running
        .says(&format!("GET /metrics HTTP/1.1\r\nHost: {long}\r\n\r\n"))
        .await;
    assert!(!answer.contains(" 200 "), "{answer}");
    let fields = "a: b\r\n".repeat(MOST_FIELDS + 1);
    let answer = running
        .says(&format!("GET /metrics HTTP/1.1\r\n{fields}\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let answer = running.says("EHLO there\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(running.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn clients_that_say_nothing_keep_others_out_for_a_moment_only() {
    let running = serve(&["msa"]).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    assert_eq!(running.get("/healthz").await.0, 200);
}

#[test]
fn an_address_or_nothing() {
    let read = |text: &str| {
        let text = format!("[msa]\nlisten = \"{text}\"\n");
        let file = ConfigFile::assemble([("p.toml".into(), text)], []).unwrap();
        file.section::<HttpConfig>("msa")
    };
    assert_eq!(read("").unwrap(), HttpConfig::default());
    assert_eq!(read("[::1]:9701").unwrap().listen.to_string(), "[::1]:9701");
    assert_eq!(read("[::1]:9701").unwrap().note(), None);
    let note = read("0.0.0.0:9701").unwrap().note().unwrap();
    assert!(note.contains("0.0.0.0:9701"), "{note}");
    let error = read("9701").unwrap_err().to_string();
    assert!(
        error.starts_with("p.toml:2: msa.listen: \"9701\" is no address"),
        "{error}"
    );
}
