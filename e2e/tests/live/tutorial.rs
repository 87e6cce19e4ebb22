//! The commands of docs/tutorial.md, in one shell and in their order, with the outcomes that the page promises.

use crate::{scenarios, shell, world::World};
use anyhow::{Context, Result, ensure};
use e2e::documented;

// its requests come from one process each, which takes most of a core
scenarios![alone: [the_tutorial_does_what_it_says]];

/// Time limit for the whole page, which promises ten minutes.
const LIMIT: &str = "10m";
/// What a reader sees in each `--watch` before Ctrl-C.
const SEEN: [&str; 2] = [
    "kubectl -n tutorial wait --for=condition=Ready ef/hello --timeout=5m",
    "kubectl -n tutorial wait --for=jsonpath='{.status.phase}'=RolledBack ef/hello --timeout=2m",
];

/// Returns the page as a script. Each command that follows a rollout without end runs for a moment and is followed by what a
/// reader waits for.
fn script(registry: &str) -> Result<String> {
    let mut seen = SEEN.into_iter();
    let mut lines = vec![
        "set -euo pipefail -m".to_owned(),
        // the requests have a process group of their own
        "trap 'for job in $(jobs -p); do kill -- -$job; done' EXIT".to_owned(),
    ];
    for line in documented::commands("tutorial.md")?
        .iter()
        .flat_map(|block| block.lines())
    {
        if line.starts_with("export REGISTRY=") {
            lines.push(format!("export REGISTRY={registry}"));
        } else if line.ends_with(" --watch") {
            lines.push(format!("timeout 3 {line} || [ $? = 124 ]"));
            let until = seen.next().context("the page follows a third rollout")?;
            lines.push(until.to_owned());
        } else {
            lines.push(line.to_owned());
        }
    }
    ensure!(seen.next().is_none(), "the page follows fewer rollouts");
    Ok(lines.join("\n"))
}

async fn the_tutorial_does_what_it_says(world: &mut World) -> Result<()> {
    let registry = world.cluster.registry.as_ref().context("no registry")?;
    let script = script(registry.address())?;
    let text = shell::run(world, LIMIT, &script).await?;
    let mut rest = &*text;
    for promised in [
        "hello from v1",
        "RolloutStarted",
        "StepReached",
        "is stable instead of",
        "hello from v2",
        "rolled back from",
        "(ErrorsWorse)",
        "condition met",
        "RolledBack  ",
        "Promoted  ",
    ] {
        let (_, after) = rest
            .split_once(promised)
            .with_context(|| format!("{promised:?} does not follow in:\n{text}"))?;
        rest = after;
    }
    Ok(())
}
