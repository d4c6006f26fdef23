//! A mail system in front of us, as the samples of `deploy/config/swap` set it up: what Postfix and Exim have in common.

use std::{
    any::Any,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use postroad_envelope::{Event, EventKind};
use postroad_queue_client::{MailDetails, QueueAdmin as _};
use postroad_tests::{Agent, Client, Mail, Stack, free_port, is_same_mail, mail, stack, wait_for};
use serde_json::Value;

use crate::{
    foreign,
    world::{World, header},
};

/// The name that the sample gives the mail system, in the words of the stack.
pub const NAME: &str = "mx.demo.test";
/// Ours, which must be another.
const OURS: &str = "inner.demo.test";
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/swap");
/// By SMTP, and by LMTP over TCP and over a Unix socket.
pub const WAYS: [(&str, Agent, &str); 3] = [
    ("bob@demo.test", Agent::Mta, "ESMTP"),
    ("tcp@demo.test", Agent::Mda, "LMTP"),
    ("unix@demo.test", Agent::Mda, "LMTP"),
];
/// Its local part is not ASCII (RFC 6531).
const UTF8: &str = "j\u{fc}rgen@demo.test";

/// Both, running.
pub struct Front {
    pub stack: Stack,
    /// Where the mail system takes mail.
    pub address: SocketAddr,
    /// Where it is, with its log.
    pub place: PathBuf,
    /// What the samples say, and what it is here; in this order.
    words: Vec<(String, String)>,
    /// Vouches for the mail system.
    certificate: PathBuf,
    /// Ends with this.
    pub program: Option<Box<dyn Any>>,
}

impl Front {
    /// Our agents as the sample `swap` says, for a mail system that runs as `user` and is not there yet.
    pub async fn prepare(world: &World, swap: &str, user: &str, what: &str) -> Result<Self> {
        let place = world.place(&format!("{swap}-{what}"));
        for leaf in ["", "etc"] {
            foreign::folder(&place.join(leaf))?;
        }
        let socket = socket(&place, user)?;
        let stack = stack!()
            .settings(&format!("[common]\nhostname = \"{OURS}\"\n"))
            .accounts(
                ["tcp", "unix", "gone", "j\u{fc}rgen"].map(|name| format!("{name}@demo.test")),
            )
            .prepare()?;
        let address = SocketAddr::from(([127, 0, 3, 1], free_port()?));
        let words = [
            ("mx.example.org", NAME.to_owned()),
            ("example.org", "demo.test".to_owned()),
            (
                "unix:/run/postroad-lmtp/socket",
                format!("unix:{}", socket.display()),
            ),
            ("/run/postroad-lmtp/socket", socket.display().to_string()),
            ("127.0.0.1:2525", stack.ports.smtp().to_string()),
            ("127.0.0.1:24", format!("127.0.0.1:{}", free_port()?)),
            (
                "[127.0.0.1]:2525",
                format!("[127.0.0.1]:{}", stack.ports.smtp().port()),
            ),
        ];
        let words: Vec<_> = words
            .into_iter()
            .map(|(word, here)| (word.to_owned(), here))
            .collect();
        let front = Self {
            stack,
            address,
            place,
            words,
            certificate: world.certificate.clone(),
            program: None,
        };
        let ours = front.sample(swap, "postroad.toml")?;
        front.stack.configure("90-front", &ours)?;
        let mut front = front;
        front.stack.start_all().await?;
        Ok(front)
    }

    /// A file of the sample, in the words of this place.
    pub fn sample(&self, swap: &str, file: &str) -> Result<String> {
        let path = Path::new(SAMPLES).join(swap).join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(in_words(&text, &self.words))
    }

    /// Where a port of the sample is.
    pub fn port(&self, word: &str) -> Result<String> {
        let found = self.words.iter().find(|(known, _)| known == word);
        let here = found.with_context(|| format!("{word} is no word of the samples"))?;
        Ok(here.1.rsplit(':').next().unwrap_or_default().to_owned())
    }

    /// The log of the mail system.
    pub fn log(&self) -> String {
        let names = ["log", "mainlog", "rejectlog", "paniclog"];
        let logs = names.map(|name| fs::read_to_string(self.place.join(name)).unwrap_or_default());
        logs.concat()
    }

    /// Waits for a line of it with all of these.
    pub async fn logged(&self, words: &[&str]) -> Result<String> {
        let what = format!("{words:?} in the log in front");
        let found = wait_for(&what, async || {
            let log = self.log();
            let fits = |line: &&str| words.iter().all(|word| line.contains(word));
            log.lines().find(fits).map(str::to_owned)
        });
        found.await.with_context(|| self.log())
    }

    /// A client of the mail system, under TLS.
    pub async fn client(&self) -> Result<Client> {
        let (client, _) = Client::connect(self.address).await?;
        client.starttls_as("mx.dns.test", &self.certificate).await
    }

    /// The mail arrives as it was sent, and our Received says that we had it from the mail system.
    pub async fn arrives(&self, to: &str, count: usize, content: &[u8]) -> Result<Mail> {
        let mails = self.stack.wait_for_mails(to, count).await;
        let mails = mails.with_context(|| self.log())?;
        let same = mails
            .into_iter()
            .find(|mail| is_same_mail(content, &mail.content));
        let mail = same.with_context(|| format!("{to} got something else than was sent"))?;
        let header = header(&mail);
        let ours = header.contains(&format!("Received: from {NAME} ("))
            && header.contains(&format!(" by {OURS} (Postroad) with "));
        ensure!(ours, "{header}");
        Ok(mail)
    }

    /// What the log of the agent said when it took the mail of this Message-ID, and what the queue knows of it.
    pub async fn accepted(
        &self,
        agent: Agent,
        message_id: &str,
    ) -> Result<(Value, MailDetails, Event)> {
        let line = self
            .stack
            .wait_for_log(agent, &["\"event\":\"accepted\"", message_id])
            .await?;
        let line: Value = serde_json::from_str(&line)?;
        let id = line["queue_id"].as_str().context("a queue id")?.parse()?;
        let admin = self.stack.admin()?;
        let accepted = wait_for("the timeline", async || {
            let events = admin.trace(id).await.ok()?;
            events
                .into_iter()
                .find(|event| event.kind == EventKind::Accepted)
        });
        Ok((line, admin.show(id).await?, accepted.await?))
    }

    /// Sizes and UTF-8 survive.
    pub async fn carries_much_and_utf8(&self, world: &World) -> Result<()> {
        let mut client = self.client().await?;
        let large = mail("large", &"0123456789 \u{20ac}\u{df}\r\n".repeat(400_000));
        ensure!(large.len() > 6_000_000);
        client
            .deliver("friend@far.test", &["bob@demo.test"], &large)
            .await?;
        self.arrives("bob@demo.test", 1, &large).await?;
        let reply = client
            .command("MAIL FROM:<friend@far.test> SIZE=60000000")
            .await?;
        ensure!(reply.starts_with("552 "), "{reply}");

        // Postfix remembers the size.
        let mut client = self.client().await?;

        let content = &world.samples.awkward.content;
        client
            .expect(
                "MAIL FROM:<gr\u{fc}n@far.test> SMTPUTF8 BODY=8BITMIME",
                "250",
            )
            .await?;
        client.expect(&format!("RCPT TO:<{UTF8}>"), "250").await?;
        client.expect("DATA", "354").await?;
        client.write(&stuffed(content)).await?;
        let reply = client.reply().await?;
        ensure!(reply.starts_with("250 "), "{reply}");
        let mail = self.arrives(UTF8, 1, content).await?;
        ensure!(
            mail.contains("Return-Path: <gr\u{fc}n@far.test>"),
            "{:.600}",
            mail.text()
        );
        ensure!(
            header(&mail).contains(" with UTF8SMTP"),
            "{:.900}",
            mail.text()
        );
        Ok(())
    }

    /// Who is unknown to us is refused before the mail is taken, and who is not ours is too. An account that vanishes
    /// once the mail system has heard of it is told to the sender by the mail system.
    pub async fn refuses_and_reports(&self) -> Result<()> {
        let mut client = self.client().await?;
        for (to, reply) in [("stranger@demo.test", "550"), ("friend@far.test", "5")] {
            client.expect("MAIL FROM:<alice@demo.test>", "250").await?;
            client
                .expect(&format!("RCPT TO:<{to}>"), reply)
                .await
                .with_context(|| self.log())?;
            client.expect("RSET", "250").await?;
        }
        let content = mail("known", "x\r\n");
        client
            .deliver("alice@demo.test", &["gone@demo.test"], &content)
            .await?;
        self.arrives("gone@demo.test", 1, &content).await?;

        let file = self.stack.directory_file();
        let text = fs::read_to_string(&file)?.replace("gone@demo.test", "elsewhere@demo.test");
        fs::write(&file, text)?;
        wait_for("the account to be gone", async || {
            let mut probe = self.stack.world_client().await.ok()?;
            probe.command("MAIL FROM:<>").await.ok()?;
            let reply = probe.command("RCPT TO:<gone@demo.test>").await.ok()?;
            reply.starts_with("550 5.1.1").then_some(())
        })
        .await?;
        let late = mail("too late", "x\r\n");
        client
            .deliver("alice@demo.test", &["gone@demo.test"], &late)
            .await?;
        let report = self
            .stack
            .wait_for_mail_with("alice@demo.test", "Subject: too late")
            .await;
        let report = report.with_context(|| self.log())?;
        for words in [
            "Return-Path: <>",
            &format!("Reporting-MTA: dns; {NAME}"),
            "gone@demo.test",
            "550 5.1.1",
        ] {
            ensure!(
                report.contains(words),
                "{words} is not in {}",
                report.text()
            );
        }
        ensure!(self.stack.delivered("gone@demo.test")?.len() == 1);
        Ok(())
    }

    /// Mail for each way waits in front while our agents are away, and comes once.
    pub async fn waits_for_us(&mut self, deferred: &[&str]) -> Result<()> {
        let mut client = self.client().await?;
        for (to, ..) in WAYS {
            let first = mail(&format!("first {to}"), "x\r\n");
            client.deliver("friend@far.test", &[to], &first).await?;
            self.arrives(to, 1, &first).await?;
        }
        for agent in [Agent::Mta, Agent::Mda] {
            self.stack.terminate(agent).await?;
        }
        let second = |to: &str| mail(&format!("second {to}"), "x\r\n");
        for (to, ..) in WAYS {
            client
                .deliver("friend@far.test", &[to], &second(to))
                .await?;
            self.logged(&[&[to], deferred].concat()).await?;
        }
        self.stack.bring_up(&[Agent::Mta, Agent::Mda]).await?;
        for (to, ..) in WAYS {
            self.arrives(to, 2, &second(to)).await?;
        }
        self.stack.wait_for_empty_queue().await?;
        for (to, ..) in WAYS {
            ensure!(
                self.stack.delivered(to)?.len() == 2,
                "{to} has a mail twice"
            );
        }
        Ok(())
    }

    /// Ends the mail system and our agents.
    pub async fn end(mut self) -> Result<()> {
        drop(self.program.take());
        self.stack.end().await
    }
}

/// `text` with each of the words in it said as here. What was put in is not looked at again, since a port may begin like that of a sample.
fn in_words(text: &str, words: &[(String, String)]) -> String {
    let (mut said, mut rest) = (String::new(), text);
    while let Some((at, word, here)) = words
        .iter()
        .filter_map(|(word, here)| Some((rest.find(word.as_str())?, word, here)))
        .min_by_key(|(at, ..)| *at)
    {
        said.push_str(&rest[..at]);
        said.push_str(here);
        rest = &rest[at + word.len()..];
    }
    said + rest
}

/// A folder for the socket, whose group is the mail system's: files made in it get that group.
fn socket(place: &Path, user: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = place.join("lmtp");
    fs::create_dir(&folder)?;
    let (_, group) = foreign::user(user)?;
    foreign::hand_over(&folder, (0, group))?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o2750))?;
    Ok(folder.join("socket"))
}

/// RFC 5321 §4.5.2, with the final dot.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    [&wire[..], b".\r\n"].concat()
}
