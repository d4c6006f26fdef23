//! Postfix as submission in front of us, by `deploy/config/swap/postfix-submission`: passwords by Dovecot, handed over to an inner
//! listener that trusts its certificate.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use postroad_net::{CertFiles, ClientTls, Stream, Trust};
use postroad_queue_client::QueueAdmin as _;
use postroad_tests::{Agent, Kept, Peer, Stack, free_port, is_same_mail, stack, unwired, wait_for};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::{
    clients::python_said,
    foreign::{DovecotAuth, Postfix, folder, sample_file},
    swapping::{Authority, content},
    world::World,
};

const SWAP: &str = "postfix-submission";
const HOST: &str = "submission.demo.test";
const FROM: &str = "bob@demo.test";
const TO: &str = "friend@world.test";
const PASSWORD: &str = "swap secret";
const LARGEST: usize = 5_000_000;
const PATIENCE: Duration = Duration::from_secs(30);

struct Swap {
    stack: Stack,
    postfix: Postfix,
    place: PathBuf,
    submission: u16,
    inner: u16,
    authority: Authority,
    _dovecot: DovecotAuth,
}

pub async fn hands_over_with_its_certificate(world: &World) -> Result<()> {
    let mut swap = Swap::start(&world.place("submission")).await?;
    let peer = Peer::up(swap.stack.peer_address(1)).await?;
    swap.delivers(&peer).await?;
    swap.bounces(&peer).await?;
    swap.waits_while_we_are_away(&peer).await?;
    swap.its_certificate_is_renewed_by_another_authority(&peer)
        .await?;
    let refused = swap.submit("wrong", &content("nobody", 0), TO).await?;
    ensure!(
        refused.contains("SMTPAuthenticationError (535"),
        "{refused}"
    );
    swap.postfix.stop()?;
    swap.stack.end().await
}

pub async fn others_can_send_nothing(world: &World) -> Result<()> {
    let mut swap = Swap::start(&world.place("submission-others")).await?;
    let none = swap.at_inner_listener(None).await?;
    ensure!(none.starts_with("530 5.7.0 "), "{none}");
    let strange = swap.place.join("strange.pem");
    let authority = Authority::new(swap.place.join("strange-ca.pem"))?;
    authority.issue(&strange, &[HOST])?;
    let (other, old) = (swap.place.join("other.pem"), swap.place.join("old.pem"));
    swap.authority.issue(&other, &["other.demo.test"])?;
    swap.authority.issue_expired(&old, HOST)?;
    for (file, words) in [
        (strange, "is from no authority that is trusted here"),
        (other, "is for other names: other.demo.test"),
        (old, "has run out"),
    ] {
        let said = swap.at_inner_listener(Some(&file)).await?;
        ensure!(
            said.starts_with("454 4.7.5 ") && said.contains(words),
            "{said}"
        );
    }
    // The right certificate, as Postfix has it.
    let good = swap
        .at_inner_listener(Some(&swap.place.join("submission.pem")))
        .await?;
    ensure!(good.starts_with("250 "), "{good}");
    swap.postfix.stop()?;
    swap.stack.end().await
}

impl Swap {
    async fn start(place: &Path) -> Result<Self> {
        folder(place)?;
        let (submission, submissions, inner) = (free_port()?, free_port()?, free_port()?);
        let authority = Authority::new(place.join("ca.pem"))?;
        let certificate = place.join("submission.pem");
        authority.issue(&certificate, &[HOST, "localhost"])?;

        let settings = sample_file(
            SWAP,
            "postroad.toml",
            &[
                ("listeners.smtp = \"[::]:25\"\n", ""),
                ("[::]:10025", &format!("127.0.0.1:{inner}")),
                (
                    "/etc/postroad/tls/submission-ca.pem",
                    &text(&authority.ca_file),
                ),
                ("submission.example.org", HOST),
            ],
        )?;
        let limit = format!("[mta.inbound]\nsize_limit = \"{LARGEST}B\"\n");
        let stack = stack!()
            .settings(&settings)
            .settings(&limit)
            .start()
            .await?;

        let postfix_place = place.join("postfix");
        let our_ca = text(&stack.ca_file());
        let inner_at = format!("[localhost]:{inner}");
        let senders = text(&place.join("senders"));
        let main_cf = sample_file(
            SWAP,
            "main.cf",
            &[
                (
                    "/etc/postfix/tls/submission.example.org.pem",
                    &text(&certificate),
                ),
                ("submission.example.org", HOST),
                ("/etc/postfix/tls/postroad-ca.pem", &our_ca),
                ("[mail.example.org]:10025", &inner_at),
                ("/etc/postfix/senders", &senders),
            ],
        )?;
        let senders_text = sample_file(SWAP, "senders", &[("example\\.org", "demo\\.test")])?;
        fs::write(place.join("senders"), senders_text)?;
        let (one, two) = (inet(submission), inet(submissions));
        let words = [("587 inet", one.as_str()), ("465 inet", two.as_str())];
        let master_cf = sample_file(SWAP, "master.cf", &words)?;
        let addresses =
            [submission, submissions].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut postfix =
            Postfix::with_listeners(&postfix_place, &addresses, &main_cf, &master_cf)?;
        let dovecot = DovecotAuth::start(
            &place.join("dovecot"),
            &sample_file(
                SWAP,
                "dovecot.conf",
                &[
                    (
                        "  args = username_format=%u /etc/dovecot/users",
                        &format!("  args = username_format=%u {}", text(&place.join("users"))),
                    ),
                    ("/var/spool/postfix", &text(&postfix_place.join("queue"))),
                ],
            )?,
            &[(
                &place.join("users"),
                &format!("{FROM}:{{PLAIN}}{PASSWORD}\n"),
            )],
            &postfix_place.join("queue/private/auth"),
        )
        .await?;
        postfix.go().await?;
        Ok(Self {
            stack,
            postfix,
            place: place.to_owned(),
            submission,
            inner,
            authority,
            _dovecot: dovecot,
        })
    }

    /// By Python's smtplib, with a password; what it said, nothing if all went well.
    async fn submit(&self, password: &str, content: &[u8], to: &str) -> Result<String> {
        let file = self.place.join("mail");
        fs::write(&file, content)?;
        let orders = json!({
            "port": self.submission,
            "ca_file": self.authority.ca_file,
            "tls": "start",
            "account": FROM,
            "password": password,
            "from": FROM,
            "to": [to],
            "file": file,
        });
        python_said("submit.py", &orders).await
    }

    async fn submits(&self, content: &[u8], to: &str) -> Result<()> {
        let said = self.submit(PASSWORD, content, to).await?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }

    /// Waits until the world has the mail with this subject, as it was sent.
    async fn arrives(&self, peer: &Peer, subject: &str, sent: &[u8]) -> Result<Kept> {
        let line = format!("Subject: {subject}\r\n");
        let what = format!("mail {subject} in the world");
        let found = wait_for(&what, async || {
            let all = peer.kept_after(0).into_iter();
            let mut fitting =
                all.filter(|kept| String::from_utf8_lossy(&kept.content).contains(&line));
            fitting.next()
        });
        let kept = found.await.with_context(|| self.postfix.log())?;
        let shown = String::from_utf8_lossy(&kept.content).into_owned();
        ensure!(is_same_mail(sent, &unwired(&kept.content)), "{shown:.1200}");
        ensure!(kept.from == FROM && kept.to == [TO], "{kept:?}");
        Ok(kept)
    }

    async fn delivers(&self, peer: &Peer) -> Result<()> {
        for (subject, size) in [("small", 0), ("megabytes", LARGEST - 1_000_000)] {
            let sent = content(subject, size);
            self.submits(&sent, TO).await?;
            self.arrives(peer, subject, &sent).await?;
        }
        let sent = content("local", 0);
        self.submits(&sent, "alice@demo.test").await?;
        let mail = self
            .stack
            .wait_for_mail_with("alice@demo.test", "Subject: local\n")
            .await?;
        ensure!(is_same_mail(&sent, &mail.content), "{}", mail.text());
        ensure!(mail.contains("with ESMTPS\n"), "{}", mail.text());

        self.postfix
            .logged(&["sasl_method=PLAIN", &format!("sasl_username={FROM}")])
            .await?;
        self.postfix
            .logged(&["Verified TLS connection established to localhost"])
            .await?;
        let sent = self
            .postfix
            .logged(&[&format!("to=<{TO}>"), "status=sent (250 2.0.0 "])
            .await?;
        let verified = format!("\"verified\":\"{HOST}\"");
        self.stack
            .wait_for_log(Agent::Mta, &["\"event\":\"accepted\"", &verified])
            .await?;
        // What Postfix was told is the id of the mail, and its timeline shows what the world said.
        let id = sent
            .split("(250 2.0.0 ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let id = id.context("no id")?.parse()?;
        let events = self.stack.admin()?.trace(id).await?;
        let replies: Vec<&String> = events
            .iter()
            .filter_map(|event| event.fields.get("reply"))
            .collect();
        ensure!(!replies.is_empty(), "{events:#?}");
        let details = self.stack.admin()?.show(id).await?;
        let tls = details.envelope.origin.tls;
        ensure!(
            tls.as_ref().and_then(|tls| tls.verified.as_deref()) == Some(HOST),
            "{tls:?}"
        );
        Ok(())
    }

    /// Refused by the world, by us, and by its size.
    async fn bounces(&self, peer: &Peer) -> Result<()> {
        peer.answer("stranger@world.test", "550 5.1.1 nobody of that name");
        self.submits(&content("stranger", 0), "stranger@world.test")
            .await?;
        let report = self
            .stack
            .wait_for_mail_with(FROM, "nobody of that name")
            .await?;
        ensure!(
            report.contains("Reporting-MTA: dns; mx.demo.test"),
            "{}",
            report.text()
        );

        self.submits(&content("unknown", 0), "nobody@demo.test")
            .await?;
        let report = self
            .stack
            .wait_for_mail_with(FROM, "Subject: unknown")
            .await?;
        let by_postfix = format!("Reporting-MTA: dns; {HOST}");
        ensure!(
            report.contains(&by_postfix) && report.contains("Status: 5.1.1"),
            "{}",
            report.text()
        );
        self.submits(&content("toolarge", LARGEST + 1_000_000), TO)
            .await?;
        let report = self
            .stack
            .wait_for_mail_with(FROM, "Subject: toolarge")
            .await?;
        ensure!(
            report.contains(&by_postfix) && report.contains("size"),
            "{:.3000}",
            report.text()
        );
        Ok(())
    }

    async fn waits_while_we_are_away(&mut self, peer: &Peer) -> Result<()> {
        self.stack.terminate(Agent::Mta).await?;
        let sent = content("patience", 0);
        self.submits(&sent, TO).await?;
        self.postfix
            .logged(&["status=deferred", "Connection refused"])
            .await?;
        self.stack.bring_up(&[Agent::Mta]).await?;
        self.arrives(peer, "patience", &sent).await?;
        Ok(())
    }

    /// We notice by ourselves; Postfix is told.
    async fn its_certificate_is_renewed_by_another_authority(&mut self, peer: &Peer) -> Result<()> {
        self.postfix.stop()?;
        self.authority = Authority::new(self.authority.ca_file.clone())?;
        self.authority
            .issue(&self.place.join("submission.pem"), &[HOST, "localhost"])?;
        self.stack
            .wait_for_log(Agent::Mta, &["\"event\":\"certificate_reloaded\""])
            .await?;
        self.postfix.go().await?;
        let sent = content("renewed", 0);
        self.submits(&sent, TO).await?;
        self.arrives(peer, "renewed", &sent).await?;
        Ok(())
    }

    /// What MAIL is answered with for a client that shows this certificate.
    async fn at_inner_listener(&self, own: Option<&PathBuf>) -> Result<String> {
        let own = own.map(|file| CertFiles {
            cert_file: file.clone(),
            key_file: file.clone(),
        });
        let tls = ClientTls::to_hosts(false, Trust::Files(Vec::new()), own.as_ref())?;
        let mut plain = BufReader::new(TcpStream::connect(("127.0.0.1", self.inner)).await?);
        reply(&mut plain).await?;
        ask(&mut plain, "EHLO client.test").await?;
        let early = ask(&mut plain, "MAIL FROM:<bob@demo.test>").await?;
        ensure!(early.starts_with("530 5.7.0 "), "{early}");
        let go_on = ask(&mut plain, "STARTTLS").await?;
        ensure!(go_on.starts_with("220 "), "{go_on}");
        let stream = Stream::from(plain.into_inner());
        let stream = stream
            .upgrade_client(&tls, "localhost", b"", PATIENCE)
            .await?;
        let mut stream = BufReader::new(stream);
        ask(&mut stream, "EHLO client.test").await?;
        ask(&mut stream, "MAIL FROM:<bob@demo.test>").await
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    line: &str,
) -> Result<String> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    stream.flush().await?;
    reply(stream).await
}

/// The last line of a reply.
async fn reply<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>) -> Result<String> {
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line).await? > 0, "it hung up");
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line.trim_end().to_owned());
        }
    }
}

fn inet(port: u16) -> String {
    format!("127.0.0.1:{port} inet")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
