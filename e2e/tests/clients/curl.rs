//! Requests of curl over HTTP/2 and HTTP/1.1, with and without TLS.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use e2e::cluster::{Purpose, install};

use crate::server::Server;

/// Returns curl with the version of HTTP, for a path of the server with or without TLS.
fn curl(server: &Server, folder: &Path, version: &str, scheme: &str, path: &str) -> Command {
    let port = match scheme {
        "https" => server.tls.port(),
        _ => server.plain.port(),
    };
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--fail",
        "--noproxy",
        "*",
        "--max-time",
        "60",
        version,
    ])
    .arg("--cacert")
    .arg(folder.join("tls.crt"))
    .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
    .arg(format!("{scheme}://localhost:{port}{path}"));
    curl
}

/// Ways of curl to reach the server: option, scheme, and the version of HTTP that both agree on.
const WAYS: [(&str, &str, &str); 4] = [
    ("--http2", "https", "2"),
    ("--http1.1", "https", "1.1"),
    ("--http2-prior-knowledge", "http", "2"),
    ("--http1.1", "http", "1.1"),
];

#[test]
fn curl_is_answered_over_both_versions_of_http() {
    install(&[Purpose::Tests]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "hello-v1.wasm", &[]);
    for (version, scheme, agreed) in WAYS {
        let mut curl = curl(&server, folder.path(), version, scheme, "/");
        let output = curl.args(["-w", "%{http_version}"]).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let case = format!("{version} {scheme}: {output:?}");
        assert_eq!(printed, format!("hello from v1\n{agreed}"), "{case}");
    }
}

/// Interval of the events that the test sends. curl reads the response only between two reads of its input.
const TICK: Duration = Duration::from_millis(20);
const EVENT: &str = "data: one\n\n";

/// The request ends only after events of the response have arrived, so a response that anything collects never continues.
#[test]
fn curl_reads_events_while_the_response_continues() {
    install(&[Purpose::Tests]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // sends the body of the request back in capital letters while it arrives
    let server = Server::start(folder.path(), "gather.wasm", &[]);
    for (version, scheme, _) in WAYS {
        let mut curl = curl(&server, folder.path(), version, scheme, "/capitals");
        let mut child = curl
            .args(["-N", "-X", "POST", "-T", "-", "-H", "Expect:"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let (stop, stopped) = channel::<()>();
        let writer = std::thread::spawn(move || {
            let mut sent = 0;
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                input.write_all(EVENT.as_bytes()).unwrap();
                sent += 1;
            }
            sent
        });
        let mut events = BufReader::new(child.stdout.take().unwrap());
        let mut received = String::new();
        while received.len() < 3 * EVENT.len() && events.read_line(&mut received).unwrap() > 0 {}
        assert_eq!(
            received,
            EVENT.to_uppercase().repeat(3),
            "{version} {scheme}"
        );
        stop.send(()).unwrap();
        events.read_to_string(&mut received).unwrap();
        let sent = writer.join().unwrap();
        assert_eq!(
            received,
            EVENT.to_uppercase().repeat(sent),
            "{version} {scheme}"
        );
        assert!(child.wait().unwrap().success(), "{version} {scheme}");
    }
}
