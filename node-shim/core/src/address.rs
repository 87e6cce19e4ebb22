//! Classification of IP addresses for outbound requests. Some addresses stay blocked whatever a policy
//! allows, because they lead to the node itself, to a cloud metadata service or to no host at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Class of an address as a destination of outbound requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressClass {
    /// Globally routable address.
    Public,
    /// Private, unique local or carrier-grade NAT address. Reachable only when a policy lists a
    /// matching CIDR or cluster name.
    Private,
    /// Address that no policy can allow, with the label of the reason (for example `loopback`).
    Blocked(&'static str),
}

/// Classifies an address. An IPv6 address that embeds an IPv4 address has the class of the latter.
pub fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => classify_v4(v4),
            None => classify_v6(v6),
        },
    }
}

/// Returns whether an address is on the public Internet, that is, neither local nor private nor
/// reserved.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    classify(address) == AddressClass::Public
}

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => AddressClass::Blocked("unspecified"),
        (127, ..) => AddressClass::Blocked("loopback"),
        (169, 254, _) => AddressClass::Blocked("link_local"),
        (224..=239, ..) => AddressClass::Blocked("multicast"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => AddressClass::Blocked("documentation"),
        (198, 18..=19, _) => AddressClass::Blocked("benchmark"),
        (192, 0, 0) | (192, 88, 99) | (240.., ..) => AddressClass::Blocked("reserved"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => AddressClass::Private,
        _ => AddressClass::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> AddressClass {
    let [a, b, c, ..] = address.segments();
    if address.is_unspecified() {
        return AddressClass::Blocked("unspecified");
    }
    if address.is_loopback() {
        return AddressClass::Blocked("loopback");
    }
    // the IPv6 metadata service of AWS has a unique local address
    if address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
        return AddressClass::Blocked("metadata");
    }
    match (a, b, c) {
        (0xfe80..=0xfebf, ..) => AddressClass::Blocked("link_local"),
        (0xfec0..=0xfeff, ..) => AddressClass::Blocked("reserved"),
        (0xff00.., ..) => AddressClass::Blocked("multicast"),
        (0xfc00..=0xfdff, ..) => AddressClass::Private,
        (0x2001, 0, _) => AddressClass::Blocked("teredo"),
        (0x2001, 0xdb8, _) | (0x3fff, 0..=0x0fff, _) => AddressClass::Blocked("documentation"),
        (0x2001, 2, 0) => AddressClass::Blocked("benchmark"),
        // the rest of 2001::/23, discard-only, and everything outside global unicast
        (0x2001, 1..=0x1ff, _) | (0..=0x1fff, ..) | (0x4000..=0xfbff, ..) => {
            AddressClass::Blocked("reserved")
        }
        _ => AddressClass::Public,
    }
}

/// Returns the IPv4 address embedded in an IPv4-mapped, NAT64 or 6to4 address. Deprecated
/// IPv4-compatible addresses are not unwrapped, because they are reserved as a whole.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let four = |high: u16, low: u16| {
        let [w, x] = high.to_be_bytes();
        let [y, z] = low.to_be_bytes();
        Some(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) | (0x64, 0xff9b, 1, _, _, _) => {
            four(g, h)
        }
        (0x2002, ..) => four(b, c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HE-1: metadata and private ranges.
    #[test]
    fn addresses_are_classified() {
        let never = |label| AddressClass::Blocked(label);
        let table = [
            ("1.1.1.1", AddressClass::Public),
            ("8.8.4.4", AddressClass::Public),
            ("0.0.0.0", never("unspecified")),
            ("127.0.0.53", never("loopback")),
            ("169.254.169.254", never("link_local")),
            ("239.255.255.250", never("multicast")),
            ("255.255.255.255", never("reserved")),
            ("192.0.2.1", never("documentation")),
            ("198.19.0.1", never("benchmark")),
            ("10.0.0.1", AddressClass::Private),
            ("172.31.255.255", AddressClass::Private),
            ("172.32.0.0", AddressClass::Public),
            ("100.64.0.1", AddressClass::Private),
            ("2606:4700::1111", AddressClass::Public),
            ("::", never("unspecified")),
            ("::1", never("loopback")),
            ("::7f00:1", never("reserved")),
            ("fe80::1", never("link_local")),
            ("ff02::1", never("multicast")),
            ("fd00:ec2::254", never("metadata")),
            ("fd12::1", AddressClass::Private),
            ("2001:db8::1", never("documentation")),
            ("2001::1", never("teredo")),
            ("::ffff:169.254.169.254", never("link_local")),
            ("::ffff:10.0.0.1", AddressClass::Private),
            ("64:ff9b::7f00:1", never("loopback")),
            ("64:ff9b:1::a9fe:a9fe", never("link_local")),
            ("2002:7f00:1::", never("loopback")),
            ("2002:0808:0808::1", AddressClass::Public),
        ];
        for (text, expected) in table {
            assert_eq!(classify(text.parse().unwrap()), expected, "{text}");
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
