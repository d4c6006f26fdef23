//! Runs the scenarios a few at a time and tells how each went.
//!
//! It takes the place of the usual harness because it knows a third result, NOT RUN, and because what the scenarios
//! share must be stopped at the end.

use std::{
    env,
    future::Future,
    pin::Pin,
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
    time::timeout,
};

use crate::{needs::Need, world::World};

const AT_ONCE: usize = 3;
const PATIENCE: Duration = Duration::from_secs(150);

type Run = fn(Rc<World>) -> Pin<Box<dyn Future<Output = Result<()>>>>;

/// One test: a behaviour, what it needs, how it goes.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub needs: &'static [Need],
    pub run: Run,
}

/// `scenario!(relay::by_zone, [Postfix])`
macro_rules! scenario {
    ($run:path, [$($need:ident),*]) => {
        $crate::harness::Scenario {
            name: stringify!($run),
            needs: &[$($crate::needs::Need::$need),*],
            run: |world| Box::pin(async move { $run(&world).await }),
        }
    };
}
pub(crate) use scenario;

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<(&'static str, String)>,
    not_run: Vec<(&'static str, String)>,
}

/// Runs those of `all` whose name contains an argument of the command line; without arguments, all.
pub fn main(all: &[Scenario]) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let chosen = all.iter().copied().filter(|scenario| {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|name| scenario.name.contains(name.as_str()))
    });
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    let strict = env::var("CI").is_ok_and(|value| value == "true");
    let (able, mut tally) = sift(chosen.collect(), strict);
    if !able.is_empty() {
        start(able, &mut tally);
    }
    tell(&tally)
}

/// Those that have what they need. For the others it is a failure in CI, and elsewhere a remark.
fn sift(chosen: Vec<Scenario>, strict: bool) -> (Vec<Scenario>, Tally) {
    println!("\nrunning {} tests", chosen.len());
    let mut tally = Tally::default();
    let able = chosen.into_iter().filter(|scenario| {
        let missing: Vec<String> = scenario
            .needs
            .iter()
            .filter_map(|need| need.missing())
            .collect();
        if missing.is_empty() {
            return true;
        }
        let why = format!("needs {}", missing.join(", "));
        if strict {
            println!("test {} ... FAILED", scenario.name);
            tally.failed.push((scenario.name, why));
        } else {
            println!("test {} ... NOT RUN: {why}", scenario.name);
            tally.not_run.push((scenario.name, why));
        }
        false
    });
    (able.collect(), tally)
}

/// One thread is enough: the work is done by other processes.
#[tokio::main(flavor = "current_thread")]
async fn start(scenarios: Vec<Scenario>, tally: &mut Tally) {
    LocalSet::new().run_until(run_all(scenarios, tally)).await;
}

async fn run_all(scenarios: Vec<Scenario>, tally: &mut Tally) {
    let needs: Vec<Need> = scenarios
        .iter()
        .flat_map(|scenario| scenario.needs)
        .copied()
        .collect();
    let world = match World::start(&needs).await {
        Ok(world) => Rc::new(world),
        Err(error) => {
            return tally
                .failed
                .push(("the start of what all share", format!("{error:#}")));
        }
    };
    let failed_before = tally.failed.len();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for scenario in scenarios {
        let (world, permits) = (world.clone(), permits.clone());
        running.spawn_local(async move {
            let _permit = permits.acquire_owned().await;
            (scenario, run_one(scenario, world).await)
        });
    }
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((scenario, (took, Ok(())))) => {
                println!(
                    "test {} ... ok ({:.1} s)",
                    scenario.name,
                    took.as_secs_f32()
                );
                tally.passed += 1;
            }
            Ok((scenario, (_, Err(error)))) => {
                println!("test {} ... FAILED", scenario.name);
                tally.failed.push((scenario.name, format!("{error:#}")));
            }
            Err(error) => tally.failed.push(("harness", error.to_string())),
        }
    }
    // Nobody else has it any more.
    if let Ok(world) = Rc::try_unwrap(world)
        && let Err(error) = world.end(tally.failed.len() == failed_before).await
    {
        tally
            .failed
            .push(("the end of what all share", format!("{error:#}")));
    }
}

async fn run_one(scenario: Scenario, world: Rc<World>) -> (Duration, Result<()>) {
    let began = Instant::now();
    // In a task of its own, so that a panic is a result too.
    let mut task = JoinSet::new();
    task.spawn_local((scenario.run)(world));
    let result = match timeout(PATIENCE, task.join_next()).await {
        Ok(Some(Ok(result))) => result,
        Ok(Some(Err(panic))) => Err(panic.into()),
        Ok(None) => Err(anyhow!("it vanished")),
        Err(_) => {
            task.shutdown().await;
            Err(anyhow!("it did not end within {} s", PATIENCE.as_secs()))
        }
    };
    (began.elapsed(), result)
}

fn tell(tally: &Tally) -> ExitCode {
    for (name, why) in &tally.failed {
        println!("\n---- {name}\n{why}");
    }
    println!();
    for (name, _) in &tally.failed {
        println!("FAILED: {name}");
    }
    for (name, why) in &tally.not_run {
        println!("NOT RUN: {name}: {why}");
    }
    let result = if tally.failed.is_empty() {
        "ok"
    } else {
        "FAILED"
    };
    println!(
        "\ntest result: {result}. {} passed; {} failed; {} not run",
        tally.passed,
        tally.failed.len(),
        tally.not_run.len()
    );
    if tally.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
