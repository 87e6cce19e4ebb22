//! Questions to registries: each runs in a task beside the reconcile, and its answer wakes the function.

use std::sync::Arc;

use jiff::Timestamp;
use node_api::world::World;
use tracing::Instrument;

use super::Context;
use super::context::{FailedResolve, FunctionContext, Resolution};
use crate::resolve::{Artifact, Credentials};
use crate::revision::ComponentImage;
use crate::watch::ObjectKey;

/// A question to a registry.
pub(super) struct ResolveRequest {
    /// The image string of the spec.
    pub(super) image: String,
    /// The image string that the registry is asked for.
    pub(super) asked: String,
    pub(super) credentials: Credentials,
    /// Number of this attempt, from 1.
    pub(super) attempt: u32,
}

/// Asks the registry in a task of its own. Its answer wakes the function.
pub(super) fn start(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    request: ResolveRequest,
    context: &mut FunctionContext,
) {
    let run = context.next_run();
    let last = match std::mem::take(&mut context.resolution) {
        Resolution::Failed { image, failure, .. } if image == request.image => Some(failure),
        _ => None,
    };
    context.resolution = Resolution::Running {
        image: request.image.clone(),
        run,
        last,
    };
    let (ctx, key) = (Arc::clone(ctx), key.clone());
    let task = async move {
        let resolution = resolve(&ctx, &key, request).await;
        finish(&ctx, &key, run, resolution).await;
    };
    tokio::spawn(task.in_current_span());
}

async fn resolve(ctx: &Context, key: &ObjectKey, request: ResolveRequest) -> Resolution {
    let ResolveRequest {
        image,
        asked,
        credentials,
        attempt,
    } = request;
    let resolver = &ctx.resolver;
    let result = resolver.resolve(&key.namespace, &asked, &credentials).await;
    let failure = result.as_ref().err();
    ctx.metrics
        .resolved(failure.map_or("Resolved", |error| error.failure.reason()));
    match result {
        Ok(artifact) => Resolution::Done {
            image,
            code: Box::new(code_of_artifact(artifact)),
        },
        Err(error) => {
            let wait = error.backoff(attempt, fastrand::f64());
            tracing::debug!(image = asked, %error, attempt, ?wait, "the image could not be resolved");
            Resolution::Failed {
                image,
                failure: FailedResolve {
                    error,
                    attempt,
                    at: Timestamp::now(),
                },
                retry_at: tokio::time::Instant::now() + wait,
            }
        }
    }
}

/// Keeps the answer of a registry, unless another question was asked meanwhile.
async fn finish(ctx: &Context, key: &ObjectKey, run: u64, resolution: Resolution) {
    let context = ctx.contexts.of(key);
    let mut context = context.lock().await;
    if matches!(&context.resolution, Resolution::Running { run: current, .. } if *current == run) {
        context.resolution = resolution;
        ctx.queue.push(key);
    }
}

fn code_of_artifact(artifact: Artifact) -> ComponentImage {
    ComponentImage {
        repository: artifact.repository,
        digest: artifact.manifest_digest,
        component_digest: artifact.component_digest,
        size: artifact.bytes.len() as u64,
        media_type: artifact.media_type,
        world: artifact
            .inspection
            .world()
            .map(World::name)
            .unwrap_or_default()
            .to_owned(),
        imports: artifact.inspection.imports.into_iter().collect(),
        inline: None,
        pull_secrets: Vec::new(),
    }
}
