//! A queue behind its sockets.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use postroad_address::ReversePath;
use postroad_daemon::CommonConfig;
use postroad_directory::DirectoryHandle;
use postroad_envelope::{
    EditPlace, Envelope, HeaderEdit, QueueId, Recipient, RecipientIndex, RouteClass, Timestamp,
};
use postroad_metrics::Metrics;
use postroad_queue_client::{Completion, QueueService, WorkChannel, WorkHello};
use postroad_queued::LocalQueue;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DIRECTORY: &str = "[[domain]]\nname = \"a.example\"\npostmaster = \"bob@a.example\"\n\n\
                         [[account]]\naddress = \"bob@a.example\"\n";

/// A queue, its sockets and its configuration in a folder.
pub struct Site {
    pub folder: TempDir,
    pub runtime: Runtime,
    pub queue: LocalQueue,
    pub stop: CancellationToken,
    pub running: Vec<JoinHandle<()>>,
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        fs::write(folder.path().join("directory.toml"), DIRECTORY).unwrap();
        let config = format!(
            "[common]\nhostname = \"mx.a.example\"\ndirectory = \"{path}/directory.toml\"\n\
             state_dir = \"{path}\"\nrun_dir = \"{path}\"\nqueue = \"unix:{path}/queue.sock\"\n\
             [queued.disk]\nreserve_percent = 0\nreserve = \"0B\"\n"
        );
        fs::write(folder.path().join("postroad.toml"), config).unwrap();
        let common = CommonConfig {
            hostname: "mx.a.example".parse().unwrap(),
            state_dir: folder.path().to_owned(),
            run_dir: folder.path().to_owned(),
            queue: format!("unix:{path}/queue.sock").into(),
            directory: folder.path().join("directory.toml"),
            ..CommonConfig::default()
        };
        let mut config = postroad_queued::Config::default();
        config.disk.reserve_percent = 0;
        config.disk.reserve = postroad_daemon::ByteSize::bytes(0);
        let runtime = Runtime::new().unwrap();
        let stop = CancellationToken::new();
        let (queue, running) = runtime.block_on(async {
            let directory = DirectoryHandle::open(&common.directory).unwrap();
            let (queue, running) =
                postroad_queued::start(config, &common, directory, &Metrics::new("queued"))
                    .await
                    .unwrap();
            let (serving, stopping, ending) = (queue.clone(), stop.clone(), stop.clone());
            let sockets = tokio::spawn(async move {
                postroad_queued::serve_rpc(&serving, &common, stopping)
                    .await
                    .unwrap();
            });
            let running = tokio::spawn(async move {
                running.run(ending, Duration::ZERO).await.unwrap();
            });
            (queue, vec![sockets, running])
        });
        let site = Self {
            folder,
            runtime,
            queue,
            stop,
            running,
        };
        while !site.folder.path().join("queue-admin.sock").exists() {
            std::thread::yield_now();
        }
        site
    }

    /// Status, standard output, standard error.
    pub fn run(&self, arguments: &[&str]) -> (u8, String, String) {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let config = self.folder.path().join("postroad.toml");
        let all = ["postroad", "--config", config.to_str().unwrap()];
        let all = all.iter().chain(arguments).map(OsString::from);
        let status = postroad::execute(all, &mut out, &mut talk);
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        (status, text(out), text(talk))
    }

    pub fn done(&self, arguments: &[&str]) -> String {
        let (status, out, talk) = self.run(arguments);
        assert_eq!(status, 0, "{arguments:?}: {talk}");
        out
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().chain(&["--json"]).copied().collect();
        serde_json::from_str(&self.done(&all)).unwrap()
    }

    /// So many mails at one time.
    pub fn send_many(&self, count: usize, to: &str) {
        let submit = async |number: usize| {
            let now = Timestamp::from(std::time::SystemTime::now());
            let mut envelope = Envelope::new(
                QueueId::mint(now, rand::random()),
                ReversePath::parse("bob@a.example").unwrap(),
                now,
            );
            envelope.recipients = vec![Recipient::new(RecipientIndex(0), to.parse().unwrap())];
            envelope.tags = vec![format!("t{}", number % 2)];
            let submission = self.queue.submit(envelope).await.unwrap();
            submission.finish(Completion::default()).await.unwrap();
        };
        self.runtime.block_on(async {
            for part in (0..count).collect::<Vec<_>>().chunks(200) {
                futures::future::join_all(part.iter().map(|&number| submit(number))).await;
            }
        });
    }

    pub fn send(&self, to: &[&str]) -> String {
        let now = Timestamp::from(std::time::SystemTime::now());
        let id = QueueId::mint(now, rand::random());
        let sender = ReversePath::parse("bob@a.example").unwrap();
        let mut envelope = Envelope::new(id, sender, now);
        envelope.recipients = (0..)
            .zip(to)
            .map(|(index, to)| Recipient::new(RecipientIndex(index), to.parse().unwrap()))
            .collect();
        envelope.header_edits = vec![HeaderEdit::Add {
            place: EditPlace::Top,
            field: b"Received: by here\r\n".to_vec(),
        }];
        let content = Bytes::from_static(b"Subject: hello\r\n\r\nhi\r\n");
        self.runtime.block_on(async {
            let mut submission = self.queue.submit(envelope).await.unwrap();
            let size = content.len().try_into().unwrap();
            submission.chunk(content).await.unwrap();
            let completion = Completion {
                size,
                ..Completion::default()
            };
            submission.finish(completion).await.unwrap();
        });
        id.to_string()
    }

    /// A worker for mailboxes that takes nothing.
    pub fn worker(&self) -> WorkChannel {
        self.worker_for("mda@here", RouteClass::Local)
    }

    /// The same for mail of this class.
    pub fn worker_for(&self, agent: &str, class: RouteClass) -> WorkChannel {
        let hello = WorkHello {
            stores: Vec::new(),
            agent: agent.to_owned(),
            version: "0".to_owned(),
            host: "here".to_owned(),
            classes: vec![class],
            held: Vec::new(),
            former: None,
            joins: false,
        };
        self.runtime.block_on(self.queue.work(hello)).unwrap()
    }

    pub fn end(self) {
        self.stop.cancel();
        for task in self.running {
            self.runtime.block_on(task).unwrap();
        }
    }
}
