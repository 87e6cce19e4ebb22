//! Calls of gRPC to the example in `examples/grpc`, by grpcurl and by the load generator ghz.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
};

use e2e::{
    cluster::{ghz, grpcurl},
    selvage,
};
use serde_json::{Deserializer, Value, json};

use crate::server::Server;

/// Number of calls of the load generator.
const CALLS: u32 = 2000;
const QUOTE: &str = r#"{"amount":"1000000","rate":600,"months":12}"#;
const PLAN: &str = r#"{"amount":"100000","rate":600,"payment":"33668"}"#;

/// A port of the server. With TLS, clients verify the certificate.
struct Port<'a> {
    address: SocketAddr,
    authority: Option<&'a Path>,
}

impl Port<'_> {
    /// Runs grpcurl for a method of the service.
    fn call(&self, method: &str, request: &str) -> Output {
        let mut grpcurl = Command::new(grpcurl().unwrap());
        grpcurl
            .args(["-max-time", "60", "-import-path"])
            .arg(protos());
        grpcurl.args(["-proto", "loans.proto", "-d", request]);
        match self.authority {
            Some(file) => grpcurl
                .args(["-authority", "localhost", "-cacert"])
                .arg(file),
            None => grpcurl.arg("-plaintext"),
        };
        grpcurl
            .arg(self.address.to_string())
            .arg(format!("loans.v1.Loans/{method}"));
        grpcurl.output().unwrap()
    }

    /// Runs ghz with four connections for a method of the service. Returns the number of calls by status.
    fn load(&self, method: &str, request: &str) -> Value {
        let mut ghz = Command::new(ghz().unwrap());
        ghz.arg("--proto").arg(protos().join("loans.proto"));
        ghz.args([
            "--call",
            &format!("loans.v1.Loans.{method}"),
            "--data",
            request,
        ]);
        ghz.args(["--total", &CALLS.to_string(), "--concurrency", "16"]);
        ghz.args(["--connections", "4", "--format", "json"]);
        match self.authority {
            Some(file) => ghz.args(["--cname", "localhost", "--cacert"]).arg(file),
            None => ghz.arg("--insecure"),
        };
        let output = ghz.arg(self.address.to_string()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["count"], CALLS, "{report}");
        report["statusCodeDistribution"].clone()
    }
}

/// Returns the folder of the definition of the service.
fn protos() -> std::path::PathBuf {
    selvage::root().join("examples/grpc")
}

/// Starts the example, and calls `test` for both ports.
fn on_both_ports(test: impl Fn(&Port<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "grpc.wasm", &[]);
    let certificate = folder.path().join("tls.crt");
    for (address, authority) in [(server.plain, None), (server.tls, Some(&*certificate))] {
        test(&Port { address, authority });
    }
}

/// Returns the messages of a call.
fn messages(output: &Output) -> Vec<Value> {
    let messages = Deserializer::from_slice(&output.stdout).into_iter();
    messages.collect::<Result<_, _>>().unwrap()
}

#[test]
fn grpcurl_receives_messages() {
    on_both_ports(|port| {
        let quote = port.call("Quote", QUOTE);
        assert!(quote.status.success(), "{quote:?}");
        let expected = json!({ "payment": "86067", "interest": "32796" });
        assert_eq!(messages(&quote), [expected]);

        let plan = port.call("Plan", PLAN);
        assert!(plan.status.success(), "{plan:?}");
        let expected = [
            json!({ "number": 1, "interest": "500", "repayment": "33168", "rest": "66832" }),
            json!({ "number": 2, "interest": "334", "repayment": "33334", "rest": "33498" }),
            json!({ "number": 3, "interest": "167", "repayment": "33498" }),
        ];
        assert_eq!(messages(&plan), expected);
    });
}

/// A status without messages is in the head of the response, and one after messages in its trailers.
#[test]
fn grpcurl_receives_the_status_of_a_failure() {
    on_both_ports(|port| {
        for (method, request, received, code, message) in [
            (
                "Quote",
                r#"{"amount":"1000000","rate":600}"#,
                0,
                "InvalidArgument",
                "months is 0: use a number from 1 to 600",
            ),
            (
                "Plan",
                r#"{"amount":"1000000","rate":600,"payment":"5000"}"#,
                0,
                "FailedPrecondition",
                "the payment must exceed the interest of 5000 cents a month",
            ),
            (
                "Plan",
                r#"{"amount":"1000000","rate":600,"payment":"5001"}"#,
                600,
                "OutOfRange",
                "cents are left after 600 months",
            ),
        ] {
            let output = port.call(method, request);
            let printed = String::from_utf8_lossy(&output.stderr);
            assert!(printed.contains(&format!("Code: {code}\n")), "{printed}");
            assert!(printed.contains(message), "{printed}");
            assert_eq!(messages(&output).len(), received, "{method} {request}");
        }
    });
}

#[test]
fn ghz_succeeds_with_every_call() {
    on_both_ports(|port| {
        for (method, request) in [("Quote", QUOTE), ("Plan", PLAN)] {
            assert_eq!(
                port.load(method, request),
                json!({ "OK": CALLS }),
                "{method}"
            );
        }
    });
}
