//! The files of the repository.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders without source: build output and what `.gitignore` excludes.
const SKIPPED: [&str; 3] = ["target", "node_modules", ".work"];
/// Hidden folders with source.
const HIDDEN: [&str; 2] = [".ci", ".github"];
const MAX_LINES: usize = 500;

/// A package of the workspace.
pub(crate) struct Package {
    /// Path of its folder from the root of the repository.
    pub(crate) folder: String,
    /// Paths of the files that its targets start from.
    pub(crate) roots: Vec<String>,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Returns the text of a file, by its path from the root of the repository.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the paths of all source files, from the root of the repository.
pub(crate) fn files() -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![root()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = entry.file_name().into_string().unwrap();
            if kind.is_file() {
                let inside = path.strip_prefix(root()).unwrap();
                found.insert(inside.to_str().unwrap().to_owned());
            } else if kind.is_dir()
                && !SKIPPED.contains(&name.as_str())
                && (!name.starts_with('.') || HIDDEN.contains(&name.as_str()))
            {
                open.push(path);
            }
        }
    }
    assert!(found.len() > 300, "found only {} files", found.len());
    found
}

pub(crate) fn rust_files() -> BTreeSet<String> {
    let mut files = files();
    files.retain(|path| path.ends_with(".rs"));
    files
}

/// Returns the packages of the workspace, according to cargo.
pub(crate) fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{error}");
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let inside = |path: &serde_json::Value| {
        let path = Path::new(path.as_str().unwrap()).strip_prefix(root());
        path.unwrap().to_str().unwrap().to_owned()
    };
    let package = |package: &serde_json::Value| Package {
        folder: inside(&package["manifest_path"])
            .trim_end_matches("/Cargo.toml")
            .to_owned(),
        roots: package["targets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|target| inside(&target["src_path"]))
            .collect(),
    };
    let packages: Vec<_> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(package)
        .collect();
    assert!(packages.len() > 5, "found only {} packages", packages.len());
    packages
}

#[test]
fn no_rust_file_is_longer_than_500_lines() {
    let lines = |path: String| (read(&path).lines().count(), path);
    let long: Vec<_> = rust_files()
        .into_iter()
        .map(lines)
        .filter(|(lines, _)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "split these files: {long:?}");
}
