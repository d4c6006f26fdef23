//! Postfix as the smarthost of our mta, by `deploy/config/swap/postfix-smarthost`: AUTH by Dovecot, verified TLS.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use postroad_queue_client::QueueAdmin as _;
use postroad_tests::{Agent, Stack, free_port, is_same_mail, stack};

use crate::{
    foreign::{DovecotAuth, Postfix, folder, hand_over, sample_file, user},
    swapping::{Authority, content, lines_with, more_lines, write_private},
    world::World,
};

const SWAP: &str = "postfix-smarthost";
const HOST: &str = "smtp.swap.test";
const FROM: &str = "bob@demo.test";
const TO: &str = "friend@far.test";
const LARGEST: usize = 5_000_000;

/// Where the smarthost listens.
struct Ports {
    submission: u16,
    submissions: u16,
    /// With a certificate whose time is over.
    expired: u16,
    /// Another host of ours, that wants nothing.
    plain: u16,
}

struct Swap {
    stack: Stack,
    postfix: Postfix,
    ports: Ports,
    _dovecot: DovecotAuth,
}

pub async fn sends_by_it_with_auth_and_verified_tls(world: &World) -> Result<()> {
    let mut swap = Swap::start(&world.place("smarthost")).await?;
    swap.delivers().await?;
    swap.bounces().await?;
    swap.waits_while_it_is_away().await?;
    swap.postfix.stop()?;
    swap.stack.end().await
}

pub async fn mail_waits_while_it_cannot_be_trusted_or_does_not_trust_us(
    world: &World,
) -> Result<()> {
    let mut swap = Swap::start(&world.place("smarthost-faults")).await?;
    let good = swap.hosts("");
    let expired = format!(
        "{good}[[queued.routes]]\ndomain = \"*\"\nclass = \"relay\"\nnext_hop = \"{HOST}:{}\"\n",
        swap.ports.expired
    );
    let strange = swap.stack.folder().join("strange-ca.pem");
    Authority::new(strange.clone())?;
    let strange = strange.display().to_string();
    let cases = [
        (
            "wrong-password",
            swap.hosts("wrong"),
            "login_refused",
            "535 5.7.8",
        ),
        (
            "wrong-ca",
            good.replace(&swap.ca_file(), &strange),
            "certificate",
            "no authority that is trusted here",
        ),
        (
            "wrong-name",
            good.replace("user =", "tls_names = [\"other.swap.test\"]\nuser ="),
            "certificate",
            "is for other names: smtp.swap.test",
        ),
        ("expired", expired, "certificate", "has run out"),
    ];
    for (subject, broken, reason, words) in cases {
        swap.waits_until_mended(subject, &broken, &good, reason, words)
            .await
            .with_context(|| subject.to_owned())?;
    }
    let told = swap.stack.log(Agent::Mta);
    ensure!(!told.contains("swap secret"), "the password is in the log");
    ensure!(
        swap.stack.delivered(FROM)?.is_empty(),
        "something was reported"
    );
    swap.postfix.stop()?;
    swap.stack.end().await
}

/// Dovecot has the password itself, so it can do all of them.
pub async fn proves_its_password_by_scram(world: &World) -> Result<()> {
    for (offered, wanted, used) in [
        ("plain login cram-md5 scram-sha-256", "", "SCRAM-SHA-256"),
        ("plain scram-sha-1", "", "SCRAM-SHA-1"),
        ("cram-md5", "", "CRAM-MD5"),
        ("plain scram-sha-256", "LOGIN PLAIN", "PLAIN"),
    ] {
        let place = world.place(&format!("smarthost-by-{used}"));
        let mut swap = Swap::offering(&place, offered).await?;
        if !wanted.is_empty() {
            let list = wanted.replace(' ', "\", \"");
            let only = format!("{}mechanisms = [\"{list}\"]\n", swap.hosts(""));
            swap.put(&only).await?;
        }
        let sent = content("proof", 0);
        swap.send(TO, &sent).await?;
        swap.arrives("proof", &sent).await?;
        let method = format!("sasl_method={used}");
        swap.postfix
            .logged(&[&method, "sasl_username=postroad"])
            .await?;
        // Nothing weaker than what is allowed, whatever the host has.
        if used == "CRAM-MD5" {
            let only = format!("{}mechanisms = [\"SCRAM-SHA-256\"]\n", swap.hosts(""));
            let good = swap.hosts("");
            swap.waits_until_mended("floor", &only, &good, "no_mechanism", "CRAM-MD5")
                .await?;
        }
        swap.postfix.stop()?;
        swap.stack.end().await?;
    }
    Ok(())
}

impl Swap {
    async fn start(place: &Path) -> Result<Self> {
        Self::offering(place, "plain login").await
    }

    async fn offering(place: &Path, mechanisms: &str) -> Result<Self> {
        folder(place)?;
        let port = || free_port();
        let ports = Ports {
            submission: port()?,
            submissions: port()?,
            expired: port()?,
            plain: port()?,
        };
        let authority = Authority::new(place.join("ca.pem"))?;
        authority.issue(&place.join("smtp.pem"), &[HOST])?;
        authority.issue_expired(&place.join("expired.pem"), HOST)?;
        let password = place.join("password");
        write_private(&password, "swap secret\n")?;

        let mut postfix = smarthost(place, &ports)?;
        let offered = format!("auth_mechanisms = {mechanisms}");
        let dovecot = DovecotAuth::start(
            &place.join("dovecot"),
            &sample_file(
                SWAP,
                "dovecot.conf",
                &[
                    ("/etc/dovecot/smtp-users", &text(&place.join("users"))),
                    ("/var/spool/postfix", &text(&place.join("postfix/queue"))),
                    ("auth_mechanisms = plain login", &offered),
                ],
            )?,
            &[(&place.join("users"), "postroad:{PLAIN}swap secret\n")],
            &place.join("postfix/queue/private/auth"),
        )
        .await?;
        postfix.go().await?;

        let submission = format!("{HOST}:{}", ports.submission);
        let settings = sample_file(
            SWAP,
            "postroad.toml",
            &[
                ("smtp.example.net:587", &submission),
                (
                    "/etc/postroad/tls/smarthost-ca.pem",
                    &text(&authority.ca_file),
                ),
                ("/etc/postroad/smarthost.password", &text(&password)),
            ],
        )?;
        let other = format!(
            "routes = [{{ domain = \"other.test\", class = \"relay\", next_hop = \"127.0.0.1:{}\" }}, ",
            ports.plain
        );
        let stack = stack!()
            .settings(&settings.replace("routes = [", &other))
            .zone(&format!("{HOST} A 127.0.0.1\n"))
            .start()
            .await?;
        Ok(Self {
            stack,
            postfix,
            ports,
            _dovecot: dovecot,
        })
    }

    fn ca_file(&self) -> String {
        self.place().join("ca.pem").display().to_string()
    }

    fn place(&self) -> std::path::PathBuf {
        self.postfix
            .place()
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default()
    }

    /// The entry of the sample, for any port, with another password if there is one.
    fn hosts(&self, password: &str) -> String {
        let file = match password {
            "" => "password",
            other => other,
        };
        let path = self.place().join(file);
        if !password.is_empty() {
            let written = write_private(&path, &format!("{password}\n"));
            debug_assert!(written.is_ok());
        }
        format!(
            "[[mta.outbound.hosts]]\nhost = \"{HOST}\"\nca_file = \"{}\"\nuser = \"postroad\"\npassword_file = \"{}\"\n",
            self.ca_file(),
            path.display()
        )
    }

    async fn send(&self, to: &str, content: &[u8]) -> Result<()> {
        let mut client = self.stack.login(FROM).await?;
        let reply = client.send(FROM, &[to], content).await?;
        ensure!(reply.starts_with("250 2.0.0 "), "{reply}");
        Ok(())
    }

    async fn arrives(&self, subject: &str, sent: &[u8]) -> Result<String> {
        let mail = self
            .postfix
            .mail_with(TO, &format!("Subject: {subject}\n"))
            .await?;
        let shown = String::from_utf8_lossy(&mail).into_owned();
        ensure!(is_same_mail(sent, &mail), "{shown:.1200}");
        Ok(shown)
    }

    async fn delivers(&self) -> Result<()> {
        for (subject, size) in [("small", 0), ("megabytes", LARGEST - 1_000_000)] {
            let sent = content(subject, size);
            self.send(TO, &sent).await?;
            let shown = self.arrives(subject, &sent).await?;
            ensure!(
                shown.contains(&format!("Return-Path: <{FROM}>")),
                "{shown:.1200}"
            );
        }
        self.postfix
            .logged(&["sasl_method=PLAIN", "sasl_username=postroad"])
            .await?;
        let verified = format!("\"verified\":\"{HOST}\"");
        self.stack
            .wait_for_log(
                Agent::Mta,
                &["\"outcome\":\"relayed\"", &verified, "TLS1.3"],
            )
            .await?;
        // The timeline shows what the neighbour said.
        let id = queue_id(&self.stack.log(Agent::Mta)).context("no mail in the log")?;
        let admin = self.stack.admin()?;
        let events = admin.trace(id.parse()?).await?;
        let attempt = events.iter().find(|event| {
            event
                .fields
                .get("verified")
                .is_some_and(|name| name == HOST)
        });
        let reply = attempt.and_then(|event| event.fields.get("reply"));
        ensure!(
            reply.is_some_and(|reply| reply.contains("queued as")),
            "{events:#?}"
        );
        Ok(())
    }

    /// Refused at RCPT, and too large to be offered.
    async fn bounces(&self) -> Result<()> {
        self.send("stranger@far.test", &content("stranger", 0))
            .await?;
        let report = self
            .stack
            .wait_for_mail_with(FROM, "stranger@far.test")
            .await?;
        ensure!(
            report.contains("Status: 5.1.1")
                && report.contains(&format!("Remote-MTA: dns; {HOST}")),
            "{}",
            report.text()
        );
        self.send(TO, &content("toolarge", LARGEST + 1_000_000))
            .await?;
        let report = self.stack.wait_for_mail_with(FROM, "Status: 5.3.4").await?;
        ensure!(
            report.contains("larger than the host takes"),
            "{}",
            report.text()
        );
        Ok(())
    }

    async fn waits_while_it_is_away(&mut self) -> Result<()> {
        self.postfix.stop()?;
        let sent = content("patience", 0);
        let words = ["\"outcome\":\"delayed\"", "refused", HOST];
        let before = lines_with(&self.stack, Agent::Mta, &words);
        self.send(TO, &sent).await?;
        more_lines(&self.stack, Agent::Mta, &words, before + 1).await?;
        self.postfix.go().await?;
        self.arrives("patience", &sent).await?;
        Ok(())
    }

    /// While something is wrong a person is told, this mail waits, other mail goes on, and nothing bounces.
    async fn waits_until_mended(
        &mut self,
        subject: &str,
        broken: &str,
        good: &str,
        reason: &str,
        words: &str,
    ) -> Result<()> {
        let told = [
            "\"event\":\"host_unusable\"",
            "\"level\":\"ERROR\"",
            &format!("\"reason\":\"{reason}\""),
            words,
        ];
        let before = lines_with(&self.stack, Agent::Mta, &told);
        self.put(broken).await?;
        let sent = content(subject, 0);
        self.send(TO, &sent).await?;
        more_lines(&self.stack, Agent::Mta, &told, before).await?;
        let other = format!("other-{subject}");
        self.send("friend@other.test", &content(&other, 0)).await?;
        self.postfix
            .mail_with("friend@other.test", &format!("Subject: {other}\n"))
            .await?;
        ensure!(
            !self.postfix.mails(TO).iter().any(|mail| {
                String::from_utf8_lossy(mail).contains(&format!("Subject: {subject}\n"))
            }),
            "it went all the same"
        );
        self.put(good).await?;
        self.arrives(subject, &sent).await?;
        Ok(())
    }

    /// Puts a configuration into force, of queue and mta.
    async fn put(&mut self, toml: &str) -> Result<()> {
        let routes = format!(
            "[[queued.routes]]\ndomain = \"other.test\"\nclass = \"relay\"\nnext_hop = \"127.0.0.1:{}\"\n",
            self.ports.plain
        );
        let usual = format!(
            "[[queued.routes]]\ndomain = \"*\"\nclass = \"relay\"\nnext_hop = \"{HOST}:{}\"\n",
            self.ports.submission
        );
        let usual = if toml.contains("queued.routes") {
            ""
        } else {
            &usual
        };
        self.stack
            .configure("hosts", &format!("{routes}{usual}{toml}"))?;
        for agent in [Agent::Queued, Agent::Mta] {
            let line = self.stack.reload(agent).await?;
            ensure!(line.contains("\"event\":\"reloaded\""), "{line}");
        }
        Ok(())
    }
}

fn smarthost(place: &Path, ports: &Ports) -> Result<Postfix> {
    let certificate = text(&place.join("smtp.pem"));
    let words = [(
        "/etc/postfix/tls/smtp.example.net.pem",
        certificate.as_str(),
    )];
    let main_cf = sample_file(SWAP, "main.cf", &words)?;
    let nobody = user("nobody")?;
    let mail = place.join("postfix/mail");
    folder(&mail)?;
    hand_over(&mail, nobody)?;
    fs::write(
        place.join("mailboxes"),
        "friend@far.test friend@far.test/\nfriend@other.test friend@other.test/\n",
    )?;
    let here = format!(
        "message_size_limit = {LARGEST}
virtual_mailbox_domains = far.test other.test
virtual_mailbox_base = {}
virtual_mailbox_maps = texthash:{}
virtual_uid_maps = static:{}
virtual_gid_maps = static:{}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
",
        mail.display(),
        place.join("mailboxes").display(),
        nobody.0,
        nobody.1
    );
    let (submission, submissions) = (inet(ports.submission), inet(ports.submissions));
    let words = [
        ("587 inet", submission.as_str()),
        ("465 inet", submissions.as_str()),
    ];
    let master_cf = sample_file(SWAP, "master.cf", &words)?;
    let expired = format!(
        "{} n - n - - smtpd\n  -o smtpd_tls_chain_files={}\n  -o smtpd_sasl_auth_enable=yes\n",
        inet(ports.expired),
        place.join("expired.pem").display()
    );
    let plain = format!(
        "{} n - n - - smtpd\n  -o smtpd_relay_restrictions=permit_mynetworks,reject\n",
        inet(ports.plain)
    );
    let addresses = [
        ports.submission,
        ports.submissions,
        ports.expired,
        ports.plain,
    ];
    let addresses = addresses.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    Postfix::with_listeners(
        &place.join("postfix"),
        &addresses,
        &(main_cf + &here),
        &(master_cf + &expired + &plain),
    )
}

fn inet(port: u16) -> String {
    format!("127.0.0.1:{port} inet")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Of the first mail that was relayed.
fn queue_id(log: &str) -> Option<String> {
    let line = log
        .lines()
        .find(|line| line.contains("\"outcome\":\"relayed\""))?;
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(value["queue_id"].as_str()?.to_owned())
}
