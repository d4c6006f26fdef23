//! A real listener on a free port, and a client for it.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use postroad_metrics::Metrics;
use postroad_net::{
    CertFiles, ClientTls, Limits, ListenAddr, Listener, ServerTls, Stream, Trust, connect_tcp,
};
use postroad_smtpd::{Smtpd, SmtpdConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::fakes::{Counts, FixedPolicy, MemoryQueue, StoredMail};

const SOON: Duration = Duration::from_secs(20);

pub struct Server {
    pub queue: Arc<MemoryQueue>,
    pub smtpd: Arc<Smtpd>,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<()>,
    address: std::net::SocketAddr,
    _certificate: tempfile::TempDir,
    implicit_tls: bool,
}

impl Server {
    pub fn start(config: SmtpdConfig, queue: MemoryQueue, grace: Duration) -> Self {
        let certificate = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(vec!["mx.example".to_owned()]).unwrap();
        let files = CertFiles {
            cert_file: certificate.path().join("cert.pem"),
            key_file: certificate.path().join("key.pem"),
        };
        std::fs::write(&files.cert_file, signed.cert.pem()).unwrap();
        std::fs::write(&files.key_file, signed.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(
            &files.key_file,
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        let tls = ServerTls::load(&[files]).unwrap();
        let metrics = Metrics::new("msa");
        let listener = Listener::bind(ListenAddr("127.0.0.1:0".parse().unwrap())).unwrap();
        let (address, implicit_tls) = (listener.local_addr(), config.implicit_tls);
        let (queue, shutdown) = (Arc::new(queue), CancellationToken::new());
        let smtpd = Arc::new(Smtpd::new(
            config,
            Arc::new(FixedPolicy),
            queue.clone(),
            Some(tls),
            &metrics,
        ));
        let limits = Limits {
            grace,
            ..Limits::default()
        };
        let (handler, stop) = (smtpd.clone(), shutdown.clone());
        let task = tokio::spawn(async move {
            listener
                .serve(&limits, Vec::new(), stop, move |connection| {
                    let smtpd = handler.clone();
                    async move { smtpd.serve(connection, Some("client.example".into())).await }
                })
                .await;
        });
        Self {
            queue,
            smtpd,
            metrics,
            shutdown,
            task,
            address,
            _certificate: certificate,
            implicit_tls,
        }
    }

    /// The same without a handshake, where one is waited for.
    pub async fn connect_plain(&self) -> Client {
        Client {
            stream: Some(connect_tcp(self.address, SOON, None).await.unwrap()),
            said: BytesMut::new(),
        }
    }

    pub async fn connect(&self) -> Client {
        let stream = connect_tcp(self.address, SOON, None).await.unwrap();
        let mut client = Client {
            stream: Some(stream),
            said: BytesMut::new(),
        };
        if self.implicit_tls {
            client.start_tls().await;
        }
        client
    }

    /// Waits until the queue saw what is asked for.
    pub async fn queue_saw(&self, seen: impl FnMut(&Counts) -> bool) {
        let mut counts = self.queue.counts.subscribe();
        timeout(SOON, counts.wait_for(seen))
            .await
            .expect("the queue did not see it")
            .unwrap();
    }

    pub fn mails(&self) -> Vec<StoredMail> {
        self.queue.mails.lock().unwrap().clone()
    }
}

pub struct Client {
    pub stream: Option<Stream>,
    said: BytesMut,
}

impl Client {
    fn stream(&mut self) -> &mut Stream {
        self.stream.as_mut().expect("connected")
    }

    pub async fn send(&mut self, octets: &[u8]) {
        self.stream().write_all(octets).await.unwrap();
        self.stream().flush().await.unwrap();
    }

    /// The next line without its CRLF; none when the server closed the connection.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.said.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.said.split_to(at + 2);
                return Some(String::from_utf8(line[..at].to_vec()).unwrap());
            }
            let (stream, said) = (self.stream.as_mut().unwrap(), &mut self.said);
            match timeout(SOON, stream.read_buf(said))
                .await
                .expect("the server says nothing")
            {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The last line of the next reply.
    pub async fn reply(&mut self) -> String {
        loop {
            let line = self.line().await.expect("a reply");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    pub async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// Brings a mail of one line, without a greeting.
    pub async fn mail(&mut self) {
        for line in ["MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>"] {
            assert!(self.say(line).await.starts_with("250 "));
        }
        assert!(self.say("DATA").await.starts_with("354 "));
        assert!(self.say("\r\nx\r\n.").await.starts_with("250 "));
    }

    /// Says what comes before content, up to 354.
    pub async fn begin(&mut self, rcpt: &str) {
        assert!(self.say("EHLO client.example").await.starts_with("250 "));
        assert!(
            self.say("MAIL FROM:<a@client.example>")
                .await
                .starts_with("250 ")
        );
        assert!(
            self.say(&format!("RCPT TO:<{rcpt}>"))
                .await
                .starts_with("250 ")
        );
        assert!(self.say("DATA").await.starts_with("354 "));
    }

    pub async fn start_tls(&mut self) {
        let tls = ClientTls::opportunistic(Trust::Files(Vec::new())).unwrap();
        let plain = self.stream.take().unwrap();
        let stream = plain
            .upgrade_client(&tls, "mx.example", &self.said, SOON)
            .await
            .unwrap();
        self.stream = Some(stream);
    }
}
