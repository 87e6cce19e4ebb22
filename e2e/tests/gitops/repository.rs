//! The example repository of `integrations`, with images of the local registry and a short rollout.

use anyhow::{Context, Result, ensure};
use e2e::selvage::root;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Rollout of the tests: three steps of a few evaluations each and a short bake.
const POLICY: &str = "
apiVersion: selvage.dev/v1alpha1
kind: RolloutPolicy
metadata:
  name: careful
  annotations: { argocd.argoproj.io/sync-wave: '-1' }
spec:
  canary:
    steps:
      - { weight: 10%, minDuration: 5s }
      - { weight: 50%, minDuration: 5s }
  bake: { duration: 10s }
  analysis:
    errors: { passIncrease: 10% }
    latency: { passIncrease: 10% }
";

/// A Git repository with a work tree.
pub(crate) struct Repository {
    dir: PathBuf,
}

impl Repository {
    /// Copies the example below `parent` and commits it with `image` in both environments.
    pub(crate) fn create(parent: &Path, image: &str) -> Result<Self> {
        let repository = Self {
            dir: parent.join("edge"),
        };
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(root().join("integrations/repository"));
        run(copy.arg(&repository.dir))?;
        repository.write("base/policy.yaml", POLICY)?;
        for environment in ["staging", "production"] {
            repository.set_image(environment, image)?;
        }
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        // a push changes the files, as a commit of the test does
        repository.git(&["config", "receive.denyCurrentBranch", "updateInstead"])?;
        repository.commit("first version")?;
        Ok(repository)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the content of a file of the function.
    pub(crate) fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.file(file)).with_context(|| format!("read {file}"))
    }

    /// Writes a file of the function.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.file(file), text).with_context(|| format!("write {file}"))
    }

    /// Replaces text in a file of the function.
    pub(crate) fn replace(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let text = self.read(file)?;
        ensure!(text.contains(from), "{file} does not contain {from}");
        self.write(file, &text.replace(from, to))
    }

    pub(crate) fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.file(file)).with_context(|| format!("remove {file}"))
    }

    /// Writes the image of an environment, as a person or an image automation does.
    pub(crate) fn set_image(&self, environment: &str, image: &str) -> Result<()> {
        let file = format!("{environment}/version.yaml");
        let text = self.read(&file)?;
        let lines = text.lines().map(|line| {
            let Some(old) = line.strip_prefix("    image: ") else {
                return format!("{line}\n");
            };
            let comment = old.find(" #").and_then(|at| old.get(at..));
            format!("    image: {image}{}\n", comment.unwrap_or_default())
        });
        self.write(&file, &lines.collect::<String>())
    }

    pub(crate) fn commit(&self, message: &str) -> Result<()> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", message])
    }

    /// Reverts the last commit.
    pub(crate) fn revert(&self) -> Result<()> {
        self.git(&["revert", "--no-edit", "HEAD"])
    }

    /// Returns the last commit with its changes.
    pub(crate) fn last_commit(&self) -> Result<String> {
        let mut git = Command::new("git");
        run(git.arg("-C").arg(&self.dir).args(["show", "HEAD"]))
    }

    fn file(&self, file: &str) -> PathBuf {
        self.dir.join("apps/checkout").join(file)
    }

    fn git(&self, arguments: &[&str]) -> Result<()> {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.dir).args([
            "-c",
            "user.name=e2e",
            "-c",
            "user.email=e2e@example",
            "-c",
            "commit.gpgsign=false",
        ]);
        run(git.args(arguments)).map(drop)
    }
}

/// Runs a command and returns what it prints.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
