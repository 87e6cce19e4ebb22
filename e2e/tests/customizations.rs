//! What Argo CD and Flux make of the objects of Selvage: a small Go program runs the scripts of `integrations` with the
//! libraries of these tools. The objects are recorded by tests of the operator or built from them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crds::function::Phase;
use crds::rollout::State;
use crds::{EdgeFunction, EdgeFunctionStatus};
use e2e::{cluster::customizations, selvage::root};
use serde_json::{Value, json};

fn objects() -> Vec<(PathBuf, Value)> {
    let dir = root()
        .join("integrations/argo-cd/resource_customizations/selvage.dev/EdgeFunction/testdata");
    let mut objects: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|found| {
            let path = found.unwrap().path();
            let object = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            (path, object)
        })
        .collect();
    objects.sort_by(|left, right| left.0.cmp(&right.0));
    objects
}

#[test]
fn health_actions_and_kstatus_are_as_recorded() {
    let program = customizations().unwrap();
    let mut check = Command::new(program);
    let output = check.arg("check").arg(root().join("integrations")).output();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_objects_have_only_fields_of_the_api() {
    for (path, object) in objects() {
        let name = path.display();
        let _: EdgeFunction = serde_json::from_value(object.clone()).unwrap();
        let status: EdgeFunctionStatus = serde_json::from_value(object["status"].clone()).unwrap();
        assert_eq!(json!(status), object["status"], "{name}");
    }
}

#[test]
fn the_objects_cover_every_phase_and_state() {
    let found = |pointer: &str| -> BTreeSet<String> {
        let all = objects().into_iter();
        all.filter_map(|(_, object)| Some(object.pointer(pointer)?.as_str()?.to_owned()))
            .collect()
    };
    let phases: BTreeSet<String> = Phase::ALL.iter().map(|it| it.as_str().to_owned()).collect();
    assert_eq!(found("/status/phase"), phases);
    let states: BTreeSet<String> = State::ALL.iter().map(|it| it.as_str().to_owned()).collect();
    assert_eq!(found("/status/rollout/state"), states);
}

/// What a reader copies from the pages is what the tests use.
#[test]
fn the_pages_show_the_files() {
    let mut files = Vec::new();
    collect(&root().join("integrations"), &mut files);
    let files: Vec<String> = files
        .into_iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for page in ["argo-cd", "flux"] {
        let text = fs::read_to_string(root().join(format!("docs/{page}.md"))).unwrap();
        let blocks: Vec<&str> = text.split("```yaml\n").skip(1).collect();
        assert!(blocks.len() > 1, "{page} has no example");
        for block in blocks {
            let block = block.split("```").next().unwrap();
            let shown = files.iter().any(|file| file.contains(block));
            assert!(
                shown,
                "docs/{page}.md: no file in integrations has\n{block}"
            );
        }
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for found in fs::read_dir(dir).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
