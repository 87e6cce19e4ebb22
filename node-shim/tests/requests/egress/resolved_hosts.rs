//! Hosts that the user of `dev` or `serve` has given an address (`--resolve`).

use super::origin::{Reaction, TestNetwork};
use super::{HELLO, answering, counted, setup};
use crate::program::start;
use crate::support::node::{PATIENCE, Setup};
use crate::support::outbound::Call;
use crate::support::wire::get;

/// The address is one of this machine, which no function may reach otherwise, and it is not that of the other name.
#[test]
fn a_resolved_host_is_reached_at_its_address_and_no_other_host_is() {
    let (address, heads) = answering(HELLO);
    let network = TestNetwork::new(Reaction::Connect(address));
    network.name("other.example", &[&["127.0.0.1"]]);
    let resolving = |entries: &[&str]| {
        let mut setup = setup(&network, entries);
        let first = format!("api.example={address}");
        setup.options.egress.resolved = [&first, "api.example=192.0.2.1:1"]
            .map(|host| host.parse().unwrap())
            .to_vec();
        setup
    };
    let requested = |setup: Setup, authority: &str| {
        let node = setup.start(&Call::get(authority).guest());
        (get(node.address(), "/").status, counted(&node))
    };
    let allowed = resolving(&["http://api.example:8080"]);
    let (status, counts) = requested(allowed, "API.example.:8080");
    assert_eq!(status, 201);
    assert_eq!(counts, ["requests_total outcome=response 1"]);
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(head.contains("host: api.example:8080\r\n"), "{head}");
    assert_eq!(network.connected(), [address.to_string()]);

    let of_address = format!("http://0.0.0.0/0:{}", address.port());
    for (entry, authority, code, reason) in [
        ("http://other.example", "api.example", 15, "not_allowed"),
        ("http://other.example", "other.example", 4, "address"),
        (&of_address, &address.to_string(), 4, "address"),
    ] {
        let (status, counts) = requested(resolving(&[entry]), authority);
        assert_eq!(status, 200 + code, "{authority}");
        assert_eq!(counts, [format!("denied_total reason={reason} 1")]);
    }
    assert_eq!(network.connected().len(), 1);
}

#[test]
fn serve_resolves_hosts_as_it_is_told() {
    let (origin, _heads) = answering(HELLO);
    let host = format!("api.example={origin}");
    let flags = ["--egress", "http://api.example", "--resolve", &host];
    let (mut child, address) = start(&Call::get("api.example").guest(), &flags);
    let reply = get(address, "/");
    assert_eq!((reply.status, reply.text().as_str()), (201, "hello"));
    child.kill().unwrap();
    child.wait().unwrap();
}
