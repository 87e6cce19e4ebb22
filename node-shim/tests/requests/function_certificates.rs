//! Certificates that functions bring, on the data port with TLS: which one a server name selects, and which hosts a
//! connection is for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use node_api::certificate::Certificate;
use node_shim::routing_table::{RoutingTable, ServedFunction};
use node_shim::tls::{Certificates, FunctionCertificate, FunctionCertificates};
use node_shim_core::table::{FunctionKey, Route};

use crate::guests;
use crate::support::node::{Node, Setup, eventually, served};
use crate::support::tls::{Identity, TlsWire, client_config};

/// A function: namespace, host, and the certificate of its route.
type Function<'a> = (&'a str, &'a str, Option<&'a Identity>);

struct TlsNode {
    node: Node,
    /// Functions without certificates.
    functions: Vec<ServedFunction>,
    _folder: tempfile::TempDir,
}

impl TlsNode {
    /// Starts a node with a certificate of the cluster, if there is one.
    fn start(cluster: Option<&Identity>, functions: &[Function<'_>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let folders: Vec<PathBuf> = cluster
            .into_iter()
            .map(|identity| identity.write(folder.path(), "cluster"))
            .collect();
        let setup = Setup {
            certificates: Some(Certificates::open(&folders).unwrap()),
            ..Setup::default()
        };
        let counters = node_shim::counters::CounterTable::new();
        let made = functions
            .iter()
            .enumerate()
            .map(|(at, (namespace, host, _))| {
                let key = FunctionKey::new(namespace, format!("f{at}"));
                let revision = setup.revision_of(key, "r1", &guests::ANSWER, &counters);
                let route = Route {
                    hosts: vec![host.to_string()],
                    ..Route::default()
                };
                served(&revision, vec![route])
            });
        let made: Vec<_> = made.collect();
        let started = Self {
            node: setup.start_empty(counters.clone()),
            functions: made,
            _folder: folder,
        };
        started.publish(functions);
        started
    }

    /// Replaces the certificates of the functions.
    fn publish(&self, functions: &[Function<'_>]) {
        let mut certificates = FunctionCertificates::default();
        for (namespace, host, identity) in functions {
            let Some(identity) = identity else { continue };
            let (chain, key) = (identity.certificate.as_bytes(), identity.key.as_bytes());
            let certificate = FunctionCertificate {
                namespace: (*namespace).into(),
                secret: "tls".into(),
                certificate: Arc::new(Certificate::parse(chain, key).unwrap()),
            };
            certificates.add(host, Arc::new(certificate));
        }
        let table = RoutingTable::new(1, self.functions.clone());
        let table = table.with_certificates(Arc::new(certificates));
        self.node.plane.publish(Arc::new(table));
    }

    fn address(&self) -> SocketAddr {
        self.node.plane.tls_address().unwrap()
    }

    fn connect(&self, server: &str, trusted: &Identity) -> std::io::Result<TlsWire> {
        TlsWire::connect(self.address(), server, client_config(trusted, &[]))
    }
}

fn status(wire: &mut TlsWire, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let answer = wire.send(request).read_response();
    answer.chars().skip("HTTP/1.1 ".len()).take(3).collect()
}

/// The certificate of the exact host, else that of the longest wildcard of the namespace, else that of the cluster.
#[test]
fn the_server_name_selects_the_certificate_of_a_function_before_that_of_the_cluster() {
    let cluster = Identity::of(&["blog.example", "unknown.example", "*.shop.example"]);
    let wide = Identity::of(&["*.shop.example", "pay.shop.example"]);
    let exact = Identity::of(&["pay.shop.example"]);
    let functions = [
        ("shop", "*.shop.example", Some(&wide)),
        ("shop", "pay.shop.example", Some(&exact)),
        ("shop", "plain.shop.example", None),
        ("blog", "blog.example", None),
    ];
    let node = TlsNode::start(Some(&cluster), &functions);
    for (server, shown) in [
        ("pay.shop.example", &exact),
        ("PAY.shop.example", &exact),
        ("www.shop.example", &wide),
        // a function of the namespace whose route has no certificate
        ("plain.shop.example", &wide),
        ("blog.example", &cluster),
        ("unknown.example", &cluster),
    ] {
        assert!(node.connect(server, shown).is_ok(), "{server}");
        for other in [&cluster, &wide, &exact] {
            let accepted = node.connect(server, other).is_ok();
            assert_eq!(accepted, std::ptr::eq(other, shown), "{server}");
        }
    }
    // the wildcard of a certificate is one label, that of a host any number
    assert!(node.connect("a.b.shop.example", &wide).is_err());
}

/// A tenant whose certificate names the host of another one is not served with it, whatever its routes are.
#[test]
fn a_namespace_never_presents_a_certificate_for_the_host_of_another_one() {
    let cluster = Identity::of(&["victim.example", "x.example"]);
    let hostile = Identity::of(&["victim.example", "x.example", "*.example", "mine.example"]);
    let functions = [
        ("hostile", "mine.example", Some(&hostile)),
        ("hostile", "*.example", Some(&hostile)),
        ("victim", "victim.example", None),
    ];
    let node = TlsNode::start(Some(&cluster), &functions);
    assert!(node.connect("victim.example", &hostile).is_err());
    assert!(node.connect("victim.example", &cluster).is_ok());
    // nor over a connection that was made for a host of its own
    let mut wire = node.connect("mine.example", &hostile).unwrap();
    assert_eq!(status(&mut wire, "mine.example"), "200");
    assert_eq!(status(&mut wire, "x.example"), "200");
    assert_eq!(status(&mut wire, "victim.example"), "421");
    // a certificate of the cluster is for all namespaces
    let mut wire = node.connect("victim.example", &cluster).unwrap();
    assert_eq!(status(&mut wire, "x.example"), "200");
}

#[test]
fn a_certificate_that_does_not_cover_the_host_is_passed_over() {
    let cluster = Identity::of(&["b.example"]);
    let own = Identity::of(&["a.example"]);
    let functions = [
        ("shop", "a.example", Some(&own)),
        ("shop", "b.example", Some(&own)),
    ];
    let node = TlsNode::start(Some(&cluster), &functions);
    assert!(node.connect("a.example", &own).is_ok());
    assert!(node.connect("b.example", &cluster).is_ok());
}

#[test]
fn a_renewed_certificate_is_used_without_a_dropped_connection() {
    let (old, new) = (Identity::of(&["a.example"]), Identity::of(&["a.example"]));
    let with = |identity| [("shop", "a.example", Some(identity))];
    let node = TlsNode::start(None, &with(&old));
    let mut open = node.connect("a.example", &old).unwrap();
    assert_eq!(status(&mut open, "a.example"), "200");
    node.publish(&with(&new));
    let mut renewed = node.connect("a.example", &new).unwrap();
    assert_eq!(status(&mut renewed, "a.example"), "200");
    assert!(node.connect("a.example", &old).is_err());
    assert_eq!(status(&mut open, "a.example"), "200");
    node.publish(&[("shop", "a.example", None)]);
    assert!(node.connect("a.example", &new).is_err());
    assert_eq!(status(&mut open, "a.example"), "200");
}

/// Without a certificate of the cluster, the port serves the hosts that functions have certificates for.
#[test]
fn without_a_certificate_the_handshake_names_the_reason() {
    let own = Identity::of(&["a.example"]);
    let node = TlsNode::start(None, &[("shop", "a.example", Some(&own))]);
    assert!(node.connect("a.example", &own).is_ok());
    let refused = |server: &str| node.connect(server, &own).err().unwrap().to_string();
    assert!(refused("b.example").contains("UnrecognisedName"));
    // a client does not send an address as its server name
    assert!(refused("127.0.0.1").contains("MissingExtension"));
    eventually("failed handshakes are counted", || {
        node.node.plane.node_counters().handshake_failures() == 2
    });
}

#[test]
fn http_2_is_chosen_with_the_certificate_of_a_function() {
    let own = Identity::of(&["a.example"]);
    let node = TlsNode::start(None, &[("shop", "a.example", Some(&own))]);
    for (offered, expected) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let wire = TlsWire::connect(node.address(), "a.example", client_config(&own, offered));
        let wire = wire.unwrap();
        assert_eq!(wire.0.conn.alpn_protocol(), Some(expected.as_bytes()));
    }
}
