//! What Argo CD and Flux show in each phase of a rollout: their own programs on a real cluster, with the example repository
//! of `integrations`. `make gitops` runs it.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, and prints what the tools show"
)]

mod application_set;
mod argo_cd;
mod flux;
mod git_server;
mod phases;
mod pipeline;
mod repository;
mod world;

use anyhow::Result;
use futures::future::LocalBoxFuture;
use world::{World, dump};

/// Runs a test on a cluster of its own, and writes everything that explains a failure.
async fn on_cluster(
    name: &str,
    namespace: &str,
    test: impl for<'a> FnOnce(&'a World) -> LocalBoxFuture<'a, Result<()>>,
) {
    let world = World::start(&[namespace]).await.unwrap();
    if let Err(error) = test(&world).await {
        let dump = dump(&world.cluster, name);
        drop(world);
        panic!("{error:#}\n{dump}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_shows_every_phase() {
    on_cluster("argo-cd", argo_cd::NAMESPACE, |world| {
        Box::pin(phases::argo_cd(world))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_set_rolls_out_one_region_after_the_other() {
    on_cluster("application-set", argo_cd::NAMESPACE, |world| {
        Box::pin(application_set::story(world))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_waits_for_the_promotion() {
    on_cluster("flux", flux::NAMESPACE, |world| {
        Box::pin(flux::story(world))
    })
    .await;
}
