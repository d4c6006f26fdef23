//! Four processes as `postroad setup` makes them: each has a certificate of its own, and they meet over mutual TLS.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Result, ensure};

use crate::{Agent, Client, Stack, free_port};

/// The name of the mail host.
pub const HOST: &str = "mail.setup.test";
/// The first account.
pub const FIRST: &str = "alice@setup.test";

/// `postroad setup` for the folder of a stack that is prepared; what it printed.
pub fn set_up(folder: &Path) -> Result<String> {
    set_up_with(folder, &[])
}

/// The same with more said on its line.
pub fn set_up_with(folder: &Path, more: &[&str]) -> Result<String> {
    let pki = folder.join("pki");
    let path = |path: &Path| path.display().to_string();
    let (config, pki, server) = (path(folder), path(&pki), path(&pki.join("server")));
    let line = [
        "setup",
        "--hostname",
        HOST,
        "--domain",
        "setup.test",
        "--account",
        "alice",
        "--config-dir",
        &config,
        "--pki-dir",
        &pki,
        "--server-cert-dir",
        &server,
    ];
    postroad(&[&line[..], more].concat())
}

/// Takes the stack's own configuration away, so that the one of [`set_up`] can take its place.
pub fn clear(stack: &Stack) -> Result<()> {
    for file in ["postroad.toml", "directory.toml"] {
        fs::remove_file(stack.folder().join(file))?;
    }
    Ok(())
}

/// What differs on this machine from a container of each agent: ports and paths. Returns the port of the queue.
pub fn place(stack: &mut Stack) -> Result<u16> {
    let folder = stack.folder().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    let queue = free_port()?;
    let ports = stack.ports;
    let variables = [
        ("COMMON__STATE_DIR", path("state")),
        ("COMMON__RUN_DIR", path("run")),
        ("COMMON__QUEUE", format!("tcp:localhost:{queue}")),
        ("COMMON__ALLOW_ROOT", "true".to_owned()),
        ("COMMON__DNS__ZONE", path("zone")),
        ("QUEUED__LISTEN__TCP", format!("tcp:[::]:{queue}")),
        ("QUEUED__DISK__RESERVE_PERCENT", "0".to_owned()),
        ("MSA__SUBMISSION", format!("[\"{}\"]", ports.submission())),
        ("MSA__SUBMISSIONS", format!("[\"{}\"]", ports.submissions())),
        (
            "MTA__INBOUND__LISTENERS",
            format!("{{ smtp = \"{}\" }}", ports.smtp()),
        ),
        ("MDA__MAIL_ROOT", path("mail")),
        ("QUEUED__HTTP__LISTEN", String::new()),
        ("MSA__HTTP__LISTEN", String::new()),
        ("MTA__HTTP__LISTEN", String::new()),
        ("MDA__HTTP__LISTEN", String::new()),
    ];
    for agent in Agent::SEPARATE {
        for (name, value) in &variables {
            stack.set_variable(agent, &format!("POSTROAD__{name}"), value);
        }
        for (name, file) in [
            ("CA_FILE", "agents-ca.pem"),
            ("CERT_FILE", "agent.pem"),
            ("KEY_FILE", "agent.key"),
        ] {
            let value = path(&format!("pki/{agent}/{file}"));
            stack.set_variable(agent, &format!("POSTROAD__COMMON__TLS__{name}"), value);
        }
    }
    Ok(queue)
}

/// A mail program that has logged in as the first account.
pub async fn login(stack: &Stack) -> Result<Client> {
    let password = fs::read_to_string(stack.folder().join("first-account.password"))?;
    let (client, _) = Client::connect(stack.ports.submission()).await?;
    let ca_file = stack.folder().join("pki/server/ca.pem");
    let mut client = client.starttls_as(HOST, &ca_file).await?;
    client.login(FIRST, password.trim()).await?;
    Ok(client)
}

/// A line typed at a shell; what it printed.
pub fn postroad(arguments: &[&str]) -> Result<String> {
    let all = ["postroad"].iter().chain(arguments).map(OsString::from);
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let status = postroad::execute(all, &mut out, &mut talk);
    let talk = String::from_utf8(talk)?;
    ensure!(status == 0, "{arguments:?} ended with {status}: {talk}");
    Ok(String::from_utf8(out)?)
}
