//! Neighbours in place of our agents: each override in `deploy/docker/swap` is brought up by itself, and a mail goes through.
//!
//! An override is found by its file; [`SWAPS`] says which way a mail takes through it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::{is_same_mail, mail_of};
use tempfile::TempDir;

use crate::{
    docker::{Compose, PATIENCE, docker, docker_octets, looking, output_of, said, source},
    elsewhere::{self, FRIEND},
    image,
    load::{Submitter, Way},
    told,
};

const PROJECT: &str = "postroad-swap";
/// An address of loopback of our own: the ports are the well-known ones.
const ADDRESS: [u8; 4] = [127, 77, 0, 3];
const HOST: &str = "mail.example.test";
const ALICE: &str = "alice@example.test";
/// The network of the neighbour and us.
const NEIGHBOURS: &str = "10.213.78";

/// A mail's way through one swap.
struct Swap {
    /// The name of the override.
    name: &'static str,
    from: From,
    to: To,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// The account, at 587.
    Account,
    /// A stranger, at 25.
    World,
    /// A program of ours, by `postroad sendmail`.
    Program,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// Filed by our delivery agent.
    Mailbox,
    /// In the account's mailbox as Dovecot shows it.
    Dovecot,
    /// To somebody elsewhere: Postfix took it from who logged in, and has no way to the world here.
    Postfix,
}

const SWAPS: &[Swap] = &[
    Swap {
        name: "dovecot-lmtp",
        from: From::Account,
        to: To::Dovecot,
    },
    Swap {
        name: "dovecot-imap",
        from: From::World,
        to: To::Dovecot,
    },
    Swap {
        name: "postfix-in-front",
        from: From::World,
        to: To::Mailbox,
    },
    Swap {
        name: "exim-in-front",
        from: From::World,
        to: To::Mailbox,
    },
    Swap {
        name: "postfix-smarthost",
        from: From::Account,
        to: To::Postfix,
    },
    Swap {
        name: "postfix-submission",
        from: From::Account,
        to: To::Mailbox,
    },
    Swap {
        name: "application",
        from: From::Program,
        to: To::Mailbox,
    },
];

/// What the overrides call the images, what each is made of, and what Debian's packages are in it.
const IMAGES: [(&str, &str, &str); 3] = [
    (
        "POSTROAD_DOVECOT_IMAGE",
        elsewhere::TAG,
        "dovecot-lmtpd dovecot-imapd dovecot-pop3d",
    ),
    (
        "POSTROAD_POSTFIX_IMAGE",
        elsewhere::TAG,
        "postfix dovecot-core",
    ),
    (
        "POSTROAD_EXIM_IMAGE",
        elsewhere::EXIM_TAG,
        "exim4-daemon-light",
    ),
];

/// Every override that there is.
pub async fn each(passed: &mut usize) -> Result<()> {
    let overrides = overrides()?;
    told("swaps::images_are_made", passed, make_images(&overrides)).await?;
    for file in overrides {
        let name = file.file_stem().context("a name")?.to_string_lossy();
        let swap = SWAPS.iter().find(|swap| swap.name == name);
        let swap = swap.with_context(|| {
            format!(
                "swap/{name}.yaml: say in tests/tests/compose/swaps.rs how mail goes through it"
            )
        })?;
        told(&format!("swaps::{name}"), passed, swap.bring_up(&file)).await?;
    }
    Ok(())
}

fn overrides() -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(source().join("deploy/docker/swap"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|ending| ending == "yaml") {
            files.insert(file);
        }
    }
    ensure!(!files.is_empty(), "no overrides");
    Ok(files)
}

/// Only of what some override names.
async fn make_images(overrides: &BTreeSet<PathBuf>) -> Result<()> {
    let mut texts = String::new();
    for file in overrides {
        texts += &fs::read_to_string(file)?;
    }
    let context = source().join("deploy/docker/swap");
    let context = context.to_string_lossy();
    for (variable, base, packages) in IMAGES {
        if !texts.contains(variable) {
            continue;
        }
        if base == elsewhere::EXIM_TAG {
            elsewhere::make_exim_image().await?;
        }
        let (base, packages) = (format!("BASE={base}"), format!("PACKAGES={packages}"));
        docker(&[
            "build",
            "--quiet",
            "--build-arg",
            &base,
            "--build-arg",
            &packages,
            "--tag",
            &tag(variable),
            &context,
        ])
        .await?;
    }
    Ok(())
}

/// `POSTROAD_DOVECOT_IMAGE` is `postroad-dovecot:journey`.
fn tag(variable: &str) -> String {
    let name = variable.trim_end_matches("_IMAGE").to_lowercase();
    format!("{}:journey", name.replace('_', "-"))
}

impl Swap {
    async fn bring_up(&self, file: &Path) -> Result<()> {
        let folder = tempfile::Builder::new()
            .prefix("postroad-swap-")
            .tempdir()?;
        let compose = compose(&folder, file)?;
        compose.remove().await?;
        let gone = self.go_through(&compose, &folder).await;
        let gone = match gone {
            Ok(()) => Ok(()),
            Err(error) => Err(error).context(compose.last_words().await),
        };
        // The failure of a step says more than one of the end.
        let removed = compose.remove().await;
        gone.and(removed)
    }

    async fn go_through(&self, compose: &Compose, folder: &TempDir) -> Result<()> {
        compose.run(&["up", "-d", "--no-build"]).await?;
        all_are_well(compose).await?;
        let submitter = submitter(compose, folder).await?;
        let content = mail_of(ALICE, self.name, "Grüße, and a line\r\n.with a dot\r\n");
        let (sender, way) = match self.from {
            From::Account => (ALICE, Way::Submission),
            From::World => (FRIEND, Way::World),
            From::Program => {
                let words = [
                    "run", "--rm", "-T", "app", "postroad", "sendmail", "-i", ALICE,
                ];
                let mut program = compose.command(&words);
                output_of(&mut program, &content, PATIENCE).await?;
                return self.arrives(compose, &content).await;
            }
        };
        let recipient = match self.to {
            To::Mailbox | To::Dovecot => ALICE,
            To::Postfix => FRIEND,
        };
        let mut client = submitter.by(way, ADDRESS.into()).login().await?;
        client.deliver(sender, &[recipient], &content).await?;
        self.arrives(compose, &content).await
    }

    async fn arrives(&self, compose: &Compose, content: &[u8]) -> Result<()> {
        looking("the mail", async || match self.to {
            To::Mailbox => {
                let words = ["postroad", "mailbox", "show", ALICE, "--raw"];
                let shown = shown(compose, "mda", &words).await?;
                is_same_mail(content, &shown).then_some(())
            }
            To::Dovecot => {
                let words = [
                    "doveadm", "-f", "pager", "fetch", "-u", ALICE, "text", "all",
                ];
                let shown = shown(compose, "dovecot", &words).await?;
                is_same_mail(content, without_label(&shown)).then_some(())
            }
            To::Postfix => {
                let log = said(&compose.container("postfix").await.ok()?).await.ok()?;
                let words = ["sasl_username=postroad", &format!("to=<{FRIEND}>")];
                words.iter().all(|word| log.contains(word)).then_some(())
            }
        })
        .await
    }
}

/// What a program in the container of a service prints.
async fn shown(compose: &Compose, service: &str, words: &[&str]) -> Option<Vec<u8>> {
    let container = compose.container(service).await.ok()?;
    let call = [&["exec", &container], words].concat();
    docker_octets(&call, b"").await.ok()
}

/// doveadm writes the name of the field before it, and a form feed after it.
fn without_label(shown: &[u8]) -> &[u8] {
    let shown = shown.strip_prefix(b"text:\n").unwrap_or(shown);
    let end = shown.iter().rposition(|&octet| octet == b'\x0c');
    &shown[..end.unwrap_or(shown.len())]
}

fn compose(folder: &TempDir, swap: &Path) -> Result<Compose> {
    let env_file = folder.path().join(".env");
    fs::write(
        &env_file,
        format!("POSTROAD_HOSTNAME={HOST}\nPOSTROAD_DOMAIN=example.test\nPOSTROAD_ACCOUNT=alice\n"),
    )?;
    let product = source().join("deploy/docker/compose.yaml");
    let [a, b, c, d] = ADDRESS;
    let compose = Compose::new(PROJECT, &[product, swap.to_owned()], &env_file)
        .variable("POSTROAD_IMAGE", image::TAG)
        .variable("POSTROAD_PUBLISH", &format!("{a}.{b}.{c}.{d}:"))
        .variable("POSTROAD_NEIGHBOURS", NEIGHBOURS);
    let with_image = |compose: Compose, &(variable, ..): &(&str, _, _)| {
        compose.variable(variable, &tag(variable))
    };
    Ok(IMAGES.iter().fold(compose, with_image))
}

/// What is to end has ended well, what is to run runs, and its health check passes if it has one.
async fn all_are_well(compose: &Compose) -> Result<()> {
    let label = format!("label=com.docker.compose.project={}", compose.project);
    let template =
        "{{.State.Status}} {{.State.ExitCode}} {{if .State.Health}}{{.State.Health.Status}}{{end}}";
    looking("health of all", async || {
        let ids = docker(&["ps", "--all", "--quiet", "--filter", &label])
            .await
            .ok()?;
        let ids: Vec<&str> = ids.lines().collect();
        let words = ["inspect", "--format", template];
        let states = docker(&[&words, &ids[..]].concat()).await.ok()?;
        let well = |state: &str| {
            ["exited 0", "running 0", "running 0 healthy"].contains(&state.trim_end())
        };
        states.lines().all(well).then_some(())
    })
    .await
}

/// The first account as its mail program knows it; `setup` has it in every swap.
async fn submitter(compose: &Compose, folder: &TempDir) -> Result<Submitter> {
    let of_setup = async |path: &str| -> Result<Vec<u8>> {
        let copy = compose.copy("setup", path).await?;
        Ok(fs::read(copy.path().join("copy"))?)
    };
    let password = of_setup("/etc/postroad-accounts/first-account.password").await?;
    let ca_file = folder.path().join("ca.pem");
    fs::write(&ca_file, of_setup("/pki/server/ca.pem").await?)?;
    Ok(Submitter {
        way: Way::Submission,
        server: (ADDRESS, Way::Submission.port()).into(),
        host: HOST.to_owned(),
        ca_file,
        account: ALICE.to_owned(),
        password: String::from_utf8(password)?.trim_end().to_owned(),
    })
}
