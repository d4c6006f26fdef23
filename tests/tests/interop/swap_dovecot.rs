//! Dovecot in place of our delivery agent, and beside it: `deploy/config/swap/dovecot-lmtp` and `dovecot-imap`.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_tests::{
    Agent, PASSWORD, Stack, free_port, is_same_mail, mail, stack, unwired, wait_for,
};
use serde_json::{Value, json};

use crate::{
    clients::python_json,
    foreign::{self, SampleDovecot, sample_file},
    world::World,
};

const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";
const CAROL: &str = "carol@demo.test";
/// Has no mailbox at Dovecot, although we know the account.
const GONE: &str = "gone@demo.test";
/// Is known to Dovecot alone, which lists its accounts for us.
const ERIN: &str = "erin@shop.test";
/// Gives a mailbox no more room than a short mail takes.
const TIGHT: &str = "userdb_quota_rule=*:storage=1k";
/// What is read while it is filed.
const MAILS: usize = 60;

pub async fn takes_mail_by_socket(world: &World) -> Result<()> {
    let mut swapped = Swapped::start(world, "swap-socket", Door::Socket, &[]).await?;
    swapped
        .each_recipient_has_an_outcome("Quota exceeded")
        .await?;
    swapped.waits_while_dovecot_is_away("does not run").await?;
    swapped.contents_survive(world).await?;
    swapped.end().await
}

pub async fn takes_mail_by_tcp(world: &World) -> Result<()> {
    let tempfail = [("quota_full_tempfail = no", "quota_full_tempfail = yes")];
    let mut swapped = Swapped::start(world, "swap-tcp", Door::Tcp, &tempfail).await?;
    swapped.a_full_mailbox_is_tried_again().await?;
    swapped.accounts_of_dovecot_are_known_at_the_door().await?;
    swapped.waits_while_dovecot_is_away("refused").await?;
    swapped.contents_survive(world).await?;
    swapped.end().await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Socket,
    Tcp,
}

/// A stack whose mail for demo.test is Dovecot's; no delivery agent runs.
struct Swapped {
    stack: Stack,
    dovecot: SampleDovecot,
    next_hop: String,
}

impl Swapped {
    async fn start(world: &World, name: &str, door: Door, words: &[(&str, &str)]) -> Result<Self> {
        let place = world.place(name);
        let shop = format!(
            "[[domain]]\nname = 'shop.test'\npostmaster = '{CAROL}'\naccounts_file = 'shop.accounts'\n"
        );
        let stack = stack!().accounts([GONE.to_owned()]).directory(&shop);
        // The samples are from strangers, whoever sends them.
        let stack = stack.settings("[msa]\nfrom = \"any\"\n");
        let stack = stack.prepare()?;
        let (uid, gid) = foreign::user(foreign::OWNER)?;
        let (shown, port) = (place.display(), free_port()?);
        let own = [
            ("mail.example.org", "mx.demo.test"),
            ("example.org", "demo.test"),
            ("/etc/dovecot/users", &format!("{shown}/users")),
            ("/var/vmail", &format!("{shown}/mail")),
            ("uid=vmail gid=vmail", &format!("uid={uid} gid={gid}")),
            ("user = postroad-mta", "user = root"),
            ("port = 24", &format!("port = {port}")),
        ];
        let certificate = certificate_words(&stack);
        let certificate = certificate.each_ref().map(|(a, b)| (*a, b.as_str()));
        let words = [&own[..], &certificate, words].concat();
        let dovecot = SampleDovecot::prepare(&place, "dovecot-lmtp", &words, "")?;

        let next_hop = match door {
            Door::Socket => format!("unix:{}", SampleDovecot::socket(&place).display()),
            Door::Tcp => format!("127.0.0.1:{port}"),
        };
        let words = [
            ("example.org", "demo.test"),
            ("unix:/run/dovecot/lmtp", next_hop.as_str()),
        ];
        let fragment = sample_file("dovecot-lmtp", "postroad.toml", &words)?;
        let too = format!(
            "routes = [{{ domain = \"shop.test\", class = \"lmtp\", next_hop = \"{next_hop}\" }}, "
        );
        stack.configure("dovecot", &fragment.replace("routes = [", &too))?;
        fs::write(stack.folder().join("shop.accounts"), ERIN)?;
        let mut swapped = Self {
            stack,
            dovecot,
            next_hop,
        };
        swapped.write_users(TIGHT).await?;
        swapped.dovecot.go().await?;
        let listed = swapped.dovecot.accounts()?;
        ensure!(listed.contains(ERIN), "{listed}");
        fs::write(swapped.stack.folder().join("shop.accounts"), listed)?;
        for agent in [Agent::Queued, Agent::Msa, Agent::Mta] {
            swapped.stack.bring_up(&[agent]).await?;
        }
        Ok(swapped)
    }

    /// Our accounts, without one, and with `bob_has` for bob.
    async fn write_users(&self, bob_has: &str) -> Result<()> {
        let exported = typed(&self.stack, &["account", "export"]).await?;
        let mut users = String::new();
        for line in exported.lines().filter(|line| !line.starts_with(GONE)) {
            users += line;
            users += if line.starts_with(BOB) { bob_has } else { "" };
            users += "\n";
        }
        users += &format!("{ERIN}:{{PLAIN}}hers::::::\n");
        self.dovecot.write("users", &users)
    }

    /// Who is unknown is refused before the mail is taken, so that no report goes to a forged sender.
    async fn accounts_of_dovecot_are_known_at_the_door(&self) -> Result<()> {
        let mut stranger = self.stack.world_client().await?;
        stranger.expect("MAIL FROM:<a@world.test>", "250").await?;
        let to = |name: &str| format!("RCPT TO:<{name}@shop.test>");
        stranger.expect(&to("ghost"), "550 5.1.1").await?;
        stranger.expect(&to("alice"), "550 5.1.1").await?;
        stranger.expect("RSET", "250").await?;
        let content = mail("for erin", "a line\r\n");
        stranger.deliver("a@world.test", &[ERIN], &content).await?;
        self.arrives(ERIN, &content).await
    }

    /// One mail, three recipients: one is there, one has no room, one is unknown. The report comes back the same way.
    async fn each_recipient_has_an_outcome(&self, full: &str) -> Result<()> {
        let content = mail("three recipients", &"a line of the mail\r\n".repeat(100));
        let id = self.send(CAROL, &[ALICE, BOB, GONE], &content).await?;
        self.arrives(ALICE, &content).await?;
        let report = wait_for("the report", async || {
            let mails = self.dovecot.mails(CAROL).ok()?;
            mails.into_iter().next()
        })
        .await?;
        let report = String::from_utf8_lossy(&report).into_owned();
        for words in [
            "Content-Type: multipart/report",
            "Final-Recipient: rfc822; bob@demo.test\nAction: failed\nStatus: 5.2.2\n",
            "Final-Recipient: rfc822; gone@demo.test\nAction: failed\nStatus: 5.1.1\n",
            "Subject: three recipients",
        ] {
            ensure!(report.contains(words), "no {words:?} in {report}");
        }
        ensure!(
            !report.contains("rfc822; alice@demo.test") && !report.contains("unix:"),
            "{report}"
        );
        self.stack.wait_for_empty_queue().await?;
        let hop = &self.next_hop;
        self.trace_shows(&id, &[hop, "250 2.0.0", full, "User doesn't exist"])
            .await
    }

    /// 452 4.2.2: there may be room later, and then there is.
    async fn a_full_mailbox_is_tried_again(&self) -> Result<()> {
        let content = mail("later", &"a line of the mail\r\n".repeat(100));
        let id = self.send(CAROL, &[ALICE, BOB], &content).await?;
        self.arrives(ALICE, &content).await?;
        self.stack
            .wait_for_log(Agent::Mta, &[BOB, "\"delayed\"", "4.2.2"])
            .await?;
        self.write_users("").await?;
        self.arrives(BOB, &content).await?;
        self.stack.wait_for_empty_queue().await?;
        ensure!(self.dovecot.mails(ALICE)?.len() == 1, "delivered again");
        ensure!(self.dovecot.mails(CAROL)?.is_empty(), "a report");
        self.trace_shows(&id, &["452 4.2.2", "127.0.0.1", "Saved"])
            .await
    }

    async fn waits_while_dovecot_is_away(&mut self, why: &str) -> Result<()> {
        self.dovecot.stop()?;
        let content = mail("while it is away", "a line\r\n");
        let id = self.send(ALICE, &[CAROL], &content).await?;
        self.stack
            .wait_for_log(Agent::Mta, &[&id, "\"delayed\"", why])
            .await?;
        self.dovecot.go().await?;
        self.arrives(CAROL, &content).await?;
        self.trace_shows(&id, &[why, "250 2.0.0"]).await
    }

    /// Octets above 127, dots, long lines and many of them; and what is only asked to be SMTPUTF8.
    async fn contents_survive(&self, world: &World) -> Result<()> {
        let samples = &world.samples;
        for sample in [&samples.awkward, &samples.empty, &samples.large] {
            self.send(ALICE, &[CAROL], &sample.content).await?;
            self.arrives(CAROL, &sample.content).await?;
        }
        // Dovecot 2.3 does not know RFC 6531: a mail that does not need it goes, one that does comes back.
        let plain = mail("asked for in vain", "Gr\u{fc}\u{df}e\r\n");
        self.send_utf8(&plain).await?;
        self.arrives(CAROL, &plain).await?;
        let utf8 = mail("Gr\u{fc}\u{df}e", "a line\r\n");
        let id = self.send_utf8(&utf8).await?;
        wait_for("the report", async || {
            let mails = self.dovecot.mails(ALICE).ok()?;
            let has = |mail: &Vec<u8>, words: &str| String::from_utf8_lossy(mail).contains(words);
            mails.into_iter().find(|mail| has(mail, "Status: 5.6.7\n"))
        })
        .await?;
        self.trace_shows(&id, &["the host does not support SMTPUTF8"])
            .await
    }

    async fn send(&self, from: &str, to: &[&str], content: &[u8]) -> Result<String> {
        let mut client = self.stack.login(from).await?;
        queue_id(&client.send(from, to, content).await?)
    }

    async fn send_utf8(&self, content: &[u8]) -> Result<String> {
        let mut client = self.stack.login(ALICE).await?;
        let from = format!("MAIL FROM:<{ALICE}> BODY=8BITMIME SMTPUTF8");
        client.expect(&from, "250").await?;
        client.expect(&format!("RCPT TO:<{CAROL}>"), "250").await?;
        client.expect("DATA", "354").await?;
        client.write(content).await?;
        client.write(b".\r\n").await?;
        queue_id(&client.reply().await?)
    }

    async fn arrives(&self, account: &str, content: &[u8]) -> Result<()> {
        let what = format!("the mail of {account}");
        let arrived = wait_for(&what, async || {
            let mails = self.dovecot.mails(account).ok()?;
            mails
                .iter()
                .any(|mail| is_same_mail(content, mail))
                .then_some(())
        });
        arrived.await.with_context(|| self.dovecot.log())
    }

    async fn trace_shows(&self, id: &str, words: &[&str]) -> Result<()> {
        let what = format!("{words:?} in the trace");
        let mut told = String::new();
        let shown = wait_for(&what, async || {
            told = typed(&self.stack, &["--json", "trace", id]).await.ok()?;
            words.iter().all(|word| told.contains(word)).then_some(())
        });
        let shown = shown.await;
        shown.with_context(|| told)
    }

    async fn end(mut self) -> Result<()> {
        self.stack.wait_for_empty_queue().await?;
        self.dovecot.stop()?;
        self.stack.end().await
    }
}

/// IMAP and POP3 on the Maildir that our delivery agent fills meanwhile: every mail is read once, as it was sent, and what readers do with it
/// stays as they did it.
pub async fn reads_while_mail_is_filed(world: &World) -> Result<()> {
    let mut stack = stack!()
        .settings("[queued.listen]\nunix_roles = [{ user = \"nobody\", roles = [\"mda\"] }]\n")
        .start()
        .await?;
    delivery_is_somebodys(&mut stack).await?;
    let mut dovecot = reader(world, &stack)?;
    dovecot.write("users", &typed(&stack, &["account", "export"]).await?)?;
    dovecot.go().await?;

    let sent: Vec<Vec<u8>> = (0..MAILS)
        .map(|number| mail(&format!("mail {number:02}"), ".a line\r\n"))
        .collect();
    let mut client = stack.login(ALICE).await?;
    let sends = async {
        for content in &sent {
            client.deliver(ALICE, &[BOB], content).await?;
        }
        anyhow::Ok(())
    };
    let reads = async {
        let (mut taken, mut moved) = (BTreeSet::new(), BTreeSet::new());
        // Some stay in INBOX.
        while taken.len() + moved.len() < MAILS - 10 {
            for (way, read) in [("pop3", &mut taken), ("move", &mut moved)] {
                for content in act(&dovecot, &stack, json!({ "do": way })).await? {
                    ensure!(read.insert(content), "read twice by {way}");
                }
            }
            act(&dovecot, &stack, json!({ "do": "flag" })).await?;
        }
        anyhow::Ok((taken, moved))
    };
    let (sends, reads) = tokio::join!(sends, reads);
    sends?;
    let (taken, moved) = reads.with_context(|| dovecot.log())?;
    stack.wait_for_empty_queue().await?;
    // Whoever begins again looks through what was under way; nothing comes back.
    stack.terminate(Agent::Mda).await?;
    stack.bring_up(&[Agent::Mda]).await?;
    let stays: BTreeSet<Vec<u8>> = act(&dovecot, &stack, json!({ "do": "flag" }))
        .await?
        .into_iter()
        .collect();
    let archive = json!({ "do": "look", "folder": "Archive" });
    let archived: BTreeSet<Vec<u8>> = act(&dovecot, &stack, archive).await?.into_iter().collect();
    ensure!(archived == moved, "{} and {}", archived.len(), moved.len());
    let all: Vec<&Vec<u8>> = taken.iter().chain(&moved).chain(&stays).collect();
    ensure!(
        all.len() == MAILS,
        "{} taken, {} moved, {} stay",
        taken.len(),
        moved.len(),
        stays.len()
    );
    for content in &sent {
        let found = all.iter().any(|mail| is_same_mail(content, &unwired(mail)));
        ensure!(found, "{} was changed", String::from_utf8_lossy(content));
    }
    // What Dovecot keeps beside the mails is none to us.
    let maildir = stack.maildir(BOB)?;
    ensure!(maildir.join("maildirsize").exists(), "no quota file");
    let filed = stack.delivered(BOB)?;
    let flagged = filed.iter().filter(|mail| mail.name.ends_with(":2,FS"));
    ensure!(
        flagged.count() == stays.len() && filed.len() == stays.len(),
        "{filed:?}"
    );
    dovecot.stop()?;
    stack.end().await
}

/// The sample for reading, on the mailboxes of this stack.
fn reader(world: &World, stack: &Stack) -> Result<SampleDovecot> {
    let place = world.place("swap-imap");
    let (uid, gid) = foreign::user(foreign::OWNER)?;
    let shown = place.display();
    let own = [
        ("/etc/dovecot/users", &*format!("{shown}/users")),
        ("/var/lib/postroad/mail", &*in_folder(stack, "mail")),
        ("/var/lib/dovecot/home", &*format!("{shown}/home")),
        (
            "uid=postroad-mda gid=postroad",
            &*format!("uid={uid} gid={gid}"),
        ),
    ];
    let certificate = certificate_words(stack);
    let certificate = certificate.each_ref().map(|(a, b)| (*a, b.as_str()));
    let quota = "mail_plugins = quota\nplugin {\n  quota = maildir:User quota\n  quota_rule = *:storage=1G\n}\n";
    SampleDovecot::prepare(
        &place,
        "dovecot-imap",
        &[&own[..], &certificate].concat(),
        quota,
    )
}

/// Dovecot serves no mail of root, who runs the tests: the delivery agent becomes the user whose mail Dovecot serves.
async fn delivery_is_somebodys(stack: &mut Stack) -> Result<()> {
    stack.terminate(Agent::Mda).await?;
    let agents = stack.folder().join("agents");
    fs::create_dir(&agents)?;
    symlink(env!("CARGO_BIN_EXE_agents"), agents.join("postroad-mda"))?;
    let wrapper = stack.folder().join("as-nobody");
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nexec setpriv --reuid={0} --regid=nogroup --clear-groups {1}/postroad-mda \"$@\"\n",
            foreign::OWNER,
            agents.display()
        ),
    )?;
    foreign::hand_over(stack.folder(), foreign::user(foreign::OWNER)?)?;
    for path in [stack.folder(), &wrapper] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    stack.set_binary(&wrapper);
    stack.bring_up(&[Agent::Mda]).await
}

/// What the script did, and the mails it was about.
async fn act(dovecot: &SampleDovecot, stack: &Stack, mut orders: Value) -> Result<Vec<Vec<u8>>> {
    orders["imaps"] = dovecot.ports.imaps.port().into();
    orders["pop3s"] = dovecot.ports.pop3s.port().into();
    orders["ca_file"] = in_folder(stack, "ca.pem").into();
    orders["account"] = BOB.into();
    orders["password"] = PASSWORD.into();
    let contents = python_json("reader.py", &orders).await?;
    let contents = contents.as_array().context("a list")?.iter();
    contents
        .map(|content| Ok(BASE64_STANDARD.decode(content.as_str().context("text")?)?))
        .collect()
}

/// The verb as an operator types it.
async fn typed(stack: &Stack, words: &[&str]) -> Result<String> {
    let config = stack.config_file();
    let all = ["postroad".as_ref(), "--config".as_ref(), config.as_os_str()];
    let all = all.into_iter().map(OsString::from);
    let all: Vec<OsString> = all.chain(words.iter().map(OsString::from)).collect();
    let typed = tokio::task::spawn_blocking(move || {
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let status = postroad::execute(all, &mut out, &mut talk);
        (status, out, talk)
    });
    let (status, out, talk) = typed.await?;
    if status != 0 {
        bail!("{words:?}: {status}\n{}", String::from_utf8_lossy(&talk));
    }
    Ok(String::from_utf8(out)?)
}

fn queue_id(reply: &str) -> Result<String> {
    let rest = reply
        .strip_prefix("250 2.0.0 ")
        .with_context(|| reply.to_owned())?;
    Ok(rest.split(' ').next().unwrap_or_default().to_owned())
}

/// The stack's certificate in place of the sample's.
fn certificate_words(stack: &Stack) -> [(&'static str, String); 2] {
    [
        (
            "/etc/postroad/pki/server/cert.pem",
            in_folder(stack, "server.pem"),
        ),
        (
            "/etc/postroad/pki/server/key.pem",
            in_folder(stack, "server.key"),
        ),
    ]
}

fn in_folder(stack: &Stack, name: &str) -> String {
    stack.folder().join(name).display().to_string()
}
