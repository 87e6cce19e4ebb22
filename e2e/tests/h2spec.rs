//! `node-shim serve` and `node-shim dev` as users run them: conformance of HTTP/2 by the test suite h2spec, and requests of curl,
//! with and without TLS.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use e2e::{
    cluster::{Purpose, h2spec, install},
    selvage,
};

/// Number of cases of the suite.
const CASES: usize = 145;

/// Cases that fail: section, title, and why. One that passes must be removed from the list.
const EXPECTED: &[(&str, &str, &str)] = &[(
    "http2/3.5",
    "Sends invalid connection preface",
    "without a valid preface a connection is one of HTTP/1.1, which both ports serve, and answers 400 before it closes; with \
     TLS the client has agreed on HTTP/2, so the connection closes as the suite wants",
)];

/// A running `node-shim serve`.
struct Server {
    child: Child,
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Server {
    /// Starts a function of the examples, with a certificate for `localhost` in `folder`.
    fn start(folder: &Path, example: &str) -> Self {
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.join("tls.crt"), identity.cert.pem()).unwrap();
        fs::write(folder.join("tls.key"), identity.signing_key.serialize_pem()).unwrap();
        let dist = selvage::dist();
        let mut child = Command::new(dist.join("node-shim"))
            .args([
                "serve",
                "--addr",
                "127.0.0.1:0",
                "--tls-addr",
                "127.0.0.1:0",
            ])
            // `hello` reads its request and waits before it answers, so what a case of h2spec sends arrives before the response
            // ends its stream
            .args(["--env", "WAIT=100", "--tls-certificate"])
            .arg(folder)
            .arg(dist.join("examples").join(example))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("run `make dist` first: {error}"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = |prefix: &str| {
            let line = lines.next().unwrap().unwrap();
            let address = line.strip_prefix(prefix);
            address
                .and_then(|address| address.parse().ok())
                .unwrap_or_else(|| panic!("{line}"))
        };
        let (plain, tls) = (
            address("Serving on http://"),
            address("Serving on https://"),
        );
        // a full pipe would stop the server, and a closed one would be an error
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, plain, tls }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A case of the suite: section and title.
type Case = (String, String);

/// Runs the suite. Returns the cases that failed.
fn failed(address: SocketAddr, flags: &[&str], folder: &Path) -> BTreeSet<Case> {
    let report = folder.join("report.xml");
    let output = Command::new(h2spec().unwrap())
        .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
        .args(flags)
        .arg("--junit-report")
        .arg(&report)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let report = fs::read_to_string(report).unwrap_or_else(|error| panic!("{error}: {printed}"));
    let mut cases = report.split("<testcase ").skip(1);
    let mut total = 0;
    let mut failed = BTreeSet::new();
    for case in &mut cases {
        total += 1;
        let (case, _) = case.split_once("</testcase>").unwrap();
        if case.contains("<failure") || case.contains("<error") {
            let name = (attribute(case, "package"), attribute(case, "classname"));
            failed.insert(name);
        }
    }
    assert_eq!(total, CASES, "{printed}");
    failed
}

fn attribute(element: &str, name: &str) -> String {
    let (_, value) = element.split_once(&format!("{name}=\"")).unwrap();
    value.split_once('"').unwrap().0.to_owned()
}

#[test]
fn http_2_conforms_with_and_without_tls() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "hello-v1.wasm");
    let expected: BTreeSet<Case> = EXPECTED
        .iter()
        .map(|(section, title, _)| ((*section).to_owned(), (*title).to_owned()))
        .collect();
    let unexpected =
        "a case that fails needs a fix, and one of EXPECTED that passes must leave the list";
    let plain = failed(server.plain, &[], folder.path());
    assert_eq!(plain, expected, "without TLS: {unexpected}");
    let tls = failed(server.tls, &["--tls", "--insecure"], folder.path());
    assert_eq!(tls, BTreeSet::new(), "with TLS: {unexpected}");
}

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
    let server = Server::start(folder.path(), "hello-v1.wasm");
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
    let server = Server::start(folder.path(), "gather.wasm");
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

/// The manifest is that of the page about functions: its build runs, and the function answers.
#[test]
fn a_manifest_is_built_and_served_without_a_cluster() {
    install(&[Purpose::Tests]).unwrap();
    let manifest = selvage::root().join("examples/hello/function.yaml");
    let mut child = Command::new(selvage::dist().join("node-shim"))
        .args(["dev", "--addr", "127.0.0.1:0"])
        .arg(manifest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("run `make dist` first: {error}"));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut shown = Vec::new();
    let address = lines.map_while(Result::ok).find_map(|line| {
        let after = line.strip_prefix("Serving on ").map(str::to_owned);
        shown.push(line);
        Some(after?.split_once(';')?.0.to_owned())
    });
    let answer = address.map(|address| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "60", &address]);
        curl.output().unwrap().stdout
    });
    let _ = child.kill();
    let _ = child.wait();
    let answer = answer.unwrap_or_else(|| panic!("{shown:#?}"));
    assert_eq!(String::from_utf8_lossy(&answer), "hello from v1\n");
}
