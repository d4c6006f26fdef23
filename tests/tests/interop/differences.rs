//! The questions of `tests/conversations` put to Debian's Postfix and Exim: what they answer is recorded in
//! `tests/conversations/peers.txt` (`UPDATE_GENERATED=1` writes it), and `common/smtp-session/DIFFERENCES.md` is made of that.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use postroad_conversations::{Ask, Interview, PEERS, Peers, SIZE, peers_text};
use postroad_tests::free_port;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    foreign::{Exim, Postfix},
    world::World,
};

const SOON: Duration = Duration::from_secs(60);
/// A server that has said nothing for so long waits for more.
const SILENCE: Duration = Duration::from_secs(8);

/// A host of the world for demo.test, otherwise as Debian has it; but how many mistakes it takes is not asked.
const MAIN_CF: &str = "compatibility_level = 3.6
inet_interfaces = 127.0.0.1
myhostname = mx.demo.test
mydestination =
mynetworks = 127.0.0.99/32
alias_maps =
alias_database =
virtual_mailbox_domains = demo.test
virtual_mailbox_maps = inline:{ alice@demo.test=x, bob@demo.test=x, carol@demo.test=x }
virtual_alias_maps = inline:{ {all@demo.test = bob@demo.test carol@demo.test}, postmaster@demo.test=carol@demo.test, postmaster@mx.demo.test=carol@demo.test }
virtual_transport = discard
smtpd_relay_restrictions = reject_unauth_destination
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 2000
smtpd_junk_command_limit = 2000
smtpd_tls_security_level = may
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
";

const EXIM_CONF: &str = "primary_hostname = mx.demo.test
domainlist local_domains = demo.test
acl_smtp_rcpt = acl_check_rcpt
acl_smtp_data = acl_check_data
never_users = root
smtp_accept_max = 200
smtp_accept_max_per_host = 0
smtp_accept_max_nonmail = 2000
smtp_max_synprot_errors = 2000
smtp_max_unknown_commands = 2000
dsn_advertise_hosts = *
tls_advertise_hosts = *

begin acl
acl_check_rcpt:
  deny    message = Restricted characters in address
          domains = +local_domains
          local_parts = ^[.] : ^.*[@%!/|]
  deny    message = Restricted characters in address
          domains = !+local_domains
          local_parts = ^[./|] : ^.*[@%!] : ^.*/\\\\.\\\\./
  accept  local_parts = postmaster
          domains = +local_domains
  require message = relay not permitted
          domains = +local_domains
  require verify = recipient
  accept
acl_check_data:
  accept

begin routers
all:
  driver = redirect
  domains = +local_domains
  local_parts = all
  data = bob@demo.test, carol@demo.test
mailboxes:
  driver = accept
  domains = +local_domains
  local_parts = alice : bob : carol : postmaster
  transport = nowhere

begin transports
nowhere:
  driver = appendfile
  file = /dev/null
  user = nobody

begin retry
* * F,1h,10m
";

pub async fn hold(world: &World) -> Result<()> {
    let place = world.place("differences");
    let (postfix_at, exim_at) = (local()?, local()?);
    let certificate = world.certificate.display();
    let main_cf =
        format!("{MAIN_CF}message_size_limit = {SIZE}\nsmtpd_tls_chain_files = {certificate}\n");
    let mut postfix =
        Postfix::with_files(&place.join("postfix"), postfix_at, &[("main.cf", &main_cf)])?;
    postfix.go().await?;
    let exim_conf = format!(
        "message_size_limit = {SIZE}\ntls_certificate = {certificate}\ntls_privatekey = {certificate}\n{EXIM_CONF}"
    );
    let _exim = Exim::start(&place.join("exim"), exim_at, &exim_conf).await?;

    let found = [
        ("postfix", ask_all(postfix_at).await.context("Postfix")?),
        ("exim", ask_all(exim_at).await.context("Exim")?),
    ];
    let text = peers_text(&found.into_iter().collect::<Peers>());
    let file = postroad_conversations::folder().join(PEERS);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&file, &text)?;
    }
    let recorded = fs::read_to_string(&file).unwrap_or_default();
    let other: Vec<String> = recorded
        .lines()
        .zip(text.lines())
        .filter(|(recorded, found)| recorded != found)
        .map(|(recorded, found)| format!("- {recorded}\n+ {found}"))
        .collect();
    ensure!(
        recorded == text,
        "{PEERS} is not what they answer; if that is right, UPDATE_GENERATED=1 writes it:\n{}",
        other.join("\n")
    );
    postfix.stop()
}

fn local() -> Result<SocketAddr> {
    Ok(([127, 0, 0, 1], free_port()?).into())
}

/// What one server answers in each file.
async fn ask_all(server: SocketAddr) -> Result<BTreeMap<String, Vec<String>>> {
    let transcripts =
        postroad_conversations::all().map_err(|faults| anyhow::anyhow!("{faults:#?}"))?;
    let interviews = transcripts
        .iter()
        .filter_map(|transcript| Some((transcript.name.clone(), transcript.interview()?)));
    let ends = stream::iter(interviews)
        .map(async |(name, interview)| {
            let asked = timeout(SOON, ask(server, interview)).await;
            let answers = asked.with_context(|| format!("{name} takes too long"))?;
            Ok((name.clone(), answers.context(name)?))
        })
        .buffer_unordered(16)
        .collect::<Vec<Result<_>>>()
        .await;
    ends.into_iter().collect()
}

async fn ask(server: SocketAddr, mut interview: Interview) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut said = Vec::new();
    while let Some(ask) = interview.next() {
        match ask {
            // Who closes while we speak has said why.
            Ask::Send(octets) => _ = stream.write_all(&octets).await,
            Ask::Hear => match timeout(SILENCE, reply(&mut stream, &mut said)).await {
                Ok(code) => interview.heard(code.as_deref()),
                Err(_) => {
                    interview.heard(Some("waits"));
                    break;
                }
            },
            Ask::HearAll => {
                let mut codes = Vec::new();
                loop {
                    match timeout(SILENCE, reply(&mut stream, &mut said)).await {
                        Ok(Some(code)) => codes.push(code),
                        Ok(None) => break,
                        Err(_) => {
                            codes.push("waits".to_owned());
                            break;
                        }
                    }
                }
                interview.heard(Some(&codes.join(" ")));
            }
        }
    }
    let answers = interview.answers().into_iter();
    Ok(answers.map(|answer| answer.codes).collect())
}

/// The code of the next reply; none: the server closed.
async fn reply(stream: &mut TcpStream, said: &mut Vec<u8>) -> Option<String> {
    loop {
        while let Some(end) = said.windows(2).position(|pair| pair == b"\r\n") {
            let line: Vec<u8> = said.drain(..end + 2).collect();
            if line.get(3) != Some(&b'-') {
                return Some(String::from_utf8_lossy(line.get(..3)?).into_owned());
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => said.extend_from_slice(buffer.get(..read)?),
        }
    }
}
