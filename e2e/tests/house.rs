//! The rules of ARCHITECTURE.md that a machine can check: which crate may depend on what, where unsafe
//! code may stand, how long a file may be, and that no test file is forgotten.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The names of everything `member` depends on, itself left out, with the features it alone asks for.
fn dependencies(member: &str) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args([
            "tree",
            "--package",
            member,
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    let names = text.lines().filter_map(|l| l.split(' ').next());
    names
        .filter(|name| *name != member)
        .map(str::to_owned)
        .collect()
}

fn assert_free_of(member: &str, forbidden: &[&str]) {
    let has = dependencies(member);
    let found: Vec<_> = forbidden.iter().filter(|f| has.contains(**f)).collect();
    assert!(found.is_empty(), "{member} must not depend on {found:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

const MEMBERS: [&str; 8] = [
    "bench",
    "crds",
    "e2e",
    "node-api",
    "node-shim",
    "node-shim/core",
    "operator",
    "operator/core",
];

const PACKAGES: [&str; 8] = [
    "bench",
    "crds",
    "e2e",
    "node-api",
    "node-shim",
    "node-shim-core",
    "operator",
    "operator-core",
];

/// Every Rust file of the workspace, without build output.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for member in MEMBERS {
        let mut open: Vec<_> = ["src", "tests", "benches", "build.rs"]
            .iter()
            .map(|d| root().join(member).join(d))
            .collect();
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            } else if path.extension().is_some_and(|e| e == "rs") && path.exists() {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 10, "found only {files:?}");
    files
}

#[test]
fn cores_know_no_io_crate() {
    for core in ["operator-core", "node-shim-core"] {
        assert_free_of(
            core,
            &[
                "kube",
                "kube-core",
                "k8s-openapi",
                "tokio",
                "hyper",
                "reqwest",
                "wasmtime",
                "axum",
                "tonic",
                "mio",
                "fastrand",
                "rand",
                "getrandom",
            ],
        );
    }
}

#[test]
fn operator_and_node_shim_meet_only_in_the_node_api() {
    assert_free_of("operator", &["node-shim", "node-shim-core", "wasmtime"]);
    assert_free_of(
        "node-shim",
        &[
            "operator",
            "operator-core",
            "crds",
            "kube",
            "kube-client",
            "k8s-openapi",
        ],
    );
    assert_free_of(
        "node-api",
        &[
            "operator",
            "operator-core",
            "node-shim",
            "node-shim-core",
            "crds",
        ],
    );
}

#[test]
fn crds_have_no_client() {
    assert_free_of(
        "crds",
        &["kube-client", "kube-runtime", "tokio", "hyper", "reqwest"],
    );
}

#[test]
fn e2e_never_imports_a_programs_insides() {
    assert_free_of(
        "e2e",
        &[
            "operator",
            "operator-core",
            "node-shim",
            "node-shim-core",
            "node-api",
            "wasmtime",
        ],
    );
}

#[test]
fn ring_is_the_only_tls_provider() {
    for member in PACKAGES {
        assert_free_of(
            member,
            &[
                "aws-lc-rs",
                "aws-lc-sys",
                "openssl",
                "openssl-sys",
                "native-tls",
                "tokio-tar",
                "serde_yml",
                "rustls-pemfile",
            ],
        );
    }
}

#[test]
fn versions_are_above_the_floors_that_fixed_advisories() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for (name, floor) in [
        ("h2", (0, 4, 16)),
        ("bytes", (1, 11, 1)),
        ("rustls-webpki", (0, 103, 13)),
        ("tar", (0, 4, 45)),
        ("tracing-subscriber", (0, 3, 20)),
    ] {
        let mut found = false;
        for entry in lock
            .split("[[package]]")
            .filter(|e| e.contains(&format!("name = \"{name}\"\n")))
        {
            let version = entry
                .split("version = \"")
                .nth(1)
                .and_then(|v| v.split('"').next())
                .unwrap();
            let parts: Vec<u32> = version
                .split(['.', '-', '+'])
                .take(3)
                .map(|p| p.parse().unwrap())
                .collect();
            assert!(
                (parts[0], parts[1], parts[2]) >= floor,
                "{name} {version} is below {floor:?}"
            );
            found = true;
        }
        assert!(found, "{name} is not in Cargo.lock");
    }
}

/// Where mapping compiled code and setting limits of a child need it; each block says why.
const UNSAFE_ALLOWED: [&str; 2] = ["node-shim/src/native.rs", "node-shim/src/compile/child.rs"];

#[test]
fn unsafe_code_stands_in_few_named_places() {
    for file in sources() {
        let relative = file.strip_prefix(root()).unwrap().display().to_string();
        let aside = ["e2e/", "bench/"]
            .iter()
            .any(|dir| relative.starts_with(dir));
        let product = !aside && !relative.contains("/tests/");
        let text = fs::read_to_string(&file).unwrap();
        if product && !UNSAFE_ALLOWED.contains(&relative.as_str()) {
            assert!(
                !text.contains("allow(unsafe_code"),
                "{relative} allows unsafe code"
            );
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    for member in MEMBERS {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{member} sets its own lints"
        );
    }
}

#[test]
fn no_file_is_two_files() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|f| !f.components().any(|c| c.as_os_str() == "tests"))
        .map(|f| (fs::read_to_string(&f).unwrap().lines().count(), f))
        .filter(|(lines, _)| *lines > 500)
        .collect();
    assert!(long.is_empty(), "over 500 lines: {long:?}");
}

/// A file below `tests/` that no `mod` names is never compiled, and nobody notices.
#[test]
fn every_test_file_is_compiled() {
    let files = sources();
    for file in files
        .iter()
        .filter(|f| f.components().any(|c| c.as_os_str() == "tests"))
    {
        let (name, folder) = (
            file.file_stem().unwrap().to_str().unwrap(),
            file.parent().unwrap(),
        );
        if folder.file_name().unwrap() == "tests"
            && folder.parent().unwrap().join("Cargo.toml").exists()
        {
            let manifest = fs::read_to_string(folder.parent().unwrap().join("Cargo.toml")).unwrap();
            let listed = !manifest.contains("autotests = false") || manifest.contains(name);
            if listed {
                continue;
            }
        }
        // cargo takes tests/NAME/main.rs as a test of that name
        let of_tests = folder.parent().and_then(Path::file_name);
        if name == "main" && of_tests.is_some_and(|parent| parent == "tests") {
            continue;
        }
        let module = if name == "mod" {
            folder.file_name().unwrap().to_str().unwrap()
        } else {
            name
        };
        let said = format!("mod {module};");
        let used = files.iter().any(|other| {
            other != file
                && fs::read_to_string(other)
                    .unwrap()
                    .lines()
                    .any(|l| l.trim_start().ends_with(&said))
        });
        assert!(used, "{} is in no mod list", file.display());
    }
}

/// A metric without a line for users is a number that nobody finds; a line without a metric is an alert that never fires.
#[test]
fn docs_name_every_metric_and_no_other() {
    let words = |text: &str| -> BTreeSet<String> {
        let word = |c: char| c.is_ascii_lowercase() || c == '_';
        text.split(|c| !word(c))
            .filter(|w| w.starts_with("selvage_"))
            .map(|w| {
                let parts = ["_bucket", "_count", "_sum"];
                let stem = parts.iter().find_map(|part| w.strip_suffix(part));
                stem.unwrap_or(w).to_owned()
            })
            .collect()
    };
    let defining = [
        "operator/src/metrics.rs",
        "operator/src/measure/meter.rs",
        "operator/src/node_api/meter.rs",
        "node-shim/src/metrics.rs",
        "node-shim/src/supervisor/metrics.rs",
    ];
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let made: BTreeSet<_> = defining.into_iter().flat_map(|f| words(&read(f))).collect();
    assert!(made.len() > 40, "{made:?}");
    assert_eq!(words(&read("docs/metrics.md")), made);
    for file in sources().iter().filter(|f| {
        let inside = f.strip_prefix(root()).unwrap();
        inside.starts_with("operator/src") || inside.starts_with("node-shim/src")
    }) {
        let text = fs::read_to_string(file).unwrap();
        let others: Vec<_> = words(&text).difference(&made).cloned().collect();
        assert!(others.is_empty(), "{}: {others:?}", file.display());
    }
}
