//! `postroad pki renew` under four running processes: connections that were made before live on, later ones see the new
//! certificate - mail clients and agents alike - and a bad pair of files changes nothing.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use postroad_net::{CertFiles, ClientTls, Revocations, connect_tcp};
use postroad_pki::{Certificate, fingerprint};
use postroad_tests::{
    Agent, Client, Stack, mail_of,
    setup::{FIRST, HOST, clear, login, place, postroad, set_up},
    stack, wait_for,
};

const AGENTS: [Agent; 3] = [Agent::Msa, Agent::Mta, Agent::Mda];
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn agents_and_clients_see_renewed_certificates_and_nobody_is_cut_off() -> Result<()> {
    let mut stack = stack!().prepare()?;
    clear(&stack)?;
    set_up(stack.folder())?;
    let port = place(&mut stack)?;
    let queue = SocketAddr::from(([127, 0, 0, 1], port));
    stack.start_all().await?;
    let folder = stack.folder().to_owned();
    let mut before = login(&stack).await?;
    carried(&stack, &mut before, "before").await?;
    let old = shown(&folder, queue).await?;
    // Agents that began before the queue have said so.
    let lost = AGENTS.map(|agent| losses(&stack, agent));

    // A bad pair is told of once, and the old one stays.
    fs::copy(folder.join("pki/server/key.pem"), folder.join("good.key"))?;
    replace(&folder, "pki/msa/agent.key")?;
    stack
        .wait_for_log(
            Agent::Msa,
            &["reload_failed", "server/key.pem: is not the key"],
        )
        .await?;
    login(&stack).await?;
    replace(&folder, "good.key")?;

    let pki = folder.join("pki").display().to_string();
    let told = postroad(&["pki", "renew", "--within", "9999", "--pki-dir", &pki])?;
    ensure!(told.matches("renewed").count() == 5, "{told}");
    for (agent, name, file) in [
        (Agent::Queued, "queued", "queued/agent.pem"),
        (Agent::Msa, HOST, "server/cert.pem"),
        (Agent::Msa, "msa", "msa/agent.pem"),
        (Agent::Mta, HOST, "server/cert.pem"),
        (Agent::Mda, "mda", "mda/agent.pem"),
    ] {
        let renewed = certificate(&folder, file)?.not_after;
        let words = [
            "certificate_reloaded",
            &format!(" name={name} "),
            &format!(" not_after={renewed} "),
        ];
        stack.wait_for_log(agent, &words).await?;
    }
    let new = wait_for("other certificate of the queue", async || {
        let new = shown(&folder, queue).await.ok()?;
        (new != old).then_some(new)
    })
    .await?;
    let on_disk = certificate(&folder, "queued/agent.pem")?.fingerprint;
    ensure!(new == on_disk, "{new}");

    carried(&stack, &mut before, "on the old connection").await?;
    let mut after = login(&stack).await?;
    carried(&stack, &mut after, "on a new connection").await?;
    let failures = stack.log(Agent::Msa).matches("reload_failed").count();
    ensure!(failures == 1, "told {failures} times");
    for (agent, before) in AGENTS.into_iter().zip(lost) {
        let log = stack.log(agent);
        ensure!(
            losses(&stack, agent) == before,
            "{agent} lost the queue: {log}"
        );
    }

    // With new keys, and every agent started anew, they still know each other.
    let renew = [
        "pki",
        "renew",
        "--within",
        "9999",
        "--new-key",
        "--pki-dir",
        &pki,
    ];
    postroad(&renew)?;
    drop((before, after));
    stack.restart(Agent::Queued).await?;
    stack.restart(Agent::Msa).await?;
    let mut again = login(&stack).await?;
    carried(&stack, &mut again, "after a restart").await?;
    stack.end().await
}

fn losses(stack: &Stack, agent: Agent) -> usize {
    stack.log(agent).matches("queue_lost").count()
}

/// Puts another key into the place of the mail host's, at once.
fn replace(folder: &Path, by: &str) -> Result<()> {
    let new = folder.join("new.key");
    fs::copy(folder.join(by), &new)?;
    Ok(fs::rename(new, folder.join("pki/server/key.pem"))?)
}

fn certificate(folder: &Path, file: &str) -> Result<Certificate> {
    let pem = fs::read_to_string(folder.join("pki").join(file))?;
    Ok(Certificate::from_pem(&pem)?)
}

async fn carried(stack: &Stack, client: &mut Client, subject: &str) -> Result<()> {
    let sent = mail_of(FIRST, subject, "Hello\r\n");
    client
        .deliver(FIRST, &[FIRST], &sent)
        .await
        .with_context(|| subject.to_owned())?;
    stack
        .wait_for_mail_with(FIRST, &format!("Subject: {subject}\n"))
        .await?;
    Ok(())
}

/// The fingerprint of the certificate that the queue shows to an agent.
async fn shown(folder: &Path, queue: SocketAddr) -> Result<String> {
    let of = |file: &str| folder.join("pki/mda").join(file);
    let own = CertFiles {
        cert_file: of("agent.pem"),
        key_file: of("agent.key"),
    };
    let tls = ClientTls::mutual(
        &own,
        &of("agents-ca.pem"),
        &Revocations::none(),
        None,
        &[b"h2"],
    )?;
    let stream = connect_tcp(queue, SOON, None).await?;
    let stream = stream.upgrade_client(&tls, "queued", &[], SOON).await?;
    let der = stream.peer_certificate().context("it shows none")?;
    Ok(fingerprint(der))
}
