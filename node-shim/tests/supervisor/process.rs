//! Tests of the real program: signals, flags and limits.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::descriptors::descriptor_limits;
use crate::node::{Environment, Node, ONE, TIMEOUT, get};
use crate::operator::{Operator, SERVER_NAME, definition, function, via_operator};

struct Program {
    child: Child,
    data: SocketAddr,
    admin: SocketAddr,
}

impl Program {
    /// Starts the program with its state in `folder` and reads its addresses from the log.
    fn start(folder: &Path, more: &[&str]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_node-shim")), folder, more)
    }

    /// Like [`Program::start`], with a limit on file descriptors that is set by these arguments of `ulimit`.
    fn start_with_descriptors(limit: &str, folder: &Path) -> Self {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("ulimit {limit} && exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_node-shim"));
        Self::start_as(shell, folder, &[])
    }

    fn start_as(mut command: Command, folder: &Path, more: &[&str]) -> Self {
        let mut child = command
            .args([
                "run",
                "--node-name=node-1",
                "--data-addr=127.0.0.1:0",
                "--admin-addr=127.0.0.1:0",
            ])
            .args(["--log-format=json", "--debug-socket=", "--max-instances=32"])
            .arg(format!("--state-dir={}", folder.display()))
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("\"serving\""))
            .expect("the log contains the addresses");
        // Writing to a closed pipe fails, so the log is read to its end.
        std::thread::spawn(move || lines.for_each(drop));
        let serving: serde_json::Value = serde_json::from_str(&serving).unwrap();
        let address = |name: &str| serving[name].as_str().unwrap().parse().unwrap();
        Self {
            child,
            data: address("data"),
            admin: address("admin"),
        }
    }

    fn terminate(&self) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < TIMEOUT, "the program did not exit");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn is_ready(&self) {
        let started = Instant::now();
        while get(self.admin, "admin", "/readyz").await.0 != 200 {
            assert!(started.elapsed() < TIMEOUT, "never ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn seeded() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    operator.blob(&ONE);
    let f = definition("r1", &ONE, via_operator());
    operator
        .snapshot(7, vec![function("f", 1, vec![f], 0)])
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "one").await;
    node.drain().await;
    folder
}

/// FN-3, on one node: clients continue to send requests until they notice the failing probe. No request is lost.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_no_request() {
    let folder = seeded().await;
    let mut program = Program::start(
        folder.path(),
        &["--drain-propagation=1s", "--drain-timeout=10s"],
    );
    program.is_ready().await;
    let (answered, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop_sending = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (answered, lost, stop_sending) = (
                Arc::clone(&answered),
                Arc::clone(&lost),
                Arc::clone(&stop_sending),
            );
            let address = program.data;
            tokio::spawn(async move {
                // A load balancer stops sending when it has seen the failing probe.
                while !stop_sending.load(Ordering::Relaxed) {
                    match get(address, "f.test", "/").await {
                        (200, body) if body == "one" => answered.fetch_add(1, Ordering::Relaxed),
                        _ => lost.fetch_add(1, Ordering::Relaxed),
                    };
                }
            })
        })
        .collect();
    while answered.load(Ordering::Relaxed) < 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    program.terminate();
    // The probe fails while the data port still accepts requests.
    while get(program.admin, "admin", "/readyz").await.0 == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let at_signal = answered.load(Ordering::Relaxed);
    while answered.load(Ordering::Relaxed) < at_signal + 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop_sending.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(
        lost.load(Ordering::Relaxed),
        0,
        "of {}",
        answered.load(Ordering::Relaxed)
    );
    assert!(program.wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_the_program_at_once() {
    let folder = seeded().await;
    let mut program = Program::start(folder.path(), &["--drain-propagation=1h"]);
    program.is_ready().await;
    program.terminate();
    while get(program.admin, "admin", "/readyz").await.0 == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    program.terminate();
    assert_eq!(program.wait().code(), Some(1));
}

/// FN-2: the program is killed and restarts without operator and registry.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_serves_after_sigkill_without_operator_and_registry() {
    let folder = seeded().await;
    let mut program = Program::start(folder.path(), &[]);
    program.is_ready().await;
    program.child.kill().unwrap();
    program.wait();
    let again = Program::start(folder.path(), &[]);
    again.is_ready().await;
    assert_eq!(get(again.data, "f.test", "/").await, (200, "one".into()));
    assert_eq!(get(again.admin, "admin", "/healthz").await.0, 200);
}

/// FN-10, HH-5: connections use at most half of the file descriptors. Further ones wait in the backlog, the admin port
/// still responds, and the data port recovers when clients disconnect.
#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_descriptors_for_everything_else() {
    let folder = seeded().await;
    let program = Program::start_with_descriptors("-n 256", folder.path());
    program.is_ready().await;
    let mut crowd = Vec::new();
    for _ in 0..250 {
        let mut client = TcpStream::connect(program.data).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        crowd.push(client);
    }
    let started = Instant::now();
    loop {
        let (status, page) = get(program.admin, "admin", "/metrics").await;
        assert_eq!(status, 200);
        assert!(page.contains("selvage_accept_errors_total 0"), "{page}");
        if page.contains("selvage_connections{protocol=\"http1\"} 128") {
            break;
        }
        assert!(started.elapsed() < TIMEOUT, "{page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get(program.admin, "admin", "/healthz").await.0, 200);
    drop(crowd);
    assert_eq!(get(program.data, "f.test", "/").await, (200, "one".into()));
}

/// FN-10: the soft limit on descriptors is raised to the hard limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_uses_as_many_descriptors_as_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start_with_descriptors("-S -n 256", folder.path());
    let [soft, hard] = descriptor_limits(&program.child);
    assert_ne!(soft, "256");
    assert_eq!(soft, hard);
}

/// The flags of the real program take effect.
#[tokio::test(flavor = "multi_thread")]
async fn the_flags_reach_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    operator.blob(&ONE);
    let f = definition("r1", &ONE, via_operator());
    operator
        .snapshot(7, vec![function("f", 1, vec![f], 0)])
        .await;
    let flags = [
        format!("--node-api={}", operator.endpoint()),
        format!("--node-api-server-name={SERVER_NAME}"),
        format!("--node-api-ca={}", operator.ca_file().display()),
        format!("--token-file={}", operator.token_file().display()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let program = Program::start(folder.path(), &flags);
    operator.report("ready", |report| report.ready).await;
    assert_eq!(get(program.data, "f.test", "/").await, (200, "one".into()));
}

#[test]
fn the_compile_command_rejects_input_that_is_not_a_component() {
    let output = Command::new(env!("CARGO_BIN_EXE_node-shim"))
        .arg("compile")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(65));
    assert!(output.stdout.is_empty());
    let complaint: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(complaint["reason"], "NotAComponent");
}

/// HG-30: before the compiler process reads any input, it has given up all access that it does not need.
#[test]
fn hg_30_the_compiler_process_is_confined_before_it_reads() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_node-shim"))
        .arg("compile")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let threads = format!("/proc/{}/task", child.id());
    let value = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).map(str::to_owned)
    };
    let started = Instant::now();
    // all threads get the filter at the same moment
    let status = loop {
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(started.elapsed() < TIMEOUT, "never confined");
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        if value(&status, "Seccomp:").as_deref() == Some("2") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(value(&status, "NoNewPrivs:").as_deref(), Some("1"));
    let mut number = 0;
    for thread in std::fs::read_dir(threads).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert_eq!(value(&status, "Seccomp:").as_deref(), Some("2"), "{status}");
        number += 1;
    }
    assert!((2..=5).contains(&number), "{number} threads");
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(65));
    let report: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(report["reason"], "NotAComponent");
}
