//! The story from the beginning to the closing table.

use super::{
    act::{self, Trial},
    follow::Follower,
    gauge::Gauge,
    ground::{DEMO, Ground},
    live::Cast,
    outcome::{NO_FAILURES, Outcomes, PROMISES, time},
    screen::Screen,
    stage::{self, FUNCTION, HOST, Stage},
};
use crate::{
    cluster::{Cluster, wait},
    load::{Load, Plan},
    push::push_component,
    selvage::{self, Objects},
};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::PostParams};
use std::{
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How the story is played.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Leave everything running at the end.
    pub keep: bool,
    /// Requests per second.
    pub rate: u32,
    /// Processes instead of pods, also where nodes could run.
    pub processes: bool,
}

/// How long version 1 runs alone under load.
const BASELINE: Duration = Duration::from_secs(8);

const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];

/// Set when somebody wants the story to stop.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn stopped(screen: &Screen) -> bool {
    screen.clear();
    screen.part("stopped; nothing is left behind");
    false
}

/// Plays the story until its end or until `stop`. Returns whether every outcome was observed.
///
/// # Errors
/// A part does not start, or the story cannot go on; the outcomes so far are shown all the same.
pub async fn play(options: Options, stop: impl Future<Output = ()>) -> Result<bool> {
    let mut stop = pin!(stop);
    let screen = Screen::new();
    let mut outcomes = Outcomes::default();
    screen.chapter("A real cluster");
    let mut ground = Ground::choose(&screen, options.processes)?;
    ground.prepare(&screen)?;
    let begin = Instant::now();
    // a start that is dropped takes with it what there is
    let mut cluster = tokio::select! {
        raised = ground.raise(&screen) => raised?,
        () = &mut stop => return Ok(stopped(&screen)),
    };
    let figures = format!(
        "{} after {}",
        ground.figures(&cluster),
        time(begin.elapsed())
    );
    outcomes.add(PROMISES[0], true, figures);

    let played = tokio::select! {
        biased;
        () = &mut stop => None,
        played = acts(&screen, &mut cluster, &mut ground, options, &mut outcomes) => Some(played),
    };
    // what failed because a program got the same Ctrl-C is not worth a report
    let Some(played) = played.filter(|_| !INTERRUPTED.load(Ordering::Relaxed)) else {
        ground.leave_no_trace(&cluster)?;
        drop(cluster);
        return Ok(stopped(&screen));
    };
    screen.clear();
    outcomes.show(&screen);
    let passed = played.is_ok() && outcomes.passed();
    screen.print("");
    screen.part(if passed {
        "every outcome was observed"
    } else {
        "NOT every outcome was observed"
    });
    if !passed {
        let dir = std::env::temp_dir().join(format!("selvage-demo-{}", cluster.run().id()));
        match cluster.dump(&dir) {
            Ok(summary) => screen.print(&summary),
            Err(error) => screen.print(&format!("no dump: {error:#}")),
        }
    }
    if options.keep {
        let targets = ground.targets(&cluster);
        ground.release();
        leave(&screen, cluster, &targets)?;
    } else {
        ground.leave_no_trace(&cluster)?;
    }
    played.map(|()| passed)
}

async fn acts(
    screen: &Screen,
    cluster: &mut Cluster,
    ground: &mut Ground,
    options: Options,
    outcomes: &mut Outcomes,
) -> Result<()> {
    push(screen, cluster, outcomes).await?;
    install(screen, cluster, ground, outcomes).await?;
    let cluster = &*cluster;
    let targets = ground.targets(cluster);
    let follower = first(screen, cluster, &targets, outcomes).await?;
    let nodes = targets.len();

    let plan = Plan {
        rate: options.rate,
        targets,
        host: HOST.into(),
        path: "/".into(),
        timeout: Duration::from_secs(10),
    };
    let prometheus = cluster
        .prometheus
        .as_ref()
        .context("the demo has a Prometheus")?;
    let gauge = Gauge::start(prometheus.url().to_owned(), FUNCTION);
    let load = Load::start(plan)?;
    screen.part(&format!(
        "{} requests/s over {} nodes from here to the end",
        options.rate, nodes
    ));
    let mut stage = Stage {
        cluster,
        ground,
        screen,
        follower,
        gauge,
        load,
    };

    // what is normal for version 1 must be known before another one can be compared with it
    tokio::time::sleep(BASELINE).await;

    screen.chapter("Version 2 is good: promoted on evidence, and the leader is killed on the way");
    let cast = Cast {
        stable: "v1",
        candidate: "v2",
    };
    let trial = act::trial(&mut stage, cast, true).await?;
    promoted(&stage, cast, &trial, outcomes);

    let slow = Duration::from_millis(150);
    for (title, candidate, reason, promise, slower) in [
        (
            "Version 3 fails 5 % of its requests",
            "v3",
            "ErrorsWorse",
            PROMISES[6],
            None,
        ),
        (
            "Version 4 is 150 ms slow for a tenth of its requests",
            "v4",
            "SlowerThanStable",
            PROMISES[7],
            Some(slow),
        ),
    ] {
        screen.chapter(title);
        let cast = Cast {
            stable: "v2",
            candidate,
        };
        let trial = act::trial(&mut stage, cast, false).await?;
        let (outcome, found, _) = trial.ending();
        let observed = outcome == "RolledBack" && found == reason;
        let figures = act::report_bad(&stage, cast, &trial, slower).await?;
        screen.part(&figures);
        outcomes.add(promise, observed, figures);
    }
    closing(stage, outcomes);
    Ok(())
}

async fn push(screen: &Screen, cluster: &Cluster, outcomes: &mut Outcomes) -> Result<()> {
    screen.chapter("Four versions of a component");
    let registry = cluster
        .registry
        .as_ref()
        .context("the demo has a registry")?
        .address();
    for version in VERSIONS {
        let file = selvage::dist().join(format!("examples/hello-{version}.wasm"));
        let digest = push_component(&format!("{registry}/hello:{version}"), &file, None).await?;
        screen.part(&format!("{registry}/hello:{version}  {digest}"));
    }
    outcomes.add(PROMISES[1], true, format!("hello:v1 … v4 at {registry}"));
    Ok(())
}

async fn install(
    screen: &Screen,
    cluster: &mut Cluster,
    ground: &mut Ground,
    outcomes: &mut Outcomes,
) -> Result<()> {
    screen.chapter("Selvage, by Helm");
    let begin = Instant::now();
    for line in ground.install(cluster).await? {
        screen.part(&line);
    }
    // what no part of Selvage needs must be refused
    let mut excess = Vec::new();
    for (account, verb, resource, what) in [
        (
            "selvage-operator",
            "*",
            "*",
            "the operator may do everything",
        ),
        (
            "selvage-operator",
            "get",
            "secrets",
            "the operator reads all Secrets",
        ),
        (
            "selvage-node-shim",
            "get",
            "edgefunctions.selvage.dev",
            "shims read functions",
        ),
        ("selvage-node-shim", "get", "secrets", "shims read Secrets"),
    ] {
        if stage::may(cluster, account, verb, resource)? {
            excess.push(what);
        }
    }
    let rights = if excess.is_empty() {
        "asked the API server: the operator is no admin, nobody reads all Secrets, shims read nothing".to_owned()
    } else {
        format!("too many rights: {}", excess.join(", "))
    };
    let figures = format!("ready after {}; {rights}", time(begin.elapsed()));
    screen.part(&figures);
    outcomes.add(PROMISES[2], excess.is_empty(), figures);
    Ok(())
}

/// Applies version 1 and asks it through every node.
async fn first(
    screen: &Screen,
    cluster: &Cluster,
    targets: &[SocketAddr],
    outcomes: &mut Outcomes,
) -> Result<Follower> {
    screen.chapter("Version 1");
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(DEMO.into());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await?;
    let follower = Follower::start(&Objects::new(cluster.client()), DEMO, FUNCTION);
    let begin = Instant::now();
    stage::apply(cluster, &stage::manifest(cluster, "v1")?)?;
    let limit = Duration::from_secs(60);
    wait::until(limit, Duration::from_millis(50), async || {
        let view = follower.view();
        Ok((view.current && view.ready).then_some(()))
    })
    .await
    .with_context(|| format!("v1 is not Ready: {}", follower.view().message))?;
    let ready = begin.elapsed();
    screen.part(&format!("Ready {} after kubectl apply", time(ready)));
    let mut answered = 0;
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()?;
    for target in targets {
        let answer = http
            .get(format!("http://{target}/"))
            .header("host", HOST)
            .send()
            .await?;
        let status = answer.status().as_u16();
        let version = answer
            .headers()
            .get("x-version")
            .is_some_and(|version| version == "v1");
        let body = answer.text().await?;
        screen.part(&format!(
            "curl -H 'Host: {HOST}' http://{target}/  →  {status} {}",
            body.trim()
        ));
        answered += usize::from(status == 200 && version);
    }
    let all = answered == targets.len();
    outcomes.add(
        PROMISES[3],
        all,
        format!(
            "Ready {} after apply; {answered} nodes answered",
            time(ready)
        ),
    );
    Ok(follower)
}

fn promoted(stage: &Stage<'_>, cast: Cast, trial: &Trial, outcomes: &mut Outcomes) {
    let (outcome, _, message) = trial.ending();
    stage.screen.print(&format!("          {message}"));
    let failed = stage.load.samples().failures(&[], usize::MAX).len();
    let requests = stage.load.samples().arm(cast.candidate, ..).requests;
    let observed = outcome == "Promoted" && trial.end.stable == trial.revision && failed == 0;
    let figures = format!(
        "{outcome} after {}, {} looks, {requests} requests, {failed} failed",
        time(trial.took()),
        trial.end.looks
    );
    stage.screen.part(&figures);
    outcomes.add(PROMISES[4], observed, figures);
    let (went_on, figures) = act::went_on(stage, trial);
    outcomes.add(PROMISES[5], went_on, figures);
}

/// Ends the load and counts.
fn closing(stage: Stage<'_>, outcomes: &mut Outcomes) {
    let screen = stage.screen;
    let samples = stage.load.finish();
    let failures = samples.failures(&["v3"], 5);
    for failure in &failures {
        let target = failure.target() + 1;
        screen.print(&format!(
            "          failed: {} at {} through node {target}",
            failure.outcome(),
            time(failure.due())
        ));
    }
    let all = samples.all(..);
    let failed = samples.failures(&["v3"], usize::MAX).len();
    let p95 = time(all.p95);
    let whole = samples.beyond() == 0;
    let figures = format!(
        "{} requests, {failed} failed beside v3's own, p95 of all {p95}",
        all.requests
    );
    outcomes.add(
        NO_FAILURES,
        failures.is_empty() && whole && all.requests > 0,
        figures,
    );
}

/// Leaves everything running and says how to look around.
fn leave(screen: &Screen, cluster: Cluster, targets: &[SocketAddr]) -> Result<()> {
    let kubectl = cluster.tools().program("kubectl").display().to_string();
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let prometheus = cluster
        .prometheus
        .as_ref()
        .map(|prometheus| prometheus.url().to_owned())
        .unwrap_or_default();
    let dir: PathBuf = cluster.keep()?;
    screen.chapter("All of it is still running");
    screen.print(&format!("  export KUBECONFIG={kubeconfig}"));
    screen.print(&format!("  alias kubectl={kubectl}"));
    screen.print("  kubectl get ef -A; kubectl describe ef -n demo hello; kubectl get en");
    screen.print(&format!("  Prometheus: {prometheus}"));
    for target in targets {
        screen.print(&format!("  curl -H 'Host: {HOST}' http://{target}/"));
    }
    screen.print(&format!("  logs: {}", dir.join("log").display()));
    screen.print("  make demo-down ends it");
    Ok(())
}
