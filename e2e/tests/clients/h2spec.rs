//! Conformance of HTTP/2 by the test suite h2spec.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, process::Command};

use e2e::cluster::h2spec;

use crate::server::Server;

/// Number of cases of the suite.
const CASES: usize = 145;

/// Cases that fail: section, title, and why. One that passes must be removed from the list.
const EXPECTED: &[(&str, &str, &str)] = &[(
    "http2/3.5",
    "Sends invalid connection preface",
    "without a valid preface a connection is one of HTTP/1.1, which both ports serve, and answers 400 before it closes; with \
     TLS the client has agreed on HTTP/2, so the connection closes as the suite wants",
)];

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
    // `hello` reads its request and waits before it answers, so what a case sends arrives before the response ends its stream
    let server = Server::start(folder.path(), "hello-v1.wasm", &["WAIT=100"]);
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
