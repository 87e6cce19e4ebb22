//! `replay`: plays a rollout policy on recorded requests.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use crds::RolloutPolicy;
use jiff::Timestamp;
use kube::Api;

use super::{print_data, prometheus};
use crate::Code;
use crate::cli::{Connection, ReplayArgs};
use crate::cluster::Cluster;
use crate::replay::play::{Outcome, Setup, first_start, play};
use crate::replay::recording::{self, Recording};
use crate::replay::repeat::repeat;
use crate::replay::settings::{Chosen, Manifest, chosen};
use crate::replay::timeline::{Timeline, Versions};
use crate::replay::{json, report, svg};
use crate::screen::Screen;

pub(super) async fn replay(connection: &Connection, args: &ReplayArgs) -> Result<Code> {
    let setup = setup(connection, args).await?;
    let mut recording = requests(args, &setup).await?;
    if let Some(file) = &args.record {
        return record(file, &recording);
    }
    let within = |at: Timestamp| {
        args.from.is_none_or(|from| at >= from) && args.to.is_none_or(|to| at <= to)
    };
    recording.rows.retain(|row| within(row.at));
    if args.ignore_latency {
        recording.ignore_latencies();
    } else if !recording.has_latencies() {
        bail!(
            "the recording has no latencies, and without them no step ends. Add them, or play it with --ignore-latency, which \
             counts every request as fast"
        );
    }
    let versions = versions(&recording, args)?;
    let timeline = Timeline::new(&recording, versions, args.interval);
    let timeline = timeline.map_err(|why| anyhow!(why))?;
    if args.same {
        same(args, &setup, &timeline)
    } else {
        once(args, &setup, &timeline)
    }
}

/// Reads the policy, and whose it is.
async fn setup(connection: &Connection, args: &ReplayArgs) -> Result<Setup> {
    let (found, default) = match &args.filename {
        Some(file) => {
            let name = || format!("{} cannot be used", file.display());
            let text = fs::read_to_string(file).with_context(name)?;
            let manifest = Manifest::parse(&text).map_err(|why| anyhow!(why));
            let found = manifest.with_context(name)?.choose(args.name.as_deref());
            let found = found.map_err(|why| anyhow!(why)).with_context(name)?;
            (found, "default".to_owned())
        }
        None => {
            let name = args.name.as_deref();
            let name = name.context("name the EdgeFunction, or a file with its policy (-f)")?;
            let cluster = Cluster::connect(connection).await?;
            (live(&cluster, name).await?, cluster.namespace)
        }
    };
    let namespace = connection.namespace.clone().or(found.namespace);
    Ok(Setup {
        namespace: namespace.unwrap_or(default),
        name: found.name,
        policy: found.policy,
        seed: args.seed,
    })
}

/// Reads a function of the cluster, and the policy that it names.
async fn live(cluster: &Cluster, name: &str) -> Result<Chosen> {
    let function = cluster.function(name).await?;
    let rollout = function.spec.rollout.as_ref();
    let policy = match rollout.and_then(|rollout| rollout.policy_ref.as_ref()) {
        Some(reference) => {
            let policies: Api<RolloutPolicy> =
                Api::namespaced(cluster.client.clone(), &cluster.namespace);
            policies.get_opt(&reference.name).await?
        }
        None => None,
    };
    chosen(&function, policy.as_ref()).map_err(|why| anyhow!(why))
}

async fn requests(args: &ReplayArgs, setup: &Setup) -> Result<Recording> {
    if let Some(file) = &args.recording {
        let name = || format!("{} cannot be used", file.display());
        let text = fs::read_to_string(file).with_context(name)?;
        let recording = Recording::parse(&text).map_err(|why| anyhow!(why));
        return recording.with_context(name);
    }
    let (Some(url), Some(from)) = (&args.prometheus, args.from) else {
        bail!("name a recording, or a Prometheus and --from");
    };
    prometheus::read(&prometheus::Wanted {
        url,
        token_file: args.token_file.as_deref(),
        function: (&setup.namespace, &setup.name),
        matchers: &args.matchers,
        measure: setup.policy.analysis.latency_measure,
        from,
        to: args.to.unwrap_or_else(Timestamp::now),
    })
    .await
}

fn record(file: &Path, recording: &Recording) -> Result<Code> {
    write(file, &recording::write(&recording.rows))?;
    let versions: Vec<String> = recording
        .revisions()
        .iter()
        .map(|(name, requests)| format!("{name} ({requests} requests)"))
        .collect();
    Screen::new().print(&[format!(
        "{} has {} rows of {}.",
        file.display(),
        recording.rows.len(),
        versions.join(", ")
    )])?;
    Ok(Code::Done)
}

/// Chooses the versions: those that are named, those with the names of their roles, or the only ones.
fn versions(recording: &Recording, args: &ReplayArgs) -> Result<Versions> {
    let found = recording.revisions();
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    let role = |role: &'static str| names.contains(&role).then_some(role);
    if args.same {
        let most = found.iter().max_by_key(|(_, requests)| *requests);
        let most = most.map(|(name, _)| *name);
        let stable = args.stable.as_deref().or(most);
        return Ok(Versions {
            stable: stable.context("the recording has no rows")?.to_owned(),
            candidate: None,
            earlier: args.stable_earlier,
        });
    }
    let other = |than: Option<&str>| {
        let mut others = names.iter().copied().filter(|name| Some(*name) != than);
        others.next().filter(|_| names.len() <= 2)
    };
    let candidate = args.candidate.as_deref().or(role("candidate"));
    let stable = args.stable.as_deref().or(role("stable"));
    let stable = stable.or_else(|| other(candidate));
    let candidate = candidate.or_else(|| other(stable));
    match (stable, candidate) {
        (Some(stable), Some(candidate)) if stable != candidate => Ok(Versions {
            stable: stable.to_owned(),
            candidate: Some(candidate.to_owned()),
            earlier: args.stable_earlier,
        }),
        _ if names.len() < 2 => bail!(
            "the recording has one revision, {}: play it against itself with --same",
            names.join("")
        ),
        _ => bail!(
            "name two different revisions with --stable and --candidate; the recording has {}",
            names.join(", ")
        ),
    }
}

fn once(args: &ReplayArgs, setup: &Setup, timeline: &Timeline) -> Result<Code> {
    let start = match args.start {
        Some(time) => timeline
            .index_at(time)
            .with_context(|| format!("the recording ends before {time}"))?,
        None => first_start(timeline),
    };
    let played = play(timeline, setup, start, true);
    if let Some(file) = &args.svg {
        write(file, &svg::draw(&played, setup.policy.analysis.errors))?;
    }
    match args.output {
        Some(format) => print_data(&json::play(timeline, &played, args.seed), format)?,
        None => {
            let mut screen = Screen::new();
            let lines = report::play(timeline, &played, args.seed, screen.style());
            screen.print(&lines)?;
        }
    }
    Ok(match played.outcome {
        Outcome::Promoted => Code::Done,
        Outcome::RolledBack { .. } => Code::Refused,
        Outcome::DataEnded { .. } => Code::TimedOut,
    })
}

fn same(args: &ReplayArgs, setup: &Setup, timeline: &Timeline) -> Result<Code> {
    let mut screen = Screen::new();
    let shows_progress = args.output.is_none() && screen.is_terminal();
    let mut drawn = Ok(());
    let found = repeat(timeline, setup, args.every, |played, all| {
        if shows_progress && drawn.is_ok() {
            drawn = screen.draw(&[format!("played {played} of {all} rollouts")]);
        }
    });
    drawn?;
    match args.output {
        Some(format) => print_data(&json::repeated(&found, args.seed), format)?,
        None => {
            let lines = report::repeated(&found, args.seed, screen.style());
            screen.print(&lines)?;
        }
    }
    Ok(if found.exceeds() {
        Code::Refused
    } else if found.promoted == 0 && found.rollbacks.is_empty() {
        Code::TimedOut
    } else {
        Code::Done
    })
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
