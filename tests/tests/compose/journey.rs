//! The journey: a stack of its own from the first start to the last stop.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    abroad::{self, Abroad},
    docker::{Compose, source},
    elsewhere::{self, Elsewhere},
    image,
    load::{Submitter, Way},
    monitoring, part, several, steps,
};

pub const PROJECT: &str = "postroad-journey";
/// An address of loopback of our own: the ports are the well-known ones.
pub const ADDRESS: &str = "127.77.0.1";
pub const HOST: &str = "mail.example.test";
pub const ALICE: &str = "alice@example.test";
pub const BOB: &str = "bob@example.test";
/// The network of clients; the balancer has the last address in it.
pub const EDGE: &str = "10.213.77";
pub const AGENTS: [&str; 4] = ["queued", "msa", "mta", "mda"];

/// What the steps share.
pub struct Journey {
    pub compose: Compose,
    /// The same project by compose.scale.yaml.
    pub copies: Compose,
    pub elsewhere: Elsewhere,
    pub abroad: Abroad,
    pub folder: TempDir,
}

/// Every step, in order.
pub async fn travel(passed: &mut usize) -> Result<()> {
    let journey = Journey::prepare().await?;
    let travelled = journey.steps(passed).await;
    let travelled = match travelled {
        Ok(()) => Ok(()),
        Err(error) => {
            let logs = journey.copies.last_words().await;
            Err(error).context(logs)
        }
    };
    // The failure of a step says more than one of the end.
    let removed = journey.remove().await;
    travelled.and(removed)
}

impl Journey {
    async fn prepare() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("postroad-journey-")
            .tempdir()?;
        let env_file = folder.path().join(".env");
        fs::write(
            &env_file,
            format!(
                "POSTROAD_HOSTNAME={HOST}\nPOSTROAD_DOMAIN=example.test\nPOSTROAD_ACCOUNT=alice\n"
            ),
        )?;
        let of = |product: &[&str], own: &str| {
            let product = product
                .iter()
                .map(|file| Path::new("deploy/docker").join(file));
            let own = ["journey.yaml", own].map(|file| Path::new("tests/tests/compose").join(file));
            let files: Vec<PathBuf> = product.chain(own).map(|file| source().join(file)).collect();
            Compose::new(PROJECT, &files, &env_file)
        };
        let compose = of(&["compose.yaml"], "journey.one.yaml");
        let copies = of(
            &["compose.scale.yaml", "compose.scale.ipv6.yaml"],
            "journey.several.yaml",
        );
        compose.remove().await?;
        let elsewhere = Elsewhere::start().await?;
        let with = |compose: Compose, address: &str| {
            compose
                .variable("POSTROAD_IMAGE", image::TAG)
                .variable("POSTROAD_PUBLISH", &format!("{address}:"))
                .variable("JOURNEY_DNS", &elsewhere.dns)
        };
        Ok(Self {
            compose: with(compose, ADDRESS),
            copies: with(copies, abroad::HERE[0])
                .variable("POSTROAD_BALANCER_IMAGE", elsewhere::TAG)
                .variable("POSTROAD_PROMETHEUS_IMAGE", monitoring::TAG)
                .variable("POSTROAD_EDGE", EDGE),
            abroad: Abroad::open().await?,
            elsewhere,
            folder,
        })
    }

    async fn steps(&self, passed: &mut usize) -> Result<()> {
        let on = self;
        part!(on, steps::one_command_brings_all_up, passed);
        part!(on, steps::a_mail_submitted_on_587_is_filed, passed);
        part!(on, steps::only_the_queue_sees_who_has_an_account, passed);
        part!(on, steps::a_second_start_changes_nothing, passed);
        part!(
            on,
            steps::containers_have_no_more_power_than_they_need,
            passed
        );
        part!(on, steps::only_agents_reach_the_queue, passed);
        part!(on, steps::mail_goes_to_postfix_and_comes_from_it, passed);
        part!(on, steps::nothing_is_lost_whatever_breaks, passed);
        part!(on, several::copies_take_the_place_of_one, passed);
        part!(on, several::a_client_is_known_by_its_ipv4_address, passed);
        part!(on, several::a_client_is_known_by_its_ipv6_address, passed);
        part!(on, several::nothing_is_lost_when_copies_come_and_go, passed);
        part!(on, monitoring::prometheus_asks_every_process, passed);
        part!(on, monitoring::rules_and_dashboard_are_understood, passed);
        part!(on, steps::all_end_in_good_order, passed);
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        self.compose.remove().await?;
        Abroad::close().await?;
        Elsewhere::remove().await
    }

    /// Where clients submit.
    pub fn submission() -> SocketAddr {
        SocketAddr::new([127, 77, 0, 1].into(), 587)
    }

    /// The first account as its mail program knows it.
    pub async fn submitter(&self) -> Result<Submitter> {
        let password = self
            .compose
            .copy("queued", "/etc/postroad-accounts/first-account.password")
            .await?;
        let password = fs::read_to_string(password.path().join("copy"))?;
        let ca_file = self
            .compose
            .copy("msa", "/etc/postroad-server/ca.pem")
            .await?;
        let kept = self.folder.path().join("ca.pem");
        fs::copy(ca_file.path().join("copy"), &kept)?;
        Ok(Submitter {
            way: Way::Submission,
            server: Self::submission(),
            host: HOST.to_owned(),
            ca_file: kept,
            account: ALICE.to_owned(),
            password: password.trim_end().to_owned(),
        })
    }

    /// The mailboxes as they are now, in a folder of this machine.
    pub async fn mail(&self) -> Result<(TempDir, PathBuf)> {
        let folder = self.compose.copy("mda", "/var/lib/postroad/mail").await?;
        let root = folder.path().join("copy");
        Ok((folder, root))
    }
}
