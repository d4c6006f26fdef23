//! `postroad setup`: what a whole Postroad of separate processes needs before its first start. A second run changes
//! nothing; one that was cut off is completed by the next.

mod answers;
mod files;
mod place;
mod records;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use postroad_net::PeerRole;
use postroad_pki::{
    AGENT_DAYS, AuthorityTerms, Done, Holder, Kind, Owner, Permits, Pki, Request, SERVER_DAYS,
    SERVER_FOLDER,
};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::pki::{LOOPBACK, PkiFolder, word};
use crate::terminal::Terminal;
use answers::Answers;
use place::Place;

/// The agents of a whole Postroad.
const AGENTS: [PeerRole; 4] = [
    PeerRole::Queued,
    PeerRole::Msa,
    PeerRole::Mta,
    PeerRole::Mda,
];
/// Networks agents may be in: loopback and private ones (RFC 1918, RFC 4193).
const PRIVATE: [&str; 6] = [
    "127.0.0.0/8",
    "::1",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
];

/// `postroad setup`.
#[derive(Debug, clap::Args)]
pub struct SetupArguments {
    /// The fully qualified name of the mail host [env: POSTROAD_HOSTNAME]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// The domain whose mail is ours [env: POSTROAD_DOMAIN]
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// The first account: what stands before the @ [env: POSTROAD_ACCOUNT]
    #[arg(long, value_name = "LOCAL_PART")]
    account: Option<String>,
    /// Where postroad.toml goes
    #[arg(long, value_name = "DIR", default_value = "/etc/postroad")]
    config_dir: PathBuf,
    /// For agents on this host alone, each a service of systemd with a user of its own, by Unix sockets. All goes into --config-dir,
    /// for the group postroad
    #[arg(long, conflicts_with_all = ["pki_dir", "owner", "tls_dir", "server_cert_dir", "queue_host", "accounts_dir"])]
    one_host: bool,
    /// Where directory.toml and the first password go, if that is where the queue alone looks: msa, mta and mda then ask it
    /// for accounts [default: beside postroad.toml, for all]
    #[arg(long, value_name = "DIR")]
    accounts_dir: Option<PathBuf>,
    /// Where certificates go.
    #[command(flatten)]
    pki: PkiFolder,
    /// Whose the files shall be, as numbers; the authority stays with who runs this
    #[arg(long, value_name = "UID:GID")]
    owner: Option<Owner>,
    /// Where each agent will find its own agents-ca.pem, agent.pem and agent.key
    #[arg(long, value_name = "DIR", default_value = "/etc/postroad-tls")]
    tls_dir: PathBuf,
    /// Where msa and mta will find cert.pem and key.pem
    #[arg(long, value_name = "DIR", default_value = "/etc/postroad-server")]
    server_cert_dir: PathBuf,
    /// The name by which agents will find the queue
    #[arg(long, value_name = "NAME", default_value = "queued")]
    queue_host: String,
}

/// What became of one part.
struct Part {
    path: PathBuf,
    done: Done,
}

/// Carries out the verb.
pub fn carry_out(arguments: &SetupArguments, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let answers = Answers::of(arguments, |name| std::env::var(name).ok())?;
    let now = Timestamp::now();
    let place = Place::of(arguments)?;
    let mut parts = certificates(arguments, &place, &answers, now)?;
    let accounts = files::write(arguments, &place, &answers, &mut parts)?;
    files::check(&place)?;
    let records = records::of(&answers);
    if terminal.wants_json() {
        let parts: Vec<Value> = parts
            .iter()
            .map(|part| json!({ "path": part.path.display().to_string(), "done": word(part.done) }))
            .collect();
        let records: Vec<Value> = records.iter().map(records::Record::json).collect();
        terminal.object(json!({
            "files": parts,
            "account": answers.account.to_string(),
            "password_file": accounts.password_file.as_ref().map(|path| path.display().to_string()),
            "records": records,
        }));
        return Ok(());
    }
    for part in &parts {
        let what = match part.done {
            Done::Kept => "is there already",
            done => word(done),
        };
        terminal.line(format_args!("{} {what}", part.path.display()));
    }
    if parts.iter().all(|part| part.done == Done::Kept) {
        terminal.line("All of it exists; nothing was changed.");
    }
    for line in &accounts.remarks {
        terminal.line(line);
    }
    terminal.line("");
    terminal.line("Publish in the DNS:");
    for line in records::table(&records) {
        terminal.line(line);
    }
    for remark in records::remarks(&answers) {
        terminal.line(remark);
    }
    Ok(())
}

fn certificates(
    arguments: &SetupArguments,
    place: &Place,
    answers: &Answers,
    now: Timestamp,
) -> Result<Vec<Part>, Fault> {
    // Before the authority: others may pass through this folder.
    postroad_pki::make_folder(&place.config, 0o755, None)?;
    let pki = Pki::at(&place.pki);
    let mut parts = Vec::new();
    let roles = AGENTS.map(PeerRole::as_str);
    let names = [
        answers.hostname.as_str(),
        answers.domain.as_str(),
        "localhost",
    ];
    let permits = Permits::parse(
        names
            .into_iter()
            .chain(roles)
            .chain([arguments.queue_host.as_str()])
            .chain(PRIVATE),
    )?;
    let terms = AuthorityTerms::new(
        format!("Postroad internal authority of {}", answers.hostname),
        permits,
    );
    parts.push(Part {
        path: pki.authority_file(),
        done: pki.init(&terms, false, now)?,
    });
    // On one host they know each other by their users.
    let by_certificate = AGENTS.iter().filter(|_| !place.is_one_host);
    for &role in by_certificate {
        let mut names = vec![role.as_str()];
        if role == PeerRole::Queued {
            names.push(&arguments.queue_host);
        }
        names.extend(LOOPBACK);
        let holder = Holder {
            name: role.to_string(),
            kind: Kind::Agent,
        };
        let request = Request::agent(role, &names, AGENT_DAYS)?;
        parts.push(issue(&pki, &holder, &request, place.owner, now)?);
    }
    let holder = Holder {
        name: SERVER_FOLDER.to_owned(),
        kind: Kind::Server,
    };
    let request = Request::server(&[&answers.hostname], SERVER_DAYS)?;
    let server = issue(&pki, &holder, &request, place.owner, now)?;
    if server.done != Done::Kept {
        let [_, _, key_file] = holder.kind.files();
        place.share_key(&pki.path(&holder.name, key_file))?;
    }
    parts.push(server);
    Ok(parts)
}

fn issue(
    pki: &Pki,
    holder: &Holder,
    request: &Request,
    owner: Option<Owner>,
    now: Timestamp,
) -> Result<Part, Fault> {
    let [_, pem_file, _] = holder.kind.files();
    Ok(Part {
        path: pki.path(&holder.name, pem_file),
        done: pki.issue(holder, request, owner, false, now)?,
    })
}

/// A path as a TOML string, whose escapes are those of JSON.
fn quoted(path: &Path) -> String {
    Value::from(path.display().to_string()).to_string()
}
