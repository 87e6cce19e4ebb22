//! Requests that real clients send and that a strict reading of the specifications would refuse, and
//! responses in the form in which they expect them.

use crate::guests;
use crate::support::node::Node;
use crate::support::wire::once;

/// Returns the first line that the guest `MIRROR` writes: the target as the guest sees it.
fn target(node: &Node, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nhost: h.example\r\nconnection: close\r\n\r\n");
    let reply = once(node.address(), request);
    match reply.status {
        200 => reply.text().lines().next().unwrap_or_default().to_owned(),
        _ => format!("{} {}", reply.status, reply.status_and_error().1),
    }
}

/// HH-16: the query is not used for routing, so it passes byte for byte.
#[test]
fn hh_16_the_query_reaches_the_guest_as_sent() {
    let node = Node::serve(&guests::MIRROR);
    for query in [
        "%",
        "100%",
        "a=%u00e9",
        "a=%00",
        "a=%zz&b=%2",
        "a=\\b",
        "a=../..",
        "a='[]{}|^`~",
        "",
        "?",
    ] {
        let sent = format!("/p?{query}");
        assert_eq!(target(&node, &sent), sent);
    }
    // raw UTF-8, as some clients send it
    assert_eq!(target(&node, "/p?a=\u{e9}"), "/p?a=\u{e9}");
    for path in ["/%", "/%u00e9", "/%00", "/a\\b", "/../?a"] {
        assert_eq!(target(&node, path), "400 bad_path", "{path}");
    }
    for request in [
        "GET /p?a\u{1} HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /p?a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /p?a\u{7f} HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        assert_eq!(once(node.address(), request).status, 400, "{request:?}");
    }
}
