//! A process that cannot work as configured says where the fault is, and with which status it ends.

use std::{fs, net::TcpListener};

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Stack, mail, stack, wait_for};

const CONFIG: i32 = 78;
const TRY_AGAIN: i32 = 75;

#[tokio::test]
async fn a_fault_of_the_configuration_is_78_with_file_line_and_remedy() -> Result<()> {
    let mut stack = stack!().prepare()?;
    for (agent, section) in [
        (Agent::Queued, "queued"),
        (Agent::Msa, "msa"),
        (Agent::Mta, "mta.inbound"),
        (Agent::Mda, "mda"),
    ] {
        let file = "conf.d/99-fault.toml";
        stack.configure("99-fault", &format!("\n[{section}]\nzise_limit = 3\n"))?;
        ends(
            &mut stack,
            agent,
            CONFIG,
            &[&format!("{file}:3"), "unknown key `zise_limit`"],
        )
        .await?;
        stack.configure("99-fault", &format!("[{section}\n"))?;
        ends(&mut stack, agent, CONFIG, &[&format!("{file}:1")]).await?;
        stack.configure("99-fault", "")?;
    }
    stack.configure("99-fault", "[msa]\nsize_limt = \"1MiB\"\n")?;
    ends(
        &mut stack,
        Agent::Msa,
        CONFIG,
        &["did you mean `size_limit`?"],
    )
    .await?;
    if !cfg!(feature = "gssapi") {
        let text = "[msa.auth]\nmechanisms = [\"PLAIN\", \"GSSAPI\"]\n";
        stack.configure("99-fault", text)?;
        let words = [
            "99-fault.toml:2",
            "this build has no GSSAPI",
            "--features gssapi",
        ];
        ends(&mut stack, Agent::Msa, CONFIG, &words).await?;
    }
    let issuer = "[[msa.auth.oauth]]\nissuer = \"https://id.test\"\n";
    for (keys, words) in [
        (
            "audience = []\njwks_file = \"/none\"\n",
            ["99-fault.toml:3", "any other service"],
        ),
        (
            "audience = [\"a\"]\njwks_url = \"http://id.test/keys\"\n",
            ["99-fault.toml:4", "http is for this host alone"],
        ),
        (
            "audience = [\"a\"]\nopenid_configuration = \"http://id.test/c\"\n",
            ["99-fault.toml:4", "write an https address"],
        ),
    ] {
        stack.configure("99-fault", &format!("{issuer}{keys}"))?;
        ends(&mut stack, Agent::Msa, CONFIG, &words).await?;
    }
    // A name that is another listener's, and a rest in which nobody's mail would leave.
    for (fault, key) in [
        (
            "listeners.submission = \"127.0.0.1:0\"",
            "msa.listeners.submission",
        ),
        ("undo = \"2h\"", "msa.undo"),
    ] {
        stack.configure("99-fault", &format!("[msa]\n{fault}\n"))?;
        ends(&mut stack, Agent::Msa, CONFIG, &["99-fault.toml:2", key]).await?;
    }
    // Mail that could not be sent together, and policies that nobody would keep.
    for (fault, key) in [
        ("join_recipients = 0", "mta.outbound.join_recipients"),
        ("mta_sts.keep_most = 0", "mta.outbound.mta_sts.keep_most"),
    ] {
        stack.configure("99-fault", &format!("[mta.outbound]\n{fault}\n"))?;
        ends(&mut stack, Agent::Mta, CONFIG, &["99-fault.toml:2", key]).await?;
    }
    // Whoever believed everybody would write what anybody says into log and timeline.
    stack.configure(
        "99-fault",
        "[mta.inbound]\nxforward_networks = [\"0.0.0.0/0\"]\n",
    )?;
    let words = ["99-fault.toml:2", "mta.inbound.xforward_networks"];
    ends(&mut stack, Agent::Mta, CONFIG, &words).await?;
    stack.end().await
}

/// What a listener can be told wrong: each in the second line, by its key and with a remedy.
#[tokio::test]
async fn what_a_listener_cannot_do_is_told_by_its_key() -> Result<()> {
    let mut stack = stack!().prepare()?;
    let digits = "ab".repeat(32);
    let nobody = format!("accounts = {{ \"sha256:{digits}\" = \"nobody\" }}");
    let cases = [
        (
            "msa",
            "future_release = \"400d\"",
            "msa.future_release",
            "366d",
        ),
        ("msa", "max_priority = 12", "msa.max_priority", "-9 to 9"),
        (
            "msa",
            "greeting_delay = \"2m\"",
            "msa.greeting_delay",
            "write a time up to",
        ),
        ("msa", "hide_client = \"yes\"", "hide_client", "expected"),
        ("msa", "min_rate = 100", "min_rate", "unit"),
        ("msa", "undo = \"2h\"", "msa.undo", "HOLDFOR"),
        ("msa", "from = \"nobody\"", "from", "account"),
        (
            "msa",
            "xclient_networks = [\"0.0.0.0/0\"]",
            "msa.xclient_networks",
            "proxies in front alone",
        ),
        (
            "msa",
            "xclient_login = true",
            "msa.xclient_login",
            "name the proxies",
        ),
        (
            "msa",
            "per_connection.mails = 0",
            "msa.per_connection.mails",
            "write 1 or more",
        ),
        (
            "msa",
            "per_connection.mail = 5",
            "mail",
            "did you mean `mails`",
        ),
        (
            "msa",
            "timeouts.command = \"0s\"",
            "msa.timeouts.command",
            "4.5.3.2",
        ),
        (
            "msa",
            "timeouts.final_dot = \"15m\"",
            "msa.timeouts.final_dot",
            "once more",
        ),
        (
            "msa",
            "timeouts.greting = \"1m\"",
            "greting",
            "did you mean `greeting`",
        ),
        (
            "msa",
            "listeners.a = \"2525\"",
            "msa.listeners.a",
            "127.0.0.1:2025",
        ),
        (
            "msa",
            "listeners.a = { listen = \"[::]:0\", mechanisms = [] }",
            "msa.listeners.a.mechanisms",
            "nobody could log in",
        ),
        (
            "msa.auth",
            "mechanisms = [\"NTLM\"]",
            "mechanisms",
            "NTLM is no mechanism",
        ),
        (
            "msa.client_certificates",
            "crl_file = \"/none\"",
            "msa.client_certificates.crl_file",
            "name the authority",
        ),
        (
            "msa.client_certificates",
            "ca_file = \"/none\"",
            "msa.client_certificates",
            "name PEM files",
        ),
        (
            "msa.client_certificates",
            nobody.as_str(),
            "msa.client_certificates.accounts",
            "no address of an account",
        ),
        (
            "mta.inbound",
            "greeting_delay = \"2m\"",
            "mta.inbound.greeting_delay",
            "write a time up to",
        ),
        ("mta.inbound", "min_rate = \"fast\"", "min_rate", "unit"),
        (
            "mta.inbound",
            "xclient_networks = [\"::/0\"]",
            "mta.inbound.xclient_networks",
            "proxies in front alone",
        ),
        (
            "mta.inbound",
            "per_connection.errors = 0",
            "mta.inbound.per_connection.errors",
            "write 1 or more",
        ),
        (
            "mta.inbound",
            "timeouts.data_block = \"2h\"",
            "mta.inbound.timeouts.data_block",
            "write a time from",
        ),
        (
            "mta.inbound",
            "listeners.a = { listen = \"[::]:0\", xforward_networks = [\"::/0\"] }",
            "mta.inbound.listeners.a.xforward_networks",
            "in front alone",
        ),
        (
            "mda.lmtp",
            "timeouts.command = \"2h\"",
            "mda.lmtp.timeouts.command",
            "write a time from",
        ),
    ];
    let mut otherwise = Vec::new();
    for (section, fault, key, remedy) in cases {
        let agent = match section.get(..3) {
            Some("msa") => Agent::Msa,
            Some("mta") => Agent::Mta,
            _ => Agent::Mda,
        };
        stack.configure("99-fault", &format!("[{section}]\n{fault}\n"))?;
        let words = ["99-fault.toml:2", key, remedy];
        if let Err(error) = ends(&mut stack, agent, CONFIG, &words).await {
            otherwise.push(format!("{fault}: {error}"));
        }
    }
    ensure!(otherwise.is_empty(), "{}", otherwise.join("\n"));
    stack.end().await
}

#[tokio::test]
async fn a_directory_that_does_not_parse_is_78_with_file_and_line() -> Result<()> {
    let mut stack = stack!().prepare()?;
    fs::write(
        stack.directory_file(),
        "[[domain]]\nname = \"demo.test\"\npostmastr = \"a@demo.test\"\n",
    )?;
    for agent in [Agent::Msa, Agent::Mta, Agent::Mda] {
        ends(
            &mut stack,
            agent,
            CONFIG,
            &["directory.toml:3", "did you mean \\\"postmaster\\\"?"],
        )
        .await?;
    }
    stack.end().await
}

#[tokio::test]
async fn a_busy_port_is_75_and_named() -> Result<()> {
    let mut stack = stack!().prepare()?;
    for (agent, address) in [
        (Agent::Msa, stack.ports.submission()),
        (Agent::Mta, stack.ports.smtp()),
        (Agent::Mda, stack.ports.lmtp()),
    ] {
        let _holder = TcpListener::bind(address)?;
        ends(&mut stack, agent, TRY_AGAIN, &[&address.to_string()]).await?;
    }
    stack.end().await
}

/// A running stack keeps what it knows when the file goes bad, says so, and takes the repaired file.
#[tokio::test]
async fn a_directory_that_goes_bad_changes_nothing_until_it_is_repaired() -> Result<()> {
    let stack = stack!().start().await?;
    let good = fs::read_to_string(stack.directory_file())?;
    fs::write(stack.directory_file(), "[[domain")?;
    wait_for("reload_failed in the log of the MTA", async || {
        stack
            .log(Agent::Mta)
            .contains("reload_failed")
            .then_some(())
    })
    .await?;
    let mut world = stack.world_client().await?;
    world
        .deliver(
            "friend@world.test",
            &["bob@demo.test"],
            &mail("old file", "a\r\n"),
        )
        .await?;
    stack.wait_for_mails("bob@demo.test", 1).await?;

    let added = "\n[[alias]]\naddress = \"new@demo.test\"\nto = [\"bob@demo.test\"]\n";
    fs::write(stack.directory_file(), good + added)?;
    wait_for("the new alias", async || {
        let mut world = stack.world_client().await.ok()?;
        let content = mail("alias", "a\r\n");
        let reply = world
            .attempt("friend@world.test", &["new@demo.test"], &content)
            .await
            .ok()?;
        reply.starts_with("250").then_some(())
    })
    .await?;
    stack.wait_for_mails("bob@demo.test", 2).await?;
    stack.end().await
}

async fn ends(stack: &mut Stack, agent: Agent, status: i32, words: &[&str]) -> Result<()> {
    stack.start(agent)?;
    let ended = stack.status(agent).await?;
    let log = stack.log(agent);
    ensure!(
        ended == status,
        "{agent} ended with {ended} instead of {status}: {log}"
    );
    for word in words {
        ensure!(log.contains(word), "{agent}: {word:?} is not in {log}");
    }
    Ok(())
}
