//! Decides from a pod and its events whether the pod can still become ready. Pure: no IO and no clock.
//!
//! A starting pod often fails once for a temporary reason: the pod network is not set up yet, the registry is slow, a
//! program exits because another one has not started yet. Each failure is therefore either certain or not. The reason
//! or message of a certain failure does not change with time. Counting events is not sufficient: kubelet 1.34
//! reported a sandbox that failed for two minutes in a single event.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};

/// Reasons of a waiting container that only a change of the pod's specification or of the images on the node
/// resolves.
const CERTAIN_REASONS: [&str; 3] = ["ErrImageNeverPull", "InvalidImageName", "ErrImageInspect"];

/// Messages of a sandbox or container that could not be started, which only a change of the node or the image
/// resolves.
const CERTAIN_STARTS: [&str; 4] = [
    "failed to find plugin",
    "executable file not found",
    "unable to start container process: exec:",
    "can't get final child's PID from pipe",
];

/// Messages of refused pulls.
const CERTAIN_PULLS: [&str; 6] = [
    "not found",
    "manifest unknown",
    "unauthorized",
    "denied",
    "invalid reference",
    "server gave HTTP response to HTTPS client",
];

/// Number of restarts that make the failure of a crashing container certain. The first restart is immediate, the
/// second after 10 s.
const CERTAIN_RESTARTS: i32 = 2;

/// Reason why a pod does not become ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Namespace and name of the pod, followed by the reason and the complete message that Kubernetes gives.
    pub(super) message: String,
    /// Whether waiting is pointless. An uncertain failure may disappear within seconds.
    pub(super) certain: bool,
}

/// Returns the failure that keeps `pod` from becoming ready, if there is one. `events` may be those of the whole
/// namespace.
#[must_use]
pub(super) fn verdict(pod: &Pod, events: &[Event]) -> Option<Failure> {
    // a pod that is being deleted is not waited for
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let statuses = containers(pod);
    let container = statuses.iter().find_map(|status| container_failure(status));
    // events outlive what they report: a container that once ran had a sandbox
    let started = statuses.iter().any(|status| has_run(status));
    let sandbox = || (!started).then(|| sandbox_failure(pod, events)).flatten();
    let (message, certain) = container.or_else(sandbox)?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    Some(Failure {
        message: format!("pod {namespace}/{name}: {message}"),
        certain,
    })
}

fn containers(pod: &Pod) -> Vec<&ContainerStatus> {
    let status = pod.status.iter();
    status
        .flat_map(|status| [&status.init_container_statuses, &status.container_statuses])
        .flatten()
        .flatten()
        .collect()
}

fn has_run(container: &ContainerStatus) -> bool {
    let ran = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
    container.state.as_ref().is_some_and(ran) || container.last_state.as_ref().is_some_and(ran)
}

fn container_failure(container: &ContainerStatus) -> Option<(String, bool)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    let certain = match reason {
        reason if CERTAIN_REASONS.contains(&reason) => true,
        "CrashLoopBackOff" => container.restart_count >= CERTAIN_RESTARTS,
        "ErrImagePull" | "ImagePullBackOff" => contains_any(message, &CERTAIN_PULLS),
        "CreateContainerError" | "RunContainerError" => contains_any(message, &CERTAIN_STARTS),
        // another pod that is just starting may create the missing Secret or ConfigMap
        "CreateContainerConfigError" => false,
        _ => return None,
    };
    let last = last_exit(container).unwrap_or_default();
    let name = &container.name;
    Some((
        format!("container {name}: {reason}: {message}{last}"),
        certain,
    ))
}

/// Returns how the container ended last. The message of a crash loop does not contain it.
fn last_exit(container: &ContainerStatus) -> Option<String> {
    let ended = container.last_state.as_ref()?.terminated.as_ref()?;
    let reason = ended.reason.as_deref().unwrap_or("ended");
    let message = ended.message.as_deref().map(str::trim);
    Some(format!(
        "; {} restarts, last: {reason}, exit code {}{}",
        container.restart_count,
        ended.exit_code,
        message.map_or(String::new(), |message| format!(": {message}"))
    ))
}

fn sandbox_failure(pod: &Pod, events: &[Event]) -> Option<(String, bool)> {
    let concerns = |event: &&Event| {
        let object = &event.involved_object;
        object.uid.is_some()
            && object.uid == pod.metadata.uid
            && event.reason.as_deref() == Some("FailedCreatePodSandBox")
    };
    let seen = |event: &&Event| event.last_timestamp.as_ref().map(|time| time.0);
    let last = events.iter().filter(concerns).max_by_key(seen)?;
    let message = last.message.as_deref().unwrap_or_default();
    let certain = contains_any(message, &CERTAIN_STARTS);
    Some((format!("FailedCreatePodSandBox: {message}"), certain))
}

fn contains_any(message: &str, texts: &[&str]) -> bool {
    texts.iter().any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    // recorded with Kubernetes 1.34.10 and containerd 1.6.20 on Debian 12
    const NO_PLUGIN: &str = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for \
        sandbox \"e6de6f4e8ad2637eea9596db27d450e1afab8a2cf7763bf72a7ab439e67351bb\": plugin type=\"loopback\" failed \
        (add): failed to find plugin \"loopback\" in path [/usr/lib/cni]";
    const NO_IMAGE: &str =
        "Container image \"selvage.local/absent:1\" is not present with pull policy of Never";
    const NO_PROGRAM: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: \
        runc create failed: unable to start container process: exec: \"/absent\": stat /absent: no such file or \
        directory: unknown";
    const BACK_OFF: &str =
        "back-off 10s restarting failed container=c pod=p_n(2ca7c73c-d8a3-4298-951c-6ce651cbd0c6)";
    const HTTPS: &str = "Back-off pulling image \"10.200.0.1:5000/absent:1\": ErrImagePull: failed to pull and unpack \
        image \"10.200.0.1:5000/absent:1\": failed to resolve reference \"10.200.0.1:5000/absent:1\": failed to do \
        request: Head \"https://10.200.0.1:5000/v2/absent/manifests/1\": http: server gave HTTP response to HTTPS client";

    fn pod(statuses: Value) -> Pod {
        let pod = json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "1" },
            "status": { "phase": "Pending", "containerStatuses": statuses },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn status(state: Value, last: Value, restarts: i32) -> Pod {
        pod(json!([{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": restarts,
            "state": state, "lastState": last,
        }]))
    }

    fn waiting(reason: &str, message: &str) -> Pod {
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        status(state, json!({}), 0)
    }

    fn creating() -> Pod {
        let state = json!({ "waiting": { "reason": "ContainerCreating" } });
        status(state, json!({}), 0)
    }

    fn sandbox(message: &str, uid: &str) -> [Event; 1] {
        let event = json!({
            "metadata": { "name": "e" }, "reason": "FailedCreatePodSandBox", "message": message, "count": 1,
            "involvedObject": { "kind": "Pod", "name": "p", "uid": uid },
            "lastTimestamp": "2026-01-01T00:00:00Z",
        });
        [serde_json::from_value(event).unwrap()]
    }

    #[track_caller]
    fn assert_failure(pod: &Pod, events: &[Event], certain: bool, message: &str) {
        let message = format!("pod n/p: {message}");
        assert_eq!(verdict(pod, events), Some(Failure { message, certain }));
    }

    #[test]
    fn a_missing_plugin_is_certain_at_the_first_event_and_quoted_whole() {
        let message = format!("FailedCreatePodSandBox: {NO_PLUGIN}");
        assert_failure(&creating(), &sandbox(NO_PLUGIN, "1"), true, &message);
    }

    #[test]
    fn a_sandbox_that_fails_for_another_reason_may_succeed_later() {
        let text = "Failed to create pod sandbox: cni plugin not initialized";
        let message = format!("FailedCreatePodSandBox: {text}");
        assert_failure(&creating(), &sandbox(text, "1"), false, &message);
    }

    #[test]
    fn events_of_other_pods_and_of_the_past_do_not_count() {
        assert_eq!(verdict(&creating(), &sandbox(NO_PLUGIN, "2")), None);
        assert_eq!(verdict(&creating(), &[]), None);
        let running = status(json!({ "running": {} }), json!({}), 0);
        assert_eq!(verdict(&running, &sandbox(NO_PLUGIN, "1")), None);
        let mut leaving = waiting("ErrImageNeverPull", NO_IMAGE);
        leaving.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(verdict(&leaving, &[]), None);
    }

    #[test]
    fn images_that_are_never_pulled_or_have_no_valid_name_are_certain() {
        for reason in ["ErrImageNeverPull", "InvalidImageName"] {
            let message = format!("container c: {reason}: {NO_IMAGE}");
            assert_failure(&waiting(reason, NO_IMAGE), &[], true, &message);
        }
    }

    #[test]
    fn a_crash_loop_is_certain_from_the_second_restart_and_says_how_the_program_ended() {
        for (restarts, certain) in [(1, false), (2, true)] {
            let pod = status(
                json!({ "waiting": { "reason": "CrashLoopBackOff", "message": BACK_OFF } }),
                json!({ "terminated": { "exitCode": 101, "reason": "Error", "message": "no token\n" } }),
                restarts,
            );
            let message = format!(
                "container c: CrashLoopBackOff: {BACK_OFF}; {restarts} restarts, last: Error, exit code 101: no token"
            );
            assert_failure(&pod, &[], certain, &message);
        }
    }

    #[test]
    fn a_program_that_is_not_in_the_image_is_certain() {
        let message = format!("container c: RunContainerError: {NO_PROGRAM}");
        assert_failure(
            &waiting("RunContainerError", NO_PROGRAM),
            &[],
            true,
            &message,
        );
    }

    #[test]
    fn a_refused_pull_is_certain_and_one_without_an_answer_is_not() {
        let message = format!("container c: ImagePullBackOff: {HTTPS}");
        assert_failure(&waiting("ImagePullBackOff", HTTPS), &[], true, &message);
        let slow = "dial tcp 192.0.2.1:443: i/o timeout";
        let message = format!("container c: ErrImagePull: {slow}");
        assert_failure(&waiting("ErrImagePull", slow), &[], false, &message);
    }

    #[test]
    fn a_missing_secret_may_come() {
        let text = "secret \"s\" not found";
        let message = format!("container c: CreateContainerConfigError: {text}");
        assert_failure(
            &waiting("CreateContainerConfigError", text),
            &[],
            false,
            &message,
        );
    }

    #[test]
    fn init_containers_count() {
        let mut pod = pod(json!([]));
        let failing = waiting("ErrImageNeverPull", NO_IMAGE);
        let status = pod.status.as_mut().unwrap();
        status.init_container_statuses = failing.status.unwrap().container_statuses;
        assert!(verdict(&pod, &[]).is_some_and(|failure| failure.certain));
    }
}
