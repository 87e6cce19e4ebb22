//! Scenarios on one cluster of real nodes with a real registry and a real Prometheus. Each has its own namespace and
//! hosts. Scenarios that only use the cluster run concurrently. Scenarios that break a part of it run alone and
//! repair it before the next one starts.
//!
//! `cargo test --test live -- errors` runs the scenarios whose name contains `errors`; `--list` names them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a scenario ends at the first surprise, and this runner prints as the usual one does"
)]

mod abandoned;
mod authorities;
mod autoscaler;
mod claims;
mod definitions;
mod deleted_nodes;
mod deletions;
mod egress;
mod evidence;
mod faults;
mod forgery;
mod functions;
mod identical;
mod key_value;
mod languages;
mod many;
mod page;
mod pages;
mod placement;
mod plugin;
mod releases;
mod removed_images;
mod rollouts;
mod secrets;
mod shell;
mod soak;
mod tls;
mod tutorial;
mod world;

use anyhow::Result;
use futures::{StreamExt, future::LocalBoxFuture};
use std::{process::ExitCode, time::Instant};
use world::World;

/// Maximum number of concurrent scenarios: two processors also run the cluster and the requests of each.
const TOGETHER: usize = 5;

/// A named scenario. It returns `Ok` only if everything in it was observed.
pub(crate) struct Scenario {
    name: &'static str,
    run: Run,
}

enum Run {
    Together(for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<()>>),
    Alone(for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, Result<()>>),
}

/// Lists async functions of a module as scenarios.
#[macro_export]
macro_rules! scenarios {
    (@one together $name:ident) => { $crate::Run::Together(|world| Box::pin($name(world))) };
    (@one alone $name:ident) => { $crate::Run::Alone(|world| Box::pin($name(world))) };
    ($($how:ident: [$($name:ident),* $(,)?]),* $(,)?) => {
        pub(crate) fn all() -> Vec<$crate::Scenario> {
            vec![$($($crate::Scenario { name: stringify!($name), run: $crate::scenarios!(@one $how $name) }),*),*]
        }
    };
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut chosen: Vec<Scenario> = [
        rollouts::all(),
        identical::all(),
        plugin::all(),
        functions::all(),
        autoscaler::all(),
        placement::all(),
        key_value::all(),
        claims::all(),
        releases::all(),
        secrets::all(),
        tls::all(),
        egress::all(),
        page::all(),
        tutorial::all(),
        pages::all(),
        authorities::all(),
        abandoned::all(),
        deletions::all(),
        evidence::all(),
        forgery::all(),
        languages::all(),
        faults::all(),
        deleted_nodes::all(),
        removed_images::all(),
        // leaves its functions behind
        many::all(),
        // deletes what all others left behind
        definitions::all(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let all = chosen.len();
    let words: Vec<&String> = arguments
        .iter()
        .filter(|a| !a.starts_with('-') && a.parse::<u8>().is_err())
        .collect();
    if words.iter().any(|word| word.contains("soak")) {
        chosen.extend(soak::all());
    }
    chosen.retain(|s| words.is_empty() || words.iter().any(|w| s.name.contains(w.as_str())));
    if arguments.iter().any(|a| a == "--list") {
        chosen.iter().for_each(|s| println!("{}: test", s.name));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(play(chosen, all))
}

async fn play(chosen: Vec<Scenario>, all: usize) -> ExitCode {
    println!("\nrunning {} tests", chosen.len());
    if chosen.is_empty() {
        println!(
            "\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; {all} filtered out\n"
        );
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    let count = chosen.len();
    let failures = match World::start().await {
        Err(error) => vec![("start", format!("{error:#}"))],
        Ok(mut world) => tokio::select! {
            failures = play_on(&mut world, chosen) => failures,
            _ = tokio::signal::ctrl_c() => vec![("interrupted", "what was under way has no result".into())],
        },
    };
    for (name, error) in &failures {
        println!("\n---- {name} ----\n{error}");
    }
    let (failed, word) = (
        failures.len(),
        if failures.is_empty() { "ok" } else { "FAILED" },
    );
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        count.saturating_sub(failed),
        all - count,
        begin.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}

type Failure = (&'static str, String);

async fn play_on(world: &mut World, chosen: Vec<Scenario>) -> Vec<Failure> {
    let (mut together, mut alone) = (Vec::new(), Vec::new());
    for Scenario { name, run } in chosen {
        match run {
            Run::Together(run) => together.push((name, run)),
            Run::Alone(run) => alone.push((name, run)),
        }
    }
    let shared = &*world;
    let mut failures: Vec<Failure> = futures::stream::iter(together)
        .map(async |(name, run)| report(name, Instant::now(), run(shared).await, shared))
        .buffer_unordered(TOGETHER)
        .filter_map(async |failure| failure)
        .collect()
        .await;
    if !failures.is_empty() && !world.mend(0).await {
        return failures;
    }
    for (name, run) in alone {
        let (started, namespaces) = (Instant::now(), world.namespaces());
        let result = run(world).await;
        if let Some(failure) = report(name, started, result, world) {
            failures.push(failure);
            if !world.mend(namespaces).await {
                break;
            }
        }
    }
    failures
}

/// Prints the result of a scenario. If it failed, dumps objects, events and logs.
fn report(
    name: &'static str,
    started: Instant,
    result: Result<()>,
    world: &World,
) -> Option<Failure> {
    let took = started.elapsed().as_secs_f64();
    match result {
        Ok(()) => {
            println!("test {name} ... ok ({took:.1} s)");
            None
        }
        Err(error) => {
            println!("test {name} ... FAILED ({took:.1} s)");
            Some((name, format!("{error:#}\n{}", world.dump(name))))
        }
    }
}
