//! What mail programs show their users when the stack says no.

use anyhow::{Result, ensure};
use postroad_tests::Client;

use crate::{
    clients::{Program, Submission, Tls},
    world::World,
};

const ACCOUNT: &str = "refused@demo.test";
const PROGRAMS: [Program; 4] = [
    Program::Smtplib,
    Program::Swaks,
    Program::Curl,
    Program::Msmtp,
];

pub async fn as_clients_show_them(world: &World) -> Result<()> {
    let to = vec!["bob@demo.test".to_owned()];
    let good = Submission::new(Tls::Start, ACCOUNT, to, &world.samples.plain);
    for program in PROGRAMS {
        let wrong = Submission {
            password: "wrong",
            ..good.clone()
        };
        refused(world, program, &wrong, ["535", "5.7.8"]).await?;
        let nobody = Submission {
            account: None,
            ..good.clone()
        };
        refused(world, program, &nobody, ["530", "5.7.0"]).await?;
        let foreign = Submission {
            from: "bob@demo.test",
            tls: Tls::Implicit,
            ..good.clone()
        };
        refused(world, program, &foreign, ["550", "5.7.1"]).await?;
        // AUTH is not even offered in plain text, and no program sends its password unasked.
        let plain = Submission {
            tls: Tls::Never,
            ..good.clone()
        };
        let ended = program.try_submit(world, &plain).await?;
        ensure!(!ended.well, "{program:?} in plain text: {}", ended.said);
        ensure!(
            !ended.said.contains("> AUTH"),
            "{program:?} sent a password: {}",
            ended.said
        );
    }
    plain_text_auth(world).await?;
    ensure!(world.stack.delivered(ACCOUNT)?.is_empty());
    Ok(())
}

async fn refused(
    world: &World,
    program: Program,
    submission: &Submission<'_>,
    code: [&str; 2],
) -> Result<()> {
    let ended = program.try_submit(world, submission).await?;
    ensure!(
        !ended.well && code.iter().all(|part| ended.said.contains(part)),
        "{program:?} should see {code:?}: {}",
        ended.said
    );
    Ok(())
}

/// A program that insists.
async fn plain_text_auth(world: &World) -> Result<()> {
    let (mut client, _) = Client::connect(world.stack.ports.submission()).await?;
    let offer = client.expect("EHLO client.test", "250").await?;
    ensure!(!offer.contains("AUTH"), "{offer}");
    // RFC 4954 §6.
    let reply = client.command("AUTH PLAIN AGEAYg==").await?;
    ensure!(
        reply.starts_with("538 5.7.11") || reply.starts_with("530 5.7.0"),
        "{reply}"
    );
    Ok(())
}
