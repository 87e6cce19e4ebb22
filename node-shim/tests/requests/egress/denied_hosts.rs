//! Hosts that the administrator of the cluster denies to all functions.

use node_shim_core::egress::DeniedHosts;

use super::origin::{PUBLIC, Reaction, TestNetwork};
use super::{counted, messages, setup};
use crate::support::node::eventually;
use crate::support::outbound::Call;
use crate::support::wire::get;

/// HE-6: what the administrator denies by name, no entry opens; the log says who forbids it.
#[test]
fn hosts_that_the_administrator_denies_are_reached_by_no_function() {
    let network = TestNetwork::new(Reaction::Refuse);
    for name in ["db.corp.example", "corp.example"] {
        network.name(name, &[&[PUBLIC]]);
    }
    for (entry, authority, code, line) in [
        (
            "https://db.corp.example",
            "DB.corp.example.",
            15,
            "denied_total reason=denied_host 1",
        ),
        (
            "https://*.corp.example",
            "db.corp.example",
            15,
            "denied_total reason=denied_host 1",
        ),
        (
            "https://a.example",
            "db.corp.example",
            15,
            "denied_total reason=denied_host 1",
        ),
        (
            "https://corp.example",
            "corp.example",
            6,
            "requests_total outcome=connect 1",
        ),
    ] {
        let mut setup = setup(&network, &[entry]);
        let denied = vec!["*.corp.example".parse().unwrap()];
        setup.options.egress.denied_hosts = DeniedHosts::new(denied);
        let call = Call {
            https: true,
            ..Call::get(authority)
        };
        let node = setup.start(&call.guest());
        assert_eq!(
            get(node.address(), "/").status,
            200 + code,
            "{entry} {authority}"
        );
        assert_eq!(counted(&node), [line], "{entry} {authority}");
        if code == 15 {
            let by = "the administrator of the cluster denies *.corp.example to all functions (chart value nodeShim.egress.denyHosts)";
            eventually("the log names it", || {
                messages(&node).iter().any(|line| line.contains(by))
            });
        }
    }
    assert_eq!(network.connected(), [format!("{PUBLIC}:443")]);
}
