//! Projects of `kubectl selvage new`, outside of the repository: each is built, served and called by the lines of its README, as its
//! reader does. The lines install toolchains and packages from public registries, so these tests need a network.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use e2e::{documented, selvage};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    time::timeout,
};

/// Name of each project. It is neither the name of an example nor that of its package.
const NAME: &str = "my-shop";
const DEV: &str = "node-shim dev function.yaml";
/// Address that every README calls.
const ADDRESS: &str = "127.0.0.1:8080";
/// Time limit for all lines of one README, which download some 100 MB.
const LIMIT: Duration = Duration::from_secs(900);

/// A new project and what its lines install.
struct Project {
    folder: TempDir,
}

impl Project {
    /// Writes the project.
    async fn new(language: &str) -> Self {
        let project = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let written = Command::new(selvage::dist().join("kubectl-selvage"))
            .args(["new", NAME, "--lang", language])
            .current_dir(project.folder.path())
            .output()
            .await
            .expect("run `make programs` first");
        assert!(written.status.success(), "{written:?}");
        project
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    /// Returns a command in the folder of the project, with the programs of Selvage in `PATH`.
    fn command(&self, program: &str) -> Command {
        let tools = self.folder.path().join("tools");
        let path = [tools.join("bin"), selvage::dist()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap()))
            .collect::<Vec<_>>();
        let mut command = Command::new(program);
        command
            .current_dir(self.root())
            .env("PATH", std::env::join_paths(path).unwrap())
            // packages of Python are in a folder of their own, as in a virtual environment
            .env("PIP_TARGET", &tools)
            .env("PYTHONPATH", &tools)
            .env("ZIG_GLOBAL_CACHE_DIR", self.folder.path().join("zig"))
            // settings for the build of Selvage
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTFLAGS")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs lines in one shell, which ends with the first that fails. Returns what they print.
    async fn run(&self, lines: &str) -> String {
        let output = self.command("sh").args(["-exc", lines]).output();
        let output = output.await.unwrap();
        let (text, error) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "the lines of the README fail ({}). They need a network and the tools that it names.\n{text}{error}",
            output.status
        );
        text
    }
}

/// The lines of a README: those before the project is served, and those that call it then.
fn lines(readme: &Path) -> (String, String) {
    let readme = fs::read_to_string(readme).unwrap();
    let blocks = documented::shell(&readme);
    let last = blocks.iter().position(|block| block.contains(DEV));
    let used = blocks.get(..=last.expect(DEV)).unwrap();
    let all = used.concat();
    let (build, calls) = all.split_once(DEV).unwrap();
    let (_, calls) = calls.split_once('\n').unwrap();
    (build.to_owned(), calls.to_owned())
}

/// Reads what `node-shim dev` prints until it serves, and returns the address.
async fn served(output: impl AsyncRead + Unpin) -> String {
    let mut lines = BufReader::new(output).lines();
    let mut printed = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, rest)) = line.split_once("Serving on http://") {
            return rest.split(';').next().unwrap().to_owned();
        }
        printed.push_str(&line);
        printed.push('\n');
    }
    panic!("`{DEV}` ends before it serves:\n{printed}");
}

/// Follows the README of a new project. What its calls print contains the texts `promised`, in their order.
async fn follow(language: &str, promised: &[&str]) {
    let project = Project::new(language).await;
    let (build, calls) = lines(&project.root().join("README.md"));
    project.run(&build).await;
    let mut dev = project
        .command("node-shim")
        .args(["dev", "function.yaml", "--addr", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = dev.stdout.take().unwrap();
    let address = served(&mut output).await;
    assert!(calls.contains(ADDRESS), "{calls}");
    let text = project.run(&calls.replace(ADDRESS, &address)).await;
    let mut rest = text.as_str();
    for part in promised {
        let found = rest.split_once(part);
        (_, rest) = found.unwrap_or_else(|| panic!("{part:?} does not follow in:\n{text}"));
    }
}

async fn within_limit(language: &str, promised: &[&str]) {
    let followed = timeout(LIMIT, follow(language, promised)).await;
    followed.unwrap_or_else(|_| panic!("the README takes longer than {LIMIT:?}"));
}

#[tokio::test]
async fn a_project_in_rust_does_what_its_readme_says() {
    within_limit("rust", &["apples 1", "apples 2", "pears 1"]).await;
}

#[tokio::test]
async fn a_project_in_javascript_does_what_its_readme_says() {
    within_limit("js", &[r#""converted":13.5"#, r#""converted":108"#]).await;
}

#[tokio::test]
async fn a_project_in_python_does_what_its_readme_says() {
    within_limit("python", &["<h1>Harbour</h1>", r#""time": "09:15""#]).await;
}

#[tokio::test]
async fn a_project_in_c_does_what_its_readme_says() {
    // "// Encodes a" is the beginning of function.c
    within_limit(
        "c",
        &["lines of 64 characters, url alphabet", "Ly8gRW5jb2RlcyBh"],
    )
    .await;
}

#[tokio::test]
async fn a_project_in_go_does_what_its_readme_says() {
    let time = "2026-07-01T21:00:00+09:00";
    within_limit("go", &[time, time]).await;
}
