//! Spans of outbound requests and calls.

use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use super::calls::{B, Functions, calling_b};
use super::hops::field;
use super::origin::{Reaction, TestNetwork};
use super::{HELLO, answering, setup};
use crate::forward::{KEY, nodes};
use crate::guests;
use crate::support::node::PATIENCE;
use crate::support::outbound::Call;
use crate::support::wire::once;
use crate::traces::{Collector, text, traceparent};

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    found.next().unwrap_or_else(|| panic!("{name}: {spans:#?}"))
}

#[test]
fn an_outbound_request_names_its_span_as_the_parent() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let collector = Collector::start();
    let (address, heads) = answering(HELLO);
    let network = TestNetwork::to(address);
    let mut setup = setup(&network, &["http://api.example:8080"]);
    setup.options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    setup.options.tracer = Some(collector.tracer(0.0));
    let call = Call {
        path: "/v1?secret=1",
        ..Call::get("api.example:8080")
    };
    let node = setup.start(&call.guest());
    let request =
        format!("GET / HTTP/1.1\r\nhost: h\r\ntraceparent: {parent}\r\ntracestate: a=1\r\n\r\n");
    assert_eq!(once(node.address(), &request).status, 201);
    let head = heads.recv_timeout(PATIENCE).unwrap();
    let spans = collector.spans(3);
    assert_eq!(spans.len(), 3, "{spans:?}");
    let (outbound, guest) = (named(&spans, "GET"), named(&spans, "guest"));
    assert_eq!(outbound.parent_span_id, guest.span_id);
    assert_eq!(guest.parent_span_id, named(&spans, "GET ns/f").span_id);
    assert_eq!(field(&head, "traceparent"), Some(&*traceparent(outbound)));
    assert_eq!(field(&head, "tracestate"), Some("a=1"));
    assert!(spans.iter().all(|span| span.trace_state == "a=1"));
    assert_eq!(outbound.kind(), SpanKind::Client);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.full", "http://api.example:8080/v1"),
        ("server.address", "api.example"),
        ("server.port", "8080"),
        ("http.response.status_code", "201"),
        ("selvage.function.name", "f"),
    ] {
        assert_eq!(text(&outbound.attributes, key), value, "{key}");
    }
}

#[test]
fn an_outbound_request_that_fails_has_a_span_with_the_outcome() {
    let collector = Collector::start();
    let network = TestNetwork::new(Reaction::Refuse);
    network.name("api.example", &[&[super::origin::PUBLIC]]);
    let mut setup = setup(&network, &["http://api.example"]);
    setup.options.tracer = Some(collector.tracer(1.0));
    let node = setup.start(&Call::get("api.example").guest());
    assert_eq!(
        once(node.address(), "GET / HTTP/1.1\r\nhost: h\r\n\r\n").status / 100,
        2
    );
    let spans = collector.spans(3);
    let outbound = named(&spans, "GET");
    assert_eq!(text(&outbound.attributes, "error.type"), "connect");
    assert_eq!(outbound.status.clone().unwrap().code(), StatusCode::Error);
    let request = named(&spans, "GET ns/f");
    assert_eq!(
        request.status.clone().unwrap_or_default().code(),
        StatusCode::Unset
    );
}

#[test]
fn a_call_continues_the_trace_of_its_caller() {
    let collector = Collector::start();
    let mut functions = calling_b(&Call::get("b.ns.selvage.internal"), &guests::MIRROR);
    functions.change_setup(|setup| setup.options.tracer = Some(collector.tracer(1.0)));
    let node = functions.start();
    let received = once(node.address(), "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").text();
    let spans = collector.spans(5);
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let (caller, call, callee) = (
        named(&spans, "GET ns/a"),
        named(&spans, "GET"),
        named(&spans, "GET ns/b"),
    );
    assert!(spans.iter().all(|span| span.trace_id == caller.trace_id));
    let guest_of = |request: &Span| {
        let mut guests = spans.iter().filter(|span| span.name == "guest");
        let guest = guests.find(|guest| guest.parent_span_id == request.span_id);
        guest.unwrap_or_else(|| panic!("{spans:#?}"))
    };
    assert_eq!(call.parent_span_id, guest_of(caller).span_id);
    assert_eq!(callee.parent_span_id, call.span_id);
    assert_eq!(
        text(&call.attributes, "server.address"),
        "b.ns.selvage.internal"
    );
    let expected = format!("traceparent: {}\n", traceparent(guest_of(callee)));
    assert!(received.contains(&expected), "{expected} {received}");
}

/// The span of the called function follows that of the call, whatever the caller has written into `traceparent`.
#[test]
fn a_call_of_another_node_continues_the_trace_of_its_caller() {
    let collector = Collector::start();
    let traced = || {
        let mut functions = Functions::new();
        functions.change_setup(|setup| setup.options.tracer = Some(collector.tracer(1.0)));
        functions
    };
    let mut there = traced();
    there.add("ns", "b", &guests::MIRROR);
    let server = there.start();
    let mut here = traced();
    here.add("ns", "a", &Call::get(B).guest());
    here.add_remote("ns", "b", nodes(&[server.address()]));
    let node = here.start();
    for node in [&server, &node] {
        node.plane.set_hop_key(KEY);
    }
    let reply = once(node.address(), "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n");
    assert_eq!(reply.status, 200);
    let spans = collector.spans(5);
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let (caller, call, callee) = (
        named(&spans, "GET ns/a"),
        named(&spans, "GET"),
        named(&spans, "GET ns/b"),
    );
    assert!(spans.iter().all(|span| span.trace_id == caller.trace_id));
    assert_eq!(callee.parent_span_id, call.span_id);
    assert_ne!(callee.flags & 0x200, 0, "the parent is on another node");
}
