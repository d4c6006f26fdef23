//! SIGHUP: a good configuration is in force for what begins from then on, a bad one changes nothing, and the log names what
//! needs a restart - whether the agents share a process or not.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Client, Stack, mail, stack};

#[tokio::test]
async fn each_process_follows_its_configuration() -> Result<()> {
    follows(false).await
}

#[tokio::test]
async fn one_process_follows_its_configuration() -> Result<()> {
    follows(true).await
}

async fn follows(all_in_one: bool) -> Result<()> {
    let mut stack = stack!().all_in_one(all_in_one).start().await?;
    let of = |agent| if all_in_one { Agent::All } else { agent };
    submission(&mut stack, of(Agent::Msa)).await?;
    log_ins(&mut stack, of(Agent::Msa)).await?;
    transfer(&mut stack, of(Agent::Mta)).await?;
    delivery(&mut stack, of(Agent::Mda)).await?;
    queue(&mut stack, of(Agent::Queued)).await?;
    let ports = stack.ports;
    for (agent, section, port) in [
        (Agent::Msa, "msa", ports.submission()),
        (Agent::Mta, "mta.inbound", ports.smtp()),
        (Agent::Mda, "mda.lmtp", ports.lmtp()),
    ] {
        limits(&mut stack, of(agent), section, port).await?;
    }
    stack.end().await
}

/// A log line as JSON has the names of keys in one field.
fn names(line: &str, field: &str) -> String {
    let start = format!("\"{field}\":\"");
    let rest = line.split_once(&start).map(|(_, rest)| rest);
    let value = rest.and_then(|rest| rest.split('"').next());
    value.unwrap_or_default().to_owned()
}

async fn submission(stack: &mut Stack, agent: Agent) -> Result<()> {
    let mut before = stack.login("alice@demo.test").await?;
    ensure!(size(&mut before).await? == 50 << 20);
    stack.configure(
        "msa",
        "[msa]\nsize_limit = \"1MiB\"\nsubmission = [\"127.0.0.1:1\"]\n",
    )?;
    let told = stack.reload(agent).await?;
    ensure!(names(&told, "changed") == "msa.size_limit", "{told}");
    ensure!(names(&told, "restart") == "msa.submission", "{told}");
    let mut after = stack.login("alice@demo.test").await?;
    ensure!(size(&mut after).await? == 1 << 20, "the limit is not new");
    let reply = after
        .command("MAIL FROM:<alice@demo.test> SIZE=2000000")
        .await?;
    ensure!(reply.starts_with("552"), "{reply}");
    // The conversation that began before goes on as it began.
    let large = mail("large", &lines(30_000));
    before
        .deliver("alice@demo.test", &["bob@demo.test"], &large)
        .await?;
    stack
        .wait_for_mail_with("bob@demo.test", "Subject: large\n")
        .await?;

    stack.configure("msa", "[msa]\nsize_limit = \"1MiB\"\nmax_recipient = 5\n")?;
    let told = stack.reload(agent).await?;
    ensure!(told.contains("reload_failed"), "{told}");
    for words in ["msa.toml:3: ", "did you mean `max_recipients`?", "ERROR"] {
        ensure!(told.contains(words), "{words:?} is not in {told}");
    }
    let mut still = stack.login("alice@demo.test").await?;
    ensure!(size(&mut still).await? == 1 << 20);
    stack.configure("msa", "")?;
    let told = stack.reload(agent).await?;
    ensure!(names(&told, "restart").is_empty(), "{told}");
    Ok(())
}

/// Issuers, client certificates and proxies come and go; what is wrong with them changes nothing.
async fn log_ins(stack: &mut Stack, agent: Agent) -> Result<()> {
    let keys = stack.folder().join("keys.json");
    // The key of RFC 8037 appendix A.2.
    std::fs::write(
        &keys,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPjHURo"}]}"#,
    )?;
    let issuer = format!(
        "[[msa.auth.oauth]]\nissuer = \"https://id.test\"\naudience = [\"mail\"]\njwks_file = {keys:?}\n"
    );
    let people = format!(
        "[msa.client_certificates]\naccounts = {{ \"sha256:{}\" = \"alice@demo.test\" }}\n",
        "ab".repeat(32)
    );
    let proxies = "[msa]\nxclient_networks = [\"127.0.0.1\"]\n";
    ensure!(!hello(stack).await?.0.contains("OAUTHBEARER"));
    stack.configure("msa", &format!("{proxies}{issuer}{people}"))?;
    let told = stack.reload(agent).await?;
    for key in [
        "msa.auth.oauth",
        "msa.client_certificates",
        "msa.xclient_networks",
    ] {
        ensure!(names(&told, "changed").contains(key), "{key}: {told}");
    }
    ensure!(names(&told, "restart").is_empty(), "{told}");
    let (offered, mut client) = hello(stack).await?;
    ensure!(offered.contains("OAUTHBEARER XOAUTH2"), "{offered}");
    ensure!(offered.contains("XCLIENT NAME ADDR"), "{offered}");
    let reply = client.command("AUTH EXTERNAL =").await?;
    ensure!(reply.contains("you showed no certificate"), "{reply}");

    for (faulty, words) in [
        (
            format!("{issuer}jwks_url = \"https://id.test/keys\"\n"),
            "msa.auth.oauth",
        ),
        (
            people.replace("alice@", ""),
            "msa.client_certificates.accounts",
        ),
        (proxies.replace("127.0.0.1", "::/0"), "msa.xclient_networks"),
    ] {
        stack.configure("msa", &faulty)?;
        let told = stack.reload(agent).await?;
        ensure!(told.contains("reload_failed"), "{words}: {told}");
        ensure!(
            told.contains("msa.toml:") && told.contains(words),
            "{words}: {told}"
        );
        let (offered, _) = hello(stack).await?;
        ensure!(offered.contains("OAUTHBEARER"), "{words}: {offered}");
    }
    stack.configure("msa", "")?;
    stack.reload(agent).await?;
    let (offered, mut client) = hello(stack).await?;
    ensure!(
        !offered.contains("OAUTHBEARER") && !offered.contains("XCLIENT"),
        "{offered}"
    );
    let reply = client.command("AUTH EXTERNAL =").await?;
    ensure!(reply.starts_with("504"), "{reply}");
    Ok(())
}

/// What submission offers under TLS, and to whom.
async fn hello(stack: &Stack) -> Result<(String, Client)> {
    let (client, _) = Client::connect(stack.ports.submission()).await?;
    let mut client = client.starttls(&stack.ca_file()).await?;
    let offered = client.command("EHLO client.test").await?;
    Ok((offered, client))
}

/// What EHLO says of SIZE (RFC 1870).
async fn size(client: &mut Client) -> Result<u64> {
    let reply = client.command("EHLO client.test").await?;
    let size = reply
        .lines()
        .find_map(|line| line.get(4..)?.strip_prefix("SIZE "));
    Ok(size.unwrap_or_default().parse()?)
}

async fn transfer(stack: &mut Stack, agent: Agent) -> Result<()> {
    let rcpt = async |stack: &Stack| -> Result<String> {
        let mut client = stack.world_client().await?;
        client.expect("MAIL FROM:<>", "250").await?;
        client.command("RCPT TO:<someone@world.test>").await
    };
    ensure!(rcpt(stack).await?.starts_with("550"));
    stack.configure(
        "mta",
        "[mta]\ninbound.relay_networks = [\"127.0.0.0/8\"]\ninbound.certificates = []\n\
         inbound.xforward_networks = [\"127.0.0.1\"]\n\
         outbound.timeouts.connect = \"7s\"\noutbound.concurrency = 3\n",
    )?;
    let told = stack.reload(agent).await?;
    let changed = "mta.inbound.certificates,mta.inbound.relay_networks,mta.inbound.xforward_networks,mta.outbound.timeouts.connect";
    ensure!(names(&told, "changed") == changed, "{told}");
    ensure!(
        names(&told, "restart") == "mta.outbound.concurrency",
        "{told}"
    );
    ensure!(
        rcpt(stack).await?.starts_with("250"),
        "the network is not new"
    );
    let mut client = stack.world_client().await?;
    let reply = client.command("EHLO mx.world.test").await?;
    ensure!(!reply.contains("STARTTLS"), "{reply}");
    ensure!(reply.contains("XFORWARD NAME ADDR"), "{reply}");
    stack.configure("mta", "")?;
    stack.reload(agent).await?;
    let told = client.command("XFORWARD NAME=a").await?;
    ensure!(told.starts_with("250"), "a conversation lost it: {told}");
    let mut client = stack.world_client().await?;
    let told = client.command("XFORWARD NAME=a").await?;
    ensure!(told.starts_with("550"), "{told}");
    let (client, _) = Client::connect(stack.ports.smtp()).await?;
    client.starttls(&stack.ca_file()).await?;
    Ok(())
}

async fn delivery(stack: &mut Stack, agent: Agent) -> Result<()> {
    stack.configure(
        "mda",
        "[mda]\nlmtp.allow_networks = []\nmail_root = \"/nowhere\"\n",
    )?;
    let told = stack.reload(agent).await?;
    ensure!(
        names(&told, "changed") == "mda.lmtp.allow_networks",
        "{told}"
    );
    ensure!(names(&told, "restart") == "mda.mail_root", "{told}");
    let (_, greeting) = Client::connect(stack.ports.lmtp()).await?;
    ensure!(greeting.starts_with("554"), "{greeting}");
    stack.configure("mda", "")?;
    stack.reload(agent).await?;
    let (_, greeting) = Client::connect(stack.ports.lmtp()).await?;
    ensure!(greeting.starts_with("220"), "{greeting}");
    Ok(())
}

async fn queue(stack: &mut Stack, agent: Agent) -> Result<()> {
    // What waits follows the table, too.
    stack.configure(
        "queued",
        "[queued]\nroutes = [{ domain = \"demo.test\", class = \"hold\" }]\n\
         retry.first = \"2s\"\ntimeline.keep = \"0s\"\ndisk.segment = \"8MiB\"\n",
    )?;
    let told = stack.reload(agent).await?;
    ensure!(
        names(&told, "changed") == "queued.retry.first,queued.routes",
        "{told}"
    );
    let restart = "queued.disk.segment,queued.timeline.keep";
    ensure!(names(&told, "restart") == restart, "{told}");
    let mut client = stack.login("alice@demo.test").await?;
    let held = mail("held", "Hello\r\n");
    client
        .deliver("alice@demo.test", &["carol@demo.test"], &held)
        .await?;
    stack.wait_for_held(1).await?;
    stack.configure("queued", "[queued]\nsize_limit = \"2KiB\"\n")?;
    let told = stack.reload(agent).await?;
    let changed = "queued.retry.first,queued.routes,queued.size_limit";
    ensure!(names(&told, "changed") == changed, "{told}");
    stack
        .wait_for_mail_with("carol@demo.test", "Subject: held\n")
        .await?;
    let large = mail("too large", &lines(100));
    let reply = client
        .send("alice@demo.test", &["bob@demo.test"], &large)
        .await?;
    ensure!(reply.starts_with("552"), "{reply}");
    Ok(())
}

/// Of connections, which the listener itself asks for.
async fn limits(stack: &mut Stack, agent: Agent, section: &str, port: SocketAddr) -> Result<()> {
    let none = format!("[{section}]\nlimits.max_connections = 0\n");
    for (settings, expected) in [(none.as_str(), "421"), ("", "220")] {
        stack.configure("limits", settings)?;
        let told = stack.reload(agent).await?;
        // Whoever writes one of them for LMTP changes the one per address, too.
        let changed = names(&told, "changed");
        let named = changed
            .split(',')
            .any(|key| key == format!("{section}.limits.max_connections"));
        ensure!(named, "{told}");
        let (_, greeting) = Client::connect(port).await?;
        ensure!(greeting.starts_with(expected), "{section}: {greeting}");
    }
    Ok(())
}

/// So many lines of text.
fn lines(count: usize) -> String {
    format!("{}\r\n", "x".repeat(70)).repeat(count)
}
