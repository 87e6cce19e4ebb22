use http::HeaderValue;
use http::header::HeaderName;

use super::*;
use crate::host::normalise_host;
use crate::table::{FunctionKey, TrafficSplit};

fn function(name: &str, created: u64, routes: Vec<Route>) -> FunctionEntry {
    let key = FunctionKey::new("ns", name);
    FunctionEntry {
        key,
        created_ms: created,
        routes,
        suspended: false,
        callers: Vec::new(),
        split: TrafficSplit::default(),
    }
}

fn route(host: &str, paths: &[&str]) -> Route {
    let path = |text: &&str| match text.strip_prefix('=') {
        Some(exact) => PathMatch::Exact(exact.to_owned()),
        None => PathMatch::Prefix((*text).to_owned()),
    };
    Route {
        hosts: vec![host.into()],
        paths: paths.iter().map(path).collect(),
        ..Route::default()
    }
}

fn find(
    index: &RouteIndex,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    method: &str,
) -> Option<RouteMatch> {
    let host = normalise_host(host).unwrap();
    let headers = headers
        .iter()
        .map(|(k, v)| {
            (
                HeaderName::from_bytes(k.as_bytes()).unwrap(),
                HeaderValue::from_str(v).unwrap(),
            )
        })
        .collect();
    index.find(RouteRequest {
        host: &host,
        path,
        method,
        headers: &headers,
    })
}

fn at(index: &RouteIndex, host: &str, path: &str) -> Option<usize> {
    find(index, host, path, &[], "GET").map(|found| found.function)
}

#[test]
fn hosts_have_precedence_over_paths() {
    let functions = [
        function("exact-host", 1, vec![route("a.example", &["/api"])]),
        function("wide", 2, vec![route("*.example", &[])]),
        function("wider", 3, vec![route("*.x.example", &[])]),
        function("all", 4, vec![route("*", &["/", "/deep/er", "=/deep/er"])]),
    ];
    let index = RouteIndex::build(functions.iter());
    let table = [
        ("a.example", "/api", Some(0)),
        ("a.example", "/api/v1", Some(0)),
        ("a.example", "/apiv1", None),
        ("a.example", "/", None),
        ("b.example", "/", Some(1)),
        ("c.b.example", "/", Some(1)),
        ("y.x.example", "/", Some(2)),
        ("z.y.x.example", "/", Some(2)),
        ("x.example", "/", Some(1)),
        ("example", "/", Some(3)),
        ("other.test", "/deep/er/x", Some(3)),
        ("10.0.0.1", "/", Some(3)),
        // HH-19: names that functions use reach no function, not even one that serves all hosts
        ("f.ns.Selvage.internal.:80", "/", None),
        ("selvage.internal", "/", None),
        ("notselvage.internal", "/", Some(3)),
    ];
    for (host, path, expected) in table {
        assert_eq!(at(&index, host, path), expected, "{host}{path}");
    }
}

#[test]
fn an_exact_path_has_precedence_over_the_longest_prefix() {
    let functions = [
        function("short", 1, vec![route("h.x", &["/"])]),
        function("long", 2, vec![route("h.x", &["/a/b/"])]),
        function("exact", 3, vec![route("h.x", &["=/a/b"])]),
    ];
    let index = RouteIndex::build(functions.iter());
    let table = [
        ("/a/b", 2),
        ("/a/b/", 1),
        ("/a/b/c", 1),
        ("/a/bc", 0),
        ("/a", 0),
        ("//", 0),
        ("/a//b", 0),
    ];
    for (path, expected) in table {
        assert_eq!(at(&index, "h.x", path), Some(expected), "{path}");
    }
}

#[test]
fn precedence_is_method_then_headers_then_age() {
    let with = |methods: &[&str], headers: Vec<HeaderMatch>| Route {
        methods: methods.iter().map(|m| (*m).to_owned()).collect(),
        headers,
        ..route("h.x", &["/"])
    };
    let beta = HeaderMatch::Exact {
        name: "X-Beta".into(),
        value: "1".into(),
    };
    let digits = HeaderMatch::Regex {
        name: "x-n".into(),
        pattern: "[0-9]+".into(),
    };
    let broken = HeaderMatch::Regex {
        name: "x-n".into(),
        pattern: "(".into(),
    };
    let functions = [
        function("old", 1, vec![with(&[], vec![])]),
        function("young", 2, vec![with(&[], vec![])]),
        function("beta", 3, vec![with(&[], vec![beta.clone()])]),
        function("both", 4, vec![with(&[], vec![beta, digits])]),
        function("put", 5, vec![with(&["PUT", "LINK"], vec![])]),
        function("never", 0, vec![with(&[], vec![broken])]),
    ];
    let index = RouteIndex::build(functions.iter());
    let one =
        |headers: &[(&str, &str)], method| find(&index, "h.x", "/p", headers, method).unwrap();
    assert_eq!(one(&[], "GET").function, 0);
    assert_eq!(one(&[("x-beta", "1")], "GET").function, 2);
    assert_eq!(one(&[("x-beta", "1"), ("x-n", "17")], "GET").function, 3);
    assert_eq!(one(&[("x-beta", "1"), ("x-n", "17a")], "GET").function, 2);
    assert_eq!(one(&[("x-beta", "1")], "PUT").function, 4);
    assert!(one(&[], "LINK").lists_method && !one(&[], "GET").lists_method);
}

#[test]
fn a_rewrite_replaces_whole_segments() {
    let rewrite = |prefix: &str, to: &str| {
        let route = Route {
            rewrite_prefix: Some(to.into()),
            ..route("h.x", &[prefix])
        };
        RouteIndex::build([function("f", 1, vec![route])].iter())
    };
    let table = [
        ("/a", "/x", "/a/b", "/x/b"),
        ("/a", "/x/", "/a/b", "/x/b"),
        ("/a/", "/", "/a/b", "/b"),
        ("/a", "/", "/a", "/"),
        ("/a", "/x", "/a", "/x"),
        ("/a", "/x", "/a/", "/x/"),
        ("/", "/x", "/b", "/x/b"),
        ("=/a", "/x", "/a", "/x"),
    ];
    for (prefix, to, path, expected) in table {
        let found = find(&rewrite(prefix, to), "h.x", path, &[], "GET").unwrap();
        assert_eq!(
            found.rewritten.as_deref(),
            Some(expected),
            "{prefix} -> {to}: {path}"
        );
    }
}

#[test]
fn the_owner_of_a_host_has_its_most_specific_route() {
    let in_namespace = |namespace: &str, name: &str, created: u64, host: &str| FunctionEntry {
        key: FunctionKey::new(namespace, name),
        ..function(name, created, vec![route(host, &["/api"])])
    };
    let functions = [
        in_namespace("a", "wide", 1, "*.example"),
        in_namespace("b", "young", 3, "shop.example"),
        in_namespace("b", "old", 2, "shop.example"),
    ];
    let index = RouteIndex::build(functions.iter());
    for (host, expected) in [
        ("shop.example", Some(2)),
        ("x.example", Some(0)),
        ("x.shop.example", Some(0)),
        ("example", None),
        ("10.0.0.1", None),
        ("f.ns.selvage.internal", None),
    ] {
        let host = normalise_host(host).unwrap();
        assert_eq!(index.owner(&host), expected, "{host:?}");
    }
}
