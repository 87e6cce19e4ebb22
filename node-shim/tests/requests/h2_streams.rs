//! Streams of one HTTP/2 connection do not affect each other.

use crate::guests;
use crate::support::frames::{
    END_HEADERS, END_STREAM, Frames, HEADERS, PROTOCOL_ERROR, StreamEvent, fields,
};
use crate::support::node::Node;

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "h.example");
/// `:status: 200` as an index of the HPACK static table.
const OK: StreamEvent = StreamEvent::Response(0x88);

/// HH-16: a target without a path is malformed on HTTP/2.
#[test]
fn hh_16_a_target_without_a_path_is_malformed() {
    let node = Node::serve(&guests::ANSWER);
    let mut frames = Frames::connect(node.address());
    for (stream, path) in [(1, "?x=1"), (3, "?")] {
        let head = fields(&[METHOD, SCHEME, (":path", path), AUTHORITY]);
        frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        assert_eq!(
            frames.wait_for(stream),
            StreamEvent::Reset(PROTOCOL_ERROR),
            "{path}"
        );
    }
    let head = fields(&[METHOD, SCHEME, (":path", "/?x=1"), AUTHORITY]);
    frames.send(HEADERS, END_HEADERS | END_STREAM, 5, &head);
    assert_eq!(frames.wait_for(5), OK);
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}
