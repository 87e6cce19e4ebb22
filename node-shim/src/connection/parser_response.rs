//! Responses that hyper sends when it cannot parse a request. They lack the header fields of all other
//! responses of the node-shim, and hyper has no hook to add them.
//!
//! Such a response looks like an empty response of a guest that closes the connection. Only the error with
//! which hyper ends the connection shows which of them it was. Therefore the socket holds back what looks
//! like such a response for the current poll of the connection: either the connection ends with a parser
//! error in this poll, and the response is sent with the missing fields, or it is released as it is.

use node_shim_core::validation::Rejection;

/// Returns whether hyper may have produced these bytes itself: a status that it uses, only the fields that it
/// sets, and no body.
pub(super) fn may_be_from_parser(bytes: &[u8]) -> bool {
    if rejection(bytes).is_none() {
        return false;
    }
    let Some(head) = bytes.strip_suffix(b"\r\n\r\n") else {
        return false;
    };
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    lines.all(|line| {
        [&b"connection: close"[..], b"content-length: 0", b"date: "]
            .iter()
            .any(|field| line.starts_with(field))
    })
}

/// Returns the rejection that a status line of hyper stands for.
pub(super) fn rejection(bytes: &[u8]) -> Option<Rejection> {
    let status = bytes.strip_prefix(b"HTTP/1.")?.get(1..5)?;
    match status {
        b" 400" => Some(Rejection::BadRequest),
        b" 414" => Some(Rejection::TargetTooLong),
        b" 431" => Some(Rejection::HeadersTooLarge),
        _ => None,
    }
}

/// Returns the response with the fields of all responses of the node-shim.
pub(super) fn with_fields(bytes: &[u8], rejection: Rejection) -> Vec<u8> {
    let line = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let (status, fields) = bytes.split_at(line);
    let added = format!(
        "selvage-error: {}\r\ncache-control: no-store\r\n",
        rejection.label()
    );
    [status, added.as_bytes(), fields].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
        content-length: 0\r\ndate: Sun, 29 Nov 2026 21:00:00 GMT\r\n\r\n";

    #[test]
    fn a_response_of_the_parser_gets_the_fields_of_all_responses() {
        assert!(may_be_from_parser(OWN));
        let sent = with_fields(OWN, rejection(OWN).unwrap());
        let text = String::from_utf8(sent).unwrap();
        assert_eq!(
            text.lines().take(4).collect::<Vec<_>>(),
            [
                "HTTP/1.1 431 Request Header Fields Too Large",
                "selvage-error: headers_too_large",
                "cache-control: no-store",
                "connection: close",
            ]
        );
        assert!(text.ends_with(" GMT\r\n\r\n"));
    }

    #[test]
    fn other_responses_are_not_held_back() {
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\nx: y\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\nbody",
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n",
        ] {
            assert!(!may_be_from_parser(bytes));
        }
    }
}
