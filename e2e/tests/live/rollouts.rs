//! Rollouts of good and bad versions. Requests are sent all the time, and stable fails none of them.

use crate::{
    scenarios,
    world::{LATER, SOON, World, brisk, short_rollout},
};
use anyhow::{Context, Result, ensure};
use e2e::selvage::condition;
use serde_json::{Value, json};

scenarios![
    together: [
        a_good_version_is_promoted_and_nobody_notices,
        the_newest_wish_wins_and_was_analysed,
        slowness_rolls_a_version_back,
        people_pause_abort_and_retry,
        errors_roll_a_version_back,
        asking_for_stable_again_withdraws_the_candidate,
        an_approval_gate_waits_for_a_person,
    ],
    alone: [without_prometheus_a_rollout_is_held_and_goes_on_later],
];

/// Requests per second that suffice for every step within a few evaluations.
const RATE: u32 = 300;

pub(crate) fn outcome(function: &Value) -> (&str, &str) {
    let newest = &function["status"]["history"][0];
    let text = |key: &str| newest[key].as_str().unwrap_or_default();
    (text("outcome"), text("reason"))
}

pub(crate) fn stepping(function: &Value) -> bool {
    function["status"]["rollout"]["state"] == "Stepping"
}

pub(crate) fn rolled_back(function: &Value) -> bool {
    function["status"]["phase"] == "RolledBack"
}

async fn a_good_version_is_promoted_and_nobody_notices(world: &World) -> Result<()> {
    let ns = world.namespace("t-good").await?;
    let first = world
        .serve(&ns, "hello", world.spec("v1", "good.example"))
        .await?;
    let load = world.load("good.example", RATE)?;
    world
        .apply(&ns, "hello", world.spec("v2", "good.example"))
        .await?;
    world.function(&ns, "hello", SOON, stepping).await?;
    let done = world
        .function(&ns, "hello", LATER, |f| {
            outcome(f).0 == "Promoted" && f["status"]["history"][1].is_object()
        })
        .await?;
    let done = if condition(&done, "Ready").0 == "True" {
        done
    } else {
        world.ready(&ns, "hello").await?
    };
    ensure!(
        done["status"]["stable"]["revision"] != first["status"]["stable"]["revision"],
        "stable did not change"
    );
    ensure!(
        done["status"]["resolved"]["digest"] == world.digests["v2"],
        "{}",
        done["status"]["resolved"]
    );
    let seen = load.finish().await?;
    ensure!(seen.failed == 0, "{seen:?}");
    ensure!(
        seen.answered("v1") > 0 && seen.answered("v2") > 0,
        "{seen:?}"
    );
    for node in world.nodes() {
        ensure!(
            world.edge.get(node, "good.example", "/").await?.version == "v2",
            "{node} still answers v1"
        );
    }
    Ok(())
}

async fn errors_roll_a_version_back(world: &World) -> Result<()> {
    let ns = world.namespace("t-errors").await?;
    let back = rollback(world, &ns, "errors.example", "v3").await?;
    ensure!(
        outcome(&back) == ("RolledBack", "ErrorsWorse"),
        "{}",
        back["status"]["history"][0]
    );
    Ok(())
}

async fn slowness_rolls_a_version_back(world: &World) -> Result<()> {
    let ns = world.namespace("t-slow").await?;
    let back = rollback(world, &ns, "slow.example", "v4").await?;
    ensure!(
        outcome(&back) == ("RolledBack", "SlowerThanStable"),
        "{}",
        back["status"]["history"][0]
    );
    Ok(())
}

/// Stable serves all the time. The function reports that the commit is not live, and this does not change by itself.
async fn rollback(world: &World, ns: &str, host: &str, bad: &str) -> Result<Value> {
    let first = world.serve(ns, "hello", world.spec("v1", host)).await?;
    let load = world.load(host, RATE)?;
    world.apply(ns, "hello", world.spec(bad, host)).await?;
    let back = world.function(ns, "hello", LATER, rolled_back).await?;
    ensure!(
        condition(&back, "Ready").0 == "False",
        "{}",
        back["status"]["conditions"]
    );
    ensure!(
        condition(&back, "Stalled") == ("True", "RolledBack"),
        "{}",
        back["status"]["conditions"]
    );
    ensure!(
        back["status"]["stable"] == first["status"]["stable"],
        "stable changed"
    );
    ensure!(
        back["status"]["rollout"]["evidence"]["decisive"].is_object(),
        "the decisive counts are missing"
    );
    let client = world.edge.clone();
    for node in world.nodes() {
        world
            .until(async |_: &World| Ok(client.get(node, host, "/").await?.version == "v1"))
            .await?;
    }
    let seen = load.finish().await?;
    ensure!(
        seen.failed_of("v1") == 0 && seen.unattributed() == 0,
        "stable lost requests: {seen:?}"
    );
    ensure!(
        seen.answered(bad) > 0,
        "{bad} never got a request: {seen:?}"
    );
    Ok(back)
}

/// FE-1: the rollout is held while Prometheus is unavailable and continues afterwards.
async fn without_prometheus_a_rollout_is_held_and_goes_on_later(world: &mut World) -> Result<()> {
    let ns = world.namespace("t-prometheus").await?;
    let spec = |world: &World, version: &str| {
        let mut spec = brisk(world.spec(version, "prometheus.example"));
        spec["rollout"]["analysis"]["source"] = "Prometheus".into();
        spec
    };
    world.serve(&ns, "hello", spec(world, "v1")).await?;
    let load = world.load("prometheus.example", RATE)?;
    world.apply(&ns, "hello", spec(world, "v2")).await?;
    world.function(&ns, "hello", SOON, stepping).await?;
    world
        .cluster
        .prometheus
        .as_mut()
        .context("no Prometheus")?
        .process()
        .kill();
    let held = world
        .function(&ns, "hello", LATER, |f| {
            condition(f, "Progressing").1 == "PrometheusUnavailable"
        })
        .await?;
    let weight = held["status"]["traffic"].clone();
    ensure!(
        held["status"]["phase"] == "Progressing",
        "{}",
        held["status"]["phase"]
    );
    let prometheus = world.cluster.prometheus.as_mut().context("no Prometheus")?;
    prometheus.process().restart()?;
    prometheus.ready().await?;
    let resumed = world
        .function(&ns, "hello", LATER, |f| {
            condition(f, "Progressing").1 != "PrometheusUnavailable"
        })
        .await?;
    ensure!(
        !rolled_back(&resumed),
        "an outage of the judge rolled back; weight was {weight}"
    );
    world
        .function(&ns, "hello", LATER, |f| {
            outcome(f).0 == "Promoted" && !stepping(f)
        })
        .await?;
    ensure!(load.finish().await?.failed == 0, "requests failed");
    Ok(())
}

/// HK-9: an edit during a rollout takes precedence.
async fn the_newest_wish_wins_and_was_analysed(world: &World) -> Result<()> {
    let ns = world.namespace("t-edit").await?;
    world
        .serve(&ns, "hello", brisk(world.spec("v1", "edit.example")))
        .await?;
    let load = world.load("edit.example", RATE)?;
    world
        .apply(&ns, "hello", brisk(world.spec("v3", "edit.example")))
        .await?;
    let first = world.function(&ns, "hello", SOON, stepping).await?;
    let superseded = first["status"]["candidate"]["revision"].clone();
    world
        .apply(&ns, "hello", brisk(world.spec("v2", "edit.example")))
        .await?;
    let done = world
        .function(&ns, "hello", LATER, |f| {
            condition(f, "Ready").0 == "True"
                && f["metadata"]["generation"] == f["status"]["observedGeneration"]
        })
        .await?;
    ensure!(
        done["status"]["resolved"]["digest"] == world.digests["v2"],
        "{}",
        done["status"]["resolved"]
    );
    ensure!(
        outcome(&done).0 == "Promoted",
        "{}",
        done["status"]["history"]
    );
    let before = &done["status"]["history"][1];
    ensure!(
        before["revision"] == superseded && before["outcome"] == "Superseded",
        "{before}"
    );
    ensure!(
        done["status"]["rollout"]["evidence"]["evaluations"].as_u64() > Some(2),
        "not analysed"
    );
    let seen = load.finish().await?;
    ensure!(
        seen.failed_of("v1") == 0 && seen.failed_of("v2") == 0,
        "{seen:?}"
    );
    Ok(())
}

async fn asking_for_stable_again_withdraws_the_candidate(world: &World) -> Result<()> {
    let ns = world.namespace("t-withdraw").await?;
    world
        .serve(&ns, "hello", world.spec("v1", "withdraw.example"))
        .await?;
    let load = world.load("withdraw.example", RATE)?;
    world
        .apply(&ns, "hello", world.spec("v2", "withdraw.example"))
        .await?;
    world.function(&ns, "hello", SOON, stepping).await?;
    let done = world
        .serve(&ns, "hello", world.spec("v1", "withdraw.example"))
        .await?;
    ensure!(
        outcome(&done).0 == "Withdrawn",
        "{}",
        done["status"]["history"][0]
    );
    ensure!(load.finish().await?.failed == 0, "requests failed");
    Ok(())
}

async fn people_pause_abort_and_retry(world: &World) -> Result<()> {
    let ns = world.namespace("t-verbs").await?;
    world
        .serve(&ns, "hello", world.spec("v1", "verbs.example"))
        .await?;
    let load = world.load("verbs.example", RATE)?;
    world
        .apply(&ns, "hello", world.spec("v2", "verbs.example"))
        .await?;
    let on = world.function(&ns, "hello", SOON, stepping).await?;
    let candidate = on["status"]["candidate"]["revision"]
        .as_str()
        .context("no candidate")?
        .to_owned();
    world
        .objects
        .annotate(&ns, "hello", "pause", &candidate)
        .await?;
    world
        .function(&ns, "hello", SOON, |f| f["status"]["phase"] == "Paused")
        .await?;
    world
        .objects
        .annotate(&ns, "hello", "abort", &candidate)
        .await?;
    let aborted = world.function(&ns, "hello", SOON, rolled_back).await?;
    ensure!(
        outcome(&aborted).0 == "Aborted",
        "{}",
        aborted["status"]["history"][0]
    );
    world
        .objects
        .annotate(&ns, "hello", "retry", &candidate)
        .await?;
    let again = world
        .function(&ns, "hello", SOON, |f| {
            f["status"]["rollout"]["attempt"] == 2
        })
        .await?;
    ensure!(
        again["status"]["candidate"]["revision"] == candidate.as_str(),
        "{}",
        again["status"]["candidate"]
    );
    world.function(&ns, "hello", SOON, stepping).await?;
    world
        .objects
        .annotate(&ns, "hello", "promote-full", &candidate)
        .await?;
    world
        .function(&ns, "hello", LATER, |f| outcome(f).0 == "Promoted")
        .await?;
    ensure!(load.finish().await?.failed == 0, "requests failed");
    Ok(())
}

async fn an_approval_gate_waits_for_a_person(world: &World) -> Result<()> {
    let ns = world.namespace("t-gate").await?;
    let spec = |world: &World, version: &str| {
        let mut spec = world.spec(version, "gate.example");
        let mut rollout = short_rollout();
        rollout["strategy"] = "AllAtOnce".into();
        rollout.as_object_mut().map(|r| r.remove("canary"));
        rollout["gates"] = json!([{ "name": "release-manager", "at": "Start", "approval": {} }]);
        rollout["bake"] = json!({ "duration": "1s" });
        spec["rollout"] = rollout;
        spec
    };
    world.apply(&ns, "hello", spec(world, "v1")).await?;
    let first = world
        .function(&ns, "hello", SOON, |f| {
            condition(f, "Progressing").1 == "AwaitingApproval"
        })
        .await?;
    let candidate = first["status"]["candidate"]["revision"]
        .as_str()
        .context("no candidate")?
        .to_owned();
    world
        .objects
        .annotate(&ns, "hello", "approve", &candidate)
        .await?;
    world.ready(&ns, "hello").await?;
    Ok(())
}
