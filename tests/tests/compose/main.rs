//! The stack as an operator runs it: the image built the local way, compose.yaml, and a foreign mail server in a container on a network of its
//! own. One journey, step by step; at its end compose.scale.yaml takes over, with copies behind a balancer and a client from another network
//! namespace. The judge compares what was acknowledged with what was filed and relayed. Then each override of deploy/docker/swap is brought up, and the guide is followed.
//!
//! It needs Docker, docker-compose, debootstrap, iproute2 and root. What is missing is a failure with `CI=true`, elsewhere NOT RUN. Everything it makes in
//! Docker carries its name, so that what a broken run left behind is removed by the next.
//!
//! The arguments `journey`, `package`, `swaps` and `guide` ask for one of its parts alone. `POSTROAD_TEST_COMPOSE` names another Compose program, `POSTROAD_TEST_PROFILE` how cargo builds the image's program,
//! `POSTROAD_BINARY` one that is there.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod abroad;
mod docker;
mod elsewhere;
mod guide;
mod image;
mod journey;
mod load;
mod monitoring;
mod needs;
mod package;
mod several;
mod steps;
mod swaps;

use std::{env, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};

/// One part: what it shows, and how it goes. Each builds on the ones before.
macro_rules! part {
    ($on:ident, $run:path, $told:ident) => {
        $crate::told(stringify!($run), $told, $run($on)).await?
    };
}
pub(crate) use part;

/// What may be asked for alone, by an argument.
const PARTS: [&str; 4] = ["journey", "package", "swaps", "guide"];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("compose: test");
        return ExitCode::SUCCESS;
    }
    // A name that was asked for and is none of ours is for another test program.
    let wanted = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"));
    let only = wanted.filter(|name| PARTS.contains(&name.as_str()));
    let only = only.map(String::as_str);
    if only.is_none() && wanted.is_some_and(|name| !"compose".contains(name.as_str())) {
        println!("test result: ok. 0 passed; 0 failed");
        return ExitCode::SUCCESS;
    }
    let missing = needs::missing().await;
    if !missing.is_empty() {
        let strict = env::var("CI").is_ok_and(|value| value == "true");
        println!("NOT RUN: compose: needs {}", missing.join(", "));
        let (result, failed) = if strict { ("FAILED", 1) } else { ("ok", 0) };
        println!("test result: {result}. 0 passed; {failed} failed");
        return ExitCode::from(failed);
    }
    let mut passed = 0;
    let outcome = run(&mut passed, only).await;
    let (result, failed) = match &outcome {
        Ok(()) => ("ok", 0),
        Err(error) => {
            println!("\n---- compose\n{error:?}\n");
            ("FAILED", 1)
        }
    };
    println!("\ntest result: {result}. {passed} passed; {failed} failed");
    ExitCode::from(failed)
}

async fn run(passed: &mut usize, only: Option<&str>) -> Result<()> {
    let judge = load::judge_finds_a_lost_and_a_doubled_mail();
    told("load::judge_finds_a_lost_and_a_doubled_mail", passed, judge).await?;
    told(
        "image::is_built_without_pulling_any",
        passed,
        image::build(),
    )
    .await?;
    told("elsewhere::image_is_made", passed, elsewhere::make_image()).await?;
    let is_wanted = |part| only.is_none_or(|only| only == part);
    if is_wanted("journey") {
        let prometheus = monitoring::make_image();
        told("monitoring::image_is_made", passed, prometheus).await?;
        journey::travel(passed).await?;
    }
    if is_wanted("package") {
        package::live(passed).await?;
    }
    if is_wanted("swaps") {
        swaps::each(passed).await?;
    }
    if is_wanted("guide") {
        guide::follow(passed).await?;
    }
    Ok(())
}

/// Tells the name of a part and how long it took.
async fn told<T>(
    name: &str,
    passed: &mut usize,
    part: impl Future<Output = Result<T>>,
) -> Result<T> {
    let began = Instant::now();
    match part.await {
        Ok(made) => {
            println!(
                "test {name} ... ok ({:.1} s)",
                began.elapsed().as_secs_f32()
            );
            *passed += 1;
            Ok(made)
        }
        Err(error) => {
            println!("test {name} ... FAILED");
            // Here too: whoever shows only the beginning or the end of what follows may cut it.
            println!("    {error:#}");
            Err(error).with_context(|| name.to_owned())
        }
    }
}
