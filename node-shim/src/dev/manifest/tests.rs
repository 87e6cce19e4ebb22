use std::collections::BTreeSet;

use node_api::v1::env_var::Kind;
use node_api::v1::key_value_store;
use serde_yaml::Value;

use super::*;

pub(super) fn texts(text: &str) -> Vec<ManifestText> {
    vec![ManifestText {
        path: PathBuf::from("a/f.yaml"),
        text: text.to_owned(),
    }]
}

/// Returns a manifest whose `spec` begins in line 5.
pub(super) fn function(spec: &str) -> String {
    format!(
        "apiVersion: selvage.dev/v1alpha1\nkind: EdgeFunction\nmetadata: {{ name: f }}\nspec:\n{spec}"
    )
}

pub(super) fn error(text: &str) -> String {
    read(&texts(text)).unwrap_err().to_string()
}

pub(super) const MINIMAL: &str =
    "  source: { image: r.example/f:1 }\n  routes: [{ hosts: [f.example] }]\n";

#[test]
fn a_manifest_becomes_the_record_that_the_operator_sends() {
    let text = format!(
        "# several documents, one of them empty
---
---
apiVersion: v1
kind: ConfigMap
metadata: {{ name: c }}
data: {{ k: v, other: o }}
---
apiVersion: v1
kind: Secret
metadata: {{ name: s }}
data: {{ k: aHVzaA==, text: eA== }}
stringData: {{ text: plain }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: d }}
---
{}",
        function(&format!(
            "{MINIMAL}  env:
    - {{ name: A, value: 'a' }}
    - {{ name: B, valueFrom: {{ configMapKeyRef: {{ name: c, key: k }} }} }}
    - {{ name: C, valueFrom: {{ secretKeyRef: {{ name: s, key: k }} }} }}
    - {{ name: D, valueFrom: {{ secretKeyRef: {{ name: s, key: text }} }} }}
  config: [{{ configMapRef: {{ name: c }} }}, {{ values: {{ k: later }} }}]
  keyValue: [{{ label: cart, store: memory }}, {{ label: '', store: memory }}, {{ label: in_memory, store: memory }}]
  egress: {{ allow: ['https://B.example:443'] }}
  limits: {{ memory: 1Gi, cpu: 1s, concurrency: 3, queue: {{ length: 0 }} }}
  placement: {{ replicas: 3 }}
  rollout: {{ strategy: AllAtOnce }}
  suspend: true
"
        ))
    );
    let Manifests { functions, remarks } = read(&texts(&text)).unwrap();
    assert_eq!(
        remarks,
        [
            "skipped Deployment d: it has no effect without a cluster",
            "default/f: spec.placement without effect here"
        ]
    );
    let [function] = &functions[..] else {
        panic!("{functions:?}")
    };
    assert_eq!(function.key, FunctionKey::new("default", "f"));
    assert_eq!(function.folder, Path::new("a"));
    let definition = function.definition("v1", "sha256:0", 7);
    let record = function.record(vec![definition.clone()], wire::TrafficSplit::default());
    assert!(record.suspended && !format!("{record:?}").contains("hush"));
    assert_eq!((definition.revision.as_str(), definition.size), ("v1", 7));
    let values: Vec<_> = definition
        .env
        .iter()
        .map(|variable| match variable.kind.as_ref().unwrap() {
            Kind::Value(text) => text.clone(),
            Kind::Secret(secret) => String::from_utf8(secret.value.clone().unwrap()).unwrap() + "!",
        })
        .collect();
    assert_eq!(values, ["a", "v", "hush!", "plain!"]);
    let config: Vec<_> = definition
        .config
        .iter()
        .map(|entry| (entry.name.as_str(), entry.kind.clone().unwrap()))
        .collect();
    let value = |text: &str| Kind::Value(text.into());
    assert_eq!(config, [("k", value("later")), ("other", value("o"))]);
    assert_eq!(definition.egress, ["https://b.example"]);
    let labels = definition.key_value.iter().map(|store| &*store.label);
    assert_eq!(labels.collect::<Vec<_>>(), ["cart", "", "in_memory"]);
    let limits = definition.limits.unwrap();
    assert_eq!((limits.memory_bytes, limits.cpu), (1 << 30, 1_000));
    assert_eq!((limits.concurrency, limits.queue_length), (3, 0));
    assert_eq!((limits.timeout, limits.queue_timeout), (30_000, 1_000));
}

#[test]
fn stores_in_redis_and_reuse_become_those_of_the_record() {
    let text = format!(
        "apiVersion: v1
kind: Secret
metadata: {{ name: s }}
stringData: {{ url: 'redis://localhost' }}
---
{}",
        function(&format!(
            "{MINIMAL}  keyValue: [{{ label: users, redis: {{ secretRef: {{ name: s }}, prefix: 'u:', localCacheTTL: 2s }} }}]
  instances: {{ reuse: {{ maxRequests: 7, idleTimeout: 3s }} }}
"
        ))
    );
    let definition = read(&texts(&text)).unwrap().functions[0].definition("v1", "sha256:0", 7);
    let users = definition.key_value[0].kind.as_ref().unwrap();
    let key_value_store::Kind::Redis(users) = users else {
        panic!("{users:?}")
    };
    let url = users.url.as_ref().unwrap();
    assert_eq!(url.reference, "s/url");
    assert_eq!(url.value.as_deref(), Some(&b"redis://localhost"[..]));
    assert_eq!(
        (users.prefix.as_str(), users.local_cache_ttl),
        ("u:", 2_000)
    );
    let reuse = (definition.reuse_max_requests, definition.reuse_idle_timeout);
    assert_eq!(reuse, (7, 3_000));
}

#[test]
fn certificates_of_authorities_come_from_a_config_map_of_the_manifest() {
    let params = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let manifest = |reference: &str, data: &serde_json::Value| {
        let map =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: c }}\ndata: {data}\n");
        let function = function(&format!(
            "{MINIMAL}  egress: {{ caConfigMapRef: {reference} }}\n"
        ));
        format!("{map}---\n{function}")
    };
    for (reference, key) in [("{ name: c }", "ca.crt"), ("{ name: c, key: own }", "own")] {
        let text = manifest(reference, &serde_json::json!({ key: pem }));
        let definition = read(&texts(&text)).unwrap().functions[0].definition("v1", "sha256:0", 7);
        assert_eq!(definition.ca_certificates, pem);
    }
    for (value, expected) in [
        (
            serde_json::json!({}),
            "the ConfigMap \"c\" or its key \"ca.crt\" does not exist",
        ),
        (
            serde_json::json!({ "ca.crt": "x" }),
            "it has no certificate in PEM",
        ),
    ] {
        let message = error(&manifest("{ name: c }", &value));
        let field = "default/f: spec.egress.caConfigMapRef: ";
        assert!(
            message.contains(field) && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    for (fields, line, expected) in [
        (
            "  env: [{ name: A, value: 5 }]",
            7,
            "spec.env[0].value: 5 is not a text: write it in quotes, \"5\"",
        ),
        (
            "  env:\n    - { name: 1A, value: a }",
            8,
            "spec.env[0].name: \"1A\": the name of a variable has letters, digits and _, and does not start with a digit",
        ),
        (
            "  limits:\n    cpu: 6m",
            8,
            "spec.limits.cpu: \"6m\": write a duration from 1ms to 5m",
        ),
        (
            "  limits: { cpu: 5 }",
            7,
            "spec.limits.cpu: 5: write a duration such as 250ms, 5s, 1m30s or 2h",
        ),
        (
            "  limits: { idle: 5d }",
            7,
            "spec.limits.idle: \"5d\": write a duration such as 250ms, 5s, 1m30s or 2h",
        ),
        (
            "  limits: { memory: 1Ki }",
            7,
            "spec.limits.memory: \"1Ki\": write a size from 64Ki to 4Gi",
        ),
        (
            "  limits: { concurrency: 0 }",
            7,
            "spec.limits.concurrency: 0: write a number from 1 to 100000",
        ),
        (
            "  keyValue: [{ label: my cart, store: memory }]",
            7,
            "spec.keyValue[0].label: \"my cart\": use at most 63 letters, digits and the characters - _ . / :",
        ),
        (
            "  egress: { allow: ['http://prices'] }",
            7,
            "spec.egress.allow[0]: \"http://prices\": ",
        ),
        (
            "  limits: { memory: 64 }",
            7,
            "spec.limits.memory: 64: write a size from 64Ki to 4Gi",
        ),
        (
            "  sourc: {}",
            7,
            "spec: unknown field `sourc`, expected one of ",
        ),
    ] {
        let message = error(&function(&format!("{MINIMAL}{fields}\n")));
        let place = format!("a/f.yaml:{line}:");
        assert!(message.starts_with(&place), "{message}");
        assert!(message.contains(&format!(": {expected}")), "{message}");
        assert!(!message.contains(" at line "), "{message}");
    }
}

#[test]
fn a_path_that_is_a_text_is_refused_with_an_example() {
    let fields =
        "  source: { image: r.example/f:1 }\n  routes: [{ hosts: [f.example], paths: [/api] }]\n";
    let message = error(&function(fields));
    let expected = "expected an object such as {value: /api}";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn hosts_and_paths_have_the_rules_of_the_definition() {
    for (host, expected) in [
        (
            "http://a.example",
            "a host has no scheme and no path: write shop.example",
        ),
        (
            "a.example:80",
            "a host has no port: write shop.example; requests to any port match",
        ),
        ("A.example", "write a host in lower case"),
        ("a_b.example", "a host has no underscore"),
        ("a.example.", "a host does not end with a dot"),
        (
            "a.*.example",
            "a host has one wildcard at most, as its whole first label: *.shop.example",
        ),
        (
            "10.0.0.1",
            "the last label of a host must not be a number: an IP address is not a host name",
        ),
        (
            "a.0xff",
            "the last label of a host must not be a number: an IP address is not a host name",
        ),
        (
            "-a.example",
            "a host has labels of letters, digits and '-' with dots between them, each label at most 63 characters",
        ),
    ] {
        assert_eq!(rules::host(host).unwrap_err(), expected, "{host}");
    }
    for host in ["a.example", "*.a.example", "localhost", "xn--a.example"] {
        assert!(rules::host(host).is_ok(), "{host}");
    }
    for (path, expected) in [
        ("a", "a path begins with /"),
        ("/a?b", "a path has no query: write the part before ?"),
        ("/a#b", "a path has no fragment: write the part before #"),
        ("/a//b", "a path has no empty segment: write / once"),
        ("/a/../b", "a path has no segment . or .."),
        (
            "/a%2Fb",
            "a path has no encoded slash, backslash or zero byte",
        ),
        (
            "/a b",
            "a path has letters, digits and -._~!$&'()*+,;=:@%/ only: encode everything else",
        ),
    ] {
        assert_eq!(rules::path(path).unwrap_err(), expected, "{path}");
    }
    assert!(rules::path("/a/b-c._~%20").is_ok());
}

#[test]
fn all_that_is_wrong_with_a_function_is_one_sentence() {
    let cases = [
        (
            "  source: { image: a }\n  routes: []\n",
            "spec.routes: at least one route is needed",
        ),
        (
            "  routes: [{ hosts: [a.example] }]\n",
            "spec.source: write exactly one of image and inline",
        ),
        (
            "  source: { image: a }\n  routes: [{ hosts: ['*'] }]\n",
            "spec.routes[0].hosts: \"*\": a catch-all host needs a policy of the cluster admin, which this version does not support",
        ),
        (
            "  source: { image: a }\n  routes: [{ hosts: [a.example], paths: [{ type: Exact, value: /a }], rewrite: { prefix: / } }]\n",
            "spec.routes[0].rewrite: a rewrite replaces a prefix, and an exact path has no prefix",
        ),
        (
            "  source: { image: a }\n  routes: [{ hosts: [a.example] }]\n  keyValue: [{ label: '', redis: { secretRef: { name: r } } }]\n",
            "spec.keyValue[\"\"].redis: the Secret \"r\" or its key \"url\" does not exist in this namespace (default): add it to the manifest, or name its file with -f",
        ),
        (
            "  source: { image: a }\n  routes: [{ hosts: [a.example] }]\n  env: [{ name: A, valueFrom: { secretKeyRef: { name: s, key: k } } }]\n  config: [{ configMapRef: { name: c } }]\n",
            "spec.env[A].valueFrom: the Secret \"s\" or its key \"k\" does not exist in this namespace (default): add it to the manifest, or name its file with -f; spec.config[0].configMapRef.name: the ConfigMap \"c\" does not exist in this namespace (default): add it to the manifest, or name its file with -f",
        ),
        (
            "  source: { image: a }\n  routes: [{ hosts: [a.example], headers: [{ name: x, type: RegularExpression, value: '(' }] }]\n",
            "spec.routes[0].headers: \"x\": nodes cannot compile the regular expression: ",
        ),
        (
            "  source: { image: a }\n  routes: [{ hosts: [a.example] }]\n  env: [{ name: A }]\n",
            "spec.env[0]: write exactly one of value and valueFrom",
        ),
    ];
    for (spec, expected) in cases {
        let message = error(&function(spec));
        assert!(
            message.starts_with(&format!("a/f.yaml: default/f: {expected}")),
            "{message}"
        );
    }
    let twice = format!("{0}---\n{0}", function(MINIMAL));
    assert_eq!(error(&twice), "a/f.yaml: default/f is there twice");
    let old = function(MINIMAL).replace("v1alpha1", "v1");
    assert_eq!(
        error(&old),
        "a/f.yaml: apiVersion: \"selvage.dev/v1\": write selvage.dev/v1alpha1"
    );
    assert!(
        error("kind: Secret\napiVersion: v1\nmetadata: { name: s }\ndata: { k: '?' }")
            .contains("Secret s: data.k is not base64")
    );
}

/// Returns the schema of `spec`.
pub(super) fn definition() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crds/yaml/edgefunctions.yaml"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let parsed: Value = serde_yaml::from_str(&text).unwrap();
    let schema = &parsed["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"].clone()
}

/// Collects the messages of all rules below a schema.
pub(super) fn messages(schema: &Value, found: &mut String) {
    for value in schema.as_mapping().into_iter().flat_map(|map| map.values()) {
        messages(value, found);
    }
    for value in schema.as_sequence().into_iter().flatten() {
        messages(value, found);
    }
    for key in ["message", "messageExpression"] {
        if let Some(text) = schema.get(key).and_then(Value::as_str) {
            found.push_str(text);
            found.push('\n');
        }
    }
}

/// The types here repeat those of the API, which a node-shim does not link.
#[test]
fn the_messages_are_those_of_the_definition() {
    let mut found = String::new();
    messages(&definition(), &mut found);
    let wrong: [Result<String, String>; 19] = [
        rules::host("a/b"),
        rules::host("[::1]"),
        rules::host("a:1"),
        rules::host("A"),
        rules::host("a_b"),
        rules::host("a."),
        rules::host("a.*"),
        rules::host("1"),
        rules::host("-"),
        rules::path("a"),
        rules::path("/?"),
        rules::path("/#"),
        rules::path("//"),
        rules::path("/."),
        rules::path("/%00"),
        rules::path("/ "),
        rules::header_name(" "),
        rules::variable_name("1"),
        rules::store_label(" "),
    ];
    let forms = [
        "write a duration such as 250ms, 5s, 1m30s or 2h",
        "write a duration from 1ms to 5m",
        "write a duration from 1ms to 1h",
        "write a duration from 0s to 1m",
        "write a size such as 64Mi, 1.5Gi or 500k",
        "write a size from 64Ki to 4Gi",
        "write a size from 0 to 1Gi",
        "write exactly one of value and valueFrom",
        "write exactly one of configMapKeyRef and secretKeyRef",
        "write exactly one of values and configMapRef in an entry; several entries are merged",
        "write exactly one of store and redis",
        "write exactly one of image and inline",
        "write value, except for type Present, which has none",
    ];
    let wrong = wrong.map(Result::unwrap_err);
    for message in wrong.iter().map(String::as_str).chain(forms) {
        assert!(
            found.contains(message),
            "{message:?} is not in the definition"
        );
    }
}

/// Collects the paths of all leaves of a schema; `[]` stands for an entry of a list.
fn leaves(schema: &Value, path: &[String], found: &mut BTreeSet<Vec<String>>) {
    let under = |name: &str| [path, &[name.to_owned()]].concat();
    let properties = schema.get("properties").and_then(Value::as_mapping);
    if let Some(properties) = properties {
        for (name, property) in properties {
            leaves(property, &under(name.as_str().unwrap()), found);
        }
    } else if let Some(items) = schema.get("items") {
        leaves(items, &under("[]"), found);
    } else {
        found.insert(path.to_vec());
    }
}

/// Writes a `spec` with nothing but one field, in the flow style of YAML.
fn only(path: &[String]) -> String {
    match path {
        [] => "x".to_owned(),
        [first, rest @ ..] if first == "[]" => format!("[{}]", only(rest)),
        [first, rest @ ..] => format!("{{ {first}: {} }}", only(rest)),
    }
}

#[test]
fn every_field_of_the_definition_is_known() {
    let mut found = BTreeSet::new();
    leaves(&definition(), &[], &mut found);
    assert!(found.len() > 60, "{found:?}");
    for path in found {
        let text = function("").replace("spec:\n", &format!("spec: {}\n", only(&path)));
        if let Err(error) = read(&texts(&text)) {
            let error = error.to_string();
            assert!(!error.contains("unknown field"), "{path:?}: {error}");
        }
    }
}
