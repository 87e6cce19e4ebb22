//! Plays the demo from the start of the cluster to the table of outcomes.

use super::{
    context::{self, DemoContext, FUNCTION, HOST},
    evidence_metrics::EvidenceReader,
    follow::Follower,
    live::Versions,
    outcome::{EXPECTED, NO_FAILURES, Outcomes, time},
    platform::{DEMO, Platform},
    rollout::{self, ObservedRollout},
    screen::Screen,
};
use crate::{
    cluster::{Cluster, wait},
    load::{Load, Plan},
    push::push_component,
    selvage::{self, Objects},
};
use anyhow::{Context, Result};
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::PostParams};
use std::{
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Options of the demo.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Leave everything running at the end.
    pub keep: bool,
    /// Number of requests per second.
    pub rate: u32,
    /// Use processes instead of pods even if nodes can run.
    pub processes: bool,
}

/// Time for which version 1 runs alone under load.
const BASELINE: Duration = Duration::from_secs(8);

const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];

/// Set when the user interrupts the demo.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn stopped(screen: &Screen) -> bool {
    screen.clear();
    screen.part("stopped; nothing is left behind");
    false
}

/// Plays the demo until its end or until `stop` completes. Returns whether every outcome was observed.
///
/// # Errors
/// Returns an error when a part does not start or the demo cannot continue. The outcomes so far are still shown.
pub async fn play(options: Options, stop: impl Future<Output = ()>) -> Result<bool> {
    let mut stop = pin!(stop);
    let screen = Screen::new();
    let mut outcomes = Outcomes::default();
    screen.heading("A real cluster");
    let mut platform = Platform::choose(&screen, options.processes)?;
    platform.prepare(&screen)?;
    let begin = Instant::now();
    // dropping an unfinished start removes what has been started
    let cluster = tokio::select! {
        started = platform.start(&screen) => started?,
        () = &mut stop => return Ok(stopped(&screen)),
    };
    let figures = format!(
        "{} after {}",
        platform.figures(&cluster),
        time(begin.elapsed())
    );
    outcomes.add(EXPECTED[0], true, figures);

    let played = tokio::select! {
        biased;
        () = &mut stop => None,
        played = play_parts(&screen, &cluster, &mut platform, options, &mut outcomes) => Some(played),
    };
    // failures of programs that got the same Ctrl-C are not reported
    let Some(played) = played.filter(|_| !INTERRUPTED.load(Ordering::Relaxed)) else {
        platform.uninstall(&cluster)?;
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
        let targets = platform.targets(&cluster);
        let page = platform.page(&cluster);
        let page = page.unwrap_or_else(|error| format!("not available: {error:#}"));
        platform.release();
        leave(&screen, cluster, &targets, &page)?;
    } else {
        platform.uninstall(&cluster)?;
    }
    played.map(|()| passed)
}

async fn play_parts(
    screen: &Screen,
    cluster: &Cluster,
    platform: &mut Platform,
    options: Options,
    outcomes: &mut Outcomes,
) -> Result<()> {
    push(screen, cluster, outcomes).await?;
    install(screen, cluster, platform, outcomes).await?;
    let targets = platform.targets(cluster);
    let follower = first(screen, cluster, &targets, outcomes).await?;
    let nodes = targets.len();

    let plan = Plan {
        rate: options.rate,
        targets,
        method: Method::GET,
        host: HOST.into(),
        path: "/".into(),
        timeout: Duration::from_secs(10),
    };
    let prometheus = cluster
        .prometheus
        .as_ref()
        .context("the demo has a Prometheus")?;
    let evidence = EvidenceReader::start(prometheus.url().to_owned(), FUNCTION);
    let load = Load::start(plan)?;
    screen.part(&format!(
        "{} requests/s over {} nodes from here to the end",
        options.rate, nodes
    ));
    let mut demo = DemoContext {
        cluster,
        platform,
        screen,
        follower,
        evidence,
        load,
    };

    // the usual rates of version 1 must be measured before another version can be compared with it
    tokio::time::sleep(BASELINE).await;

    screen.heading("Version 2 is good: promoted on evidence, and the leader is killed on the way");
    let versions = Versions {
        stable: "v1",
        candidate: "v2",
    };
    let rollout = rollout::observe(&mut demo, versions, true).await?;
    promoted(&demo, versions, &rollout, outcomes);

    let slow = Duration::from_millis(150);
    for (title, candidate, reason, expected, slower) in [
        (
            "Version 3 fails 5 % of its requests",
            "v3",
            "ErrorsWorse",
            EXPECTED[6],
            None,
        ),
        (
            "Version 4 is 150 ms slow for a tenth of its requests",
            "v4",
            "SlowerThanStable",
            EXPECTED[7],
            Some(slow),
        ),
    ] {
        screen.heading(title);
        let versions = Versions {
            stable: "v2",
            candidate,
        };
        let rollout = rollout::observe(&mut demo, versions, false).await?;
        let (outcome, found, _) = rollout.ending();
        let observed = outcome == "RolledBack" && found == reason;
        let figures = rollout::report_bad(&demo, versions, &rollout, slower).await?;
        screen.part(&figures);
        outcomes.add(expected, observed, figures);
    }
    closing(demo, outcomes);
    Ok(())
}

async fn push(screen: &Screen, cluster: &Cluster, outcomes: &mut Outcomes) -> Result<()> {
    screen.heading("Four versions of a component");
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
    outcomes.add(EXPECTED[1], true, format!("hello:v1 … v4 at {registry}"));
    Ok(())
}

async fn install(
    screen: &Screen,
    cluster: &Cluster,
    platform: &mut Platform,
    outcomes: &mut Outcomes,
) -> Result<()> {
    screen.heading("Selvage, by Helm");
    let begin = Instant::now();
    for line in platform.install(cluster).await? {
        screen.part(&line);
    }
    // permissions that no part of Selvage needs must be refused
    let mut excess = Vec::new();
    for (account, verb, resource, what) in [
        (
            "selvage-operator",
            "*",
            "*",
            "the operator can do everything",
        ),
        (
            "selvage-operator",
            "get",
            "secrets",
            "the operator can read all Secrets",
        ),
        (
            "selvage-node-shim",
            "get",
            "edgefunctions.selvage.dev",
            "node-shims can read functions",
        ),
        (
            "selvage-node-shim",
            "get",
            "secrets",
            "node-shims can read Secrets",
        ),
    ] {
        if context::may(cluster, account, verb, resource)? {
            excess.push(what);
        }
    }
    let rights = if excess.is_empty() {
        "according to the API server, the operator is no admin and cannot read all Secrets, and node-shims can read nothing".to_owned()
    } else {
        format!("excessive permissions: {}", excess.join(", "))
    };
    let figures = format!("ready after {}; {rights}", time(begin.elapsed()));
    screen.part(&figures);
    screen.part(&format!("a page to follow it: {}", platform.page(cluster)?));
    outcomes.add(EXPECTED[2], excess.is_empty(), figures);
    Ok(())
}

/// Applies version 1 and sends a request through every node.
async fn first(
    screen: &Screen,
    cluster: &Cluster,
    targets: &[SocketAddr],
    outcomes: &mut Outcomes,
) -> Result<Follower> {
    screen.heading("Version 1");
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(DEMO.into());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await?;
    let follower = Follower::start(&Objects::new(cluster.client()), DEMO, FUNCTION);
    let begin = Instant::now();
    context::apply(cluster, &context::manifest(cluster, "v1")?)?;
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
        EXPECTED[3],
        all,
        format!(
            "Ready {} after apply; {answered} nodes answered",
            time(ready)
        ),
    );
    Ok(follower)
}

fn promoted(
    demo: &DemoContext<'_>,
    versions: Versions,
    rollout: &ObservedRollout,
    outcomes: &mut Outcomes,
) {
    let (outcome, _, message) = rollout.ending();
    demo.screen.print(&format!("          {message}"));
    let failed = demo.load.samples().failures(&[], usize::MAX).len();
    let requests = demo.load.samples().arm(versions.candidate, ..).requests;
    let observed = outcome == "Promoted" && rollout.end.stable == rollout.revision && failed == 0;
    let figures = format!(
        "{outcome} after {}, {} evaluations, {requests} requests, {failed} failed",
        time(rollout.took()),
        rollout.end.evaluations
    );
    demo.screen.part(&figures);
    outcomes.add(EXPECTED[4], observed, figures);
    let (rose, figures) = rollout::continued(demo, rollout);
    outcomes.add(EXPECTED[5], rose, figures);
}

/// Ends the load and checks that no request failed.
fn closing(demo: DemoContext<'_>, outcomes: &mut Outcomes) {
    let screen = demo.screen;
    let samples = demo.load.finish();
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
        "{} requests, {failed} failed except those of v3, p95 of all {p95}",
        all.requests
    );
    outcomes.add(
        NO_FAILURES,
        failures.is_empty() && whole && all.requests > 0,
        figures,
    );
}

/// Leaves everything running and prints commands for inspecting it.
fn leave(screen: &Screen, cluster: Cluster, targets: &[SocketAddr], page: &str) -> Result<()> {
    let shell = cluster.shell()?;
    let dir: PathBuf = cluster.keep()?;
    screen.heading("All of it is still running");
    for line in shell {
        screen.print(&format!("  {line}"));
    }
    screen.print("  kubectl get ef -A; kubectl describe ef -n demo hello; kubectl get en");
    screen.print(&format!("  page: {page}"));
    for target in targets {
        screen.print(&format!("  curl -H 'Host: {HOST}' http://{target}/"));
    }
    screen.print(&format!("  logs: {}", dir.join("log").display()));
    screen.print("  make demo-down ends it");
    Ok(())
}
