//! Scenarios on one cluster of real nodes with a real registry and a real Prometheus. Each has its own
//! namespace and hosts; those that break something mend it before the next one starts.
//!
//! `cargo test -p e2e --test live -- errors` runs the scenarios whose name contains `errors`; `--list` names them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a scenario ends at the first surprise, and this runner prints as the usual one does"
)]

mod claims;
mod faults;
mod functions;
mod releases;
mod rollouts;
mod world;

use anyhow::Result;
use std::{future::Future, pin::Pin, process::ExitCode, time::Instant};
use world::World;

type Run = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A named story that ends in `Ok` only if everything in it was observed.
pub(crate) struct Scenario {
    name: &'static str,
    run: Run,
}

/// Lists async functions of a module as scenarios.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn all() -> Vec<$crate::Scenario> {
            vec![$($crate::Scenario { name: stringify!($name), run: |world| Box::pin($name(world)) }),*]
        }
    };
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut chosen: Vec<Scenario> = [
        functions::all(),
        claims::all(),
        rollouts::all(),
        releases::all(),
        faults::all(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let all = chosen.len();
    let words: Vec<&String> = arguments
        .iter()
        .filter(|a| !a.starts_with('-') && a.parse::<u8>().is_err())
        .collect();
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
    let mut failures = Vec::new();
    match World::start().await {
        Err(error) => failures.push(("start", format!("{error:#}"))),
        Ok(mut world) => {
            for scenario in chosen {
                let started = Instant::now();
                let result = tokio::select! {
                    result = (scenario.run)(&mut world) => result,
                    _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
                };
                let took = started.elapsed().as_secs_f64();
                match result {
                    Ok(()) => println!("test {} ... ok ({took:.1} s)", scenario.name),
                    Err(error) => {
                        println!("test {} ... FAILED ({took:.1} s)", scenario.name);
                        let dump = world.dump(scenario.name);
                        failures.push((scenario.name, format!("{error:#}\n{dump}")));
                        if !world.mend().await {
                            break;
                        }
                    }
                }
            }
        }
    }
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
