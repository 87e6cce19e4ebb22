//! Admission of a request: validation, routing, choice of the revision, permits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::pick::{Arm, BUCKETS, pick};
use node_shim_core::request_labels::StartKind;
use node_shim_core::routing;
use node_shim_core::table::FunctionKey;
use node_shim_core::validation::{self, Rejection, ValidatedHead};

use super::response::content_length;
use crate::code_cache::{CodeInUse, CodeUser};
use crate::concurrency_limit::Permit;
use crate::connection::Connection;
use crate::data_plane::DataPlaneState;
use crate::instance_budget::InstanceShare;
use crate::observer::RequestObserver;
use crate::revision::Revision;
use crate::routing_table::{RevisionSlot, RoutingTable, ServedFunction};

/// Path of the readiness probe on the data port.
const READY_PATH: &str = "/.well-known/selvage/ready";
/// Maximum time that a request waits for code that is being loaded. The limits of the revision are not
/// known yet.
const LOAD_WAIT: Duration = Duration::from_secs(1);

/// Why a request is answered without running a guest.
pub(super) enum NotAdmitted {
    Invalid(Rejection),
    NoRoute,
    Probe,
    Failed(FailureReason, Option<RequestObserver>),
}

/// An admitted request.
pub(super) struct Admitted {
    pub(super) passed: ValidatedHead,
    pub(super) revision: Arc<Revision>,
    pub(super) code: CodeInUse,
    pub(super) rewritten: Option<String>,
    pub(super) observer: RequestObserver,
    pub(super) start: StartKind,
    pub(super) permit: Permit,
    pub(super) share: InstanceShare,
}

/// Validates and routes a request, picks the revision and acquires its permits.
pub(super) async fn admit(
    plane: &Arc<DataPlaneState>,
    conn: &Connection,
    parts: &Parts,
    began: Instant,
) -> Result<Admitted, NotAdmitted> {
    let head = validation::RequestHead {
        version: parts.version,
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
    };
    // load balancers often name no host
    if parts.uri.path() == READY_PATH {
        return Err(NotAdmitted::Probe);
    }
    let passed = validation::validate(head).map_err(NotAdmitted::Invalid)?;
    if !conn.allows_host(passed.host.as_str()) {
        return Err(NotAdmitted::Invalid(Rejection::Misdirected));
    }
    let table = plane.table();
    let wanted = routing::RouteRequest {
        host: table.local_hosts().routed(&passed.host),
        path: parts.uri.path(),
        method: parts.method.as_str(),
        headers: &parts.headers,
    };
    let found = table.index().find(wanted).ok_or(NotAdmitted::NoRoute)?;
    let served = table.function(found.function).ok_or(NotAdmitted::NoRoute)?;
    if passed.uncommon_method && !found.lists_method {
        return Err(NotAdmitted::Invalid(Rejection::MethodUnknown));
    }
    if served.entry.suspended {
        return Err(NotAdmitted::Failed(FailureReason::Suspended, None));
    }
    let ChosenRevision {
        revision,
        start,
        observer,
    } = choose_revision(plane, &table, served, began).await?;
    // the code stays mapped from here on
    let user = revision.code.enter();
    let start = if user.is_mapped() {
        start
    } else {
        StartKind::Cold
    };
    let counters = revision.counters.clone();
    let observer = match observer {
        Some(mut waited) => {
            waited.set_counters(counters);
            waited
        }
        None => RequestObserver::new(counters, start, began, plane.stop_flag.clone()),
    };
    let key = &served.entry.key;
    let length = content_length(&parts.headers);
    let Resources {
        code,
        permit,
        share,
    } = match acquire(plane, key, &revision, user, length).await {
        Ok(resources) => resources,
        Err(reason) => return Err(NotAdmitted::Failed(reason, Some(observer))),
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
        share,
    })
}

/// What a guest needs to run.
struct Resources {
    code: CodeInUse,
    permit: Permit,
    share: InstanceShare,
}

/// Checks the length of the body, and acquires a permit of the revision, its code and a share of the node.
async fn acquire(
    plane: &DataPlaneState,
    key: &FunctionKey,
    revision: &Revision,
    user: CodeUser,
    length: Option<u64>,
) -> Result<Resources, FailureReason> {
    if !plane.allows_request(key) {
        return Err(FailureReason::MemoryPressure);
    }
    let limits = &revision.spec.limits;
    if length.is_some_and(|length| length > limits.request_body) {
        plane.node_counters.rejected(Rejection::BodyTooLarge);
        return Err(FailureReason::BodyTooLarge);
    }
    let permit = revision
        .concurrency
        .acquire(limits.queue_length, limits.queue_timeout)
        .await?;
    let code = mapped_code(plane, key, user, limits.queue_timeout).await?;
    let share = plane
        .budget
        .admit(&key.namespace, code.loaded.slots)
        .ok_or(FailureReason::Pool)?;
    Ok(Resources {
        code,
        permit,
        share,
    })
}

/// Returns the code of the revision, and maps it first when it is only on disk. If it cannot be mapped, the
/// component is loaded again, and the request waits for it for as long as it may wait in the queue.
async fn mapped_code(
    plane: &DataPlaneState,
    function: &FunctionKey,
    user: CodeUser,
    queue: Duration,
) -> Result<CodeInUse, FailureReason> {
    let _cold_start = if user.is_mapped() {
        None
    } else {
        let place = plane.cold_starts.try_enter(function);
        Some(place.ok_or(FailureReason::Compile)?)
    };
    tokio::time::timeout(queue.max(LOAD_WAIT), user.mapped())
        .await
        .map_err(|_| FailureReason::Compile)
}

/// The revision that serves a request.
struct ChosenRevision {
    revision: Arc<Revision>,
    start: StartKind,
    /// Observer of a request that waited for code.
    observer: Option<RequestObserver>,
}

/// Returns the revision that serves the request. Waits briefly when its code is being loaded.
async fn choose_revision(
    plane: &Arc<DataPlaneState>,
    table: &RoutingTable,
    served: &ServedFunction,
    began: Instant,
) -> Result<ChosenRevision, NotAdmitted> {
    let bucket = fastrand::u32(..BUCKETS);
    let (slot, fallback) = picked_revision(plane, served, bucket);
    if fallback {
        plane.node_counters.fell_back();
    }
    let failed = |reason| {
        let observer = observer_without_code(plane, served, began, StartKind::Warm);
        Err(NotAdmitted::Failed(reason, observer))
    };
    match slot {
        RevisionSlot::Ready(revision) => Ok(ChosenRevision {
            revision: revision.clone(),
            start: StartKind::Warm,
            observer: None,
        }),
        RevisionSlot::Failed(reason) => failed(*reason),
        // nothing is being loaded that the request could wait for
        RevisionSlot::Absent => failed(FailureReason::Unloadable),
        RevisionSlot::Loading => {
            // created before waiting, so that a request whose client leaves meanwhile is counted
            let observer = observer_without_code(plane, served, began, StartKind::Cold);
            match wait_for_code(plane, table, served, bucket).await {
                Ok(revision) => Ok(ChosenRevision {
                    revision,
                    start: StartKind::Cold,
                    observer,
                }),
                Err(reason) => Err(NotAdmitted::Failed(reason, observer)),
            }
        }
    }
}

/// Returns the picked revision, and whether it serves for a candidate that cannot run.
fn picked_revision<'a>(
    plane: &DataPlaneState,
    served: &'a ServedFunction,
    bucket: u32,
) -> (&'a RevisionSlot, bool) {
    let pick = pick(
        &served.entry.split,
        bucket,
        served.candidate.ready().is_some() && plane.allows_candidate(),
    );
    let slot = match pick.arm {
        Arm::Stable => &served.stable,
        Arm::Candidate => &served.candidate,
    };
    (slot, pick.fallback)
}

/// Waits for a routing table in which the revision can run. The request does not keep its own table,
/// because that contains no code to run.
async fn wait_for_code(
    plane: &Arc<DataPlaneState>,
    table: &RoutingTable,
    served: &ServedFunction,
    bucket: u32,
) -> Result<Arc<Revision>, FailureReason> {
    let key = &served.entry.key;
    let place = plane.cold_starts.try_enter(key);
    let _cold_start = place.ok_or(FailureReason::Compile)?;
    let mut published = plane.watch_table();
    let find = |table: &RoutingTable| {
        // the function may have been deleted meanwhile
        let slot = table.by_key(key).map_or(&RevisionSlot::Absent, |served| {
            picked_revision(plane, served, bucket).0
        });
        match slot {
            RevisionSlot::Ready(revision) => Some(Ok(revision.clone())),
            RevisionSlot::Failed(reason) => Some(Err(*reason)),
            RevisionSlot::Absent => Some(Err(FailureReason::Unloadable)),
            RevisionSlot::Loading => None,
        }
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
                return Err(FailureReason::Cancelled);
            }
        }
    };
    tokio::time::timeout(LOAD_WAIT, wait)
        .await
        .unwrap_or(Err(FailureReason::Compile))
}

/// Returns the observer of a request that met no code. The request counts for the stable revision, or for
/// the candidate while there is no stable revision.
fn observer_without_code(
    plane: &DataPlaneState,
    served: &ServedFunction,
    began: Instant,
    start: StartKind,
) -> Option<RequestObserver> {
    let split = &served.entry.split;
    let revision = split.stable.as_ref().or(split.candidate.as_ref())?;
    let key = &served.entry.key;
    let in_table = || plane.table().by_key(key).is_some();
    let counters = plane.counters.for_request(key, revision, in_table)?;
    let stop_flag = plane.stop_flag.clone();
    Some(RequestObserver::new(counters, start, began, stop_flag))
}
