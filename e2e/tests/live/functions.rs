//! Single functions: applied, served, refused, removed.

use crate::{
    scenarios,
    world::{SOON, World},
};
use anyhow::{Result, ensure};
use e2e::{
    push::{push_bytes, push_component},
    selvage::{self, Kind},
};
use serde_json::json;

scenarios![together: [
    an_applied_function_answers_on_every_node,
    a_moved_tag_changes_nothing,
    what_is_not_a_component_is_refused,
    a_later_feature_is_refused_by_name,
    an_image_that_is_not_there_is_named,
    a_suspended_function_answers_503_and_returns,
    a_deleted_function_answers_404,
]];

async fn an_applied_function_answers_on_every_node(world: &World) -> Result<()> {
    let ns = world.namespace("t-serve").await?;
    let served = world
        .serve(&ns, "hello", world.spec("v1", "serve.example"))
        .await?;
    let status = &served["status"];
    ensure!(status["phase"] == "Ready", "phase {}", status["phase"]);
    ensure!(
        status["resolved"]["digest"] == world.digests["v1"],
        "resolved {}",
        status["resolved"]
    );
    ensure!(
        status["nodes"]["desired"] == 3 && status["nodes"]["loaded"] == 3,
        "nodes {}",
        status["nodes"]
    );
    for node in world.nodes() {
        let answer = world.edge.get(node, "serve.example", "/").await?;
        ensure!(
            answer.status == 200 && answer.version == "v1",
            "{node}: {answer:?}"
        );
        let unknown = world.edge.get(node, "unclaimed.example", "/").await?;
        ensure!(
            unknown.status == 404 && unknown.error == "no_route",
            "{node}: {unknown:?}"
        );
    }
    Ok(())
}

/// HS-1: a tag that moved changes nothing while the spec stays the same.
async fn a_moved_tag_changes_nothing(world: &World) -> Result<()> {
    let ns = world.namespace("t-tag").await?;
    let image = world.images["v1"].replace("hello:v1", "moving:latest");
    let dist = selvage::dist();
    push_component(&image, &dist.join("examples/hello-v1.wasm"), None).await?;
    let mut spec = world.spec("v1", "tag.example");
    spec["source"]["image"] = image.clone().into();
    let before = world.serve(&ns, "moving", spec.clone()).await?;
    push_component(&image, &dist.join("examples/hello-v2.wasm"), None).await?;
    // an unrelated edit causes a reconcile, which must not resolve the tag again
    spec["revisionHistoryLimit"] = 5.into();
    let after = world.serve(&ns, "moving", spec).await?;
    ensure!(
        after["status"]["resolved"] == before["status"]["resolved"],
        "{}",
        after["status"]["resolved"]
    );
    ensure!(
        after["status"]["stable"] == before["status"]["stable"],
        "{}",
        after["status"]["stable"]
    );
    let answer = world.edge.get(world.nodes()[0], "tag.example", "/").await?;
    ensure!(answer.version == "v1", "{answer:?}");
    Ok(())
}

/// HG-10, HS-3: bytes that are not a component cause a condition and nothing else.
async fn what_is_not_a_component_is_refused(world: &World) -> Result<()> {
    let ns = world.namespace("t-bytes").await?;
    let inputs: [(&str, &[u8]); 4] = [
        ("elf", b"\x7fELF\x02\x01\x01 and so on"),
        ("module", b"\0asm\x01\0\0\0"),
        ("text", b"(component)"),
        ("empty", b""),
    ];
    for (name, bytes) in inputs {
        let image = world.images["v1"].replace("hello:v1", &format!("{name}:1"));
        push_bytes(&image, bytes.to_vec(), None).await?;
        let mut spec = world.spec("v1", &format!("{name}.example"));
        spec["source"]["image"] = image.into();
        world.apply(&ns, name, spec).await?;
        world
            .function(&ns, name, SOON, |f| {
                selvage::condition(f, "Resolved") == ("False", "NotAComponent")
            })
            .await?;
        let answer = world
            .edge
            .get(world.nodes()[0], &format!("{name}.example"), "/")
            .await?;
        ensure!(answer.status == 404, "{name}: {answer:?}");
    }
    Ok(())
}

async fn a_later_feature_is_refused_by_name(world: &World) -> Result<()> {
    let ns = world.namespace("t-later").await?;
    let mut spec = world.spec("v1", "later.example");
    spec["rollout"] = json!({ "strategy": "BlueGreen" });
    world.apply(&ns, "later", spec).await?;
    let refused = world
        .function(&ns, "later", SOON, |f| {
            selvage::condition(f, "Accepted") == ("False", "NotYetSupported")
        })
        .await?;
    ensure!(
        refused["status"]
            .to_string()
            .contains("spec.rollout.strategy"),
        "names no field: {}",
        refused["status"]
    );
    Ok(())
}

async fn an_image_that_is_not_there_is_named(world: &World) -> Result<()> {
    let ns = world.namespace("t-absent").await?;
    let mut spec = world.spec("v1", "absent.example");
    let image = world.images["v1"].replace("hello:v1", "absent:1");
    spec["source"]["image"] = image.clone().into();
    world.apply(&ns, "absent", spec).await?;
    world
        .function(&ns, "absent", SOON, |f| {
            selvage::condition(f, "Resolved") == ("False", "NotFound")
        })
        .await?;
    // an image that is pushed later is found without an edit
    push_component(
        &image,
        &selvage::dist().join("examples/hello-v1.wasm"),
        None,
    )
    .await?;
    world.ready(&ns, "absent").await?;
    Ok(())
}

async fn a_suspended_function_answers_503_and_returns(world: &World) -> Result<()> {
    let ns = world.namespace("t-suspend").await?;
    let mut spec = world.spec("v1", "suspend.example");
    world.serve(&ns, "hello", spec.clone()).await?;
    spec["suspend"] = true.into();
    world.apply(&ns, "hello", spec.clone()).await?;
    world
        .function(&ns, "hello", SOON, |f| {
            selvage::condition(f, "Ready") == ("True", "Suspended")
        })
        .await?;
    // Ready says that the nodes have the change, so nothing is waited for here
    for node in world.nodes() {
        let answer = world.edge.get(node, "suspend.example", "/").await?;
        ensure!(answer.error == "suspended", "{node}: {}", answer.status);
    }
    spec["suspend"] = false.into();
    world.serve(&ns, "hello", spec).await?;
    for node in world.nodes() {
        let answer = world.edge.get(node, "suspend.example", "/").await?;
        ensure!(answer.status == 200, "{node}: {}", answer.status);
    }
    Ok(())
}

async fn a_deleted_function_answers_404(world: &World) -> Result<()> {
    let ns = world.namespace("t-delete").await?;
    world
        .serve(&ns, "hello", world.spec("v1", "delete.example"))
        .await?;
    world
        .objects
        .api(Kind::Function, &ns)
        .delete("hello", &kube::api::DeleteParams::default())
        .await?;
    for node in world.nodes() {
        world
            .until(async |w: &World| {
                Ok(w.edge.get(node, "delete.example", "/").await?.error == "no_route")
            })
            .await?;
    }
    let claims = world.objects.api(Kind::Claim, "");
    world
        .until(async |_: &World| Ok(claims.get_opt("delete.example").await?.is_none()))
        .await
}
