//! Classifies addresses by whether they may be called. Addresses that no policy can allow lead to the node itself, to
//! metadata services, or to no host at all. The registry client and the outbound requests of functions use the same
//! classification.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The address is on the public Internet.
    Public,
    /// The address is private, unique local or carrier-grade; it requires an explicit permission.
    Private,
    /// The address is never called; with the reason as a label.
    Never(&'static str),
}

/// Classifies an address. An IPv6 address that carries an IPv4 address is classified by that one.
#[must_use]
pub fn reach(address: IpAddr) -> Reach {
    match unwrapped(address) {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

/// Returns the IPv4 address inside an IPv6 address that is mapped, translated (NAT64) or tunnelled (6to4); every other
/// address as it is.
#[must_use]
pub fn unwrapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => embedded_v4(v6).map_or(address, IpAddr::V4),
    }
}

/// Whether an address is on the public Internet: not this host, not this network, not a metadata service, not
/// reserved.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    reach(address) == Reach::Public
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Reach::Never("unspecified"),
        _ if address.is_loopback() => Reach::Never("loopback"),
        _ if address.is_link_local() => Reach::Never("link_local"),
        _ if address.is_multicast() => Reach::Never("multicast"),
        _ if address.is_documentation() => Reach::Never("documentation"),
        _ if address.is_private() => Reach::Private,
        (100, 64..=127, _) => Reach::Private,
        (198, 18..=19, _) => Reach::Never("benchmark"),
        (192, 0, 0) | (192, 88, 99) | (240.., ..) => Reach::Never("reserved"),
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let [a, b, c, ..] = address.segments();
    if address.is_unspecified() {
        return Reach::Never("unspecified");
    }
    if address.is_loopback() {
        return Reach::Never("loopback");
    }
    // The metadata service of one cloud has a unique local address.
    if address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
        return Reach::Never("metadata");
    }
    match (a, b, c) {
        _ if address.is_unicast_link_local() => Reach::Never("link_local"),
        _ if address.is_multicast() => Reach::Never("multicast"),
        _ if address.is_unique_local() => Reach::Private,
        (0xfec0..=0xfeff, ..) => Reach::Never("reserved"),
        (0x2001, 0, _) => Reach::Never("teredo"),
        (0x2001, 0xdb8, _) | (0x3fff, 0..=0x0fff, _) => Reach::Never("documentation"),
        (0x2001, 2, 0) => Reach::Never("benchmark"),
        // The rest of 2001::/23, discard-only addresses, and everything outside global unicast.
        (0x2001, 1..=0x1ff, _) | (0..=0x1fff, ..) | (0x4000..=0xfbff, ..) => {
            Reach::Never("reserved")
        }
        _ => Reach::Public,
    }
}

/// Returns the IPv4 address inside a mapped, translated or tunnelled one. Deprecated compatible addresses are not
/// unwrapped, because they are reserved as a whole.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    let four = |high: u16, low: u16| {
        let [w, x] = high.to_be_bytes();
        let [y, z] = low.to_be_bytes();
        Some(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b, c, d, e, f) {
        (0x64, 0xff9b, 0, 0, 0, 0) | (0x64, 0xff9b, 1, _, _, _) => four(g, h),
        (0x2002, ..) => four(b, c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HE-1: metadata and private ranges.
    #[test]
    fn metadata_and_reserved_ranges_are_never_allowed() {
        let never = |label| Reach::Never(label);
        let table = [
            ("1.1.1.1", Reach::Public),
            ("8.8.4.4", Reach::Public),
            ("0.0.0.0", never("unspecified")),
            ("127.0.0.53", never("loopback")),
            ("169.254.169.254", never("link_local")),
            ("239.255.255.250", never("multicast")),
            ("255.255.255.255", never("reserved")),
            ("192.0.2.1", never("documentation")),
            ("198.19.0.1", never("benchmark")),
            ("10.0.0.1", Reach::Private),
            ("172.31.255.255", Reach::Private),
            ("172.32.0.0", Reach::Public),
            ("100.64.0.1", Reach::Private),
            ("2606:4700::1111", Reach::Public),
            ("::", never("unspecified")),
            ("::1", never("loopback")),
            ("::7f00:1", never("reserved")),
            ("fe80::1", never("link_local")),
            ("ff02::1", never("multicast")),
            ("fd00:ec2::254", never("metadata")),
            ("fd12::1", Reach::Private),
            ("2001:db8::1", never("documentation")),
            ("2001::1", never("teredo")),
            ("::ffff:169.254.169.254", never("link_local")),
            ("::ffff:10.0.0.1", Reach::Private),
            ("64:ff9b::7f00:1", never("loopback")),
            ("64:ff9b:1::a9fe:a9fe", never("link_local")),
            ("2002:7f00:1::", never("loopback")),
            ("2002:0808:0808::1", Reach::Public),
        ];
        for (text, expected) in table {
            assert_eq!(reach(text.parse().unwrap()), expected, "{text}");
        }
    }

    /// HE-1, HE-2, HS-4
    #[test]
    fn only_public_addresses_pass_in_any_notation() {
        let public = [
            "8.8.8.8",
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ];
        let private = [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "127.0.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::8.8.8.8",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2002:7f00:1::",
        ];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in private {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
