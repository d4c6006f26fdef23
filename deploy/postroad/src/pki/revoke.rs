//! `postroad pki revoke`: a certificate whose key somebody else may have counts no more.

use std::path::PathBuf;

use jiff::Timestamp;
use postroad_net::Serial;
use postroad_pki::{Certificate, Pki};
use serde_json::json;

use super::{PkiFolder, day, read};
use crate::fault::Fault;
use crate::terminal::Terminal;

/// `postroad pki revoke`.
#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["holder", "file", "serial"])]
pub struct RevokeArguments {
    /// The folder of its holder, such as mta
    #[arg(value_name = "FOLDER")]
    holder: Option<String>,
    /// The certificate in this file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The one with this serial number, as `pki show --json` has it
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
    /// The list it is added to [default: revoked in the folder of the authority]
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Where.
    #[command(flatten)]
    folder: PkiFolder,
}

/// Carries out the verb.
pub fn carry_out(arguments: &RevokeArguments, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let pki = Pki::at(&arguments.folder.pki_dir);
    let (serial, who) = which(arguments, &pki)?;
    let list = arguments.list.clone();
    let list = list.unwrap_or_else(|| pki.revoked_file());
    let is_new = pki.revoke(&list, &serial, &who, Timestamp::now())?;
    let list = list.display();
    if terminal.wants_json() {
        let done = if is_new { "added" } else { "kept" };
        terminal.object(
            json!({ "path": list.to_string(), "serial": serial.to_string(), "done": done }),
        );
        return Ok(());
    }
    if !is_new {
        terminal.say(format_args!("{serial} is on {list} already"));
        return Ok(());
    }
    terminal.line(format_args!("{serial} ({who}) added to {list}"));
    terminal.say(format_args!(
        "Agents whose common.tls.revoked is that file, or a copy of it, end its connections within 10 seconds.\n\
         `postroad pki issue ROLE --replace` makes its holder another."
    ));
    Ok(())
}

/// Its number, and words for people.
fn which(arguments: &RevokeArguments, pki: &Pki) -> Result<(Serial, String), Fault> {
    let of = |name: &str, certificate: &Certificate| {
        let until = day(certificate.not_after);
        let words = format!("{name}, until {until}");
        Ok::<_, Fault>((certificate.serial_number()?, words))
    };
    match (&arguments.holder, &arguments.file, &arguments.serial) {
        (Some(name), _, _) => of(name, &pki.certificate(&pki.holder(name)?)?),
        (_, Some(path), _) => {
            let certificate = read(path)?;
            let name = certificate.common_name.clone().unwrap_or_default();
            of(&name, &certificate)
        }
        (_, _, Some(serial)) => {
            let serial = serial.parse::<Serial>();
            let serial = serial.map_err(|error| Fault::Usage(error.to_string()))?;
            Ok((serial, "by its number".to_owned()))
        }
        (None, None, None) => Err(Fault::Usage("say which certificate".to_owned())),
    }
}
