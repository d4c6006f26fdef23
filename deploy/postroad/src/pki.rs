//! `postroad pki …`: the authority of this house and the certificates it issues.

mod revoke;

use std::path::{Path, PathBuf};

use comfy_table::Cell;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use postroad_address::Mailbox;
use postroad_net::PeerRole;
use postroad_pki::{
    AGENT_DAYS, AUTHORITY_DAYS, AUTHORITY_FOLDER, AuthorityTerms, Certificate, Done, Error, Holder,
    Kind, Owner, Permits, Pki, Renewal, Renewed, Request, SERVER_DAYS, SERVER_FOLDER, revocations,
};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::terminal::{Terminal, lines, number, table};
use revoke::RevokeArguments;

/// The names of this very host that every certificate for it may carry.
pub const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Where the authority and its certificates lie unless told otherwise.
const PKI_FOLDER: &str = "/pki";

/// `postroad pki …`.
#[derive(Debug, clap::Subcommand)]
pub enum PkiVerb {
    /// Make the authority that agents trust, if there is none
    Init(InitArguments),
    /// Make the certificate and key of an agent, or of the mail host
    Issue(IssueArguments),
    /// Make certificates anew that run out soon, with the names and the key they have; agents notice by themselves
    Renew(RenewArguments),
    /// Show certificates: whose, for what, how long, whether revoked
    Show(ShowArguments),
    /// Let a certificate count no more; agents that read the list notice by themselves
    Revoke(RevokeArguments),
}

/// Where the files are.
#[derive(Debug, clap::Args)]
pub struct PkiFolder {
    /// The folder of the authority and of all it issues
    #[arg(long, value_name = "DIR", default_value = PKI_FOLDER)]
    pub pki_dir: PathBuf,
}

/// `postroad pki init`.
#[derive(Debug, clap::Args)]
pub struct InitArguments {
    /// What the authority may vouch for: a domain with all below it, or a network; may be repeated [default: everything]
    #[arg(long, value_name = "DOMAIN|NETWORK")]
    permit: Vec<String>,
    /// How long it lives
    #[arg(long, value_name = "N", default_value_t = AUTHORITY_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Make another one if there is one: nothing that the old one signed counts any more
    #[arg(long)]
    replace: bool,
    /// Where.
    #[command(flatten)]
    folder: PkiFolder,
}

/// `postroad pki issue`.
#[derive(Debug, clap::Args)]
pub struct IssueArguments {
    /// What the certificate is for
    #[arg(value_name = "ROLE", value_parser = ["queued", "msa", "mta", "mda", "admin", "server"])]
    role: String,
    /// A name or address others find it by, the first also in logs; may be repeated [default: the role]
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// The name of this host, localhost and its addresses too
    #[arg(long)]
    host: bool,
    /// With msa: for a program that may submit mail of this account, and do nothing else; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    account: Vec<Mailbox>,
    /// The folder it is written to, below the folder of the authority [default: the role]
    #[arg(long, value_name = "FOLDER")]
    to: Option<String>,
    /// How long it lives [default: 365; 390 for a server]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
    /// Whose the files shall be, as numbers
    #[arg(long, value_name = "UID:GID")]
    owner: Option<Owner>,
    /// Make certificate and key anew if they are there
    #[arg(long)]
    replace: bool,
    /// Where.
    #[command(flatten)]
    folder: PkiFolder,
}

/// `postroad pki renew`.
#[derive(Debug, clap::Args)]
pub struct RenewArguments {
    /// Only these folders
    #[arg(value_name = "FOLDER")]
    only: Vec<String>,
    /// Those that have fewer days left [default: a third of their life]
    #[arg(long, value_name = "DAYS")]
    within: Option<u32>,
    /// With another key each
    #[arg(long)]
    new_key: bool,
    /// Where.
    #[command(flatten)]
    folder: PkiFolder,
}

/// `postroad pki show`.
#[derive(Debug, clap::Args)]
pub struct ShowArguments {
    /// These files, instead of all in the folder of the authority
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The list of revoked certificates [default: revoked in the folder of the authority]
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Where.
    #[command(flatten)]
    folder: PkiFolder,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Name(_) => Self::Usage(error.to_string()),
            Error::NoHolder(_) => Self::NoMatch(error.to_string()),
            error => Self::not_done(error),
        }
    }
}

/// Carries out the verb.
pub fn carry_out(verb: &PkiVerb, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    match verb {
        PkiVerb::Init(arguments) => init(arguments, terminal),
        PkiVerb::Issue(arguments) => issue(arguments, terminal),
        PkiVerb::Renew(arguments) => renew(arguments, terminal),
        PkiVerb::Show(arguments) => show(arguments, terminal),
        PkiVerb::Revoke(arguments) => revoke::carry_out(arguments, terminal),
    }
}

fn init(arguments: &InitArguments, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let pki = Pki::at(&arguments.folder.pki_dir);
    let terms = AuthorityTerms {
        days: arguments.days,
        ..AuthorityTerms::new(
            "Postroad internal authority",
            Permits::parse(&arguments.permit)?,
        )
    };
    let done = pki.init(&terms, arguments.replace, Timestamp::now())?;
    tell(done, &pki.authority_file(), terminal);
    if done != Done::Kept {
        terminal.say(format_args!(
            "Keep {} secret: who has it can be any agent.",
            pki.authority_key_file().display()
        ));
    }
    Ok(())
}

fn issue(arguments: &IssueArguments, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let pki = Pki::at(&arguments.folder.pki_dir);
    let mut names = arguments.name.clone();
    if arguments.host {
        names.extend(host_name());
        names.extend(LOOPBACK.map(str::to_owned));
    }
    let (kind, folder, request) = match arguments.role.as_str() {
        "server" if names.is_empty() => {
            return Err(Fault::Usage(
                "name the host that mail clients call: --name mail.example.org".to_owned(),
            ));
        }
        "server" => {
            let request = Request::server(&names, arguments.days.unwrap_or(SERVER_DAYS))?;
            (Kind::Server, SERVER_FOLDER, request)
        }
        role => {
            if names.is_empty() {
                names.push(role.to_owned());
            }
            let role: PeerRole = role.parse().map_err(Fault::not_done)?;
            if !arguments.account.is_empty() && role != PeerRole::Msa {
                let text = "--account is for programs that submit mail: write msa";
                return Err(Fault::Usage(text.to_owned()));
            }
            let days = arguments.days.unwrap_or(AGENT_DAYS);
            let accounts: Vec<String> = arguments.account.iter().map(Mailbox::to_string).collect();
            let request = Request::agent(role, &names, days)?;
            let request = request.for_accounts(accounts.iter().map(String::as_str));
            (Kind::Agent, role.as_str(), request)
        }
    };
    let holder = Holder {
        name: folder_name(arguments.to.as_deref().unwrap_or(folder))?,
        kind,
    };
    let done = pki.issue(
        &holder,
        &request,
        arguments.owner,
        arguments.replace,
        Timestamp::now(),
    )?;
    let [_, pem_file, _] = kind.files();
    tell(done, &pki.path(&holder.name, pem_file), terminal);
    Ok(())
}

/// One step down and no other.
fn folder_name(name: &str) -> Result<String, Fault> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    match plain && name != AUTHORITY_FOLDER {
        true => Ok(name.to_owned()),
        false => Err(Fault::Usage(format!(
            "{name:?} is no name for a folder of certificates"
        ))),
    }
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname();
    let name = name.nodename().to_str().ok()?;
    (!name.is_empty() && name != "localhost").then(|| name.to_owned())
}

fn tell(done: Done, path: &Path, terminal: &mut Terminal<'_>) {
    let path = path.display();
    if terminal.wants_json() {
        terminal.object(json!({ "path": path.to_string(), "done": word(done) }));
        return;
    }
    match done {
        Done::Kept => terminal.say(format_args!("{path} is there already and stays as it is")),
        done => terminal.line(format_args!("{path} {}", word(done))),
    }
}

/// What was done, in one word.
pub fn word(done: Done) -> &'static str {
    match done {
        Done::Kept => "kept",
        Done::Completed => "completed",
        Done::Made => "made",
    }
}

fn renew(arguments: &RenewArguments, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let pki = Pki::at(&arguments.folder.pki_dir);
    let holders = match arguments.only.as_slice() {
        [] => pki.holders()?,
        only => only
            .iter()
            .map(|name| pki.holder(name))
            .collect::<Result<_, _>>()?,
    };
    let renewal = Renewal {
        within_days: arguments.within,
        new_key: arguments.new_key,
    };
    let now = Timestamp::now();
    let all = pki.renew(&holders, renewal, now)?;
    if terminal.wants_json() {
        let all = all.iter().map(|(holder, renewed)| {
            let (what, certificate) = outcome(renewed);
            let mut row = certificate_json(&holder.name, certificate, now);
            row["revoked"] = Value::from(matches!(renewed, Renewed::Revoked(_)));
            row["done"] = Value::from(what);
            row
        });
        let certificates: Vec<Value> = all.collect();
        terminal.object(json!({ "certificates": certificates }));
        return Ok(());
    }
    let mut rows = table(["NAME", "DONE", "NOT AFTER", "DAYS LEFT"]);
    for (holder, renewed) in &all {
        let (what, certificate) = outcome(renewed);
        rows.add_row([
            Cell::new(&holder.name),
            Cell::new(what),
            Cell::new(day(certificate.not_after)),
            number(certificate.days_left(now)),
        ]);
    }
    terminal.line(lines(&rows));
    Ok(())
}

fn outcome(renewed: &Renewed) -> (&'static str, &Certificate) {
    match renewed {
        Renewed::Renewed(certificate) => ("renewed", certificate),
        Renewed::Young(certificate) => ("kept", certificate),
        Renewed::Foreign(certificate) => ("another authority's", certificate),
        Renewed::Revoked(certificate) => ("revoked", certificate),
    }
}

fn show(arguments: &ShowArguments, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let found = match arguments.files.as_slice() {
        [] => in_folder(&Pki::at(&arguments.folder.pki_dir))?,
        files => files
            .iter()
            .map(|path| Ok((path.display().to_string(), read(path)?)))
            .collect::<Result<Vec<_>, Fault>>()?,
    };
    let now = Timestamp::now();
    let beside = || Pki::at(&arguments.folder.pki_dir).revoked_file();
    let revoked = revocations(&arguments.list.clone().unwrap_or_else(beside))?;
    let is_revoked = |certificate: &Certificate| {
        let serial = certificate.serial_number();
        serial.is_ok_and(|serial| revoked.contains(&serial))
    };
    if terminal.wants_json() {
        let certificates = found.iter().map(|(name, certificate)| {
            let mut row = certificate_json(name, certificate, now);
            row["revoked"] = Value::from(is_revoked(certificate));
            row
        });
        let certificates: Vec<Value> = certificates.collect();
        terminal.object(json!({ "certificates": certificates }));
        return Ok(());
    }
    let mut rows = table(["NAME", "ROLE", "FOR", "NOT AFTER", "DAYS LEFT", "SHA-256"]);
    for (name, certificate) in &found {
        let names: Vec<String> = certificate.names().collect();
        rows.add_row([
            Cell::new(name),
            Cell::new(certificate.roles.to_string()),
            Cell::new(names.join(" ")),
            Cell::new(day(certificate.not_after)),
            match is_revoked(certificate) {
                true => Cell::new("revoked"),
                false => number(certificate.days_left(now)),
            },
            Cell::new(&certificate.fingerprint),
        ]);
    }
    terminal.line(lines(&rows));
    Ok(())
}

fn in_folder(pki: &Pki) -> Result<Vec<(String, Certificate)>, Fault> {
    let mut found = Vec::new();
    let authority = pki.authority_file();
    if authority.exists() {
        found.push((AUTHORITY_FOLDER.to_owned(), read(&authority)?));
    }
    for holder in pki.holders()? {
        let certificate = pki.certificate(&holder)?;
        found.push((holder.name, certificate));
    }
    match found.is_empty() {
        true => Err(Fault::NoMatch("there is no certificate".to_owned())),
        false => Ok(found),
    }
}

fn read(path: &Path) -> Result<Certificate, Fault> {
    let place =
        |error: &dyn std::fmt::Display| Fault::NotDone(format!("{}: {error}", path.display()));
    let pem = std::fs::read_to_string(path).map_err(|error| place(&error))?;
    Certificate::from_pem(&pem).map_err(|error| place(&error))
}

fn certificate_json(name: &str, certificate: &Certificate, now: Timestamp) -> Value {
    let roles: Vec<&str> = certificate.roles.iter().map(PeerRole::as_str).collect();
    json!({
        "name": name,
        "common_name": certificate.common_name,
        "roles": roles,
        "names": certificate.names().collect::<Vec<_>>(),
        "not_before": certificate.not_before.to_string(),
        "not_after": certificate.not_after.to_string(),
        "days_left": certificate.days_left(now),
        "serial": certificate.serial,
        "sha256": certificate.fingerprint,
    })
}

fn day(at: Timestamp) -> String {
    let at = at.to_zoned(TimeZone::system());
    at.strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}
