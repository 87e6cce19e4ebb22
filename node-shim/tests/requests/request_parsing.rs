//! Requests that HTTP parsers could interpret differently.

use crate::guests;
use crate::support::node::Node;
use crate::support::wire::Wire;

/// Returns the statuses and bodies of all responses to these bytes until the connection is closed.
fn answers(node: &Node, bytes: &str) -> Vec<(u16, String)> {
    let mut wire = Wire::connect(node.address());
    wire.send(bytes);
    let mut all = Vec::new();
    while let Some(reply) = wire.read() {
        all.push((reply.status, reply.text()));
    }
    all
}

/// HH-1: unusual line endings, blank lines and chunks never result in additional requests or in a wrong
/// body.
#[test]
fn hh_1_unusual_bytes_are_one_request_or_none() {
    let node = Node::serve(&guests::ECHO);
    let whole = |body: &str| vec![(200, body.to_owned())];
    let chunked = |chunks: &str| {
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
        )
    };
    for (bytes, expected) in [
        (
            "GET / HTTP/1.1\nhost: a\nconnection: close\n\n".into(),
            whole(""),
        ),
        (
            "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".into(),
            whole(""),
        ),
        (chunked("3;a=b\r\nabc\r\n0\r\n\r\n"), whole("abc")),
        (chunked("3;a=\"\r\"\r\nabc\r\n0\r\n\r\n"), vec![]),
        (chunked("03\r\nabc\r\n000\r\n\r\n"), whole("abc")),
        (
            chunked("0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
            whole(""),
        ),
    ] {
        let got = answers(&node, &bytes);
        assert!(
            got == expected || (expected.is_empty() && got.iter().all(|one| one.0 >= 400)),
            "{bytes:?}: {got:?}"
        );
    }
    for chunks in [
        "3\nabc\n0\n\n",
        "3\r\nabc\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut wire = Wire::connect(node.address());
        wire.send(chunked(chunks));
        let first = wire.read();
        let taken = first.is_some_and(|reply| reply.status == 200 && reply.whole);
        assert!(!taken, "{chunks:?}");
        assert!(wire.is_closed(), "{chunks:?}");
    }
    node.is_quiet();
}

/// HH-1: further invalid hosts and paths.
#[test]
fn hh_1_further_invalid_hosts_and_paths_are_rejected() {
    let node = Node::serve(&guests::MIRROR);
    let long = "a.".repeat(130);
    for host in [
        long.as_str(),
        "a b",
        "a\tb",
        "[::1",
        "a:",
        "-",
        "a..b",
        "a:+80",
    ] {
        let got = answers(&node, &format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert!(matches!(got[..], [(400, _)]), "{host:?}: {got:?}");
    }
    for path in [
        "/.",
        "/a/..",
        "/%2e%2e/a",
        "/.%2E/a",
        "/a\\b",
        "/a\u{7f}",
        "/%2",
        "/a#b",
        "a",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let got = answers(&node, &request);
        assert!(matches!(got[..], [(400, _)]), "{path:?}: {got:?}");
    }
    let agreed =
        "GET http://H.example./a%2Fb?c HTTP/1.1\r\nhost: h.example:80\r\nconnection: close\r\n\r\n";
    let got = answers(&node, agreed);
    assert_eq!(got[0].0, 200);
    assert!(got[0].1.starts_with("/a%2Fb?c\n"), "{got:?}");
}
