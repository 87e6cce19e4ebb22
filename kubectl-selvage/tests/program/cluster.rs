//! A cluster of the fake API server, a kubeconfig for it, and runs of the program.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::fake::{FUNCTION, Fake, merge};

pub(crate) struct Cluster {
    pub(crate) fake: Fake,
    folder: TempDir,
}

/// Result of a run: exit code, standard output, standard error.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Cluster {
    /// Starts a cluster with the function in a state, and its revisions.
    pub(crate) async fn with(state: &str) -> Self {
        let fake = Fake::default();
        let address = fake.clone().start().await;
        let folder = TempDir::new().unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{ name: c, cluster: {{ server: \"http://{address}\" }} }}]\n\
             contexts: [{{ name: c, context: {{ cluster: c, user: u, namespace: shop }} }}]\n\
             users: [{{ name: u, user: {{}} }}]\n"
        );
        std::fs::write(folder.path().join("config"), kubeconfig).unwrap();
        fake.put(FUNCTION, object(state));
        for revision in read("revisions").as_array().unwrap() {
            let name = revision["metadata"]["name"].as_str().unwrap();
            let folder = FUNCTION.replace("edgefunctions/checkout", "edgerevisions");
            fake.put(&format!("{folder}/{name}"), revision.clone());
        }
        Self { fake, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the program with its arguments, in the environment of the cluster.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-selvage"));
        command
            .args(line.split(' '))
            .env_clear()
            .env("KUBECONFIG", self.folder().join("config"))
            .env("TERM", "xterm")
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, line: &str) -> Run {
        self.command(line).output().await.unwrap().into()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// Returns the object of a state from `tests/objects`.
pub(crate) fn object(state: &str) -> Value {
    let mut object = read("stepping");
    if state != "stepping" {
        merge(&mut object, &read(state));
    }
    object
}

fn read(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/objects");
    let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
    serde_yaml::from_str(&text).unwrap()
}
