//! Access log and `server-timing`.

use std::sync::Arc;

use node_shim::access_log::{AccessLogOptions, LoggedRequests};
use node_shim::counters::CounterTable;
use serde_json::Value;

use crate::guests;
use crate::metrics::page;
use crate::support::node::{Node, PATIENCE, Setup, eventually, served};
use crate::support::wire::{Wire, get, once};

fn logging(requests: LoggedRequests, sample: f64) -> Setup {
    let mut setup = Setup::default();
    setup.options.access_log = AccessLogOptions { requests, sample };
    setup
}

/// Waits for this number of lines of the access log.
fn lines(node: &Node, number: usize) -> Vec<Value> {
    let access = || {
        let lines = node.log().into_iter();
        let lines = lines.filter(|line| line["stream"] == "access");
        lines.collect::<Vec<_>>()
    };
    eventually("lines of the access log", || access().len() >= number);
    access()
}

#[test]
fn a_line_says_how_a_request_has_ended_without_its_secrets() {
    let mut setup = logging(LoggedRequests::All, 1.0);
    setup.options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let node = setup.start(&guests::SINK);
    let reply = once(
        node.address(),
        "POST /cart?token=secret HTTP/1.1\r\nhost: shop.example:81\r\ncookie: secret\r\nx-forwarded-for: 192.0.2.7\r\n\
         x-request-id: id-1\r\ncontent-length: 5\r\n\r\nhello",
    );
    assert_eq!(reply.text(), "done");
    let mut line = lines(&node, 1).remove(0);
    assert!(!line.to_string().contains("secret"), "{line}");
    let ts = line["ts"].as_str().unwrap();
    assert!(ts.starts_with("20") && ts.ends_with('Z'), "{ts}");
    let trace = line["trace_id"].as_str().unwrap();
    assert_eq!(trace.len(), 32);
    let (duration, first) = (&line["duration_ms"], &line["first_byte_ms"]);
    assert!(first.as_f64().unwrap() > 0.0 && duration.as_f64() >= first.as_f64());
    let message = line["msg"].as_str().unwrap();
    assert_eq!(
        message,
        format!("POST /cart 200 {} ms", duration.as_f64().unwrap())
    );
    for name in ["msg", "ts", "trace_id", "duration_ms", "first_byte_ms"] {
        line.as_object_mut().unwrap().remove(name);
    }
    let expected = serde_json::json!({
        "level": "info", "stream": "access",
        "function_namespace": "ns", "function": "f", "revision": "r1", "node": "node-1",
        "client": "192.0.2.7", "method": "POST", "host": "shop.example:81", "path": "/cart", "protocol": "1.1",
        "status": 200, "outcome": "ok", "reason": null, "bytes_in": 5, "bytes_out": 4,
        "request_id": "id-1", "population": "live", "start": "warm",
    });
    assert_eq!(line, expected);
    assert!(page(&node).contains("selvage_access_log_dropped_total 0\n"));
}

#[test]
fn requests_without_a_function_and_head_requests_have_lines_and_probes_have_none() {
    let node = logging(LoggedRequests::All, 1.0).start(&guests::ANSWER);
    assert_eq!(
        get(node.address(), "/.well-known/selvage/ready").status,
        200
    );
    let mut wire = Wire::connect(node.address());
    wire.send("HEAD / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    assert_eq!(wire.read_head_only().unwrap().status, 200);
    let head = lines(&node, 1).remove(0);
    assert_eq!(head["method"], "HEAD");
    assert_eq!(head["bytes_out"], 0);
    node.publish(Vec::new());
    assert_eq!(get(node.address(), "/secret?x").status, 404);
    let line = lines(&node, 2).remove(1);
    let part = [
        "status",
        "outcome",
        "reason",
        "function",
        "client",
        "request_id",
        "level",
    ];
    let expected = serde_json::json!([404, "rejected", "no_route", "", "127.0.0.1", null, "info"]);
    let found: Vec<_> = part.iter().map(|name| line[*name].clone()).collect();
    assert_eq!(Value::from(found), expected, "{line}");
}

#[test]
fn the_log_of_errors_has_failed_requests_only() {
    for (setup, guest, status, reason) in [
        (
            logging(LoggedRequests::Errors, 1.0),
            guests::status(503),
            503,
            Value::Null,
        ),
        // the sample is of requests that did not fail
        (
            logging(LoggedRequests::All, 0.0),
            guests::TRAP.clone(),
            500,
            "trap".into(),
        ),
    ] {
        let node = setup.start(&guest);
        // a request that is rejected is no error of the node, and comes first
        let rejected = once(node.address(), "GET / HTTP/1.1\r\nhost: a b\r\n\r\n");
        assert_eq!(rejected.status_and_error(), (400, "bad_host"));
        assert_eq!(get(node.address(), "/failed").status, status);
        let lines = lines(&node, 1);
        let [line] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert_eq!(line["status"], status);
        assert_eq!(line["reason"], reason);
        assert_eq!(line["level"], "warn");
    }
}

#[test]
fn a_client_that_leaves_while_it_waits_has_a_line() {
    let mut setup = logging(LoggedRequests::Errors, 1.0);
    setup.limits.concurrency = 1;
    setup.limits.queue_timeout = PATIENCE;
    let counters = CounterTable::new();
    let revision = setup.revision("r1", &guests::SLEEP, &counters);
    let node = setup.start_empty(counters);
    let mut function = served(&revision, setup.routes.clone());
    // only the metrics of a rollout show who waits
    Arc::make_mut(&mut function.entry).split.in_rollout = true;
    node.publish(vec![function]);
    let shows = |metric: &str| {
        let shown = |line: &str| line.starts_with(metric) && line.ends_with(" 1");
        eventually(metric, || page(&node).lines().any(shown));
    };
    let mut first = Wire::connect(node.address());
    first.send("GET /first HTTP/1.1\r\nhost: h\r\n\r\n");
    shows("selvage_in_flight_requests{");
    let mut second = Wire::connect(node.address());
    second.send("GET /second HTTP/1.1\r\nhost: h\r\n\r\n");
    shows("selvage_queued_requests{");
    second.reset();
    let line = lines(&node, 1).remove(0);
    let found = [&line["path"], &line["status"], &line["reason"]];
    assert_eq!(
        serde_json::json!(found),
        serde_json::json!(["/second", null, "client_gone"])
    );
}

#[test]
fn responses_have_server_timing_only_when_it_is_on() {
    let node = Node::serve(&guests::ANSWER);
    assert_eq!(get(node.address(), "/").header("server-timing"), None);
    let mut setup = Setup::default();
    setup.options.server_timing = true;
    let node = setup.start(&guests::header("server-timing", "db;dur=1"));
    let reply = get(node.address(), "/");
    let fields: Vec<_> = reply
        .headers
        .iter()
        .filter(|(name, _)| name == "server-timing")
        .collect();
    assert_eq!(fields[0].1, "db;dur=1");
    let own = &fields[1].1;
    assert!(
        own.starts_with("admission;dur=") && own.contains(", guest;dur="),
        "{own}"
    );
}
