//! Traces that the node records, as a collector receives them.

mod collector;

use node_shim::traces::OtlpProtocol;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use crate::egress::origin::origin;
use crate::guests;
use crate::metrics::{page, scrape};
use crate::program::start_as;
use crate::support::node::{Node, Setup, eventually};
use crate::support::program::node_shim;
use crate::support::wire::{get, once};

pub(crate) use collector::{Collector, text, traceparent};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn node(collector: &Collector, sample_ratio: f64, trusted: bool, guest: &[u8]) -> Node {
    let mut setup = Setup::default();
    setup.options.tracer = Some(collector.tracer(sample_ratio));
    if trusted {
        setup.options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    }
    setup.start(guest)
}

fn ask(node: &Node, parent: &str) -> String {
    let request =
        format!("GET /a?secret=1 HTTP/1.1\r\nhost: h.example:81\r\ntraceparent: {parent}\r\n\r\n");
    once(node.address(), request).text()
}

fn trace(span: &Span) -> String {
    hex::encode(&span.trace_id)
}

#[test]
fn the_decision_of_a_trusted_proxy_is_followed() {
    let collector = Collector::start();
    let node = node(&collector, 1.0, true, &guests::MIRROR);
    let unsampled = format!("{}00", &PARENT[..PARENT.len() - 2]);
    let received = ask(&node, &unsampled);
    assert!(
        received.contains(&format!("traceparent: {unsampled}\n")),
        "{received}"
    );
    let received = ask(&node, PARENT);
    let spans = collector.spans(2);
    let [request, guest] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!((&*request.name, &*guest.name), ("GET ns/f", "guest"));
    assert_eq!((&*trace(request), &*trace(guest)), (TRACE, TRACE));
    assert_eq!(hex::encode(&request.parent_span_id), "b7ad6b7169203331");
    assert_eq!(guest.parent_span_id, request.span_id);
    let expected = format!("traceparent: {}\n", traceparent(guest));
    assert!(received.contains(&expected), "{expected} {received}");
    assert_eq!(request.kind(), SpanKind::Server);
    assert_eq!(guest.kind(), SpanKind::Internal);
    assert!(request.start_time_unix_nano <= guest.start_time_unix_nano);
    assert!(guest.end_time_unix_nano >= guest.start_time_unix_nano);
    assert!(request.end_time_unix_nano >= guest.start_time_unix_nano);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/a"),
        ("url.query", ""),
        ("server.address", "h.example"),
        ("server.port", "81"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("http.response.status_code", "200"),
        ("error.type", ""),
        ("selvage.outcome", "ok"),
        ("selvage.function.namespace", "ns"),
        ("selvage.function.name", "f"),
        ("selvage.function.revision", "r1"),
        ("faas.coldstart", "false"),
    ] {
        assert_eq!(text(&request.attributes, key), value, "{key}");
    }
    let all = format!("{spans:?}");
    assert!(!all.contains("secret"), "{all}");
}

#[test]
fn spans_are_sent_over_http() {
    let collector = Collector::over_http(None);
    let node = node(&collector, 1.0, false, &guests::ANSWER);
    for _ in 0..2 {
        assert_eq!(get(node.address(), "/").status, 200);
        let spans = collector.spans(2);
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["GET ns/f", "guest"]);
        assert_eq!(spans[1].parent_span_id, spans[0].span_id);
    }
}

/// The URL of the variable for traces is used as it is; the one of the variable for all signals gets the path.
#[test]
fn serve_reads_the_protocol_the_url_and_the_header_fields_of_the_collector() {
    let collector = Collector::over_http(Some(("authorization", "Basic a=")));
    let base = collector.endpoint().strip_suffix("/v1/traces").unwrap();
    let signal = [
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint()),
    ];
    let all = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", base),
    ];
    for variables in [signal, all] {
        let mut program = node_shim();
        program
            .envs(variables)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20a%3D");
        let flags = ["--trace-sample-ratio", "1"];
        let (mut child, address) = start_as(program, &guests::ANSWER, &flags);
        assert_eq!(get(address, "/").status, 200);
        assert_eq!(collector.spans(2).len(), 2);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn the_latency_histogram_names_the_trace_of_a_recorded_request() {
    const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.3";
    let collector = Collector::start();
    let node = node(&collector, 0.0, true, &guests::MIRROR);
    ask(&node, &format!("{}00", &PARENT[..PARENT.len() - 2]));
    let before = scrape(&node, OPEN_METRICS);
    assert!(before.media_type.starts_with("text/plain"), "{before:?}");
    ask(&node, PARENT);
    collector.spans(2);
    let after = scrape(&node, OPEN_METRICS);
    assert!(
        after.media_type.starts_with("application/openmetrics-text"),
        "{after:?}"
    );
    let buckets: Vec<_> = after
        .text
        .lines()
        .filter(|line| line.contains(TRACE))
        .collect();
    let [bucket] = buckets[..] else {
        panic!("{after:?}")
    };
    assert!(
        bucket.starts_with("selvage_response_head_seconds_bucket{"),
        "{bucket}"
    );
    assert!(
        scrape(&node, "text/plain")
            .media_type
            .starts_with("text/plain")
    );
}

/// HH-8: a client cannot make a node record its requests, and it cannot join the traces of others.
#[test]
fn a_parent_of_an_untrusted_client_has_no_effect() {
    let collector = Collector::start();
    let never = node(&collector, 0.0, false, &guests::MIRROR);
    let received = ask(&never, PARENT);
    assert!(!received.contains(TRACE), "{received}");
    let always = node(&collector, 1.0, false, &guests::MIRROR);
    let received = ask(&always, PARENT);
    let spans = collector.spans(2);
    assert_eq!(spans.len(), 2, "{spans:?}");
    let request = &spans[0];
    assert!(request.parent_span_id.is_empty());
    assert_ne!(trace(request), TRACE);
    // one id finds the log lines and the trace
    let expected = format!("x-request-id: {}\n", trace(request));
    assert!(received.contains(&expected), "{expected} {received}");
}

#[test]
fn failed_and_rejected_requests_have_spans_with_errors() {
    let collector = Collector::start();
    let node = node(&collector, 1.0, false, &guests::TRAP);
    assert_eq!(get(node.address(), "/").status, 500);
    let spans = collector.spans(2);
    let [request, guest] = &spans[..] else {
        panic!("{spans:?}")
    };
    for span in [request, guest] {
        assert_eq!(text(&span.attributes, "error.type"), "trap");
        let status = span.status.clone().unwrap();
        assert_eq!(
            (status.code(), &*status.message),
            (StatusCode::Error, "trap")
        );
    }
    // a probe of a load balancer has no span
    assert_eq!(
        get(node.address(), "/.well-known/selvage/ready").status,
        200
    );
    node.publish(Vec::new());
    assert_eq!(get(node.address(), "/").status, 404);
    let spans = collector.spans(1);
    let [rejected] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(rejected.name, "GET");
    assert_eq!(text(&rejected.attributes, "error.type"), "no_route");
    assert_eq!(text(&rejected.attributes, "selvage.outcome"), "rejected");
    // what the client caused is no error of a server
    assert_eq!(
        rejected.status.clone().unwrap_or_default().code(),
        StatusCode::Unset
    );
}

/// FN-15: no request waits for the collector.
#[test]
fn fn_15_a_collector_that_is_away_costs_only_the_spans() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        drops_all_spans(protocol, &format!("http://{address}"));
    }
}

/// Only a collector that has accepted spans counts, and a redirect does not lead to another one.
#[test]
fn a_collector_that_refuses_or_redirects_gets_no_spans_elsewhere() {
    let collector = Collector::over_http(None);
    let elsewhere = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        collector.endpoint()
    );
    let refused = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned();
    for answer in [elsewhere, refused] {
        let address = origin(move |mut exchange| {
            while exchange.head().is_some() {
                exchange.send(&answer);
                exchange.rest();
            }
        });
        drops_all_spans(
            OtlpProtocol::HttpProtobuf,
            &format!("http://{address}/v1/traces"),
        );
    }
    assert!(collector.is_empty());
}

/// Runs three requests whose spans the endpoint does not accept.
fn drops_all_spans(protocol: OtlpProtocol, endpoint: &str) {
    let runtime = collector::runtime();
    let tracer = collector::tracer(&runtime, protocol, endpoint, 1.0);
    let mut setup = Setup::default();
    setup.options.tracer = Some(tracer.clone());
    let node = setup.start(&guests::ANSWER);
    for _ in 0..3 {
        assert_eq!(get(node.address(), "/").status, 200);
    }
    let dropped = || tracer.dropped().map(|(_, count)| count).sum::<u64>();
    eventually("all spans are dropped", || dropped() == 6);
    assert_eq!(tracer.exported(), 0);
    let page = page(&node);
    for line in [
        "selvage_spans_exported_total 0",
        "selvage_spans_dropped_total{reason=\"export\"} 6",
        "selvage_spans_dropped_total{reason=\"queue\"} 0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\nin\n{page}");
    }
}
