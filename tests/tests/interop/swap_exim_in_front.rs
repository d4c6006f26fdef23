//! Debian's Exim has port 25 and hands mail to our mta by SMTP, or to our mda by LMTP (`deploy/config/swap/exim-in-front`).

use anyhow::{Result, ensure};
use postroad_tests::{Client, mail};

use crate::{
    foreign::{EXIM_USER, Exim},
    swap_front::{Front, NAME, WAYS},
    world::{World, header},
};

const SWAP: &str = "exim-in-front";

/// Exim has no XFORWARD: to us it is the client, and its own line names the client and TLS.
pub async fn names_its_client_in_its_own_line(world: &World) -> Result<()> {
    let front = start(world, "clients").await?;
    for (number, (to, agent, with)) in WAYS.into_iter().enumerate() {
        let (client, _) = Client::connect_from([127, 0, 77, 7].into(), front.address).await?;
        let mut client = client
            .starttls_as("mx.dns.test", &world.certificate)
            .await?;
        let content = mail(&format!("way {number}"), "x\r\n");
        client.deliver("friend@far.test", &[to], &content).await?;
        let arrived = front.arrives(to, 1, &content).await?;
        let header = header(&arrived);
        ensure!(
            header.contains(
                "from [127.0.77.7] (helo=client.test) by mx.demo.test with esmtps  (TLS1.3) tls TLS_"
            ),
            "{header}"
        );
        ensure!(
            header.contains(&format!(" (Postroad) with {with}")),
            "{header}"
        );

        let (line, details, told) = front.accepted(agent, &format!("way.{number}@")).await?;
        ensure!(line["client"].is_null() && line["helo"] == NAME, "{line}");
        let origin = &details.envelope.origin;
        ensure!(
            origin.peer.is_none() && origin.helo.as_deref() == Some(NAME),
            "{origin:?}"
        );
        ensure!(told.text == "kept for 1 recipient", "{told:?}");
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
    front.end().await
}

pub async fn waits_for_us(world: &World) -> Result<()> {
    let mut front = start(world, "waiting").await?;
    front.waits_for_us(&[" == ", " defer "]).await?;
    front.end().await
}

async fn start(world: &World, what: &str) -> Result<Front> {
    let mut front = Front::prepare(world, SWAP, EXIM_USER, what).await?;
    let certificate = world.certificate.display().to_string();
    let mut sample = front.sample(SWAP, "exim4.conf")?;
    // Each other way of the sample is there for one recipient.
    let (before, routers) = sample.split_once("begin routers\n").unwrap_or_default();
    let others: String = ["postroad_lmtp", "postroad_socket"]
        .map(|transport| router_with(routers, transport))
        .concat();
    sample = format!("{before}begin routers\n{others}{routers}");
    let retry = "* * F,2h,10m; G,16h,1h,1.5; F,4d,6h";
    ensure!(sample.contains(retry) && !others.is_empty(), "{sample}");
    for (word, here) in [
        (retry, "* * F,1h,1s"),
        ("/etc/exim4/exim.crt", &*certificate),
        ("/etc/exim4/exim.key", &*certificate),
        ("daemon_smtp_ports = 25\n", ""),
        (
            "port = 2525",
            &format!("port = {}", front.port("127.0.0.1:2525")?),
        ),
        (
            "port = 24\n",
            &format!("port = {}\n", front.port("127.0.0.1:24")?),
        ),
    ] {
        ensure!(sample.contains(word), "{word} is not in the sample");
        sample = sample.replace(word, here);
    }
    let exim = Exim::start(&front.place, front.address, &sample).await?;
    front.program = Some(Box::new(exim));
    Ok(front)
}

/// The commented router of this transport, for one recipient.
fn router_with(routers: &str, transport: &str) -> String {
    let recipient = if transport == "postroad_lmtp" {
        "tcp"
    } else {
        "unix"
    };
    let commented = routers
        .split("\n\n")
        .filter(|block| block.lines().any(|line| line.starts_with('#')));
    let found = commented
        .flat_map(|block| block.split("#postroad"))
        .find(|router| router.contains(&format!("transport = {transport}")));
    let lines: Vec<&str> = found
        .unwrap_or_default()
        .lines()
        .skip(1)
        .map(|line| line.trim_start_matches('#'))
        .collect();
    // A socket is not asked, so the router for SMTP is.
    let not_asked = if transport == "postroad_socket" {
        "  no_verify\n"
    } else {
        ""
    };
    format!(
        "{recipient}:\n  local_parts = {recipient}\n{not_asked}{}\n\n",
        lines.join("\n")
    )
}
