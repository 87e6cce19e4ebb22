//! Addresses and network namespaces of a cluster.
//!
//! Each cluster has a slot with its own address ranges, so that several clusters can run at the same time:
//!
//! | | slot k |
//! |---|---|
//! | control plane, registry, Prometheus with nodes | `10.200.k.1` |
//! | node i | `10.200.k.(10+i)` |
//! | pods of node i | `10.(201+k).i.0/24` |
//! | Services | `10.(225+k).0.0/16` |
//! | control plane alone | `127.77.k.1` |
//!
//! The bridge is in its own network namespace, which one pair of interfaces connects to the host. A firewall of the
//! host therefore does not affect traffic between nodes, and removing the namespaces removes everything.

use super::{cache::run, packages::program};
use anyhow::{Context, Result, bail};
use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    process::Command,
};

const SLOTS: u8 = 24;

/// Addresses of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    index: u8,
    nodes: bool,
}

impl Slot {
    /// Returns the first slot that is not `taken` and whose ranges this machine, for clusters with nodes, does not
    /// route elsewhere.
    pub(super) fn free(taken: &[u8], nodes: bool) -> Result<Self> {
        let routed = if nodes {
            routes(&run(
                Command::new(program("ip")?).args(["-4", "route", "show", "table", "all"])
            )?)
        } else {
            Vec::new()
        };
        (0..SLOTS)
            .filter(|index| !taken.contains(index))
            .map(|index| Self { index, nodes })
            .find(|slot| !slot.ranges().iter().any(|range| routed.iter().any(|r| r.overlaps(range))))
            .context("no free range of addresses for another cluster: is one of the others to be ended with `cluster down`?")
    }

    /// Returns the number of the slot.
    #[must_use]
    pub fn index(self) -> u8 {
        self.index
    }

    /// Returns the address at which control plane, registry and Prometheus listen. The host, nodes and pods can reach
    /// it.
    #[must_use]
    pub fn host(self) -> Ipv4Addr {
        if self.nodes {
            Ipv4Addr::new(10, 200, self.index, 1)
        } else {
            Ipv4Addr::new(127, 77, self.index, 1)
        }
    }

    /// Returns the address of node `i`, starting at 1.
    #[must_use]
    pub fn node(self, i: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, self.index, 10 + i)
    }

    /// Returns the pod range of node `i`, starting at 1.
    #[must_use]
    pub fn pods(self, i: u8) -> String {
        format!("10.{}.{i}.0/24", 201 + self.index)
    }

    /// Returns the pod range of all nodes.
    #[must_use]
    pub fn all_pods(self) -> String {
        format!("10.{}.0.0/16", 201 + self.index)
    }

    /// Returns the range of Service addresses.
    #[must_use]
    pub fn services(self) -> String {
        format!("10.{}.0.0/16", 225 + self.index)
    }

    /// Returns the address of the Service `kubernetes`.
    #[must_use]
    pub fn api_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 225 + self.index, 0, 1)
    }

    /// Returns the address reserved for a DNS server. The cluster does not have one.
    pub(super) fn dns(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 225 + self.index, 0, 10)
    }

    /// Returns a free port at [`Self::host`]: `preferred` if it is free, otherwise any.
    ///
    /// # Errors
    /// Returns an error when no server can listen at the address.
    pub fn port(self, preferred: u16) -> Result<u16> {
        self.port_at(self.host(), preferred)
    }

    /// Returns a free port like [`Self::port`], at another address of the slot.
    pub(super) fn port_at(self, host: Ipv4Addr, preferred: u16) -> Result<u16> {
        (0..25)
            .map(|step| preferred + 1000 * step)
            .find(|port| TcpListener::bind((IpAddr::V4(host), *port)).is_ok())
            .with_context(|| format!("no free port at {host}"))
    }

    fn ranges(self) -> [Range; 3] {
        [
            Range {
                address: Ipv4Addr::new(10, 200, self.index, 0),
                bits: 24,
            },
            Range {
                address: Ipv4Addr::new(10, 201 + self.index, 0, 0),
                bits: 16,
            },
            Range {
                address: Ipv4Addr::new(10, 225 + self.index, 0, 0),
                bits: 16,
            },
        ]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    address: Ipv4Addr,
    bits: u8,
}

impl Range {
    fn overlaps(&self, other: &Self) -> bool {
        let bits = u32::from(self.bits.min(other.bits));
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        self.address.to_bits() & mask == other.address.to_bits() & mask
    }
}

/// Returns the ranges that `ip route show` lists, without the default route, which covers everything.
fn routes(listing: &str) -> Vec<Range> {
    listing
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let first = words.next()?;
            // local, broadcast, unicast... precede the range
            let target = if first.starts_with(|c: char| c.is_ascii_digit()) {
                first
            } else {
                words.next()?
            };
            let (address, bits) = target.split_once('/').unwrap_or((target, "32"));
            let range = Range {
                address: address.parse().ok()?,
                bits: bits.parse().ok()?,
            };
            (range.bits > 0).then_some(range)
        })
        .collect()
}

/// Creates the namespaces `selvage-<id>-lan` and `selvage-<id>-node<i>` with all addresses and routes.
///
/// # Errors
/// Returns an error when one of the `ip` commands fails.
pub(super) fn create(id: &str, slot: Slot, nodes: u8) -> Result<()> {
    let lan = format!("selvage-{id}-lan");
    let veth = format!("slv{id}");
    let host = slot.host();
    ip(&format!("netns add {lan}"))?;
    ip(&format!("-n {lan} link add name lan type bridge"))?;
    ip(&format!("-n {lan} link set lan up"))?;
    ip(&format!(
        "link add name {veth} type veth peer name host netns {lan}"
    ))?;
    ip(&format!("-n {lan} link set host master lan up"))?;
    ip(&format!("addr add {host}/24 dev {veth}"))?;
    ip(&format!("link set {veth} up"))?;
    for i in 1..=nodes {
        let node = node_namespace(id, i);
        ip(&format!("netns add {node}"))?;
        ip(&format!(
            "-n {lan} link add name node{i} type veth peer name eth0 netns {node}"
        ))?;
        ip(&format!("-n {lan} link set node{i} master lan up"))?;
        ip(&format!("-n {node} link set lo up"))?;
        ip(&format!("-n {node} addr add {}/24 dev eth0", slot.node(i)))?;
        ip(&format!("-n {node} link set eth0 up"))?;
        ip(&format!("-n {node} route add default via {host}"))?;
        for other in (1..=nodes).filter(|other| *other != i) {
            ip(&format!(
                "-n {node} route add {} via {}",
                slot.pods(other),
                slot.node(other)
            ))?;
        }
        ip(&format!("route add {} via {}", slot.pods(i), slot.node(i)))?;
    }
    // the host has no kube-proxy: Services are reached through the first node
    ip(&format!(
        "route add {} via {}",
        slot.services(),
        slot.node(1)
    ))
}

/// Returns the name of the network namespace of node `i` of a run.
pub(super) fn node_namespace(id: &str, i: u8) -> String {
    format!("selvage-{id}-node{i}")
}

fn ip(arguments: &str) -> Result<()> {
    run(Command::new(program("ip")?).args(arguments.split_whitespace()))?;
    Ok(())
}

/// Tests whether this machine supports the network features that nodes need, and cleans up.
pub(super) fn probe() -> Result<()> {
    let name = format!("selvage-probe-{}", std::process::id());
    let result = ip(&format!("netns add {name}"))
        .and_then(|()| ip(&format!("-n {name} link add name lan type bridge")))
        .and_then(|()| {
            ip(&format!(
                "-n {name} link add name a type veth peer name probe"
            ))
        });
    let removed = ip(&format!("netns del {name}"));
    match (result, removed) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(error), _) | (_, Err(error)) => bail!("network namespaces cannot be made ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_whose_range_is_routed_elsewhere_is_passed_over() {
        let listing = "default via 192.0.2.1 dev eth0\n10.200.0.0/24 dev slv1 proto kernel\n\
                       broadcast 192.0.2.255 dev eth0 table local\n10.226.0.0/15 via 192.0.2.9 dev tun0";
        let routed = routes(listing);
        let free: Vec<u8> = (0..6)
            .map(|index| Slot { index, nodes: true })
            .filter(|slot| {
                !slot
                    .ranges()
                    .iter()
                    .any(|range| routed.iter().any(|r| r.overlaps(range)))
            })
            .map(Slot::index)
            .collect();
        // slot 0 by its nodes, slots 1 and 2 by their Services
        assert_eq!(free, [3, 4, 5]);
    }

    #[test]
    fn slots_do_not_overlap() {
        let slots = || (0..SLOTS).map(|index| Slot { index, nodes: true });
        for a in slots() {
            for b in slots().filter(|b| *b != a) {
                assert!(
                    !a.ranges()
                        .iter()
                        .any(|x| b.ranges().iter().any(|y| x.overlaps(y))),
                    "{a:?} {b:?}"
                );
            }
        }
    }
}
