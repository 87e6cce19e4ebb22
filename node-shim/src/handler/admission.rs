//! Admission of a request: validation, routing, choice of the revision, permits. The call of a function has no route, and it
//! waits for no permit: its caller holds one, and callers that wait for each other would never end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use node_shim_core::call::Hops;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::hop_header::SignedHops;
use node_shim_core::pick::{Arm, BUCKETS, pick};
use node_shim_core::preview;
use node_shim_core::request_labels::{Population, StartKind};
use node_shim_core::routing;
use node_shim_core::table::FunctionKey;
use node_shim_core::validation::{self, Rejection, ValidatedHead};

use super::origin::{Origin, Via};
use super::response::content_length;
use crate::code_cache::{CodeInUse, CodeUser};
use crate::concurrency_limit::Permit;
use crate::connection::Connection;
use crate::data_plane::DataPlaneState;
use crate::egress::FunctionCall;
use crate::instance::{InstanceParts, InstanceSource};
use crate::observer::RequestObserver;
use crate::open_request::OpenRequest;
use crate::revision::Revision;
use crate::routing_table::{
    RemoteFunction, RemoteNodes, RevisionSlot, RoutingTable, ServedFunction,
};
use crate::shim_response::Unserved;

/// Path of the readiness probe on the data port.
const READY_PATH: &str = "/.well-known/selvage/ready";
/// Maximum time that a request waits for code that is being loaded. The limits of the revision are not
/// known yet.
const LOAD_WAIT: Duration = Duration::from_secs(1);

/// Why a request is answered without running a guest.
pub(super) enum NotAdmitted {
    Invalid(Rejection),
    NoRoute,
    /// The function does not have the revision that the request names.
    NoRevision,
    Probe,
    /// The function is placed on these nodes, and not on this one, or not yet.
    Elsewhere(Arc<RemoteNodes>),
    /// The function is not on this node, and the request cannot be passed on.
    Unserved(Unserved),
    Failed(FailureReason, Option<RequestObserver>),
}

/// An admitted request.
pub(super) struct Admitted {
    pub(super) passed: ValidatedHead,
    pub(super) hops: Hops,
    pub(super) revision: Arc<Revision>,
    pub(super) instance: InstanceSource,
    pub(super) rewritten: Option<String>,
    pub(super) observer: RequestObserver,
    pub(super) start: StartKind,
    pub(super) permit: Permit,
}

/// A valid request whose function is known.
struct Routed<'a> {
    passed: ValidatedHead,
    hops: Hops,
    rewritten: Option<String>,
    /// Length of the body in bytes, if it is declared.
    length: Option<u64>,
    via: Via,
    /// Name of the revision that shall serve the request.
    preview: Option<String>,
    began: Instant,
    /// The request, if it is reported on its own. Its observer takes it, so that a request whose client leaves while it waits
    /// is reported.
    open: &'a mut Option<Box<OpenRequest>>,
}

/// Validates and routes the request of a client, picks the revision and acquires its permits.
pub(super) async fn admit(
    plane: &Arc<DataPlaneState>,
    conn: &Connection,
    origin: Origin,
    parts: &Parts,
    began: Instant,
    open: &mut Option<Box<OpenRequest>>,
) -> Result<Admitted, NotAdmitted> {
    // load balancers often name no host
    if parts.uri.path() == READY_PATH {
        return Err(NotAdmitted::Probe);
    }
    let passed = validated(parts)?;
    let table = plane.table();
    if !conn.allows_host(&table, &passed.host) {
        return Err(NotAdmitted::Invalid(Rejection::Misdirected));
    }
    let signed = SignedHops::read(&parts.headers);
    let hops = plane.egress.hop_key.verified(signed, passed.host.as_str());
    if hops.is_loop() {
        return Err(NotAdmitted::Invalid(Rejection::Loop));
    }
    let wanted = routing::RouteRequest {
        host: table.local_hosts().routed(&passed.host),
        path: parts.uri.path(),
        method: parts.method.as_str(),
        headers: &parts.headers,
    };
    let Some(found) = table.index().find(wanted) else {
        return Err(match origin.via {
            // the table of the other node is newer, or older
            Via::Node { .. } => NotAdmitted::Unserved(Unserved::NotHere),
            _ => NotAdmitted::NoRoute,
        });
    };
    if passed.uncommon_method && !found.lists_method {
        return Err(NotAdmitted::Invalid(Rejection::MethodUnknown));
    }
    let preview = origin.previewed_revision(&plane.options, &parts.headers);
    let Some(served) = table.function(found.function) else {
        let remote = table.remote(found.function);
        return Err(match remote {
            // another node would choose by the weights
            Some(_) if preview.is_some() => NotAdmitted::Unserved(Unserved::NotHere),
            Some(remote) => elsewhere(remote, origin.via),
            None => NotAdmitted::NoRoute,
        });
    };
    let routed = Routed {
        passed,
        hops,
        rewritten: found.rewritten,
        length: content_length(&parts.headers),
        via: origin.via,
        preview,
        began,
        open,
    };
    admit_routed(plane, &table, served, routed).await
}

/// Validates the call of a function that has come `via` this node or another one, picks the revision by the function's own
/// weights and acquires its permits.
pub(super) async fn admit_call(
    plane: &Arc<DataPlaneState>,
    table: &RoutingTable,
    call: &FunctionCall,
    via: Via,
    parts: &Parts,
    began: Instant,
    open: &mut Option<Box<OpenRequest>>,
) -> Result<Admitted, NotAdmitted> {
    if call.hops.is_loop() {
        return Err(NotAdmitted::Invalid(Rejection::Loop));
    }
    let passed = validated(parts)?;
    let entry = table.entry_by_key(&call.function);
    let entry = entry.ok_or(NotAdmitted::NoRoute)?;
    let lists_method = || {
        let mut methods = entry.routes.iter().flat_map(|route| &route.methods);
        methods.any(|method| method == parts.method.as_str())
    };
    if passed.uncommon_method && !lists_method() {
        return Err(NotAdmitted::Invalid(Rejection::MethodUnknown));
    }
    let Some(served) = table.by_key(&call.function) else {
        let remote = table.remote_by_key(&call.function);
        return Err(remote.map_or(NotAdmitted::NoRoute, |remote| elsewhere(remote, via)));
    };
    let routed = Routed {
        passed,
        hops: call.hops,
        rewritten: None,
        length: content_length(&parts.headers),
        via,
        preview: None,
        began,
        open,
    };
    admit_routed(plane, table, served, routed).await
}

/// Returns why this node does not serve a function of other nodes.
fn elsewhere(remote: &RemoteFunction, via: Via) -> NotAdmitted {
    if remote.entry.suspended {
        return NotAdmitted::Failed(FailureReason::Suspended, None);
    }
    match via {
        Via::Node { .. } | Via::FunctionElsewhere { .. } => {
            NotAdmitted::Unserved(Unserved::NotHere)
        }
        _ if remote.nodes.named == 0 => NotAdmitted::Unserved(Unserved::NotPlaced),
        _ => NotAdmitted::Elsewhere(Arc::clone(&remote.nodes)),
    }
}

pub(super) fn validated(parts: &Parts) -> Result<ValidatedHead, NotAdmitted> {
    let head = validation::RequestHead {
        version: parts.version,
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
    };
    validation::validate(head).map_err(NotAdmitted::Invalid)
}

/// Picks the revision and acquires its permits. The request counts as live traffic of the function, whether a client or
/// another function sent it: the weights of the function divide both, so its revisions are compared fairly.
async fn admit_routed(
    plane: &Arc<DataPlaneState>,
    table: &RoutingTable,
    served: &ServedFunction,
    mut routed: Routed<'_>,
) -> Result<Admitted, NotAdmitted> {
    if served.entry.suspended {
        return Err(NotAdmitted::Failed(FailureReason::Suspended, None));
    }
    let began = routed.began;
    let ChosenRevision {
        revision,
        start,
        observer,
    } = choose_revision(plane, table, served, &mut routed).await?;
    // the code stays mapped from here on
    let user = revision.code.enter();
    let start = if user.is_mapped() {
        start
    } else {
        StartKind::Cold
    };
    let counters = revision.counters.clone();
    let mut observer = match observer {
        Some(mut waited) => {
            waited.set_counters(counters);
            waited
        }
        None => RequestObserver::new(counters, start, began, plane.stop_flag.clone()),
    };
    observer.report_at_end(routed.open.take());
    if routed.preview.is_some() {
        observer.set_population(Population::Preview);
    }
    let key = &served.entry.key;
    let acquired = acquire(plane, key, &revision, user, &routed).await;
    let Resources { instance, permit } = match acquired {
        Ok(resources) => resources,
        Err(reason) => return Err(NotAdmitted::Failed(reason, Some(observer))),
    };
    Ok(Admitted {
        passed: routed.passed,
        hops: routed.hops,
        revision,
        instance,
        rewritten: routed.rewritten,
        observer,
        start,
        permit,
    })
}

/// What a guest needs to run.
struct Resources {
    instance: InstanceSource,
    permit: Permit,
}

/// Checks the length of the body, and acquires a permit of the revision, and an idle instance or what a fresh one needs: its
/// code and a share of the node.
async fn acquire(
    plane: &DataPlaneState,
    key: &FunctionKey,
    revision: &Arc<Revision>,
    user: CodeUser,
    routed: &Routed<'_>,
) -> Result<Resources, FailureReason> {
    if !plane.allows_request(key) {
        return Err(FailureReason::MemoryPressure);
    }
    let limits = &revision.spec.limits;
    if routed
        .length
        .is_some_and(|length| length > limits.request_body)
    {
        plane.node_counters.rejected(Rejection::BodyTooLarge);
        return Err(FailureReason::BodyTooLarge);
    }
    let (places, wait) = match routed.via {
        // the caller waits, and holds a permit of its own
        Via::Function | Via::FunctionElsewhere { .. } => (0, Duration::ZERO),
        Via::Client | Via::Node { .. } => (limits.queue_length, limits.queue_timeout),
    };
    let permit = revision.concurrency.acquire(places, wait).await?;
    if let Some(used) = plane.idle.take(revision) {
        let instance = InstanceSource::Used(Box::new(used));
        return Ok(Resources { instance, permit });
    }
    let code = mapped_code(plane, key, user, limits.queue_timeout).await?;
    let share = plane
        .budget
        .admit(&key.namespace, code.loaded.slots)
        .ok_or(FailureReason::Pool)?;
    let instance = InstanceSource::Fresh(InstanceParts { code, share });
    Ok(Resources { instance, permit })
}

/// Returns the code of the revision, and maps it first when it is only on disk. No running guest delays that, so a call waits
/// for it too. If it cannot be mapped, the component is loaded again, and the request waits for it for as long as it may wait
/// in the queue.
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
    routed: &mut Routed<'_>,
) -> Result<ChosenRevision, NotAdmitted> {
    if let Some(name) = &routed.preview {
        return named_revision(served, name);
    }
    let began = routed.began;
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
        RevisionSlot::Loading | RevisionSlot::LoadingHere(_) if routed.via.has_another_node() => {
            Err(NotAdmitted::Unserved(Unserved::NotHere))
        }
        RevisionSlot::LoadingHere(nodes) if matches!(routed.via, Via::Client | Via::Function) => {
            Err(NotAdmitted::Elsewhere(Arc::clone(nodes)))
        }
        RevisionSlot::Loading | RevisionSlot::LoadingHere(_) => {
            // created before waiting, so that a request whose client leaves meanwhile is counted
            let mut observer = observer_without_code(plane, served, began, StartKind::Cold);
            if let Some(observer) = &mut observer {
                observer.report_at_end(routed.open.take());
            }
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

/// Returns the revision that a request names, if the node can run it.
fn named_revision(served: &ServedFunction, name: &str) -> Result<ChosenRevision, NotAdmitted> {
    let slot = match preview::arm_of(&served.entry.split, name) {
        Some(Arm::Stable) => &served.stable,
        Some(Arm::Candidate) => &served.candidate,
        None => return Err(NotAdmitted::NoRevision),
    };
    let reason = match slot {
        RevisionSlot::Ready(revision) => {
            return Ok(ChosenRevision {
                revision: revision.clone(),
                start: StartKind::Warm,
                observer: None,
            });
        }
        RevisionSlot::Failed(reason) => *reason,
        RevisionSlot::Absent => FailureReason::Unloadable,
        RevisionSlot::Loading | RevisionSlot::LoadingHere(_) => FailureReason::Compile,
    };
    Err(NotAdmitted::Failed(reason, None))
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
            RevisionSlot::Loading | RevisionSlot::LoadingHere(_) => None,
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
