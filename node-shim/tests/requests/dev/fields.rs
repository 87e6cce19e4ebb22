//! Fields of a manifest act as on a node, and requests are shown.

use super::program::{Dev, Project, get_from};
use super::{annotated, answering, one};
use crate::config::reader;
use crate::guests;
use crate::support::component;
use crate::support::key_value::{DRAFT2, counter, counter_in};
use crate::support::outbound::Call;
use crate::support::wire::once;

/// Responds with status 200 + the number of variables and the value of the last one.
fn environment() -> Vec<u8> {
    component::guest(
        r#"(import "wasi:cli/environment@0.2.12" "get-environment" (func $all (param i32)))"#,
        "(call $all (i32.const 64))
         (local.set $n (i32.load (i32.const 68)))
         (local.set $i (i32.add (i32.load (i32.const 64)) (i32.mul (i32.sub (local.get $n) (i32.const 1)) (i32.const 16))))
         (call $answer (local.get $out) (i32.add (i32.const 200) (local.get $n))
           (i32.load offset=8 (local.get $i)) (i32.load offset=12 (local.get $i)))",
    )
}

/// Writes a line to standard error and responds.
fn talkative() -> Vec<u8> {
    component::guest(
        r#"(import "wasi:cli/stderr@0.2.12" "get-stderr" (func $stderr (result i32)))
           (data (i32.const 4096) "said\n")"#,
        "(local.set $s (call $stderr))
         (drop (call $write (local.get $s) (i32.const 4096) (i32.const 5)))
         (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 5))",
    )
}

/// Returns the manifest of a function in the namespace `shop` with the component `NAME.wasm`.
fn function(name: &str, more: &str) -> String {
    format!(
        "---
apiVersion: selvage.dev/v1alpha1
kind: EdgeFunction
metadata: {{ name: {name}, namespace: shop, annotations: {{ selvage.dev/component: ./{name}.wasm }} }}
spec:
  source: {{ image: r.example/{name}:1 }}
{more}
"
    )
}

fn routed(name: &str, more: &str) -> String {
    let limits = if more.contains("limits:") {
        ""
    } else {
        "  limits: { cpu: 5s }\n"
    };
    let route = format!("  routes: [{{ hosts: [{name}.example] }}]\n{limits}{more}");
    function(name, &route)
}

const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: { name: settings, namespace: shop }
data: { color: green, size: S }
---
apiVersion: v1
kind: Secret
metadata: { name: db, namespace: shop }
stringData: { password: hunter2 }
";

/// Returns a manifest with one function for each kind of field, and an object of another kind.
fn all_fields() -> String {
    [
        function(
            "mirror",
            "  routes:
    - hosts: ['*.mirror.example']
      paths: [{ value: /api }]
      methods: [GET]
      headers: [{ name: x-tenant, value: a }]
      rewrite: { prefix: /v1 }
    - hosts: [mirror.example]
      paths: [{ type: Exact, value: /only }]
  limits: { cpu: 5s }",
        ),
        routed(
            "env",
            "  env:
    - { name: PLAIN, value: p }
    - { name: SIZE, valueFrom: { configMapKeyRef: { name: settings, key: size } } }
    - { name: PASSWORD, valueFrom: { secretKeyRef: { name: db, key: password } } }",
        ),
        routed(
            "config",
            "  config: [{ configMapRef: { name: settings } }, { values: { size: XL } }]",
        ),
        routed("store", "  keyValue: [{ label: cart, store: memory }]"),
        routed(
            "unnamed",
            "  keyValue: [{ label: in_memory, store: memory }, { label: '', store: memory }]",
        ),
        routed("caller", "  egress: { allow: ['https://other.example'] }"),
        routed(
            "spin",
            "  limits: { cpu: 100ms, requestBody: 1Ki }\n  rollout: { strategy: Canary }",
        ),
        routed("away", "  suspend: true"),
        "---\napiVersion: v1\nkind: Service\nmetadata: { name: web }\n".to_owned(),
    ]
    .concat()
}

#[test]
fn the_fields_of_a_manifest_act_as_on_a_node() {
    let store = node_api::world::CONFIG_STORES[0];
    let project = Project::new(
        &all_fields(),
        &[
            ("objects.yaml", OBJECTS.as_bytes()),
            ("mirror.wasm", &guests::MIRROR),
            ("env.wasm", &environment()),
            ("config.wasm", &reader(store, "size")),
            ("store.wasm", &counter(DRAFT2, 1)),
            ("unnamed.wasm", &counter_in("", DRAFT2, 1)),
            ("caller.wasm", &Call::get("api.example").guest()),
            ("spin.wasm", &guests::SPIN),
            ("away.wasm", &guests::ANSWER),
        ],
    );
    let (mut dev, address) = Dev::serving(&project, &["-f", "objects.yaml"]);
    let remarks = dev.seen().join("\n");
    assert!(remarks.contains("skipped Service web"), "{remarks}");
    assert!(
        remarks.contains("shop/spin: spec.rollout has no effect without --rollout"),
        "{remarks}"
    );
    assert!(!remarks.contains("hunter2"));

    let ask = |request: &str| once(address, format!("{request}\r\n\r\n"));
    // the first host of the first function is asked by each address, with the rest of its conditions
    let matched = ask("GET /api/x HTTP/1.1\r\nhost: 127.0.0.1\r\nx-tenant: a");
    assert_eq!(matched.status, 200);
    assert!(
        matched.text().starts_with("/v1/x\n127.0.0.1\n"),
        "{}",
        matched.text()
    );
    for (other, status) in [
        ("GET /api HTTP/1.1\r\nhost: localhost", 404),
        ("POST /api HTTP/1.1\r\nhost: localhost\r\nx-tenant: a", 404),
        (
            "GET /api HTTP/1.1\r\nhost: mirror.localhost\r\nx-tenant: a",
            200,
        ),
        (
            "GET /api HTTP/1.1\r\nhost: a.mirror.example\r\nx-tenant: a",
            200,
        ),
        ("GET /only HTTP/1.1\r\nhost: mirror.example", 200),
        ("GET /only/x HTTP/1.1\r\nhost: mirror.example", 404),
        (
            "GET /api HTTP/1.1\r\nhost: unknown.example\r\nx-tenant: a",
            404,
        ),
    ] {
        assert_eq!(ask(other).status, status, "{other}");
    }
    let from = |name: &str| get_from(address, &format!("{name}.example"), "/");
    assert_eq!(
        (from("env").status, from("env").text().as_str()),
        (203, "hunter2")
    );
    assert_eq!(from("config").text(), "XL");
    for store in ["store", "unnamed"] {
        assert_eq!([from(store).text(), from(store).text()], ["1", "2"]);
    }
    assert_eq!(from("away").status_and_error(), (503, "suspended"));
    // the guest responds with the number of the error code
    assert!(from("caller").status > 200);
    let denied = dev.line("api.example");
    assert!(denied.contains("egress.allow"), "{denied}");
    assert_eq!(from("spin").status, 504);
    assert!(dev.line("spin  cpu").ends_with("cpu: limits.cpu is 100ms"));
    let large = ask("POST / HTTP/1.1\r\nhost: spin.example\r\ncontent-length: 1025");
    assert_eq!(large.status, 413);
    dev.line("body_too_large: limits.requestBody is 1Ki");
    assert_eq!(from("spin.localhost.nowhere").status, 404);
    dev.line("no_route: no route has host \"spin.localhost.nowhere.example\"");
    assert!(dev.interrupt().success());
}

/// Standard output of the tests is not a terminal.
#[test]
fn a_request_is_one_line_without_colours_after_the_lines_of_its_guest() {
    let project = Project::new(&one(""), &[("c.wasm", &talkative())]);
    let (mut dev, address) = Dev::serving(&project, &[]);
    assert_eq!(get_from(address, "localhost", "/cart?n=1").status, 200);
    assert_eq!(dev.line("said"), "  stderr  said");
    let line = dev.line("GET");
    assert!(
        line.starts_with("GET /cart?n=1 200 ") && line.ends_with(" ms"),
        "{line}"
    );
    assert!(!dev.seen().concat().contains('\u{1b}'), "{:?}", dev.seen());
}

#[test]
fn a_trap_is_shown_with_the_functions_of_the_guest() {
    let wasm = component::guest("(func $broken unreachable)", "(call $broken)");
    let project = Project::new(&one(""), &[("c.wasm", &wasm)]);
    let (mut dev, address) = Dev::serving(&project, &[]);
    assert_eq!(get_from(address, "localhost", "/").status, 500);
    assert!(dev.line("trap:").starts_with("  node    trap: wasm trap"));
    dev.line("!broken");
    assert!(dev.line("GET / 500").ends_with("  trap"));
}

#[test]
fn an_inline_component_is_served() {
    use base64::Engine as _;
    let inline = base64::engine::general_purpose::STANDARD.encode(answering("inline"));
    let manifest = annotated("other: x", "");
    let manifest = manifest.replace("image: r.example/one:1", &format!("inline: {inline}"));
    let project = Project::new(&manifest, &[]);
    let (_dev, address) = Dev::serving(&project, &[]);
    assert_eq!(get_from(address, "one.example", "/").text(), "inline");
}
