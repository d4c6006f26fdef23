//! Debian's Postfix has port 25 and hands mail to our mta by SMTP, or to our mda by LMTP (`deploy/config/swap/postfix-in-front`).

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{Client, mail};

use crate::{
    foreign::Postfix,
    swap_front::{Front, NAME, WAYS},
    world::{World, header},
};

const SWAP: &str = "postfix-in-front";

/// Address, name and HELO of the client reach log, queue and timeline; TLS stands in Postfix's own line.
pub async fn tells_who_its_client_is(world: &World) -> Result<()> {
    let front = start(world, "clients").await?;
    for (number, (to, agent, with)) in WAYS.into_iter().enumerate() {
        let mut client = client_of(&front, "192.0.2.7", "client.far.test").await?;
        let content = mail(&format!("way {number}"), "x\r\n");
        client.deliver("friend@far.test", &[to], &content).await?;
        let arrived = front.arrives(to, 1, &content).await?;
        let message_id = format!("way.{number}@");
        let header = header(&arrived);
        let of_postfix =
            "from helo.far.test (client.far.test [192.0.2.7]) (using TLSv1.3 with cipher ";
        ensure!(header.contains(of_postfix), "{header}");
        ensure!(
            header.contains(&format!(" (Postroad) with {with}")),
            "{header}"
        );

        let (line, details, told) = front.accepted(agent, &message_id).await?;
        let line = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let id = line("peer_queue_id");
        ensure!(
            line("client").starts_with("[192.0.2.7]:"),
            "{line:?}",
            line = line("client")
        );
        ensure!(
            (line("client_name"), line("client_helo"))
                == ("client.far.test".into(), "helo.far.test".into())
        );
        ensure!(
            line("helo") == NAME && front.log().contains(&format!(" {id}: ")),
            "{id}"
        );

        let origin = &details.envelope.origin;
        let (name, helo) = (origin.rdns.as_deref(), origin.helo.as_deref());
        ensure!(
            (name, helo) == (Some("client.far.test"), Some("helo.far.test")),
            "{origin:?}"
        );
        let address = |of: Option<std::net::SocketAddr>| of.map(|of| of.ip().to_string());
        ensure!(
            address(origin.client).as_deref() == Some("192.0.2.7"),
            "{origin:?}"
        );
        ensure!(
            address(origin.peer).as_deref() == Some("127.0.0.1"),
            "{origin:?}"
        );

        ensure!(
            told.fields.get("client_helo").map(String::as_str) == Some("helo.far.test"),
            "{told:?}"
        );
        ensure!(
            told.text.contains("192.0.2.7") && told.text.contains(&id),
            "{told:?}"
        );
    }
    front.end().await
}

pub async fn carries_much_and_utf8(world: &World) -> Result<()> {
    let front = start(world, "sizes").await?;
    front.carries_much_and_utf8(world).await?;
    front.end().await
}

pub async fn refuses_and_reports(world: &World) -> Result<()> {
    let front = start(world, "refusals").await?;
    front.refuses_and_reports().await?;
    // It asked first.
    front
        .logged(&["to=<stranger@demo.test>", "status=undeliverable"])
        .await?;
    front.end().await
}

pub async fn waits_for_us(world: &World) -> Result<()> {
    let mut front = start(world, "waiting").await?;
    front.waits_for_us(&["status=deferred"]).await?;
    front.end().await
}

async fn start(world: &World, what: &str) -> Result<Front> {
    let mut front = Front::prepare(world, SWAP, "postfix", what).await?;
    let certificate = world.certificate.display().to_string();
    let main = front
        .sample(SWAP, "main.cf")?
        .replace(
            "/etc/postfix",
            &front.place.join("etc").display().to_string(),
        )
        .replace(
            "/etc/postroad/pki/server/key.pem, /etc/postroad/pki/server/cert.pem",
            &certificate,
        )
        .replace("inet_interfaces = all\n", "inet_interfaces = 127.0.0.1\n");
    // A test says by XCLIENT from where it comes.
    let main = main + "smtpd_authorized_xclient_hosts = 127.0.0.0/8\n";
    let transport = front.sample(SWAP, "transport")?;
    let lines: Vec<&str> = transport.lines().collect();
    let way = |word: &str, recipient: &str| -> Result<String> {
        let line = lines.iter().find(|line| line.contains(word));
        let line = line.with_context(|| format!("the sample shows no {word}"))?;
        Ok(line.trim_start_matches('#').replace("demo.test", recipient) + "\n")
    };
    let transport = [
        way("lmtp:inet:", "tcp@demo.test")?,
        way("lmtp:unix:", "unix@demo.test")?,
        transport.clone(),
    ]
    .concat();
    let files = [
        ("main.cf", main.as_str()),
        ("transport", transport.as_str()),
    ];
    let mut postfix = Postfix::with_files(&front.place, front.address, &files)?;
    postfix.go().await?;
    front.program = Some(Box::new(postfix));
    Ok(front)
}

/// A client that Postfix takes for one at another address.
async fn client_of(front: &Front, address: &str, name: &str) -> Result<Client> {
    let mut client = front.client().await?;
    let forged = format!("XCLIENT NAME={name} ADDR={address} PORT=40021");
    client.expect(&forged, "220").await?;
    client.expect("EHLO helo.far.test", "250").await?;
    Ok(client)
}
