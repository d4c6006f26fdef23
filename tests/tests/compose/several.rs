//! The steps with several copies of `msa` and `mta` behind the balancer.

use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use postroad_tests::{Client, mail_of, mails_below};

use crate::{
    abroad,
    docker::{docker, looking, said},
    elsewhere::FRIEND,
    journey::{AGENTS, ALICE, BOB, EDGE, Journey},
    load::{Load, Submitter, Way},
    steps::nothing_is_lost,
};

/// Who has copies.
const COPIED: [&str; 2] = ["msa", "mta"];

/// One call of Compose with the other file; queue and delivery are not touched.
pub async fn copies_take_the_place_of_one(on: &Journey) -> Result<()> {
    let before = untouched(on).await?;
    let scaled = ["--scale", "msa=2", "--scale", "mta=2"];
    on.copies
        .run(&[&["up", "-d", "--no-build"][..], &scaled].concat())
        .await?;
    for agent in AGENTS {
        on.copies.healthy(agent).await?;
    }
    ensure!(untouched(on).await? == before, "more was changed");

    // What the balancer may do is no more than what an agent may.
    let template = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} \
                    {{.HostConfig.Privileged}} {{gt .HostConfig.Memory 0}}";
    let found = on.copies.inspect("balancer", template).await?;
    let wanted = "10001:10001 true [ALL] [no-new-privileges:true] false true";
    ensure!(found == wanted, "balancer: {found}");

    let copies = on.copies.containers("mta").await?;
    ensure!(copies.len() == 2, "{copies:?}");
    looking("both copies in the list of agents", async || {
        let list = ["postroad", "agent", "list"];
        let listed = on.copies.exec("queued", &list).await.ok()?;
        let known = |id: &String| id.get(..12).is_some_and(|id| listed.contains(id));
        copies.iter().all(known).then_some(())
    })
    .await
}

async fn untouched(on: &Journey) -> Result<[String; 2]> {
    Ok([
        on.copies.container("queued").await?,
        on.copies.container("mda").await?,
    ])
}

pub async fn a_client_is_known_by_its_ipv4_address(on: &Journey) -> Result<()> {
    let door = abroad::HERE[0].parse()?;
    is_known_everywhere(on, door, abroad::IPV4).await
}

/// The engine publishes ports by address translation if it has `ip6tables`, else by a proxy, and then the gateway's address is all there is to see:
/// this is what the guide says. In that case the client comes to the balancer's own address, which is routed.
pub async fn a_client_is_known_by_its_ipv6_address(on: &Journey) -> Result<()> {
    let edge = on.copies.network("edge");
    let field = |name: &str| {
        format!("{{{{with index .NetworkSettings.Networks {edge:?}}}}}{{{{.{name}}}}}{{{{end}}}}")
    };
    let gateway = on.copies.inspect("balancer", &field("IPv6Gateway")).await?;
    let published: IpAddr = abroad::HERE[1].parse()?;
    let content = mail_of(ALICE, "by the published address", "a\r\n");
    let account = on.submitter().await?;
    send(on, account.by(Way::World, published), &content).await?;
    let found = filed(on, "by the published address").await?;
    if found.contains(&format!("[IPv6:{}]", abroad::IPV6)) {
        println!("ip6tables publishes by IPv6");
        return is_known_everywhere(on, published, abroad::IPV6).await;
    }
    println!("a proxy publishes by IPv6");
    ensure!(found.contains(&format!("[IPv6:{gateway}]")), "{found}");
    let routed = on
        .copies
        .inspect("balancer", &field("GlobalIPv6Address"))
        .await?;
    is_known_everywhere(on, routed.parse()?, abroad::IPV6).await
}

/// On each port the client's address reaches policy, the log of every copy, and Received.
async fn is_known_everywhere(on: &Journey, door: IpAddr, client: IpAddr) -> Result<()> {
    let account = on.submitter().await?;
    for way in Way::ALL {
        let subject = format!("by {} from {client}", way.port());
        let content = mail_of(ALICE, &subject, "a\r\n");
        let copies = on.copies.containers(agent(way)).await?;
        looking(&format!("{client} by {way:?} in all logs"), async || {
            send(on, account.by(way, door), &content).await.ok()?;
            for copy in &copies {
                let log = said(copy).await.ok()?;
                let ours = |line: &str| is_accepted(line, way, client);
                log.lines().find(|line| ours(line))?;
            }
            Some(())
        })
        .await?;
        let found = filed(on, &subject).await?;
        let shown = match client {
            IpAddr::V4(ip) => format!("[{ip}]"),
            IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        ensure!(found.contains(&shown), "no {shown} in\n{found}");
    }
    // Who is listed is relayed for, and nobody else: this machine comes by the same door.
    let door = (door, Way::World.port()).into();
    let abroad = on.abroad.run(asks_for_relay(door)).await?;
    ensure!(abroad.starts_with("250"), "{client}: {abroad}");
    let here = asks_for_relay(door).await?;
    ensure!(here.starts_with("550 5.7.1"), "this machine: {here}");
    Ok(())
}

async fn asks_for_relay(door: std::net::SocketAddr) -> Result<String> {
    let (mut client, _) = Client::connect(door).await?;
    client.expect("EHLO client.test", "250").await?;
    client.expect("MAIL FROM:<a@client.test>", "250").await?;
    client.command(&format!("RCPT TO:<{FRIEND}>")).await
}

fn agent(way: Way) -> &'static str {
    match way {
        Way::Submission | Way::Submissions => "msa",
        Way::World => "mta",
    }
}

fn is_accepted(line: &str, way: Way, client: IpAddr) -> bool {
    let words = [
        " accepted ".to_owned(),
        format!(" listener={} ", way.listener()),
        format!(" peer=[{client}]:"),
    ];
    words.iter().all(|word| line.contains(word.as_str()))
}

/// One mail to BOB from abroad.
async fn send(on: &Journey, submitter: Submitter, content: &[u8]) -> Result<()> {
    let content = content.to_owned();
    let sent = async move {
        let mut client = submitter.login().await?;
        client.deliver(ALICE, &[BOB], &content).await?;
        client.expect("QUIT", "221").await
    };
    on.abroad.run(sent).await?;
    Ok(())
}

/// A mail of BOB with this subject.
async fn filed(on: &Journey, subject: &str) -> Result<String> {
    let line = format!("Subject: {subject}\n");
    looking(&format!("mail {subject:?}"), async || {
        let (_folder, root) = on.mail().await.ok()?;
        let mails = mails_below(&root, BOB).ok()?;
        let found = mails.iter().find(|mail| mail.contains(&line))?;
        Some(found.text())
    })
    .await
}

/// Under load from abroad by all ways: copies are killed and come back, and so is the balancer.
pub async fn nothing_is_lost_when_copies_come_and_go(on: &Journey) -> Result<()> {
    let account = on.submitter().await?;
    let door = abroad::HERE[0].parse()?;
    let ways: Vec<Submitter> = Way::ALL.map(|way| account.by(way, door)).into();
    let load = Load::start("several", &ways, &[ALICE, BOB, FRIEND], on.abroad.handle()?);
    load.goes_on(30).await?;
    for (service, way) in COPIED.into_iter().zip([Way::Submission, Way::World]) {
        let copies = on.copies.containers(service).await?;
        let [victim, other] = &copies[..] else {
            bail!("{service} has {} copies", copies.len());
        };
        docker(&["kill", victim]).await?;
        accepts_more(other, way).await?;
        load.goes_on(40).await?;
        docker(&["start", victim]).await?;
        accepts_more(victim, way).await?;
    }
    let balancer = on.copies.container("balancer").await?;
    docker(&["kill", &balancer]).await?;
    docker(&["start", &balancer]).await?;
    load.goes_on(30).await?;
    let sent = load.stop().await?;
    nothing_is_lost(on, &sent).await?;
    // Its own looks, every few seconds, are no clients.
    let own = format!("peer=[{EDGE}.254]");
    for service in COPIED {
        for copy in on.copies.containers(service).await? {
            let log = said(&copy).await?;
            let told = log.lines().find(|line| line.contains(&own));
            ensure!(told.is_none(), "{service}: {told:?}");
        }
    }
    Ok(())
}

/// Waits until a copy has accepted more mail of the client from abroad.
async fn accepts_more(copy: &str, way: Way) -> Result<()> {
    let before = accepted(copy, way).await?;
    looking(&format!("mail by {way:?} at the copy {copy}"), async || {
        (accepted(copy, way).await.ok()? > before).then_some(())
    })
    .await
}

/// How many mails of the client from abroad a copy has accepted.
async fn accepted(copy: &str, way: Way) -> Result<usize> {
    let log = said(copy).await?;
    let ours = log
        .lines()
        .filter(|line| is_accepted(line, way, abroad::IPV4));
    Ok(ours.count())
}
