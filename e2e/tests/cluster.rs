//! Tests of the local cluster: it works, several can run at the same time, and nothing of them is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what tests share may fail a test as the tests themselves do"
)]

use e2e::cluster::{Cluster, HELLO_IMAGE, Options, Purpose, install, probe, rolled_out, run, wait};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const NODES: Options = Options {
    nodes: 2,
    registry: false,
    prometheus: None,
};

/// Returns whether this machine can run nodes; otherwise prints the reason, and tests with nodes are skipped. A
/// missing package is not such a reason.
fn nodes_run() -> bool {
    if rustix::process::geteuid().is_root() {
        install(&[Purpose::Nodes]).unwrap();
    }
    probe()
        .inspect_err(|reason| eprintln!("skipped, nodes cannot run: {reason:#}"))
        .is_ok()
}

async fn start(options: &Options) -> Cluster {
    Cluster::start(options, &|_, _| {}).await.unwrap()
}

/// Returns everything on this machine whose name contains the id of a run.
fn traces(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let output = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (what, listing) in [
        ("links and routes", output("ip -o link; ip route")),
        ("network namespaces", output("ip netns list")),
        (
            "control groups",
            output("find /sys/fs/cgroup -maxdepth 2 -name 'selvage-*'"),
        ),
        ("mounts", fs::read_to_string("/proc/self/mounts").unwrap()),
        (
            "folders",
            output("ls /var/lib/selvage-e2e /tmp/selvage-e2e-* 2>/dev/null"),
        ),
        (
            "processes",
            output(&format!(
                "grep -lsz '^SELVAGE_RUN={id}$' /proc/[0-9]*/environ && echo {id}"
            )),
        ),
    ] {
        if listing.contains(id) {
            found.push(what.to_owned());
        }
    }
    found
}

async fn gone(id: &str) {
    wait::until(
        Duration::from_secs(180),
        Duration::from_millis(100),
        async || Ok(traces(id).is_empty().then_some(())),
    )
    .await
    .unwrap_or_else(|error| panic!("{error}: left of {id}: {:?}", traces(id)));
}

#[tokio::test]
async fn two_control_planes_live_side_by_side_and_leave_nothing() {
    let options = Options {
        registry: true,
        ..Options::default()
    };
    let (a, b) = (start(&options).await, start(&options).await);
    assert_ne!(a.server(), b.server());
    let namespace = a.namespace("only-here").await.unwrap();
    let elsewhere: Api<Namespace> = Api::all(b.client());
    assert!(elsewhere.get_opt(&namespace).await.unwrap().is_none());
    let ids = [a.run().id().to_owned(), b.run().id().to_owned()];
    assert!(!traces(&ids[0]).is_empty());
    drop((a, b));
    for id in ids {
        assert_eq!(traces(&id), [""; 0]);
    }
}

#[tokio::test]
async fn a_sweep_leaves_a_live_run_alone() {
    let mut cluster = start(&Options {
        registry: false,
        prometheus: None,
        nodes: 0,
    })
    .await;
    let removed = run::sweep().unwrap();
    assert!(!removed.contains(&cluster.run().id().to_owned()));
    cluster.check().unwrap();
    cluster.namespace("still").await.unwrap();
}

#[tokio::test]
async fn the_api_server_can_be_killed_frozen_and_started_again() {
    let mut cluster = start(&Options {
        registry: false,
        prometheus: None,
        nodes: 0,
    })
    .await;
    let namespace = cluster.namespace("kept").await.unwrap();
    cluster.control_plane.api_server.kill();
    assert!(cluster.namespace("none").await.is_err());
    cluster.control_plane.api_server.restart().unwrap();
    let api: Api<Namespace> = Api::all(cluster.client());
    wait::until(
        Duration::from_secs(180),
        Duration::from_millis(100),
        async || Ok(api.get(&namespace).await.ok()),
    )
    .await
    .unwrap();
    cluster.control_plane.api_server.freeze().unwrap();
    let during = tokio::time::timeout(Duration::from_secs(1), api.get(&namespace)).await;
    assert!(during.is_err(), "a frozen API server answered");
    cluster.control_plane.api_server.thaw().unwrap();
    api.get(&namespace).await.unwrap();
}

/// Prometheus finds pods as documented for users.
#[tokio::test]
async fn prometheus_finds_pods_and_may_do_nothing_else() {
    let cluster = start(&Options {
        registry: false,
        prometheus: Some(Duration::from_secs(1)),
        nodes: 0,
    })
    .await;
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let body = json!({ "metadata": { "name": "selvage-system" } });
    let body = serde_json::from_value(body).unwrap();
    let created = namespaces.create(&PostParams::default(), &body).await;
    created.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "selvage-system");
    let labels = json!({
        "app.kubernetes.io/name": "selvage", "app.kubernetes.io/component": "node-shim",
    });
    address(&pods, "other", &json!({})).await;
    address(&pods, "selvage-node-shim-1", &labels).await;
    scrapes(
        &cluster,
        &[json!({
            "instance": "192.0.2.7:9180", "job": "node-shim",
            "namespace": "selvage-system", "pod": "selvage-node-shim-1",
        })],
    )
    .await;
    pods.delete("selvage-node-shim-1", &DeleteParams::default())
        .await
        .unwrap();
    scrapes(&cluster, &[]).await;

    let identity = cluster.run().dir().join("pki/prometheus.kubeconfig");
    let may = |verb: &str, resource: &str| {
        let mut kubectl = Command::new(cluster.tools().program("kubectl"));
        kubectl.arg("--kubeconfig").arg(&identity);
        kubectl.args(["auth", "can-i", verb, resource, "--all-namespaces"]);
        kubectl.output().unwrap().status.success()
    };
    assert!(may("list", "pods") && may("watch", "pods"));
    for (verb, resource) in [
        ("get", "pods"),
        ("create", "pods"),
        ("delete", "pods"),
        ("list", "secrets"),
        ("list", "nodes"),
        ("list", "services"),
    ] {
        assert!(!may(verb, resource), "{verb} {resource}");
    }
}

/// Creates a pod with the ports of a node-shim and gives it an address, because there is no kubelet that does.
async fn address(pods: &Api<Pod>, name: &str, labels: &Value) {
    let ports = json!([
        { "name": "data", "containerPort": 8080 }, { "name": "admin", "containerPort": 9180 },
    ]);
    let container = json!({ "name": "main", "image": "none", "ports": ports });
    let pod = json!({
        "metadata": { "name": name, "labels": labels }, "spec": { "containers": [container] },
    });
    let pod = serde_json::from_value(pod).unwrap();
    let ip = "192.0.2.7";
    let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } });
    // the service account of a new namespace may not exist yet
    let (limit, pause) = (Duration::from_secs(60), Duration::from_millis(100));
    wait::until(limit, pause, async || {
        Ok(pods.create(&PostParams::default(), &pod).await.ok())
    })
    .await
    .unwrap();
    let status = Patch::Merge(&status);
    pods.patch_status(name, &PatchParams::default(), &status)
        .await
        .unwrap();
}

/// Waits until Prometheus scrapes exactly the targets with these labels.
async fn scrapes(cluster: &Cluster, labels: &[Value]) {
    let (limit, pause) = (Duration::from_secs(60), Duration::from_millis(200));
    wait::until(limit, pause, async || {
        let targets = cluster.prometheus.as_ref().unwrap().targets().await?;
        let found = targets.iter().map(|target| target["labels"].clone());
        Ok((found.collect::<Vec<_>>() == labels).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn pods_run_and_a_killed_node_comes_back_with_them() {
    if !nodes_run() {
        return;
    }
    let mut cluster = start(&NODES).await;
    cluster
        .import_image(&cluster.tools().hello_image())
        .unwrap();
    apply(&cluster, &hello());
    rolled_out(&cluster, "default", "ds/hello", Duration::from_secs(180)).unwrap();
    for node in cluster.nodes() {
        answers(&format!("http://{}:30080/", node.address())).await;
    }

    let api: Api<Node> = Api::all(cluster.client());
    cluster.node(0).unwrap().kill();
    ready(&api, "node1", "Unknown").await;
    cluster.node(0).unwrap().restart().unwrap();
    ready(&api, "node1", "True").await;
    answers(&format!("http://{}:30080/", cluster.nodes()[0].address())).await;

    let mut command = cluster.nodes()[1].command("hostname").unwrap();
    assert_eq!(
        String::from_utf8_lossy(&command.output().unwrap().stdout),
        "node2\n"
    );
    let dump = tempfile::tempdir().unwrap();
    let summary = cluster.dump(dump.path()).unwrap();
    assert!(summary.contains("last events"), "{summary}");
    assert!(
        fs::read_to_string(dump.path().join("objects/pods.yaml"))
            .unwrap()
            .contains(HELLO_IMAGE)
    );
    assert!(dump.path().join("logs/node1-kubelet.log").is_file());

    let id = cluster.run().id().to_owned();
    drop(cluster);
    assert_eq!(traces(&id), [""; 0]);
}

#[tokio::test]
async fn a_pod_that_cannot_start_ends_the_wait_with_the_reason() {
    if !nodes_run() {
        return;
    }
    let cluster = start(&Options { nodes: 1, ..NODES }).await;
    apply(&cluster, ABSENT);
    // without the check of the pod, kubectl would wait until its time-out and report only that
    let limit = Duration::from_secs(180);
    let error = rolled_out(&cluster, "default", "deploy/absent", limit).unwrap_err();
    let error = format!("{error:#}");
    let reason = "container absent: ErrImageNeverPull: Container image \"selvage.local/absent:1\" is not present \
                  with pull policy of Never";
    assert!(error.starts_with("pod default/absent-"), "{error}");
    assert!(error.ends_with(reason), "{error}");
}

#[tokio::test]
async fn a_killed_owner_leaves_nothing() {
    for signal in ["KILL", "INT", "TERM"] {
        let mut owner = owner();
        let id = owner.1;
        assert!(!traces(&id).is_empty());
        let sent = Command::new("kill")
            .args(["-s", signal, &owner.0.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        owner.0.wait().unwrap();
        gone(&id).await;
    }
}

#[tokio::test]
async fn the_next_start_removes_what_a_killed_owner_and_its_watchdog_left() {
    let (mut owner, id) = owner();
    assert!(!traces(&id).is_empty());
    let watchdogs = Command::new("pgrep")
        .args(["-f", &format!("watchdog .*{id}")])
        .output()
        .unwrap();
    for pid in String::from_utf8_lossy(&watchdogs.stdout).split_whitespace() {
        assert!(
            Command::new("kill")
                .args(["-9", pid])
                .status()
                .unwrap()
                .success()
        );
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    // the start of another test may do it first
    run::sweep().unwrap();
    gone(&id).await;
}

/// Starts a process that starts a cluster and waits to be killed. Returns it with the id of its run.
fn owner() -> (std::process::Child, String) {
    let nodes = if nodes_run() {
        "--nodes=1"
    } else {
        "--control-plane"
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_cluster"))
        .args(["up", nodes, "--wait"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // keep this end of the pipe open: a process that cannot write its next line ends by itself
    let lines = BufReader::new(child.stdout.as_mut().unwrap())
        .lines()
        .map_while(Result::ok);
    let config = lines
        .filter_map(|line| line.strip_prefix("export KUBECONFIG=").map(PathBuf::from))
        .next()
        .expect("cluster up prints where its kubeconfig is");
    let id = config
        .parent()
        .and_then(Path::parent)
        .and_then(Path::file_name)
        .unwrap();
    (child, id.to_string_lossy().into_owned())
}

fn apply(cluster: &Cluster, manifest: &str) {
    let file = cluster.run().dir().join("manifest.yaml");
    fs::write(&file, manifest).unwrap();
    let applied = cluster
        .kubectl()
        .arg("apply")
        .arg("-f")
        .arg(&file)
        .status()
        .unwrap();
    assert!(applied.success());
}

async fn answers(url: &str) {
    wait::until(
        Duration::from_secs(180),
        Duration::from_millis(200),
        async || {
            let answer = reqwest::Client::new()
                .get(url)
                .timeout(Duration::from_secs(1))
                .send()
                .await;
            Ok(answer
                .is_ok_and(|answer| answer.status().is_success())
                .then_some(()))
        },
    )
    .await
    .unwrap_or_else(|error| panic!("{url}: {error}"));
}

async fn ready(nodes: &Api<Node>, name: &str, wanted: &str) {
    wait::until(
        Duration::from_secs(180),
        Duration::from_millis(200),
        async || {
            let conditions = nodes
                .get(name)
                .await?
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == wanted)
                .then_some(()))
        },
    )
    .await
    .unwrap_or_else(|error| panic!("{name} not {wanted}: {error}"));
}

/// Pod with an image that no node has and that must not be pulled.
const ABSENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: absent}
spec:
  selector: {matchLabels: {app: absent}}
  template:
    metadata: {labels: {app: absent}}
    spec:
      containers:
      - {name: absent, image: 'selvage.local/absent:1', imagePullPolicy: Never}
";

fn hello() -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: hello}}
spec:
  selector: {{matchLabels: {{app: hello}}}}
  template:
    metadata: {{labels: {{app: hello}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: hello
        image: {HELLO_IMAGE}
        imagePullPolicy: Never
        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
        securityContext:
          runAsNonRoot: true
          runAsUser: 65532
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {{drop: [ALL]}}
          seccompProfile: {{type: RuntimeDefault}}
---
apiVersion: v1
kind: Service
metadata: {{name: hello}}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: {{app: hello}}
  ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]
"#
    )
}
