//! Faulty registries, components and disks.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use node_api::v1::{LoadState, Report, Source};

use crate::component::{HANDLER, with_handler};
use crate::node::{Environment, Node, ONE, TWO, files};
use crate::operator::{Operator, definition, digest, function, via_operator};
use crate::registry::{Answer, Registry, blob_path};

fn failed<'a>(report: &'a Report, name: &str) -> Option<(&'a str, bool)> {
    let of =
        |key: &Option<node_api::v1::FunctionKey>| key.as_ref().is_some_and(|key| key.name == name);
    let exception = report.exceptions.iter().find(|one| of(&one.function))?;
    let state = report.revisions.iter().find(|one| of(&one.function));
    let permanent =
        state.is_some_and(|state| state.state() == LoadState::Failed && state.permanent);
    Some((exception.reason.as_str(), permanent))
}

/// Starts a node with a valid function `g` and a faulty function `f`, and waits until `g` is served and `f` has failed.
async fn with_bad(f: node_api::v1::Definition, registry: &Registry) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    let g = definition("r1", &TWO, registry.push("good", &TWO));
    operator
        .snapshot(
            7,
            vec![function("f", 1, vec![f], 0), function("g", 1, vec![g], 0)],
        )
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: Some(registry),
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("g", 200, "two").await;
    // Reports contain all exceptions, but all revisions only first and after a removal.
    let report = operator
        .report("the failure", |report| failed(report, "f").is_some())
        .await;
    assert_eq!(node.get("f").await.0, 503);
    assert_eq!(node.get("g").await, (200, "two".into()));
    node.drain().await;
    assert!(
        files(folder.path(), ".draft-").is_empty(),
        "no draft remains"
    );
    report
}

/// HS-2: the bytes are rejected, no temporary file remains, and the other function serves (FN-6, HS-9: a connection
/// reset in the middle of a layer).
#[tokio::test(flavor = "multi_thread")]
async fn wrong_truncated_longer_and_endless_content_is_rejected() {
    type Fault = fn(&[u8]) -> Answer;
    let faults: [(&str, Fault, &str); 5] = [
        ("wrong", |_| Answer::Bytes(TWO.clone()), "DigestMismatch"),
        (
            "short",
            |bytes| Answer::Bytes(bytes[..bytes.len() - 1].to_vec()),
            "DigestMismatch",
        ),
        (
            "cut",
            |bytes| Answer::Cut(bytes.to_vec(), 100),
            "PullFailed",
        ),
        (
            "longer",
            |bytes| Answer::Bytes([bytes, b"x"].concat()),
            "DigestMismatch",
        ),
        (
            "endless",
            |bytes| Answer::Endless(bytes.to_vec()),
            "DigestMismatch",
        ),
    ];
    for (what, fault, reason) in faults {
        let registry = Registry::start().await;
        let source = registry.push("app", &ONE);
        registry.set(&blob_path("app", &ONE), fault(&ONE));
        let report = with_bad(definition("r1", &ONE, source), &registry).await;
        assert_eq!(failed(&report, "f").unwrap().0, reason, "{what}");
    }
}

/// HS-3: manifests that are too large, have two layers or are nested 10,000 deep fail permanently, and the other
/// function serves.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_manifests_are_rejected() {
    let registry = Registry::start().await;
    let descriptor = |bytes: &[u8]| {
        format!(
            r#"{{"mediaType":"application/wasm","digest":"{}","size":{}}}"#,
            digest(bytes),
            bytes.len()
        )
    };
    let huge = format!(r#"{{"layers":[],"x":"{}"}}"#, "y".repeat(2 << 20));
    let two = format!(
        r#"{{"layers":[{},{}]}}"#,
        descriptor(&ONE),
        descriptor(&TWO)
    );
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (what, manifest, reason) in [
        ("huge", huge, "PullFailed"),
        ("two layers", two, "NotAComponent"),
        ("deep", deep, "NotAComponent"),
    ] {
        let source = registry.push_manifest("app", manifest.as_bytes());
        let report = with_bad(definition("r1", &ONE, source), &registry).await;
        assert_eq!(failed(&report, "f"), Some((reason, true)), "{what}");
    }
}

/// HS-4: a redirect to an address in a private network is not followed.
#[tokio::test(flavor = "multi_thread")]
async fn redirects_into_a_private_network_are_denied() {
    let (registry, inner) = (Registry::start().await, Registry::start().await);
    let source = registry.push("app", &ONE);
    inner.push("app", &ONE);
    for target in [
        format!("http://{}", inner.host()),
        "https://127.0.0.1:1".into(),
    ] {
        let location = format!("{target}{}", blob_path("app", &ONE));
        let moved = Answer::Status(307, vec![("location", location)]);
        registry.set(&blob_path("app", &ONE), moved);
        let report = with_bad(definition("r1", &ONE, source.clone()), &registry).await;
        let exception = report
            .exceptions
            .iter()
            .find(|one| one.function.as_ref().is_some_and(|key| key.name == "f"))
            .unwrap();
        assert!(
            exception.message.contains("denied"),
            "{}",
            exception.message
        );
    }
    assert!(inner.asked().is_empty());
}

/// HS-9, FN-6: after 429 and 503 the pull is retried when `Retry-After` has passed, and succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn pulls_from_an_overloaded_registry_are_retried_after_its_delay() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let source = registry.push("app", &ONE);
    let busy = |status| Box::new(Answer::Status(status, vec![("retry-after", "1".into())]));
    let good = Box::new(Answer::Bytes(ONE.clone()));
    let answers = Answer::Then(busy(429), Box::new(Answer::Then(busy(503), good)));
    registry.set(&blob_path("app", &ONE), answers);
    operator
        .snapshot(
            7,
            vec![function("f", 1, vec![definition("r1", &ONE, source)], 0)],
        )
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(folder.path(), environment).await;
    let report = operator
        .report("busy", |report| failed(report, "f").is_some())
        .await;
    assert_eq!(failed(&report, "f"), Some(("PullFailed", false)));
    node.answers("f", 200, "one").await;
    let blobs = registry
        .asked()
        .iter()
        .filter(|(path, _)| path.contains("/blobs/"))
        .count();
    assert_eq!(blobs, 3);
    node.drain().await;
}

/// HS-4: a node sends no credentials to a registry that requires a login.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_registry_is_unauthorized() {
    let registry = Registry::start().await;
    let source = registry.push("app", &ONE);
    let login = Answer::Status(401, vec![("www-authenticate", "Basic realm=\"x\"".into())]);
    registry.set(&blob_path("app", &ONE), login);
    let report = with_bad(definition("r1", &ONE, source), &registry).await;
    assert_eq!(failed(&report, "f"), Some(("Unauthorized", false)));
}

/// HG-4, HG-8, HG-10, HG-11, HG-12: input that is not a component, exceeds limits or exhausts the compiler fails
/// permanently.
#[tokio::test(flavor = "multi_thread")]
async fn components_that_cannot_be_compiled_fail_permanently() {
    let module = wat::parse_str("(module)").unwrap();
    let bomb = wat::parse_str(format!(
        "(component (core module {}))",
        "(func)".repeat(100_000)
    ));
    let threads = wat::parse_str("(component (core module (memory 1 2 shared)))").unwrap();
    // the compiler would name the feature, so it did not run
    let foreign = wat::parse_str(format!(
        "(component (import \"acme:store/all@1.0.0\" (instance (export \"f\" (func)))) {HANDLER} (core module (memory 1 2 shared)))",
    ));
    let nothing = wat::parse_str("(component)").unwrap();
    let instances = "(core instance (instantiate $m))".repeat(65);
    let many = wat::parse_str(format!("(component (core module $m) {instances})")).unwrap();
    let samples: [(&str, Vec<u8>, &str); 8] = [
        ("core module", module, "NotAComponent"),
        (
            "native code",
            b"\x7fELF\x02\x01\x01native".to_vec(),
            "NotAComponent",
        ),
        ("text", b"(component)".to_vec(), "NotAComponent"),
        ("bomb", bomb.unwrap(), "CompileLimit"),
        ("too many instances", with_handler(&many), "CompileLimit"),
        ("threads", with_handler(&threads), "UnsupportedFeature"),
        ("unknown import", foreign.unwrap(), "WorldMismatch"),
        ("no handler", nothing, "WorldMismatch"),
    ];
    for (what, bytes, reason) in samples {
        let registry = Registry::start().await;
        let source = registry.push("app", &bytes);
        let report = with_bad(definition("r1", &bytes, source), &registry).await;
        assert_eq!(
            failed(&report, "f"),
            Some((reason, true)),
            "{what}: {:?}",
            report.exceptions
        );
    }
}

/// HG-4: a component that starts with as much memory as allowed has no room for its tables. The report contains both
/// numbers.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_starts_with_too_much_memory_fails_permanently() {
    let registry = Registry::start().await;
    let mut f = definition("r1", &ONE, registry.push("app", &ONE));
    let memory = 256 << 10;
    f.limits = f.limits.map(|limits| node_api::v1::Limits {
        memory_bytes: memory,
        ..limits
    });
    let report = with_bad(f, &registry).await;
    assert_eq!(failed(&report, "f"), Some(("LoadFailed", true)));
    let message = &report.exceptions[0].message;
    let (needs, limit) = message
        .strip_prefix("the component starts with ")
        .and_then(|numbers| numbers.split_once(" bytes of memories and tables, but "))
        .unwrap();
    assert!(needs.parse::<u64>().unwrap() > memory, "{message}");
    assert_eq!(limit, "limits.memory is 262144 bytes");
}

/// HG-8: a permanent failure is remembered across restarts, and the component is not fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_failure_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let module = wat::parse_str("(module)").unwrap();
    let source = registry.push("app", &module);
    operator
        .snapshot(
            7,
            vec![function("f", 1, vec![definition("r1", &module, source)], 0)],
        )
        .await;
    for _ in 0..2 {
        let environment = Environment {
            operator: Some(&operator),
            registry: Some(&registry),
        };
        let node = Node::start(folder.path(), environment).await;
        let report = operator
            .report("refused", |report| failed(report, "f").is_some())
            .await;
        assert_eq!(failed(&report, "f"), Some(("NotAComponent", true)));
        node.drain().await;
    }
    let blobs = registry
        .asked()
        .iter()
        .filter(|(path, _)| path.contains("/blobs/"))
        .count();
    assert_eq!(blobs, 1);
}

/// The image layer is an archive with the component as its only file.
#[tokio::test(flavor = "multi_thread")]
async fn a_packed_component_is_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    let mut header = tar::Header::new_gnu();
    header.set_size(ONE.len() as u64);
    archive
        .append_data(&mut header, "app.wasm", ONE.as_slice())
        .unwrap();
    let packed = archive.into_inner().unwrap().finish().unwrap();
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let source = registry.push_as("app", &packed, kind, packed.len());
    operator
        .snapshot(
            7,
            vec![function("f", 1, vec![definition("r1", &ONE, source)], 0)],
        )
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "one").await;
    node.drain().await;
}

/// The operator may not have seen the function's placement on the node yet, so the node retries.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_the_operator_denies_is_requested_again() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    let f = definition("r1", &ONE, via_operator());
    operator
        .snapshot(7, vec![function("f", 1, vec![f], 0)])
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    let report = operator
        .report("refused", |report| failed(report, "f").is_some())
        .await;
    assert_eq!(failed(&report, "f"), Some(("Unauthorized", false)));
    operator.blob(&ONE);
    node.answers("f", 200, "one").await;
    node.drain().await;
}

struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Mounts a file system of 16 MiB. Returns `None` where mounting is not permitted.
    fn mount(at: &'a Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
            .arg(at)
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(at))
    }

    fn fill(&self) {
        let mut full = std::fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut full, &[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// FN-5: a full disk is reported as `DiskFull`, all functions are served from memory, and the node recovers by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_and_functions_are_served_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        println!("skipped: this test needs permission to mount a file system");
        return;
    };
    disk.fill();
    let (operator, registry) = (Operator::start().await, Registry::start().await);
    let record =
        |name: &str, source: Source| function(name, 1, vec![definition("r1", &ONE, source)], 0);
    let source = registry.push("app", &ONE);
    operator.snapshot(7, vec![record("f", source)]).await;
    let environment = Environment {
        operator: Some(&operator),
        registry: Some(&registry),
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "one").await;
    operator
        .report("the disk", |report| {
            report
                .exceptions
                .iter()
                .any(|one| one.reason == "DiskFull" && one.function.is_none())
        })
        .await;
    assert!(
        node.metrics()
            .await
            .contains("selvage_exceptions{reason=\"DiskFull\"} 1")
    );
    disk.free();
    operator
        .report("the disk recovered", |report| report.exceptions.is_empty())
        .await;
    node.drain().await;
    assert!(folder.path().join("state/table").exists());
}

/// FN-5: the folder cannot be created.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_serves_without_a_disk() {
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
    let node = Node::start(Path::new("/proc/selvage"), environment).await;
    node.answers("f", 200, "one").await;
    tokio::time::timeout(Duration::from_secs(30), node.drain())
        .await
        .unwrap();
}
