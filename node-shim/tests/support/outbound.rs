//! Guests that send requests.

use super::component;

/// Request that a guest sends.
pub(crate) struct Call<'a> {
    pub(crate) https: bool,
    pub(crate) authority: &'a str,
    pub(crate) path: &'a str,
    /// Whether the guest sends the body of its own request.
    pub(crate) post: bool,
}

impl<'a> Call<'a> {
    pub(crate) const fn get(authority: &'a str) -> Self {
        Self {
            https: false,
            authority,
            path: "/",
            post: false,
        }
    }

    /// Returns a guest that sends the request and responds with the response, or with status 200 + error code. When the
    /// response breaks off, it traps.
    pub(crate) fn guest(&self) -> Vec<u8> {
        component::guest(&self.items(), &self.body())
    }

    /// Returns a guest that sends the request `count` times at once, waits for the last one, and responds with status
    /// 200 + error code.
    pub(crate) fn repeated(&self, count: u32) -> Vec<u8> {
        let body = format!(
            "(local.set $n (i32.const {count}))
             (loop $more
               (local.set $i (call $start (call $dial)))
               (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
             (local.set $n (call $receive (local.get $i)))
             (call $answer (local.get $out) (i32.sub (i32.const 199) (local.get $n)) (i32.const 4096) (i32.const 1))"
        );
        component::guest(&self.items(), &body)
    }

    /// Returns a guest that sends the request, waits for the head of the response and responds with 204 without reading it.
    pub(crate) fn ignoring(&self) -> Vec<u8> {
        let body = "(drop (call $receive (call $start (call $dial))))
             (call $answer (local.get $out) (i32.const 204) (i32.const 4096) (i32.const 0))";
        component::guest(&self.items(), body)
    }

    /// Returns a guest that sends the request and responds with the response and its trailers.
    pub(crate) fn passing_trailers(&self) -> Vec<u8> {
        let items = format!("{TRAILERS} {}", self.items());
        let send = "(local.set $n (call $receive (call $start (call $dial))))";
        component::guest(&items, &format!("{send} {PASS_ON}"))
    }

    /// Returns a guest that sends the request with the first three letters of the authority as its body and the trailer
    /// `x-sum: 1`, and responds with the response and its trailers.
    pub(crate) fn exchanging_trailers(&self) -> Vec<u8> {
        let items = format!("{TRAILERS} {} {SUM}", self.items_with("$announced"));
        let send = "
             (local.set $r (call $dial))
             (call $request-body (local.get $r) (i32.const 16))
             (local.set $b (i32.load (i32.const 20)))
             (local.set $i (call $start (local.get $r)))
             (local.set $s (call $open (local.get $b)))
             (drop (call $write (local.get $s) (i32.const 4096) (i32.const 3)))
             (call $stream-drop (local.get $s))
             (call $body-finish (local.get $b) (i32.const 1) (call $sum) (i32.const 32))
             (local.set $n (call $receive (local.get $i)))";
        component::guest(&items, &format!("{send} {PASS_ON}"))
    }

    fn items(&self) -> String {
        self.items_with("$fields")
    }

    /// `fields` is the function that makes the header fields.
    fn items_with(&self, fields: &str) -> String {
        let Self {
            authority, path, ..
        } = self;
        let (method, scheme) = (i32::from(self.post) * 2, i32::from(self.https));
        let (host, target) = (authority.len(), path.len());
        format!(
            r#"{IMPORTS}
            (data (i32.const 4096) "{authority}")
            (data (i32.const 5120) "{path}")
            (func $dial (result i32)
              (local $r i32)
              (local.set $r (call $request (call {fields})))
              (drop (call $set-method (local.get $r) (i32.const {method}) (i32.const 0) (i32.const 0)))
              (drop (call $set-scheme (local.get $r) (i32.const 1) (i32.const {scheme}) (i32.const 0) (i32.const 0)))
              (drop (call $set-authority (local.get $r) (i32.const 1) (i32.const 4096) (i32.const {host})))
              (drop (call $set-path (local.get $r) (i32.const 1) (i32.const 5120) (i32.const {target})))
              (local.get $r))
            {FUNCTIONS}"#
        )
    }

    fn body(&self) -> String {
        let (open, copy) = if self.post {
            (
                "(call $request-body (local.get $r) (i32.const 16))
                 (local.set $b (i32.load (i32.const 20)))",
                "(local.set $s (call $open (local.get $b)))
                 (call $consume (local.get $req) (i32.const 16))
                 (call $incoming-stream (i32.load (i32.const 20)) (i32.const 16))
                 (call $pipe (i32.load (i32.const 20)) (local.get $s))
                 (call $stream-drop (local.get $s))
                 (drop (call $finish (local.get $b)))",
            )
        } else {
            ("", "")
        };
        format!(
            "(local.set $r (call $dial))
             {open}
             (local.set $i (call $start (local.get $r)))
             {copy}
             (local.set $n (call $receive (local.get $i)))
             (if (i32.lt_s (local.get $n) (i32.const 0)) (then
               (call $answer (local.get $out) (i32.sub (i32.const 199) (local.get $n)) (i32.const 4096) (i32.const 1))
               (return)))
             (call $response-consume (local.get $n) (i32.const 16))
             (call $incoming-stream (i32.load (i32.const 20)) (i32.const 16))
             (local.set $i (i32.load (i32.const 20)))
             (local.set $r (call $make (call $status (local.get $n))))
             (local.set $b (call $body (local.get $r)))
             (call $set (local.get $out) (local.get $r))
             (local.set $s (call $open (local.get $b)))
             (call $pipe (local.get $i) (local.get $s))
             (call $stream-drop (local.get $s))
             (drop (call $finish (local.get $b)))"
        )
    }
}

/// Responds with the response `$n` and its trailers.
const PASS_ON: &str = "
  (call $response-consume (local.get $n) (i32.const 16))
  (local.set $req (i32.load (i32.const 20)))
  (call $incoming-stream (local.get $req) (i32.const 16))
  (local.set $i (i32.load (i32.const 20)))
  (local.set $r (call $make (call $status (local.get $n))))
  (local.set $b (call $body (local.get $r)))
  (call $set (local.get $out) (local.get $r))
  (local.set $s (call $open (local.get $b)))
  (call $pipe (local.get $i) (local.get $s))
  (call $stream-drop (local.get $s))
  (call $input-drop (local.get $i))
  (local.set $i (call $body-end (local.get $req)))
  (call $block (call $trailers-ready (local.get $i)))
  (call $trailers-get (local.get $i) (i32.const 128))
  (call $body-finish (local.get $b) (i32.load8_u (i32.const 152)) (i32.load (i32.const 156)) (i32.const 32))";

const IMPORTS: &str = r#"
(import "wasi:http/types@0.2.12" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.set-method" (func $set-method (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.set-scheme" (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.set-authority" (func $set-authority (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.set-path-with-query" (func $set-path (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.body" (func $request-body (param i32 i32)))
(import "wasi:http/outgoing-handler@0.2.12" "handle" (func $send (param i32 i32 i32 i32)))
(import "wasi:http/types@0.2.12" "[method]future-incoming-response.subscribe" (func $subscribe (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]future-incoming-response.get" (func $future-get (param i32 i32)))
(import "wasi:http/types@0.2.12" "[method]incoming-response.status" (func $status (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]incoming-response.consume" (func $response-consume (param i32 i32)))
"#;

const TRAILERS: &str = r#"
(import "wasi:io/streams@0.2.12" "[resource-drop]input-stream" (func $input-drop (param i32)))
(import "wasi:http/types@0.2.12" "[static]incoming-body.finish" (func $body-end (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]future-trailers.subscribe" (func $trailers-ready (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]future-trailers.get" (func $trailers-get (param i32 i32)))
"#;

/// The trailer `x-sum: 1`, and its announcement, without which HTTP/1.1 sends none.
const SUM: &str = r#"
(data (i32.const 6144) "trailerx-sum1")
(func $announced (result i32)
  (local $f i32)
  (local.set $f (call $fields))
  (drop (call $header (local.get $f) (i32.const 6144) (i32.const 7) (i32.const 6151) (i32.const 5)))
  (local.get $f))
(func $sum (result i32)
  (local $f i32)
  (local.set $f (call $fields))
  (drop (call $header (local.get $f) (i32.const 6151) (i32.const 5) (i32.const 6156) (i32.const 1)))
  (local.get $f))
"#;

const FUNCTIONS: &str = r#"
;; sends a request; its future, or -1 - error code
(func $start (param $r i32) (result i32)
  (call $send (local.get $r) (i32.const 0) (i32.const 0) (i32.const 64))
  (if (result i32) (i32.load8_u (i32.const 64))
    (then (i32.sub (i32.const -1) (i32.load8_u (i32.const 72))))
    (else (i32.load (i32.const 72)))))
;; waits for a response; its handle, or -1 - error code. Layout of `get`: option, result, result, payload
(func $receive (param $f i32) (result i32)
  (if (i32.lt_s (local.get $f) (i32.const 0)) (then (return (local.get $f))))
  (call $block (call $subscribe (local.get $f)))
  (call $future-get (local.get $f) (i32.const 128))
  (if (result i32) (i32.load8_u (i32.const 144))
    (then (i32.sub (i32.const -1) (i32.load8_u (i32.const 152))))
    (else (i32.load (i32.const 152)))))
;; copies a stream until one side is closed; traps when the source breaks off
(func $pipe (param $in i32) (param $out i32)
  (local $at i32) (local $left i32) (local $n i32)
  (loop $more
    (global.set $heap (i32.const 65536))
    (call $blocking-read (local.get $in) (i64.const 65536) (i32.const 192))
    (if (i32.load8_u (i32.const 192)) (then
      (if (i32.eqz (i32.load8_u (i32.const 196))) (then unreachable))
      (return)))
    (local.set $at (i32.load (i32.const 196)))
    (local.set $left (i32.load (i32.const 200)))
    (block $written
      (loop $part
        (br_if $written (i32.eqz (local.get $left)))
        (local.set $n (select (local.get $left) (i32.const 4096) (i32.lt_u (local.get $left) (i32.const 4096))))
        (if (call $write (local.get $out) (local.get $at) (local.get $n)) (then (return)))
        (local.set $at (i32.add (local.get $at) (local.get $n)))
        (local.set $left (i32.sub (local.get $left) (local.get $n)))
        (br $part)))
    (br $more)))
"#;
