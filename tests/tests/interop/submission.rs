//! Mail programs submit; what they sent lies in the Maildir, byte for byte.

use anyhow::{Result, ensure};
use postroad_tests::is_same_mail;

use crate::{
    clients::{Program, Submission, Tls},
    samples::Sample,
    world::{MANY, World, header, many},
};

const SENDER: &str = "alice@demo.test";

pub async fn of_all_samples_by_smtplib(world: &World) -> Result<()> {
    let samples = &world.samples;
    for (tls, name) in [(Tls::Start, "start"), (Tls::Implicit, "implicit")] {
        for (kind, sample) in [
            ("awkward", &samples.awkward),
            ("empty", &samples.empty),
            ("large", &samples.large),
        ] {
            arrives(
                world,
                Program::Smtplib,
                tls,
                sample,
                &format!("smtplib.{name}.{kind}@demo.test"),
            )
            .await?;
        }
    }
    Ok(())
}

pub async fn by_swaks(world: &World) -> Result<()> {
    arrives(
        world,
        Program::Swaks,
        Tls::Start,
        &world.samples.awkward,
        "swaks.awkward@demo.test",
    )
    .await?;
    arrives(
        world,
        Program::Swaks,
        Tls::Implicit,
        &world.samples.empty,
        "swaks.empty@demo.test",
    )
    .await?;
    arrives(
        world,
        Program::Swaks,
        Tls::Implicit,
        &world.samples.large,
        "swaks.large@demo.test",
    )
    .await
}

pub async fn by_curl(world: &World) -> Result<()> {
    arrives(
        world,
        Program::Curl,
        Tls::Start,
        &world.samples.large,
        "curl.large@demo.test",
    )
    .await?;
    arrives(
        world,
        Program::Curl,
        Tls::Implicit,
        &world.samples.awkward,
        "curl.awkward@demo.test",
    )
    .await?;
    arrives(
        world,
        Program::Curl,
        Tls::Start,
        &world.samples.empty,
        "curl.empty@demo.test",
    )
    .await
}

pub async fn by_msmtp(world: &World) -> Result<()> {
    arrives(
        world,
        Program::Msmtp,
        Tls::Start,
        &world.samples.awkward,
        "msmtp.awkward@demo.test",
    )
    .await?;
    arrives(
        world,
        Program::Msmtp,
        Tls::Implicit,
        &world.samples.large,
        "msmtp.large@demo.test",
    )
    .await?;
    arrives(
        world,
        Program::Msmtp,
        Tls::Implicit,
        &world.samples.empty,
        "msmtp.empty@demo.test",
    )
    .await
}

/// One mail of each program.
pub async fn to_200_recipients(world: &World) -> Result<()> {
    let to: Vec<String> = (0..MANY).map(many).collect();
    let calls = [
        (Program::Smtplib, Tls::Start),
        (Program::Smtplib, Tls::Implicit),
        (Program::Swaks, Tls::Start),
        (Program::Curl, Tls::Implicit),
        (Program::Msmtp, Tls::Start),
    ];
    for (program, tls) in calls {
        let submission = Submission::new(tls, SENDER, to.clone(), &world.samples.plain);
        program.submits(world, &submission).await?;
    }
    for recipient in to {
        let mails = world.stack.wait_for_mails(&recipient, calls.len()).await?;
        ensure!(
            mails.len() == calls.len(),
            "{recipient} has {} mails",
            mails.len()
        );
        for mail in mails {
            ensure!(
                is_same_mail(&world.samples.plain.content, &mail.content),
                "{recipient}: {}",
                mail.text()
            );
            ensure!(
                mail.contains(&format!("Delivered-To: {recipient}\n")),
                "{}",
                mail.text()
            );
            // Who else got it is nobody's business.
            ensure!(
                mail.text().matches("@many.test").count() == 1,
                "{}",
                mail.text()
            );
        }
    }
    Ok(())
}

/// Whose certificate nobody vouches for gets neither password nor mail: the other scenarios prove that ours is verified.
pub async fn not_to_a_stranger(world: &World) -> Result<()> {
    let to = vec!["stranger.trust@demo.test".to_owned()];
    for program in [
        Program::Smtplib,
        Program::Swaks,
        Program::Curl,
        Program::Msmtp,
    ] {
        for tls in [Tls::Start, Tls::Implicit] {
            let ca_file = Some(world.certificate.as_path());
            let submission = Submission {
                ca_file,
                ..Submission::new(tls, SENDER, to.clone(), &world.samples.plain)
            };
            let ended = program.try_submit(world, &submission).await?;
            ensure!(
                !ended.well,
                "{program:?} by {tls:?} trusts everybody: {}",
                ended.said
            );
        }
    }
    Ok(())
}

async fn arrives(
    world: &World,
    program: Program,
    tls: Tls,
    sample: &Sample,
    to: &str,
) -> Result<()> {
    let submission = Submission::new(tls, SENDER, vec![to.to_owned()], sample);
    program.submits(world, &submission).await?;
    let mail = world.arrives(to, &sample.content).await?;
    // RFC 3848: with TLS and authentication.
    ensure!(
        header(&mail).contains("with ESMTPSA id "),
        "{:.600}",
        mail.text()
    );
    ensure!(
        mail.contains(&format!("Return-Path: <{SENDER}>\n")),
        "{:.600}",
        mail.text()
    );
    Ok(())
}
