//! What cannot be served is refused at the start, with a sentence.

use std::net::TcpListener;

use super::program::Project;
use super::{annotated, answering, one};
use crate::support::program::node_shim;

#[test]
fn a_start_that_fails_says_why() {
    let good = answering("a");
    let world = wat::parse_str("(component)").unwrap();
    let image = annotated("other: x", "");
    let cases: [(&str, &[u8], &[&str], &str); 9] = [
        (
            "kind: ConfigMap\napiVersion: v1\n",
            &good,
            &[],
            "f.yaml: there is no EdgeFunction",
        ),
        ("a: [", &good, &[], "f.yaml:"),
        (
            &one("  rout: 1\n"),
            &good,
            &[],
            "f.yaml:11:3: spec: unknown field `rout`",
        ),
        (
            &image,
            &good,
            &[],
            "default/one: spec.source.image is not pulled without a cluster",
        ),
        (
            &one(""),
            &good,
            &["--component", "gone.wasm"],
            "cannot read gone.wasm: No such file",
        ),
        (
            &one(""),
            b"text",
            &[],
            "c.wasm is not a WebAssembly component in binary form",
        ),
        (
            &one(""),
            &world,
            &[],
            "lacks the export wasi:http/incoming-handler@0.2 or wasi:http/handler@0.3 (WorldMismatch)",
        ),
        (
            &one(""),
            &good,
            &["--build", "exit 7"],
            "the build failed (exit status 7): exit 7",
        ),
        (
            &one("  rollout: { policyRef: { name: careful } }\n"),
            &good,
            &["--rollout"],
            "the RolloutPolicy \"careful\" does not exist in this namespace (default): add it to the manifest, or name its file with -f",
        ),
    ];
    for (manifest, component, flags, expected) in cases {
        let project = Project::new(manifest, &[("c.wasm", component)]);
        let message = project.refusal(flags);
        assert!(message.contains(expected), "{message}");
        assert!(message.starts_with("node-shim: "), "{message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    }
}

#[test]
fn an_address_in_use_and_a_missing_manifest_are_named() {
    let project = Project::new(&one(""), &[("c.wasm", &answering("a"))]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = node_shim()
        .args(["dev", "f.yaml", "--addr", &address])
        .current_dir(project.path())
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains(&format!("cannot listen on {address}")),
        "{message}"
    );
    assert!(message.contains("Address already in use"), "{message}");
    let output = node_shim()
        .args(["dev", "gone.yaml"])
        .current_dir(project.path())
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("cannot read gone.yaml: No such file"),
        "{message}"
    );
}
