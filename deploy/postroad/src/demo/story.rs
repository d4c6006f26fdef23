//! What a new user sees: the first mail on its way, the mail, what to type next, and then what comes.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use postroad_address::Mailbox;
use postroad_envelope::{Event, EventKind, QueueId};
use postroad_maildir::Entry;
use postroad_queue_client::{Filter, ListQuery, MailState, QueueAdmin};
use serde_json::json;
use tokio::time::{Instant, interval, sleep};

use super::command;
use super::folder::{Plan, shell};
use crate::all_in_one::QueueSlot;
use crate::compose::compose;
use crate::fault::Fault;
use crate::home::{DemoAccount, DemoCard};
use crate::mailbox::{StoredMail, mail_id};
use crate::submit::submit;
use crate::terminal::{Terminal, harmless, local_clock, one_line};
use crate::timeline::{self, Stop};

/// How long the first mail may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const WATCH: Duration = Duration::from_millis(500);

const PICTURE: &str = "
  mail client ──587/465──► MSA ─┐                          ┌─► MDA ─► Maildir
                                ├─submit─► queue ──lease──►┤
  the world ─────25──────► MTA ─┘        (journal + sled)  └─► MTA ──25──► the world";

/// Sends the first mail and tells of it; then, unless that was all, of whatever comes. Ends only by an error, or after
/// the first mail if `only_first`.
pub async fn tell(
    plan: &Plan,
    card: &DemoCard,
    slot: &QueueSlot,
    only_first: bool,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let json = terminal.wants_json();
    if !json {
        terminal.line(format_args!(
            "Postroad {}: submission (MSA), transfer (MTA) and delivery (MDA) around one durable queue.\n{PICTURE}\n",
            env!("CARGO_PKG_VERSION")
        ));
    }
    let (from, to) = match card.accounts.as_slice() {
        [from, to, ..] => (from, to),
        _ => {
            return Err(Fault::NotDone(format!(
                "{} names no accounts",
                DemoCard::FILE
            )));
        }
    };
    let first = FirstMail::send(card, from, to, slot).await?;
    if json {
        terminal.object(first.json());
    } else {
        terminal.line(first.told(from, to));
    }
    if only_first {
        return Ok(());
    }
    if !json {
        terminal.line(next_steps(plan, card, from, to));
    }
    watch(card, slot, terminal).await
}

struct FirstMail {
    stops: Vec<Stop>,
    queue_id: QueueId,
    path: String,
    content: String,
}

impl FirstMail {
    async fn send(
        card: &DemoCard,
        from: &DemoAccount,
        to: &DemoAccount,
        slot: &QueueSlot,
    ) -> Result<Self, Fault> {
        let sender = Mailbox::parse(&from.address).map_err(Fault::not_done)?;
        let recipient = Mailbox::parse(&to.address).map_err(Fault::not_done)?;
        let text = "Hello Bob,\n\nthis mail was submitted with STARTTLS and a password, kept by the queue\nand filed in your Maildir.\n\nAlice\n";
        let content = compose(
            &sender,
            std::slice::from_ref(&recipient),
            "The first mail",
            text,
        );
        let submitted = submit(card, from, std::slice::from_ref(&recipient), &content).await?;
        let said = || {
            submitted
                .stops
                .last()
                .map(|stop| stop.text.clone())
                .unwrap_or_default()
        };
        let queue_id = submitted
            .queue_id
            .ok_or_else(|| Fault::NotDone(format!("the mail was not taken: {}", said())))?;
        let events = delivered(slot, queue_id).await?;
        let mailbox = StoredMail::at(&card.maildir_root, recipient)?;
        let entry = mailbox.find(Some(&queue_id.to_string()))?;
        let octets = postroad_maildir::read(entry)?.unwrap_or_default();
        let mut stops = submitted.stops;
        stops.extend(events.iter().map(Stop::from).map(Stop::without_host));
        stops.sort_by_key(|stop| stop.at);
        Ok(Self {
            stops,
            queue_id,
            path: entry.path.display().to_string(),
            content: String::from_utf8_lossy(&octets).into_owned(),
        })
    }

    fn told(&self, from: &DemoAccount, to: &DemoAccount) -> String {
        let content: String = harmless(self.content.trim_end())
            .lines()
            .map(|line| format!("  {line}\n"))
            .collect();
        format!(
            "The first mail, from {} to {}:\n\n{}\n\nIt lies in {}:\n\n{content}",
            from.address,
            to.address,
            timeline::of_stops(&self.stops),
            self.path,
        )
    }

    fn json(&self) -> serde_json::Value {
        let stops: Vec<_> = self
            .stops
            .iter()
            .map(|stop| {
                json!({
                    "at": crate::terminal::utc_time(stop.at), "who": stop.who, "stop": stop.what, "text": stop.text,
                })
            })
            .collect();
        json!({
            "queue_id": self.queue_id.to_string(), "path": self.path, "content": self.content, "timeline": stops,
        })
    }
}

/// The timeline of a mail whose recipients are done.
async fn delivered(slot: &QueueSlot, queue_id: QueueId) -> Result<Vec<Event>, Fault> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let events = slot.queue()?.trace(queue_id).await?;
        if events.iter().any(|event| event.kind == EventKind::Settled) {
            return Ok(events);
        }
        if Instant::now() >= deadline {
            let last = events
                .last()
                .map(|event| event.text.as_str())
                .unwrap_or("nothing happened");
            return Err(Fault::NotDone(format!(
                "the mail {queue_id} was not delivered in time: {last}"
            )));
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn next_steps(plan: &Plan, card: &DemoCard, from: &DemoAccount, to: &DemoAccount) -> String {
    let postroad = command();
    let ca = shell(&card.ca_file.display().to_string());
    let (port, tls_port) = (card.ports.submission, card.ports.submissions);
    let (alice, secret, bob) = (&from.address, &from.password, &to.address);
    let python_ca = card
        .ca_file
        .display()
        .to_string()
        .replace('\\', "\\\\")
        .replace('\'', "\\'");
    let world = match plan.relay {
        true => "Mail for other domains is sent to the world (--relay).".to_owned(),
        false => format!(
            "Mail for other domains, world mail, is held and never leaves (--relay would send it):\n\n\
             \x20 {postroad} send --to someone@example.org \"Hello world\"\n\
             \x20 {postroad} queue list"
        ),
    };
    let on = if plan.ipv6 {
        "127.0.0.1 and ::1"
    } else {
        "127.0.0.1"
    };
    let accounts: String = card
        .accounts
        .iter()
        .map(|account| format!("  {:<16}  password {}\n", account.address, account.password))
        .collect();
    format!(
        "In a second shell:

  {postroad} send \"Hello\"
  {postroad} mailbox list bob
  {postroad} mailbox show bob

With the mail programs you know, the certificate verified:

  swaks --server localhost --port {port} --tls --tls-verify --tls-ca-path {ca} \\
    --auth PLAIN --auth-user {alice} --auth-password {secret} --from {alice} --to {bob}

  printf 'From: {alice}\\r\\nTo: {bob}\\r\\nSubject: curl\\r\\n\\r\\nHello\\r\\n' | \\
    curl --url smtps://localhost:{tls_port} --cacert {ca} --user {alice}:{secret} \\
    --mail-from {alice} --mail-rcpt {bob} --upload-file -

  python3 - <<'PYTHON'
import smtplib, ssl
with smtplib.SMTP('localhost', {port}) as smtp:
    smtp.starttls(context=ssl.create_default_context(cafile='{python_ca}'))
    smtp.login('{alice}', '{secret}')
    smtp.sendmail('{alice}', ['{bob}'], 'Subject: Python\\r\\n\\r\\nHello')
PYTHON

{world}

Good to know:

{accounts}
  ports on {on}: SMTP {smtp}, submission {port} (STARTTLS) and {tls_port} (TLS), LMTP {lmtp}
  everything lies in {folder}; scripts read demo.json there

Waiting for mail; Ctrl-C ends it.
",
        smtp = card.ports.smtp,
        lmtp = card.ports.lmtp,
        folder = plan.folder.display(),
    )
}

/// Tells of each mail that is delivered or held from now on.
async fn watch(
    card: &DemoCard,
    slot: &QueueSlot,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let mut known: HashSet<String> = stored(&card.maildir_root, card)
        .into_iter()
        .map(|(_, entry)| entry.file_name)
        .collect();
    let mut last_held = newest_held(slot, None).await.last().copied();
    let mut ticks = interval(WATCH);
    loop {
        ticks.tick().await;
        for (address, entry) in stored(&card.maildir_root, card) {
            if known.insert(entry.file_name.clone()) {
                say_delivered(&address, &entry, terminal);
            }
        }
        for queue_id in newest_held(slot, last_held).await {
            say_held(queue_id, terminal);
            last_held = Some(queue_id);
        }
    }
}

fn say_delivered(address: &str, entry: &Entry, terminal: &mut Terminal<'_>) {
    let id = mail_id(entry);
    terminal.say(format_args!(
        "{}  delivered to {address}, {} octets: {} mailbox show {} {}",
        local_clock(crate::submit::now()),
        entry.size,
        command(),
        shell(address),
        one_line(&id, 40),
    ));
}

fn say_held(queue_id: QueueId, terminal: &mut Terminal<'_>) {
    terminal.say(format_args!(
        "{}  world mail, held: {} queue show {queue_id}",
        local_clock(crate::submit::now()),
        command(),
    ));
}

/// The mails of all accounts. Reading a few folders twice a second is all the work there is.
fn stored(root: &Path, card: &DemoCard) -> Vec<(String, Entry)> {
    let addresses = card
        .accounts
        .iter()
        .filter_map(|account| Mailbox::parse(&account.address).ok());
    let mut found = Vec::new();
    for address in addresses {
        if let Ok(mail) = StoredMail::at(root, address.clone()) {
            found.extend(
                mail.entries()
                    .iter()
                    .map(|entry| (address.to_string(), entry.clone())),
            );
        }
    }
    found
}

async fn newest_held(slot: &QueueSlot, after: Option<QueueId>) -> Vec<QueueId> {
    let held = Filter {
        state: Some(MailState::Held),
        ..Filter::default()
    };
    let query = ListQuery {
        after,
        ..held.into()
    };
    let Ok(queue) = slot.queue() else {
        return Vec::new();
    };
    match queue.list(query).await {
        Ok(page) => page.mails.iter().map(|mail| mail.queue_id).collect(),
        Err(_) => Vec::new(),
    }
}
