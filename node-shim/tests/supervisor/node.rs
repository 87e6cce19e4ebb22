//! Runs a node in the test process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use node_shim::data_plane::DataPlaneOptions;
use node_shim::engine::EngineOptions;
use node_shim::node_api::Settings;
use node_shim::supervisor::{Options, Supervisor};
use node_shim::traces::TraceOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::component::guest;
use crate::operator::{Operator, SERVER_NAME};
use crate::registry::Registry;

/// Maximum time that a test waits for an expected event.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// Limit on waiting of the support modules that both test programs use.
pub(crate) const PATIENCE: Duration = TIMEOUT;

/// Builds a component that responds with `text`.
fn answers(text: &str) -> Vec<u8> {
    let length = text.len();
    guest(
        &format!("(data (i32.const 4096) \"{text}\")"),
        &format!(
            "(call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const {length}))"
        ),
    )
}

/// Component that responds with "one".
pub(crate) static ONE: LazyLock<Vec<u8>> = LazyLock::new(|| answers("one"));
/// Component that responds with "two".
pub(crate) static TWO: LazyLock<Vec<u8>> = LazyLock::new(|| answers("two"));

/// A running node.
pub(crate) struct Node {
    pub(crate) supervisor: Supervisor,
}

/// Servers to which a node connects.
#[derive(Default)]
pub(crate) struct Environment<'a> {
    pub(crate) operator: Option<&'a Operator>,
    pub(crate) registry: Option<&'a Registry>,
}

/// Returns the settings of a node with its state in `folder`.
pub(crate) fn options(folder: &Path, environment: &Environment<'_>) -> Options {
    let operator = environment.operator;
    Options {
        api: Settings {
            node: "node-1".into(),
            endpoints: operator.map(Operator::endpoint).into_iter().collect(),
            server_name: SERVER_NAME.into(),
            ca_file: operator.map(Operator::ca_file).unwrap_or_default(),
            token_file: operator.map(Operator::token_file).unwrap_or_default(),
            boot_id: 1,
            addresses: Vec::new(),
        },
        state_dir: folder.to_owned(),
        data_addr: "127.0.0.1:0".parse().unwrap(),
        tls_addr: "127.0.0.1:0".parse().unwrap(),
        tls: true,
        tls_certificates: Vec::new(),
        admin_addr: "127.0.0.1:0".parse().unwrap(),
        debug_socket: None,
        insecure_registries: environment
            .registry
            .map(Registry::host)
            .into_iter()
            .collect(),
        drain_propagation: Duration::ZERO,
        drain_timeout: Duration::from_secs(10),
        data: DataPlaneOptions::default(),
        engine: EngineOptions::small(),
        traces: TraceOptions::default(),
        max_loaded: None,
        program: PathBuf::from(env!("CARGO_BIN_EXE_node-shim")),
    }
}

impl Node {
    pub(crate) async fn start(folder: &Path, environment: Environment<'_>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let supervisor = Supervisor::start(options(folder, &environment))
            .await
            .unwrap();
        Self { supervisor }
    }

    /// Returns status and body of `GET /` on host `<name>.test`.
    pub(crate) async fn get(&self, name: &str) -> (u16, String) {
        get(self.supervisor.data_address(), &format!("{name}.test"), "/").await
    }

    /// Sends requests until the function responds with this status and body.
    pub(crate) async fn answers(&self, name: &str, status: u16, body: &str) {
        let expected = (status, body.to_string());
        let mut last = None;
        let found = tokio::time::timeout(TIMEOUT, async {
            loop {
                let answer = self.get(name).await;
                if answer == expected {
                    return;
                }
                last = Some(answer);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(
            found.is_ok(),
            "{name} never answered {expected:?}; last: {last:?}"
        );
    }

    /// Waits until the node is ready.
    pub(crate) async fn is_ready(&self) {
        let found = tokio::time::timeout(TIMEOUT, async {
            while self.supervisor.readiness().is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(
            found.is_ok(),
            "never ready: {:?}",
            self.supervisor.readiness()
        );
    }

    pub(crate) async fn metrics(&self) -> String {
        get(self.supervisor.admin_address(), "admin", "/metrics")
            .await
            .1
    }

    /// Shuts the node down as SIGTERM does.
    pub(crate) async fn drain(self) {
        self.supervisor.drain().await;
    }
}

/// Sends one request on a new connection. Returns status 0 for an invalid response.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.unwrap_or_default();
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return (0, answer.into());
    };
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_default();
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    (status, if chunked { unchunk(body) } else { body.into() })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or_default();
        if size == 0 || rest.len() < size {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Returns whether any file below `folder` contains `needle`.
pub(crate) fn contains(folder: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contains(&path, needle)
        } else {
            // The node replaces and removes files meanwhile.
            let content = match std::fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                content => content.unwrap(),
            };
            content.windows(needle.len()).any(|window| window == needle)
        }
    })
}

/// Returns all files below `folder` whose name contains `part`.
pub(crate) fn files(folder: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, part));
        } else if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(part))
        {
            found.push(path);
        }
    }
    found
}
