//! Whether and where a request runs: gate, route, pick, permits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use node_shim_core::gate::{self, Passed, Rejection};
use node_shim_core::outcome::{Reason, Start};
use node_shim_core::pick::{Arm, BUCKETS, pick};
use node_shim_core::route;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::content_length;
use crate::admit::Permit;
use crate::observer::Observer;
use crate::plane::Plane;
use crate::residency::{InUse, User};
use crate::revision::Revision;
use crate::table::{RoutingTable, Served, Slot};

/// What load balancers ask for.
const READY_PATH: &str = "/.well-known/selvage/ready";
/// How long a request waits for code that is still being loaded; its limits are not known yet.
const LOAD_PATIENCE: Duration = Duration::from_secs(1);

/// Why a request was answered without a guest.
pub(super) enum Refused {
    Gate(Rejection),
    NoRoute,
    Probe,
    Failed(Reason, Option<Observer>),
}

/// A request that may run.
pub(super) struct Admitted {
    pub(super) passed: Passed,
    pub(super) revision: Arc<Revision>,
    pub(super) code: InUse,
    pub(super) rewritten: Option<String>,
    pub(super) observer: Observer,
    pub(super) start: Start,
    pub(super) permit: Permit,
    pub(super) slot: OwnedSemaphorePermit,
}

/// Gate, route, pick and permits.
pub(super) async fn admit(
    plane: &Arc<Plane>,
    parts: &Parts,
    began: Instant,
) -> Result<Admitted, Refused> {
    let head = gate::Head {
        version: parts.version,
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
    };
    let passed = gate::check(head).map_err(Refused::Gate)?;
    if parts.uri.path() == READY_PATH {
        return Err(Refused::Probe);
    }
    let table = plane.table();
    let wanted = route::Request {
        host: &passed.host,
        path: parts.uri.path(),
        method: parts.method.as_str(),
        headers: &parts.headers,
    };
    let found = table.index().find(wanted).ok_or(Refused::NoRoute)?;
    let served = table.function(found.function).ok_or(Refused::NoRoute)?;
    if passed.unusual_method && !found.names_method {
        return Err(Refused::Gate(Rejection::MethodUnknown));
    }
    if served.entry.suspended {
        return Err(Refused::Failed(Reason::Suspended, None));
    }
    let (revision, start) = choose(plane, &table, served, began).await?;
    // from here on the code is not unmapped
    let user = revision.code.enter();
    let start = if user.is_mapped() { start } else { Start::Cold };
    let mut observer = Observer::new(revision.counters.clone(), start, began);
    if !plane.may_run(&served.entry.key) {
        return Err(Refused::Failed(Reason::MemoryPressure, Some(observer)));
    }
    let limits = &revision.spec.limits;
    if content_length(&parts.headers).is_some_and(|length| length > limits.request_body) {
        observer.fail(Reason::BodyTooLarge);
        plane.node.rejected(Rejection::BodyTooLarge);
        return Err(Refused::Failed(Reason::BodyTooLarge, Some(observer)));
    }
    let permit = match revision
        .permits
        .acquire(limits.queue_length, limits.queue_timeout)
        .await
    {
        Ok(permit) => permit,
        Err(reason) => return Err(Refused::Failed(reason, Some(observer))),
    };
    let code = match map(plane, user, limits.queue_timeout).await {
        Ok(code) => code,
        Err(reason) => return Err(Refused::Failed(reason, Some(observer))),
    };
    let Ok(slot) = plane.slots.clone().try_acquire_owned() else {
        return Err(Refused::Failed(Reason::Pool, Some(observer)));
    };
    let rewritten = found.rewritten;
    Ok(Admitted {
        passed,
        revision,
        code,
        rewritten,
        observer,
        start,
        permit,
        slot,
    })
}

/// The revision's code, mapped inside the request when it is only on disk. If even that fails, it is
/// made again meanwhile, and the request waits for it as if it were in the queue.
async fn map(plane: &Plane, user: User, queue: Duration) -> Result<InUse, Reason> {
    let _place = if user.is_mapped() {
        None
    } else {
        Some(plane.cold.try_acquire().map_err(|_| Reason::Compile)?)
    };
    tokio::time::timeout(queue.max(LOAD_PATIENCE), user.mapped())
        .await
        .map_err(|_| Reason::Compile)
}

/// The revision that answers; waits a moment when its code is on its way.
async fn choose(
    plane: &Arc<Plane>,
    table: &RoutingTable,
    served: &Served,
    began: Instant,
) -> Result<(Arc<Revision>, Start), Refused> {
    let bucket = fastrand::u32(..BUCKETS);
    match arm(plane, served, bucket) {
        Slot::Ready(revision) => Ok((revision.clone(), Start::Warm)),
        Slot::Failed(reason) => Err(Refused::Failed(
            *reason,
            unloaded(plane, served, began, Start::Warm),
        )),
        Slot::Absent | Slot::Loading => {
            let waited = wait_for_code(plane, table, served, bucket).await;
            waited
                .map(|revision| (revision, Start::Cold))
                .map_err(|reason| {
                    Refused::Failed(reason, unloaded(plane, served, began, Start::Cold))
                })
        }
    }
}

fn arm<'a>(plane: &Plane, served: &'a Served, bucket: u32) -> &'a Slot {
    let pick = pick(
        &served.entry.share,
        bucket,
        served.candidate.ready().is_some() && plane.may_try(),
    );
    if pick.fallback {
        plane.node.fell_back();
    }
    match pick.arm {
        Arm::Stable => &served.stable,
        Arm::Candidate => &served.candidate,
    }
}

/// Follows new tables until the function can run. The request keeps its place, not its table: there
/// was nothing in the old one to run.
async fn wait_for_code(
    plane: &Arc<Plane>,
    table: &RoutingTable,
    served: &Served,
    bucket: u32,
) -> Result<Arc<Revision>, Reason> {
    let _place = plane.cold.try_acquire().map_err(|_| Reason::Compile)?;
    let mut published = plane.published();
    let key = &served.entry.key;
    let find = |table: &RoutingTable| match arm(plane, table.named(key)?, bucket) {
        Slot::Ready(revision) => Some(Ok(revision.clone())),
        Slot::Failed(reason) => Some(Err(*reason)),
        Slot::Absent | Slot::Loading => None,
    };
    let wait = async {
        loop {
            let now = plane.table();
            if !std::ptr::eq(&*now, table)
                && let Some(found) = find(&now)
            {
                return found;
            }
            if published.changed().await.is_err() {
                return Err(Reason::Cancelled);
            }
        }
    };
    tokio::time::timeout(LOAD_PATIENCE, wait)
        .await
        .unwrap_or(Err(Reason::Compile))
}

/// An account for a request that met no code: it belongs to the revision that should have answered.
fn unloaded(plane: &Plane, served: &Served, began: Instant, start: Start) -> Option<Observer> {
    let share = &served.entry.share;
    let revision = share.stable.as_ref().or(share.candidate.as_ref())?;
    let key = &served.entry.key;
    let in_table = || plane.table().named(key).is_some();
    let counters = plane.counters.account(key, revision, in_table)?;
    Some(Observer::new(counters, start, began))
}
