//! Mail between the stack and Postfix, both ways.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postroad_tests::{Agent, Client, Mail, is_same_mail, unwired, wait_for};
use serde_json::{Value, json};

use crate::{
    clients::{Program, Submission, Tls, python_json},
    foreign::{self, Aiosmtpd, Dovecot, Postfix},
    samples::Sample,
    world::{World, header},
};

const SENDER: &str = "relay@demo.test";

pub async fn to_postfix_by_mx_of_dnsmasq(world: &World) -> Result<()> {
    relays(world, "friend@dns.test", &world.samples.awkward).await?;
    let asked = world.dnsmasq()?.log();
    ensure!(asked.contains("query[MX] dns.test"), "{asked}");
    relays(world, "friend@dns.test", &world.samples.large).await
}

pub async fn to_postfix_by_zone(world: &World) -> Result<()> {
    relays(world, "friend@world.test", &world.samples.awkward).await?;
    relays(world, "friend@world.test", &world.samples.empty).await
}

async fn relays(world: &World, to: &str, sample: &Sample) -> Result<()> {
    send(world, SENDER, to, &sample.content).await?;
    let mail = world.postfix()?.mail_with(to, &subject(sample)).await?;
    let shown = String::from_utf8_lossy(&mail);
    ensure!(is_same_mail(&sample.content, &mail), "{shown:.1200}");
    ensure!(
        shown.contains("(using TLSv1.3 with cipher "),
        "STARTTLS was not used: {shown:.1200}"
    );
    ensure!(
        shown.contains(&format!("Return-Path: <{SENDER}>")),
        "{shown:.1200}"
    );
    Ok(())
}

pub async fn to_aiosmtpd_with_smtputf8(world: &World) -> Result<()> {
    let aiosmtpd = Aiosmtpd::start(&world.place("aiosmtpd"), world.utf8).await?;
    let (to, sample) = ("j\u{fc}rgen@utf8.test", &world.samples.awkward);
    let submission = Submission::new(Tls::Start, SENDER, vec![to.to_owned()], sample);
    Program::Smtplib.submits(world, &submission).await?;
    let kept = aiosmtpd.first().await?;
    ensure!(
        kept["from"] == SENDER && kept["to"] == json!([to]) && kept["smtputf8"] == true,
        "{kept:#}"
    );
    ensure!(
        kept["options"]
            .as_array()
            .is_some_and(|options| options.contains(&"BODY=8BITMIME".into())),
        "{kept:#}"
    );
    let content = BASE64_STANDARD.decode(kept["content"].as_str().unwrap_or_default())?;
    ensure!(
        is_same_mail(&sample.content, &unwired(&content)),
        "{:.1200}",
        String::from_utf8_lossy(&content)
    );
    Ok(())
}

/// RFC 2033: one recipient is welcome and one is not.
pub async fn to_dovecot_by_lmtp(world: &World) -> Result<()> {
    let (from, to, stranger) = (
        "bounced.lmtp@demo.test",
        "friend@lmtp.test",
        "stranger@lmtp.test",
    );
    let mail_root = world.place("dovecot-mail");
    foreign::folder(&mail_root)?;
    foreign::hand_over(&mail_root, foreign::user(foreign::OWNER)?)?;
    let _dovecot =
        Dovecot::start(&world.place("dovecot-lmtp"), &mail_root, &[to], world.lmtp).await?;

    let sample = &world.samples.awkward;
    let mut client = world.stack.login(from).await?;
    client
        .deliver(from, &[to, stranger], &sample.content)
        .await?;
    let new = mail_root.join("lmtp.test/friend/Maildir/new");
    let mail = wait_for("mail at Dovecot", async || {
        let entry = fs::read_dir(&new).ok()?.next()?.ok()?;
        fs::read(entry.path()).ok()
    })
    .await?;
    ensure!(
        is_same_mail(&sample.content, &mail),
        "{}",
        String::from_utf8_lossy(&mail)
    );

    let report = parsed(
        world,
        "lmtp report",
        &world.stack.wait_for_mails(from, 1).await?[0],
    )
    .await?;
    is_report(&report)?;
    ensure!(
        report["recipients"]
            .as_array()
            .is_some_and(|recipients| recipients.len() == 1),
        "{report:#}"
    );
    let recipient = &report["recipients"][0];
    ensure!(
        recipient["Final-Recipient"] == format!("rfc822; {stranger}"),
        "{report:#}"
    );
    ensure!(
        recipient["Action"] == "failed" && recipient["Status"] == "5.1.1",
        "{report:#}"
    );
    Ok(())
}

pub async fn waits_while_postfix_is_down(world: &World) -> Result<()> {
    let (from, to) = ("waiting@demo.test", "friend@waiting.test");
    let mut postfix = world.waiting_postfix()?;
    postfix.go().await?;
    send(world, from, to, &world.samples.empty.content).await?;
    postfix.mail_with(to, "Subject: empty\n").await?;

    postfix.stop()?;
    send(world, from, to, &world.samples.plain.content).await?;
    wait_for("two failed attempts", async || {
        let log = world.stack.log(Agent::Mta);
        let failed = log
            .lines()
            .filter(|line| line.contains("waiting.test") && line.contains("refused"));
        (failed.count() >= 2).then_some(())
    })
    .await?;
    ensure!(postfix.mails(to).len() == 1);

    postfix.go().await?;
    let mail = postfix.mail_with(to, "Subject: plain\n").await?;
    ensure!(
        is_same_mail(&world.samples.plain.content, &mail),
        "{}",
        String::from_utf8_lossy(&mail)
    );
    ensure!(
        world.stack.delivered(from)?.is_empty(),
        "the wait was reported"
    );
    postfix.stop()
}

pub async fn refused_by_postfix_makes_a_report(world: &World) -> Result<()> {
    let (from, to) = ("bounced@demo.test", "stranger@dns.test");
    send(world, from, to, &world.samples.plain.content).await?;
    let report = parsed(
        world,
        "report",
        &world.stack.wait_for_mails(from, 1).await?[0],
    )
    .await?;
    is_report(&report)?;
    ensure!(report["header"]["return-path"] == "<>", "{report:#}");
    ensure!(
        report["header"]["to"]
            .as_str()
            .is_some_and(|to| to.contains(from)),
        "{report:#}"
    );
    ensure!(
        report["header"]["auto-submitted"] == "auto-replied",
        "{report:#}"
    );
    ensure!(
        report["text"]
            .as_str()
            .is_some_and(|text| text.contains(to)),
        "{report:#}"
    );
    ensure!(
        report["mail"]["Reporting-MTA"] == "dns; mx.demo.test",
        "{report:#}"
    );
    ensure!(report["mail"]["Arrival-Date"].is_string(), "{report:#}");
    ensure!(
        report["recipients"]
            .as_array()
            .is_some_and(|recipients| recipients.len() == 1),
        "{report:#}"
    );
    let recipient = &report["recipients"][0];
    ensure!(
        recipient["Final-Recipient"] == format!("rfc822; {to}"),
        "{report:#}"
    );
    ensure!(
        recipient["Action"] == "failed" && recipient["Status"] == "5.1.1",
        "{report:#}"
    );
    ensure!(recipient["Remote-MTA"] == "dns; mx.dns.test", "{report:#}");
    let diagnostic = recipient["Diagnostic-Code"].as_str().unwrap_or_default();
    ensure!(
        diagnostic.starts_with("smtp; 550 5.1.1 <stranger@dns.test>: Recipient address rejected"),
        "{report:#}"
    );
    ensure!(report["returned_subject"] == "plain", "{report:#}");
    Ok(())
}

pub async fn from_postfix_to_port_25(world: &World) -> Result<()> {
    let to = "inbound@demo.test";
    by_postfix(
        world.postfix()?,
        "friend@dns.test",
        to,
        &world.samples.awkward.content,
    )
    .await?;
    let mail = world.arrives(to, &world.samples.awkward.content).await?;
    ensure!(
        mail.contains("Return-Path: <friend@dns.test>\n"),
        "{:.900}",
        mail.text()
    );
    let header = header(&mail);
    ensure!(
        header.contains("from mx.dns.test ") && header.contains("with ESMTPS id "),
        "{header}"
    );
    // Postfix trusts our certificate's issuer, so it saw the right chain.
    world
        .postfix()?
        .logged(&["Trusted TLS connection established to 127.0.0.1", "TLSv1.3"])
        .await?;
    world
        .postfix()?
        .logged(&[&format!("to=<{to}>"), "status=sent (250 2.0.0 "])
        .await?;
    Ok(())
}

pub async fn from_postfix_by_lmtp(world: &World) -> Result<()> {
    for to in ["lmtp.tcp@demo.test", "lmtp.unix@demo.test"] {
        by_postfix(
            world.postfix()?,
            "friend@dns.test",
            to,
            &world.samples.awkward.content,
        )
        .await?;
        let mail = world.arrives(to, &world.samples.awkward.content).await?;
        ensure!(
            header(&mail).contains("with LMTP id "),
            "{:.900}",
            mail.text()
        );
        ensure!(
            mail.contains(&format!("Delivered-To: {to}\n")),
            "{:.900}",
            mail.text()
        );
        world
            .postfix()?
            .logged(&["postfix/lmtp", &format!("to=<{to}>"), "status=sent"])
            .await?;
    }
    Ok(())
}

pub async fn refused_by_us_makes_a_report_of_postfix(world: &World) -> Result<()> {
    let (from, to) = ("inbound.bounced@demo.test", "stranger@demo.test");
    by_postfix(world.postfix()?, from, to, &world.samples.plain.content).await?;
    let report = parsed(
        world,
        "foreign report",
        &world.stack.wait_for_mails(from, 1).await?[0],
    )
    .await?;
    is_report(&report)?;
    ensure!(
        report["mail"]["Reporting-MTA"] == "dns; mx.dns.test",
        "{report:#}"
    );
    ensure!(report["recipients"][0]["Status"] == "5.1.1", "{report:#}");
    let diagnostic = report["recipients"][0]["Diagnostic-Code"]
        .as_str()
        .unwrap_or_default();
    ensure!(diagnostic.starts_with("smtp; 550 5.1.1 "), "{report:#}");
    Ok(())
}

/// Mailman's detector finds whom a report of ours is about.
pub async fn a_bounce_detector_reads_our_reports(world: &World) -> Result<()> {
    let (from, to) = ("detected@demo.test", "nobody@nowhere.test");
    send(world, from, to, &world.samples.plain.content).await?;
    let mails = world.stack.wait_for_mails(from, 1).await?;
    let mail = mails.first().context("a report")?;
    let file = world.place("detected report");
    write(&file, &mail.content)?;
    let found = python_json("bounces.py", &json!({ "file": file })).await?;
    ensure!(
        found == json!({ "temporary": [], "permanent": [to] }),
        "{found:#}"
    );
    Ok(())
}

/// Submits with an account of the stack.
async fn send(world: &World, from: &str, to: &str, content: &[u8]) -> Result<()> {
    let reply = world
        .stack
        .login(from)
        .await?
        .send(from, &[to], content)
        .await?;
    ensure!(reply.starts_with("250 2.0.0 "), "{reply}");
    Ok(())
}

/// Hands a mail to Postfix.
async fn by_postfix(postfix: &Postfix, from: &str, to: &str, content: &[u8]) -> Result<()> {
    let (mut client, _) = Client::connect(postfix.addresses[0]).await?;
    client.expect("EHLO client.test", "250").await?;
    let reply = client.send(from, &[to], content).await?;
    ensure!(reply.starts_with("250 "), "{reply}");
    Ok(())
}

fn subject(sample: &Sample) -> String {
    let name = sample.file.file_name().unwrap_or_default();
    format!("Subject: {}\n", name.display())
}

/// The mail as Python's email package sees it.
async fn parsed(world: &World, name: &str, mail: &Mail) -> Result<Value> {
    let file = world.place(name);
    write(&file, &mail.content)?;
    python_json("report.py", &json!({ "file": file })).await
}

fn write(file: &Path, content: &[u8]) -> Result<()> {
    Ok(fs::write(file, content)?)
}

/// RFC 3462, RFC 3464.
fn is_report(report: &Value) -> Result<()> {
    ensure!(
        report["type"] == "multipart/report" && report["report_type"] == "delivery-status",
        "{report:#}"
    );
    ensure!(report["text_type"] == "text/plain", "{report:#}");
    ensure!(
        report["status_type"] == "message/delivery-status",
        "{report:#}"
    );
    ensure!(
        report["returned_type"] == "message/rfc822"
            || report["returned_type"] == "text/rfc822-headers",
        "{report:#}"
    );
    Ok(())
}
