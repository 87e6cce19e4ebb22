//! Guests, one per behaviour, built on first use.

use std::sync::LazyLock;

use crate::support::component::guest;

pub(crate) type Guest = LazyLock<Vec<u8>>;

/// Reads the whole body of the request, also when reading fails. Then the byte at 20 is 0 after a failure.
pub(crate) const READ_BODY: &str = "
        (call $consume (local.get $req) (i32.const 16))
        (call $incoming-stream (i32.load (i32.const 20)) (i32.const 16))
        (local.set $i (i32.load (i32.const 20)))
        (loop $more
          (global.set $heap (i32.const 65536))
          (call $blocking-read (local.get $i) (i64.const 4096) (i32.const 16))
          (br_if $more (i32.eqz (i32.load8_u (i32.const 16)))))";

/// Responds with 200 `hello`.
pub(crate) static ANSWER: Guest = LazyLock::new(|| {
    guest(
        r#"(data (i32.const 4096) "hello\n")"#,
        "(call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 6))",
    )
});

/// Responds with 204 and no body.
pub(crate) static NO_CONTENT: Guest = LazyLock::new(|| {
    guest(
        r#"(data (i32.const 4096) "ignored")"#,
        "(call $answer (local.get $out) (i32.const 204) (i32.const 4096) (i32.const 7))",
    )
});

/// Streams the request body back. If the body fails, responds with 500 when nothing has been sent yet, else
/// drops the response unfinished.
pub(crate) static ECHO: Guest = LazyLock::new(|| {
    guest(
        "(import \"wasi:http/types@0.2.12\" \"[resource-drop]outgoing-body\" (func $body-drop (param i32)))",
        "
        (call $consume (local.get $req) (i32.const 16))
        (call $incoming-stream (i32.load (i32.const 20)) (i32.const 16))
        (local.set $i (i32.load (i32.const 20)))
        (local.set $r (call $make (i32.const 200)))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))
        (block $end
          (loop $more
            (global.set $heap (i32.const 65536))
            (call $blocking-read (local.get $i) (i64.const 4096) (i32.const 16))
            (if (i32.load8_u (i32.const 16)) (then
              ;; 1 = closed, 0 = failed
              (br_if $end (i32.load8_u (i32.const 20)))
              (call $stream-drop (local.get $s))
              (call $body-drop (local.get $b))
              (return)))
            (if (i32.load (i32.const 24)) (then
              (drop (call $write (local.get $s) (i32.load (i32.const 20)) (i32.load (i32.const 24))))))
            (br $more)))
        (call $stream-drop (local.get $s))
        (drop (call $finish (local.get $b)))",
    )
});

/// Reads the whole body, then responds with 200 `done`, or 500 `cut` when reading failed.
pub(crate) static SINK: Guest = LazyLock::new(|| {
    guest(
        r#"(data (i32.const 4096) "done") (data (i32.const 4112) "cut")"#,
        &format!(
            "
        {READ_BODY}
        (if (i32.load8_u (i32.const 20))
          (then (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4)))
          (else (call $answer (local.get $out) (i32.const 500) (i32.const 4112) (i32.const 3))))"
        ),
    )
});

/// Reads the whole body, then responds with 200 `done`, also when reading failed.
pub(crate) static CONTINUES: Guest = LazyLock::new(|| {
    guest(
        r#"(data (i32.const 4096) "done")"#,
        &format!(
            "
        {READ_BODY}
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))"
        ),
    )
});

/// Responds with `status` and a body.
pub(crate) fn status(status: u16) -> Vec<u8> {
    guest(
        r#"(data (i32.const 4096) "body")"#,
        &format!(
            "(call $answer (local.get $out) (i32.const {status}) (i32.const 4096) (i32.const 4))"
        ),
    )
}

/// Responds with `status` and an empty body.
pub(crate) fn empty(status: u16) -> Vec<u8> {
    guest(
        "",
        &format!(
            "
        (local.set $r (call $make (i32.const {status})))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (drop (call $finish (local.get $b)))"
        ),
    )
}

/// Responds with `number` chunks of 4 KiB and does not read its request.
pub(crate) fn chunks(number: u32) -> Vec<u8> {
    guest(
        "",
        &format!(
            "
        (local.set $r (call $make (i32.const 200)))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))
        (local.set $n (i32.const {number}))
        (block $end
          (loop $more
            (br_if $end (call $write (local.get $s) (i32.const 8192) (i32.const 4096)))
            (local.set $n (i32.sub (local.get $n) (i32.const 1)))
            (br_if $more (local.get $n))))
        (call $stream-drop (local.get $s))
        (drop (call $finish (local.get $b)))"
        ),
    )
}

/// Computes in an endless loop.
pub(crate) static SPIN: Guest = LazyLock::new(|| guest("", "(loop $on (br $on))"));

/// Waits for a timer that is days away.
pub(crate) static SLEEP: Guest =
    LazyLock::new(|| guest("", "(call $sleep (i64.const 1000000000000000))"));

/// Sends a head and one chunk, then waits.
pub(crate) static SLEEP_IN_BODY: Guest = LazyLock::new(|| sleep_in_body(200));

/// Sends a head with `status` and one chunk, then waits.
pub(crate) fn sleep_in_body(status: u16) -> Vec<u8> {
    guest(
        r#"(data (i32.const 4096) "part")"#,
        &format!(
            "
        (local.set $r (call $make (i32.const {status})))
        {SEND_PART} (call $sleep (i64.const 1000000000000000))"
        ),
    )
}

pub(crate) static TRAP: Guest = LazyLock::new(|| guest("", "unreachable"));

/// Sets a response, sends a chunk, waits until it was read, then traps.
pub(crate) static TRAP_IN_BODY: Guest = LazyLock::new(|| {
    guest(
        r#"(data (i32.const 4096) "part")"#,
        &format!("{MAKE} {SEND_PART} (call $sleep (i64.const 300000000)) unreachable"),
    )
});

const MAKE: &str = "(local.set $r (call $make (i32.const 200)))";

/// Starts the response `$r`, sends `part` and leaves the body open.
const SEND_PART: &str = "
    (local.set $b (call $body (local.get $r)))
    (call $set (local.get $out) (local.get $r))
    (local.set $s (call $open (local.get $b)))
    (drop (call $write (local.get $s) (i32.const 4096) (i32.const 4)))";

/// Sets a response, leaves its body open and traps at once.
pub(crate) static TRAP_AFTER_SET: Guest =
    LazyLock::new(|| guest("", &format!("{OPEN_ANSWER} unreachable")));

/// Sets a response whose body follows.
const OPEN_ANSWER: &str = "
    (local.set $r (call $make (i32.const 200)))
    (local.set $b (call $body (local.get $r)))
    (call $set (local.get $out) (local.get $r))";

/// Grows memory until growth fails, then responds.
pub(crate) static GROW: Guest = LazyLock::new(|| {
    guest(
        r#"(data (i32.const 4096) "refused")"#,
        "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
         (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 7))",
    )
});

/// Grows memory until growth fails, then traps.
pub(crate) static OOM: Guest = LazyLock::new(|| {
    guest(
        "",
        "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
    )
});

pub(crate) static RECURSE: Guest =
    LazyLock::new(|| guest("(func $down (call $down) (call $down))", "(call $down)"));

/// Returns without a response.
pub(crate) static SILENT: Guest = LazyLock::new(|| guest("", ""));

/// Drops the response outparam.
pub(crate) static DROP_OUT: Guest =
    LazyLock::new(|| guest("", "(call $outparam-drop (local.get $out))"));

/// Sets the response twice.
pub(crate) static TWICE: Guest =
    LazyLock::new(|| guest("", &format!("{OPEN_ANSWER} {OPEN_ANSWER}")));

/// Returns while its body is still open.
pub(crate) static UNFINISHED: Guest = LazyLock::new(|| {
    guest(
        r#"(data (i32.const 4096) "part")"#,
        &format!("{MAKE} {SEND_PART}"),
    )
});

/// Responds with a `content-length` of `declared` and a body of `sent` bytes.
pub(crate) fn length(declared: u32, sent: u32) -> Vec<u8> {
    let text = declared.to_string();
    guest(
        &format!(r#"(data (i32.const 4096) "content-length") (data (i32.const 4128) "{text}")"#),
        &format!(
            "
        (local.set $i (call $fields))
        (drop (call $header (local.get $i) (i32.const 4096) (i32.const 14) (i32.const 4128) (i32.const {})))
        (local.set $r (call $response (local.get $i)))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))
        (if (i32.const {sent}) (then (drop (call $write (local.get $s) (i32.const 8192) (i32.const {sent})))))
        (call $stream-drop (local.get $s))
        (drop (call $finish (local.get $b)))",
            text.len()
        ),
    )
}

/// Appends the header `name: value`; responds with 200 when the host accepts it, else with 418.
pub(crate) fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        text.bytes()
            .map(|b| format!("\\{b:02x}"))
            .collect::<String>()
    };
    guest(
        &format!(
            r#"(data (i32.const 4096) "{}") (data (i32.const 5120) "{}")"#,
            text(name),
            text(value)
        ),
        &format!(
            "
        (local.set $i (call $fields))
        (local.set $n (call $header (local.get $i) (i32.const 4096) (i32.const {}) (i32.const 5120) (i32.const {})))
        (local.set $r (call $response (local.get $i)))
        (if (local.get $n) (then (drop (call $set-status (local.get $r) (i32.const 418)))))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (drop (call $finish (local.get $b)))",
            name.len(),
            value.len()
        ),
    )
}

/// Writes 64 KiB chunks of body in an endless loop.
pub(crate) static ENDLESS: Guest = LazyLock::new(|| {
    guest(
        "",
        "
        (local.set $r (call $make (i32.const 200)))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))
        (loop $on (br_if $on (i32.eqz (call $write (local.get $s) (i32.const 8192) (i32.const 4096)))))",
    )
});

/// Writes empty chunks in an endless loop.
pub(crate) static EMPTY_CHUNKS: Guest = LazyLock::new(|| {
    guest(
        "",
        "
        (local.set $r (call $make (i32.const 200)))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))
        (loop $on (br_if $on (i32.eqz (call $write (local.get $s) (i32.const 8192) (i32.const 0)))))",
    )
});

/// Responds with the request: target, authority, then one line per header field.
pub(crate) static MIRROR: Guest = LazyLock::new(|| {
    guest(
        r#"(data (i32.const 4096) "\n: ")
        (func $line (param $s i32) (param $at i32) (param $n i32)
          (if (local.get $n) (then (drop (call $write (local.get $s) (local.get $at) (local.get $n)))))
          (drop (call $write (local.get $s) (i32.const 4096) (i32.const 1))))"#,
        "
        (local.set $r (call $make (i32.const 200)))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))
        (call $request-path (local.get $req) (i32.const 64))
        (call $line (local.get $s) (i32.load (i32.const 68)) (i32.load (i32.const 72)))
        (call $request-authority (local.get $req) (i32.const 64))
        (call $line (local.get $s) (i32.load (i32.const 68)) (i32.load (i32.const 72)))
        (call $fields-entries (call $request-headers (local.get $req)) (i32.const 64))
        (local.set $i (i32.load (i32.const 64)))
        (local.set $n (i32.load (i32.const 68)))
        (block $end
          (loop $more
            (br_if $end (i32.eqz (local.get $n)))
            (drop (call $write (local.get $s) (i32.load (local.get $i)) (i32.load offset=4 (local.get $i))))
            (drop (call $write (local.get $s) (i32.const 4097) (i32.const 2)))
            (call $line (local.get $s) (i32.load offset=8 (local.get $i)) (i32.load offset=12 (local.get $i)))
            (local.set $i (i32.add (local.get $i) (i32.const 16)))
            (local.set $n (i32.sub (local.get $n) (i32.const 1)))
            (br $more)))
        (call $stream-drop (local.get $s))
        (drop (call $finish (local.get $b)))",
    )
});
