//! The configuration, the directory and the password of the first account. Each is written whole, once.

use std::path::{Path, PathBuf};

use postroad_daemon::ConfigFile;
use postroad_directory::Directory;
use postroad_pki::{Done, Error, Owner};

use super::answers::Answers;
use super::place::Place;
use super::{Part, SetupArguments, quoted};
use crate::account::{hash, random_password};
use crate::fault::Fault;

/// What the Debian package has as `postroad.toml`.
const ONE_HOST: &str = include_str!("../../../debian/postroad.toml");
/// Where that says the configuration lies.
const CONFIG_FOLDER: &str = "/etc/postroad";

/// The first account, and what a person must know of it.
pub struct Accounts {
    /// Where its password lies, as long as it does.
    pub password_file: Option<PathBuf>,
    /// What to tell.
    pub remarks: Vec<String>,
}

/// Writes what is missing.
pub fn write(
    arguments: &SetupArguments,
    place: &Place,
    answers: &Answers,
    parts: &mut Vec<Part>,
) -> Result<Accounts, Fault> {
    let config = place.config.join("postroad.toml");
    let text = match place.is_one_host {
        true => ONE_HOST.replace(CONFIG_FOLDER, &place.config.display().to_string()),
        false => configuration(arguments, place, answers),
    };
    parts.push(once(&config, &text, 0o644, place.owner)?);
    if place.is_one_host {
        // Apart from the file that comes with the package, which nobody then need change.
        let folder = place.config.join("conf.d");
        postroad_pki::make_folder(&folder, 0o755, None)?;
        let text = host(answers);
        parts.push(once(&folder.join("host.toml"), &text, 0o644, place.owner)?);
    }
    first_account(place, answers, parts)
}

/// The password first: it is of no use without the directory, and the directory is of none without it.
fn first_account(
    place: &Place,
    answers: &Answers,
    parts: &mut Vec<Part>,
) -> Result<Accounts, Fault> {
    let folder = &place.accounts;
    postroad_pki::make_folder(folder, 0o755, None)?;
    let file = folder.join("directory.toml");
    let password_file = folder.join("first-account.password");
    let mut remarks = Vec::new();
    if file.exists() {
        let directory = Directory::load(&file)?;
        if directory.account(&answers.account).is_none() {
            remarks.push(format!(
                "{} has no account {}; `postroad account add {}` adds it.",
                file.display(),
                answers.account,
                answers.account
            ));
        }
        parts.push(kept(&file));
    } else {
        let password = match postroad_pki::read(&password_file)? {
            Some(left) => left.trim_end().to_owned(),
            None => {
                let password = random_password();
                parts.push(once(
                    &password_file,
                    &format!("{password}\n"),
                    0o600,
                    place.owner,
                )?);
                password
            }
        };
        let text = directory(answers, &hash(&password)?);
        let (owner, mode) = place.directory;
        parts.push(once(&file, &text, mode, owner)?);
    }
    let password_file = password_file.exists().then_some(password_file);
    if let Some(path) = &password_file {
        remarks.push(format!(
            "The password of {} is in {}; read it, then remove the file.",
            answers.account,
            path.display()
        ));
    }
    Ok(Accounts {
        password_file,
        remarks,
    })
}

fn once(path: &Path, text: &str, mode: u32, owner: Option<Owner>) -> Result<Part, Error> {
    if path.exists() {
        return Ok(kept(path));
    }
    postroad_pki::write(path, text, mode, owner)?;
    Ok(Part {
        path: path.to_owned(),
        done: Done::Made,
    })
}

fn kept(path: &Path) -> Part {
    Part {
        path: path.to_owned(),
        done: Done::Kept,
    }
}

/// What was written, or was there, must be readable for the agents.
pub fn check(place: &Place) -> Result<(), Fault> {
    let file = ConfigFile::load(&place.config.join("postroad.toml"))?;
    file.common()?;
    file.section::<postroad_queued::Config>("queued")?;
    file.section::<postroad_msa::Config>("msa")?;
    file.section::<postroad_mta::Config>("mta")?;
    file.section::<postroad_mda::Config>("mda")?;
    Directory::load(&place.accounts.join("directory.toml"))?;
    Ok(())
}

fn directory(answers: &Answers, hash: &str) -> String {
    let Answers {
        domain, account, ..
    } = answers;
    let account = serde_json::Value::from(account.to_string());
    format!(
        "# Written by `postroad setup`, once; it is yours from now on. `postroad account add` adds accounts.\n\n\
         [[domain]]\nname = \"{domain}\"\npostmaster = {account}\n\n\
         [[account]]\naddress = {account}\npassword_hash = \"{hash}\"\n"
    )
}

fn host(answers: &Answers) -> String {
    format!(
        "# Written by `postroad setup`, once; it is yours from now on.\n\n\
         [common]\nhostname = \"{}\"\ndomain = \"{}\"\n",
        answers.hostname, answers.domain
    )
}

fn configuration(arguments: &SetupArguments, place: &Place, answers: &Answers) -> String {
    let tls = |file: &str| quoted(&arguments.tls_dir.join(file));
    let server = |file: &str| quoted(&arguments.server_cert_dir.join(file));
    let certificates = format!(
        "certificates = [{{ cert_file = {}, key_file = {} }}]",
        server("cert.pem"),
        server("key.pem")
    );
    format!(
        r#"# Written by `postroad setup`, once; it is yours from now on. All agents read this one file; deploy/config/postroad.toml
# has every key with its meaning. `postroad check` says what is wrong.

[common]
hostname = "{hostname}"
domain = "{domain}"
directory = {directory}
{accounts}queue = "tcp:{queue_host}:7700"
tls.ca_file = {ca_file}
tls.cert_file = {cert_file}
tls.key_file = {key_file}

[queued.listen]
tcp = "tcp:[::]:7700"

[queued.http]
listen = "[::]:9700"

[msa]
{certificates}
http.listen = "[::]:9701"

[mta]
http.listen = "[::]:9702"

[mta.inbound]
{certificates}

[mda]
http.listen = "[::]:9703"
"#,
        hostname = answers.hostname,
        domain = answers.domain,
        directory = quoted(&place.accounts.join("directory.toml")),
        // Who has a folder for them alone does not want them elsewhere.
        accounts = match arguments.accounts_dir {
            Some(_) => "accounts.from = \"queue\"\n",
            None => "",
        },
        queue_host = arguments.queue_host,
        ca_file = tls("agents-ca.pem"),
        cert_file = tls("agent.pem"),
        key_file = tls("agent.key"),
    )
}
