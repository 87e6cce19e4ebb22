//! HTTP/2 that breaks the rules, or keeps them and means harm.

use crate::guests;
use crate::program::start;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS, Heard, PADDED,
    PING, PRIORITY, PROTOCOL_ERROR, RST_STREAM, SETTINGS, fields, frame,
};
use crate::support::node::{Node, Setup, eventually};
use crate::support::wire::get;

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "h.example");

/// `:status: 200` and `:status: 400` as they are written with the static table.
const OK: u8 = 0x88;
const BAD_REQUEST: u8 = 0x8c;

fn heard(node: &Node, list: &[(&str, &str)], body: Option<&[u8]>) -> Heard {
    let mut frames = Frames::connect(node.address());
    let last = if body.is_none() { END_STREAM } else { 0 };
    frames.send(HEADERS, END_HEADERS | last, 1, &fields(list));
    if let Some(body) = body {
        frames.send(DATA, END_STREAM, 1, body);
    }
    frames.hear(1)
}

/// HH-1: a head that HTTP/2 forbids resets its stream, or the connection, and no guest sees it.
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
        let heard = heard(&node, &list, None);
        assert!(
            matches!(
                heard,
                Heard::Reset(PROTOCOL_ERROR) | Heard::Goaway(PROTOCOL_ERROR)
            ),
            "{list:?}: {heard:?}"
        );
    }
    assert!(node.plane.counters().snapshot(|_| true).iter().all(|one| {
        let mut populations = one.populations.iter();
        populations.all(|population| population.requests.is_empty())
    }));
    let plain = [METHOD, SCHEME, PATH, AUTHORITY];
    assert_eq!(heard(&node, &plain, None), Heard::Answer(OK));
}

/// HH-1, HH-9: a body longer or shorter than its length is no whole body.
#[test]
fn hh_1_a_length_that_is_not_kept_on_http_2_is_an_error() {
    let node = Node::serve(&guests::SINK);
    let list = [
        (":method", "POST"),
        SCHEME,
        PATH,
        AUTHORITY,
        ("content-length", "4"),
    ];
    for body in [&b"abc"[..], b"abcde"] {
        let heard = heard(&node, &list, Some(body));
        assert_eq!(heard, Heard::Reset(PROTOCOL_ERROR), "{body:?}");
    }
    assert_eq!(heard(&node, &list, Some(b"abcd")), Heard::Answer(OK));
    node.is_quiet();
}

/// HH-2: two names for one request; 421 needs certificates.
#[test]
fn hh_2_authority_and_host_that_differ_are_refused() {
    let node = Node::serve(&guests::ANSWER);
    for (host, answer) in [("h.example", OK), ("other.example", BAD_REQUEST)] {
        let list = [METHOD, SCHEME, PATH, AUTHORITY, ("host", host)];
        assert_eq!(heard(&node, &list, None), Heard::Answer(answer), "{host}");
    }
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// Sends until the peer has had enough, at most `times`.
fn flood(node: &Node, times: u32, mut one: impl FnMut(&mut Frames, u32) -> bool) -> Frames {
    let mut frames = Frames::connect(node.address());
    for n in 0..times {
        if !one(&mut frames, n) {
            break;
        }
    }
    frames
}

/// HH-7: streams opened and reset at once end their connection by a limit, and nobody else's.
#[test]
fn hh_7_rapid_reset_ends_its_connection_alone() {
    let node = Setup::default().start(&guests::SLEEP);
    let head = fields(&[METHOD, SCHEME, PATH, AUTHORITY]);
    let mut frames = flood(&node, 5_000, |frames, n| {
        let stream = 2 * n + 1;
        frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &head)
            && frames.send(RST_STREAM, 0, stream, &[0, 0, 0, 8])
    });
    // an answer after all that would mean that it was let pass
    let probe = [
        METHOD,
        SCHEME,
        AUTHORITY,
        (":path", "/.well-known/selvage/ready"),
    ];
    frames.send(HEADERS, END_HEADERS | END_STREAM, 10_001, &fields(&probe));
    let heard = frames.hear(10_001);
    assert!(
        matches!(heard, Heard::Goaway(ENHANCE_YOUR_CALM) | Heard::Closed),
        "{heard:?}"
    );
    node.is_quiet();
    assert_eq!(
        get(node.address(), "/.well-known/selvage/ready").status,
        200
    );
}

/// HH-7: a head without an end, by continuations or by one field that the table multiplies.
#[test]
fn hh_7_endless_heads_end_by_their_limit() {
    let node = Node::serve(&guests::ANSWER);
    let long = "a".repeat(100);
    let piece = fields(&[("x-more", long.as_str()); 100]);
    let mut frames = flood(&node, 300, |frames, n| match n {
        0 => frames.send(HEADERS, END_STREAM, 1, &fields(&[METHOD, SCHEME, PATH])),
        299 => frames.send(CONTINUATION, END_HEADERS, 1, &piece),
        _ => frames.send(CONTINUATION, 0, 1, &piece),
    });
    let heard = frames.hear(1);
    assert!(
        matches!(heard, Heard::Goaway(_) | Heard::Closed),
        "{heard:?}"
    );
    // one field of 3 KiB put into the table, then named 10,000 times
    let value = "a".repeat(3_000);
    let put = [&[0x40, 1, b'x', 0x7f, 0xb9, 0x16][..], value.as_bytes()].concat();
    let head = fields(&[METHOD, SCHEME, PATH, AUTHORITY]);
    let bomb = [head, put, vec![0xbe; 10_000]].concat();
    let mut frames = Frames::connect(node.address());
    frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    let heard = frames.hear(1);
    assert!(
        !matches!(heard, Heard::Answer(OK)),
        "30 MB of fields were taken"
    );
    assert_eq!(get(node.address(), "/").status, 200);
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// HH-7: frames that ask for an answer each, from a client that reads none, are not stored up.
#[test]
fn hh_7_pings_and_settings_without_a_reader_are_not_stored_up() {
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
        frames.narrow();
        // the answers fill the socket, nothing more is read, and the write limit ends it
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

/// Bytes of memory that the program has.
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

/// HH-7: weights and dependencies of streams that there are not are not kept.
#[test]
fn hh_7_priorities_are_not_kept() {
    let (mut child, address) = start(&guests::ANSWER, &[]);
    // in another order every time
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
    // whoever is answered afterwards has waited for all of it
    let probe = fields(&[METHOD, SCHEME, AUTHORITY, READY]);
    frames.send(HEADERS, END_HEADERS | END_STREAM, 9_999, &probe);
    assert_eq!(frames.hear(9_999), Heard::Answer(OK));
    let more = resident(child.id()).saturating_sub(before);
    assert!(more < 8 << 20, "{more} bytes");
    assert_eq!(get(address, "/").status, 200);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// HH-7: DATA without data, padded or not, for a body that is awaited ends its connection by a limit.
#[test]
fn hh_7_empty_data_ends_its_connection_alone() {
    let node = Node::serve(&guests::SINK);
    let padded = [&[255][..], &[0; 255]].concat();
    for one in [frame(DATA, 0, 1, &[]), frame(DATA, PADDED, 1, &padded)] {
        let mut frames = Frames::connect(node.address());
        let post = [(":method", "POST"), SCHEME, PATH, AUTHORITY];
        frames.send(HEADERS, END_HEADERS, 1, &fields(&post));
        let many = one.repeat(100);
        let taken = (0..10_000).take_while(|_| frames.raw(&many)).count();
        // an answer after all that would mean that it was let pass
        let probe = fields(&[METHOD, SCHEME, AUTHORITY, READY]);
        frames.send(HEADERS, END_HEADERS | END_STREAM, 10_001, &probe);
        let heard = frames.hear(10_001);
        assert!(
            matches!(heard, Heard::Goaway(ENHANCE_YOUR_CALM) | Heard::Closed),
            "{heard:?} after {taken} hundred"
        );
        node.is_quiet();
        assert_eq!(get(node.address(), READY.1).status, 200);
    }
}

/// HH-7: a priority that is an error each time ends its connection by a limit.
#[test]
fn hh_7_streams_that_depend_on_themselves_end_their_connection_alone() {
    let node = Node::serve(&guests::ANSWER);
    let mut frames = flood(&node, 5_000, |frames, n| {
        let stream = 2 * n + 1;
        let on_itself = [&stream.to_be_bytes()[..], &[15]].concat();
        frames.send(PRIORITY, 0, stream, &on_itself)
    });
    let probe = fields(&[METHOD, SCHEME, AUTHORITY, READY]);
    frames.send(HEADERS, END_HEADERS | END_STREAM, 10_001, &probe);
    let heard = frames.hear(10_001);
    assert!(
        matches!(heard, Heard::Goaway(_) | Heard::Closed),
        "{heard:?}"
    );
    assert_eq!(get(node.address(), "/").status, 200);
}
