//! HTTP/2 requests that are invalid, or valid but malicious.

use crate::guests;
use crate::program::start;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS, PADDED, PING,
    PRIORITY, PROTOCOL_ERROR, RST_STREAM, SETTINGS, StreamEvent, fields, frame,
};
use crate::support::node::{Node, Setup, eventually};
use crate::support::wire::get;

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "h.example");

/// `:status: 200` and `:status: 400` as indices of the HPACK static table.
const OK: u8 = 0x88;
const BAD_REQUEST: u8 = 0x8c;

fn event(node: &Node, list: &[(&str, &str)], body: Option<&[u8]>) -> StreamEvent {
    let mut frames = Frames::connect(node.address());
    let last = if body.is_none() { END_STREAM } else { 0 };
    frames.send(HEADERS, END_HEADERS | last, 1, &fields(list));
    if let Some(body) = body {
        frames.send(DATA, END_STREAM, 1, body);
    }
    frames.wait_for(1)
}

/// HH-1: an invalid head resets its stream or the connection and does not reach a guest.
#[test]
fn hh_1_malformed_http_2_never_reaches_a_guest() {
    let node = Node::serve(&guests::ANSWER);
    let with = |more: (&'static str, &'static str)| vec![METHOD, SCHEME, PATH, AUTHORITY, more];
    for list in [
        with(("X-Upper", "1")),
        with((":path", "/again")),
        with((":unknown", "1")),
        with((":status", "200")),
        with(("connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("keep-alive", "1")),
        with(("proxy-connection", "1")),
        with(("upgrade", "h2c")),
        with(("te", "gzip")),
        vec![METHOD, SCHEME, AUTHORITY],
        vec![METHOD, SCHEME, AUTHORITY, (":path", "")],
        vec![("x-first", "1"), METHOD, SCHEME, PATH, AUTHORITY],
    ] {
        let event = event(&node, &list, None);
        assert!(
            matches!(
                event,
                StreamEvent::Reset(PROTOCOL_ERROR) | StreamEvent::Goaway(PROTOCOL_ERROR)
            ),
            "{list:?}: {event:?}"
        );
    }
    assert!(node.plane.counters().snapshot(|_| true).iter().all(|one| {
        let mut populations = one.populations.iter();
        populations.all(|population| population.requests.is_empty())
    }));
    let plain = [METHOD, SCHEME, PATH, AUTHORITY];
    assert_eq!(event(&node, &plain, None), StreamEvent::Response(OK));
}

/// HH-1, HH-9: a body that is longer or shorter than its length is an error.
#[test]
fn hh_1_a_body_of_the_wrong_length_on_http_2_is_an_error() {
    let node = Node::serve(&guests::SINK);
    let list = [
        (":method", "POST"),
        SCHEME,
        PATH,
        AUTHORITY,
        ("content-length", "4"),
    ];
    for body in [&b"abc"[..], b"abcde"] {
        let event = event(&node, &list, Some(body));
        assert_eq!(event, StreamEvent::Reset(PROTOCOL_ERROR), "{body:?}");
    }
    assert_eq!(
        event(&node, &list, Some(b"abcd")),
        StreamEvent::Response(OK)
    );
    node.is_quiet();
}

/// HH-2: a request with two different hosts is rejected.
#[test]
fn hh_2_authority_and_host_that_differ_are_refused() {
    let node = Node::serve(&guests::ANSWER);
    for (host, answer) in [("h.example", OK), ("other.example", BAD_REQUEST)] {
        let list = [METHOD, SCHEME, PATH, AUTHORITY, ("host", host)];
        assert_eq!(
            event(&node, &list, None),
            StreamEvent::Response(answer),
            "{host}"
        );
    }
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// Sends frames until the peer stops accepting them, at most `times`.
fn flood(node: &Node, times: u32, mut one: impl FnMut(&mut Frames, u32) -> bool) -> Frames {
    let mut frames = Frames::connect(node.address());
    for n in 0..times {
        if !one(&mut frames, n) {
            break;
        }
    }
    frames
}

/// HH-7: a connection that resets its streams immediately is closed by a limit; others are not affected.
#[test]
fn hh_7_rapid_reset_closes_only_its_own_connection() {
    let node = Setup::default().start(&guests::SLEEP);
    let head = fields(&[METHOD, SCHEME, PATH, AUTHORITY]);
    let mut frames = flood(&node, 5_000, |frames, n| {
        let stream = 2 * n + 1;
        frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &head)
            && frames.send(RST_STREAM, 0, stream, &[0, 0, 0, 8])
    });
    // a response would mean that the flood was accepted
    let probe = [
        METHOD,
        SCHEME,
        AUTHORITY,
        (":path", "/.well-known/selvage/ready"),
    ];
    frames.send(HEADERS, END_HEADERS | END_STREAM, 10_001, &fields(&probe));
    let event = frames.wait_for(10_001);
    assert!(
        matches!(
            event,
            StreamEvent::Goaway(ENHANCE_YOUR_CALM) | StreamEvent::Closed
        ),
        "{event:?}"
    );
    node.is_quiet();
    assert_eq!(
        get(node.address(), "/.well-known/selvage/ready").status,
        200
    );
}

/// HH-7: an endless head, made of continuations or of one repeated indexed field.
#[test]
fn hh_7_endless_heads_are_bounded() {
    let node = Node::serve(&guests::ANSWER);
    let long = "a".repeat(100);
    let piece = fields(&[("x-more", long.as_str()); 100]);
    let mut frames = flood(&node, 300, |frames, n| match n {
        0 => frames.send(HEADERS, END_STREAM, 1, &fields(&[METHOD, SCHEME, PATH])),
        299 => frames.send(CONTINUATION, END_HEADERS, 1, &piece),
        _ => frames.send(CONTINUATION, 0, 1, &piece),
    });
    let event = frames.wait_for(1);
    assert!(
        matches!(event, StreamEvent::Goaway(_) | StreamEvent::Closed),
        "{event:?}"
    );
    // one field of 3 KiB added to the table and referenced 10,000 times
    let value = "a".repeat(3_000);
    let put = [&[0x40, 1, b'x', 0x7f, 0xb9, 0x16][..], value.as_bytes()].concat();
    let head = fields(&[METHOD, SCHEME, PATH, AUTHORITY]);
    let bomb = [head, put, vec![0xbe; 10_000]].concat();
    let mut frames = Frames::connect(node.address());
    frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    let event = frames.wait_for(1);
    assert!(
        !matches!(event, StreamEvent::Response(OK)),
        "30 MB of fields were accepted"
    );
    assert_eq!(get(node.address(), "/").status, 200);
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// HH-7: responses to frames of a client that does not read are not buffered without bound.
#[test]
fn hh_7_responses_to_pings_and_settings_are_bounded() {
    let node = Setup::connections(|c| c.write_stall = std::time::Duration::from_millis(300))
        .start(&guests::ANSWER);
    for (kind, payload) in [(PING, &[7; 8][..]), (SETTINGS, &[0, 4, 0, 0, 0xff, 0xff])] {
        let one: Vec<u8> = [
            &[0, 0, u8::try_from(payload.len()).unwrap(), kind, 0][..],
            &[0; 4],
            payload,
        ]
        .concat();
        let many = one.repeat(4_000);
        let mut frames = Frames::connect(node.address());
        frames.shrink_receive_buffer();
        // the responses fill the socket, the node stops reading, and the write timeout closes it
        let mut sent = 0_u64;
        while sent < 64 << 20 && frames.raw(&many) {
            sent += many.len() as u64;
        }
        assert!(sent < 64 << 20, "{kind}: {sent}");
        eventually("the connection ends", || node.plane.open_connections() == 0);
        assert_eq!(get(node.address(), "/").status, 200);
    }
}

const READY: (&str, &str) = (":path", "/.well-known/selvage/ready");

/// Returns the resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

/// HH-7: priorities of streams that do not exist are not stored.
#[test]
fn hh_7_priorities_are_not_stored() {
    let (mut child, address) = start(&guests::ANSWER, &[]);
    // in a different order every time
    let many: Vec<u8> = (0..1_000_u32)
        .flat_map(|n| {
            let on = (2 * (n * 7_919 % 50_000) + 2).to_be_bytes();
            let payload = [&on[..], &[u8::try_from(n % 256).unwrap()]].concat();
            frame(PRIORITY, 0, 2 * n + 1, &payload)
        })
        .collect();
    let mut frames = Frames::connect(address);
    assert_eq!(get(address, "/").status, 200);
    let before = resident(child.id());
    for _ in 0..1_000 {
        assert!(frames.raw(&many));
    }
    // a response shows that the node has processed all frames before
    let probe = fields(&[METHOD, SCHEME, AUTHORITY, READY]);
    frames.send(HEADERS, END_HEADERS | END_STREAM, 9_999, &probe);
    assert_eq!(frames.wait_for(9_999), StreamEvent::Response(OK));
    let more = resident(child.id()).saturating_sub(before);
    assert!(more < 8 << 20, "{more} bytes");
    assert_eq!(get(address, "/").status, 200);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// HH-7: a connection that sends empty DATA frames, padded or not, is closed by a limit.
#[test]
fn hh_7_empty_data_closes_only_its_own_connection() {
    let node = Node::serve(&guests::SINK);
    let padded = [&[255][..], &[0; 255]].concat();
    for one in [frame(DATA, 0, 1, &[]), frame(DATA, PADDED, 1, &padded)] {
        let mut frames = Frames::connect(node.address());
        let post = [(":method", "POST"), SCHEME, PATH, AUTHORITY];
        frames.send(HEADERS, END_HEADERS, 1, &fields(&post));
        let many = one.repeat(100);
        let taken = (0..10_000).take_while(|_| frames.raw(&many)).count();
        // a response would mean that the flood was accepted
        let probe = fields(&[METHOD, SCHEME, AUTHORITY, READY]);
        frames.send(HEADERS, END_HEADERS | END_STREAM, 10_001, &probe);
        let event = frames.wait_for(10_001);
        assert!(
            matches!(
                event,
                StreamEvent::Goaway(ENHANCE_YOUR_CALM) | StreamEvent::Closed
            ),
            "{event:?} after {taken} hundred"
        );
        node.is_quiet();
        assert_eq!(get(node.address(), READY.1).status, 200);
    }
}

/// HH-7: a connection that sends invalid priorities is closed by a limit.
#[test]
fn hh_7_self_dependent_streams_close_only_their_own_connection() {
    let node = Node::serve(&guests::ANSWER);
    let mut frames = flood(&node, 5_000, |frames, n| {
        let stream = 2 * n + 1;
        let on_itself = [&stream.to_be_bytes()[..], &[15]].concat();
        frames.send(PRIORITY, 0, stream, &on_itself)
    });
    let probe = fields(&[METHOD, SCHEME, AUTHORITY, READY]);
    frames.send(HEADERS, END_HEADERS | END_STREAM, 10_001, &probe);
    let event = frames.wait_for(10_001);
    assert!(
        matches!(event, StreamEvent::Goaway(_) | StreamEvent::Closed),
        "{event:?}"
    );
    assert_eq!(get(node.address(), "/").status, 200);
}
