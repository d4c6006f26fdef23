//! Mail programs as their users call them.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::PASSWORD;
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use crate::{needs::python, samples::Sample, world::World};

/// What a program may take, the largest mail included.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Swaks,
    Smtplib,
    Curl,
    Msmtp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// The port of STARTTLS, without it.
    Never,
    Start,
    Implicit,
}

/// One submission.
#[derive(Clone)]
pub struct Submission<'a> {
    pub tls: Tls,
    /// Who logs in, if somebody does.
    pub account: Option<&'a str>,
    pub password: &'a str,
    pub from: &'a str,
    pub to: Vec<String>,
    pub sample: &'a Sample,
    /// Whom to trust, if not the authority of the stack.
    pub ca_file: Option<&'a Path>,
}

impl<'a> Submission<'a> {
    /// An ordinary one.
    pub fn new(tls: Tls, account: &'a str, to: Vec<String>, sample: &'a Sample) -> Self {
        Self {
            tls,
            account: Some(account),
            password: PASSWORD,
            from: account,
            to,
            sample,
            ca_file: None,
        }
    }
}

/// How a program ended, and all it said.
#[derive(Debug)]
pub struct Ended {
    pub well: bool,
    pub said: String,
}

impl Program {
    /// Submits and demands success.
    pub async fn submits(self, world: &World, submission: &Submission<'_>) -> Result<()> {
        let ended = self.try_submit(world, submission).await?;
        ensure!(
            ended.well,
            "{self:?} by {:?} failed: {:.3000}",
            submission.tls,
            ended.said
        );
        Ok(())
    }

    /// Submits; refusals are a result.
    pub async fn try_submit(self, world: &World, submission: &Submission<'_>) -> Result<Ended> {
        let port = match submission.tls {
            Tls::Implicit => world.stack.ports.submissions().port(),
            Tls::Never | Tls::Start => world.stack.ports.submission().port(),
        };
        let call = Call {
            port,
            ca_file: submission
                .ca_file
                .map_or_else(|| world.stack.ca_file(), Path::to_owned),
            submission,
        };
        match self {
            Self::Swaks => run("swaks", call.swaks(), None).await,
            Self::Smtplib => run(python(), call.smtplib(), None).await,
            Self::Curl => run("curl", call.curl(), None).await,
            Self::Msmtp => run("msmtp", call.msmtp(), Some(&submission.sample.file)).await,
        }
    }
}

struct Call<'a> {
    port: u16,
    ca_file: PathBuf,
    submission: &'a Submission<'a>,
}

impl Call<'_> {
    fn swaks(&self) -> Vec<OsString> {
        let Submission {
            tls,
            account,
            password,
            from,
            to,
            sample,
            ..
        } = self.submission;
        let mut call = words("--server localhost --protocol ESMTP --helo client.test");
        call.extend(["--port".into(), self.port.to_string().into()]);
        call.extend([
            "--from".into(),
            from.into(),
            "--to".into(),
            to.join(",").into(),
        ]);
        call.extend([
            "--data".into(),
            format!("@{}", sample.dotted.display()).into(),
        ]);
        match tls {
            Tls::Never => {}
            Tls::Start => call.push("--tls".into()),
            Tls::Implicit => call.push("--tls-on-connect".into()),
        }
        if *tls != Tls::Never {
            call.extend([
                "--tls-verify".into(),
                "--tls-ca-path".into(),
                self.ca_file.clone().into(),
            ]);
        }
        if let Some(account) = account {
            call.extend([
                "--auth".into(),
                "PLAIN".into(),
                "--auth-user".into(),
                account.into(),
            ]);
            call.extend(["--auth-password".into(), password.into()]);
        }
        // The transcript shows replies; the content would only fill the screen.
        call.push("--suppress-data".into());
        call
    }

    fn curl(&self) -> Vec<OsString> {
        let Submission {
            tls,
            account,
            password,
            from,
            to,
            sample,
            ..
        } = self.submission;
        let mut call = words("--silent --show-error --verbose");
        let scheme = if *tls == Tls::Implicit {
            "smtps"
        } else {
            "smtp"
        };
        call.push(format!("{scheme}://localhost:{}/client.test", self.port).into());
        if *tls != Tls::Never {
            call.extend([
                "--ssl-reqd".into(),
                "--cacert".into(),
                self.ca_file.clone().into(),
            ]);
        }
        if let Some(account) = account {
            call.extend(["--user".into(), format!("{account}:{password}").into()]);
        }
        call.extend([
            "--mail-from".into(),
            from.into(),
            "--upload-file".into(),
            sample.file.clone().into(),
        ]);
        call.extend(to.iter().flat_map(|to| ["--mail-rcpt".into(), to.into()]));
        call
    }

    fn msmtp(&self) -> Vec<OsString> {
        let Submission {
            tls,
            account,
            password,
            from,
            to,
            ..
        } = self.submission;
        let mut call = words("--host=localhost --domain=client.test --set-from-header=off --debug");
        call.push(format!("--port={}", self.port).into());
        match tls {
            Tls::Never => call.push("--tls=off".into()),
            Tls::Start => call.extend(words("--tls=on --tls-starttls=on")),
            Tls::Implicit => call.extend(words("--tls=on --tls-starttls=off")),
        }
        if *tls != Tls::Never {
            call.push(format!("--tls-trust-file={}", self.ca_file.display()).into());
        }
        if let Some(account) = account {
            call.extend(["--auth=plain".into(), format!("--user={account}").into()]);
            call.push(format!("--passwordeval=echo '{password}'").into());
        }
        call.extend([format!("--from={from}").into(), "--".into()]);
        call.extend(to.iter().map(OsString::from));
        call
    }

    fn smtplib(&self) -> Vec<OsString> {
        let Submission {
            tls,
            account,
            password,
            from,
            to,
            sample,
            ..
        } = self.submission;
        let orders = json!({
            "port": self.port,
            "ca_file": self.ca_file,
            "tls": match tls { Tls::Never => "never", Tls::Start => "start", Tls::Implicit => "implicit" },
            "account": account,
            "password": password,
            "from": from,
            "to": to,
            "file": sample.file,
        });
        vec![script("submit.py").into(), orders.to_string().into()]
    }
}

/// Runs a script of `tests/python` and reads the JSON it prints.
pub async fn python_json(name: &str, orders: &Value) -> Result<Value> {
    let ended = run(
        python(),
        vec![script(name).into(), orders.to_string().into()],
        None,
    )
    .await?;
    ensure!(ended.well, "{name} failed: {}", ended.said);
    serde_json::from_str(&ended.said).with_context(|| ended.said)
}

/// Runs a script of `tests/python`; all it said, however it ended.
pub async fn python_said(name: &str, orders: &Value) -> Result<String> {
    let arguments = vec![script(name).into(), orders.to_string().into()];
    Ok(run(python(), arguments, None).await?.said)
}

/// Runs a program without settings of its own, with a file as its input.
pub async fn run(
    program: impl AsRef<OsStr>,
    arguments: Vec<OsString>,
    input: Option<&Path>,
) -> Result<Ended> {
    let program = program.as_ref();
    let stdin = input.map_or(Ok(Stdio::null()), |file| File::open(file).map(Stdio::from))?;
    let mut command = Command::new(program);
    // Own settings of the person who runs the tests must not matter.
    command
        .args(arguments)
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C.UTF-8");
    let output = command.stdin(stdin).kill_on_drop(true).output();
    let output = timeout(PATIENCE, output)
        .await
        .with_context(|| format!("{program:?} hangs"))??;
    let said = [output.stdout, output.stderr].concat();
    Ok(Ended {
        well: output.status.success(),
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}

/// One of `tests/python`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(name)
}

fn words(text: &str) -> Vec<OsString> {
    text.split(' ').map(OsString::from).collect()
}
