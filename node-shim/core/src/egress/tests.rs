use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Uri};
use node_api_types::FunctionKey;
use proptest::prelude::*;

use super::*;
use AddressRefusal::{Denied, Never, Private};

fn target(uri: &str) -> Result<OutboundTarget, TargetError> {
    OutboundTarget::new(&uri.parse::<Uri>().map_err(|_| TargetError::Host)?)
}

fn allow(entries: &[&str]) -> AllowList {
    let parse = |text: &&str| EgressEntry::parse(text).unwrap();
    AllowList::new(entries.iter().map(parse).collect())
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn targets_are_rebuilt_from_their_parts() {
    let table = [
        (
            "https://Api.Pay.Example/v1?x=1",
            "https://api.pay.example",
            "/v1?x=1",
        ),
        (
            "https://api.pay.example.:443/",
            "https://api.pay.example",
            "/",
        ),
        (
            "http://api.pay.example:8080",
            "http://api.pay.example:8080",
            "/",
        ),
        (
            "http://api.pay.example?x=1",
            "http://api.pay.example",
            "/?x=1",
        ),
        ("http://10.1.2.3:80//a", "http://10.1.2.3", "//a"),
        ("https://[FD12::1]:8443/", "https://[fd12::1]:8443", "/"),
        (
            "http://Prices.shop.selvage.internal.:80/v1",
            "http://prices.shop.selvage.internal",
            "/v1",
        ),
    ];
    for (uri, shown, path) in table {
        let target = target(uri).unwrap_or_else(|error| panic!("{uri}: {error}"));
        assert_eq!(
            (target.to_string().as_str(), target.path.as_str()),
            (shown, path)
        );
        let again = OutboundTarget::new(&target.absolute().unwrap());
        assert_eq!(again, Ok(target));
    }
}

/// HE-2, HE-6: what two programs could read differently is refused before it is matched.
#[test]
fn ambiguous_targets_are_refused() {
    for uri in [
        "https://allowed.com@evil.com/",
        "https://user:secret@allowed.com/",
        "https://evil.com\\.allowed.com/",
        "ftp://allowed.com/",
        "/no-host",
        "http://127.1/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://2130706433/",
        "http://1.2.3.4.5/",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://allowed.com:0/",
        "http://allowed.com:65536/",
        "http://allowed.com:/",
        "http://a..com/",
        "http://a_b.com/",
        "http://allowed.com/a\\b",
        "http://p\u{430}y.example/",
    ] {
        assert!(target(uri).is_err(), "{uri}");
    }
    let long = format!("http://allowed.com/{}", "a".repeat(8 << 10));
    assert_eq!(target(&long), Err(TargetError::TooLong));
}

/// HE-6: exact, whole labels, case and trailing dot, scheme and port.
#[test]
fn hosts_match_by_whole_labels() {
    let table = [
        ("https://allowed.com", "https://allowed.com/", true),
        ("https://allowed.com", "https://ALLOWED.com./", true),
        ("https://allowed.com", "https://allowed.com:443/", true),
        ("https://allowed.com", "https://allowed.com:8443/", false),
        ("https://allowed.com", "http://allowed.com/", false),
        ("https://allowed.com", "http://allowed.com:443/", false),
        ("https://allowed.com", "https://a.allowed.com/", false),
        (
            "https://allowed.com",
            "https://allowed.com.evil.com/",
            false,
        ),
        ("https://allowed.com", "https://notallowed.com/", false),
        ("https://*.allowed.com", "https://a.allowed.com/", true),
        ("https://*.allowed.com", "https://a.b.allowed.com/", true),
        ("https://*.allowed.com", "https://allowed.com/", false),
        ("https://*.allowed.com", "https://xallowed.com/", false),
        (
            "https://*.allowed.com",
            "https://a.allowed.com.evil.com/",
            false,
        ),
        ("http://10.0.0.0/8:8080", "http://10.1.2.3:8080/", true),
        ("http://10.0.0.0/8:8080", "http://10.1.2.3/", false),
        ("http://10.0.0.0/8:8080", "http://11.1.2.3:8080/", false),
        ("http://10.0.0.0/8", "http://[::ffff:10.1.2.3]/", true),
        ("http://10.0.0.0/8", "http://[64:ff9b::10.1.2.3]/", true),
        ("http://10.0.0.0/8", "http://10.1.2.3.example/", false),
        ("https://[fd00::/8]", "https://[fd12::1]/", true),
        ("https://[fd00::/8]", "https://[fe80::1]/", false),
        ("https://1.2.3.4", "https://1.2.3.4/", true),
        ("https://1.2.3.4", "https://1.2.3.5/", false),
    ];
    for (entry, uri, expected) in table {
        let found = allow(&[entry]).permits(&target(uri).unwrap());
        assert_eq!(found, expected, "{entry} {uri}");
    }
    assert!(!AllowList::default().permits(&target("https://allowed.com/").unwrap()));
}

const PUBLIC: &[&str] = &["https://api.example"];
const CLUSTER: &[&str] = &["http://*.svc.cluster.local"];
const WIDE: &[&str] = &["http://*.evil-cluster.local", "http://*.local.example"];
const BOTH: &[&str] = &["https://api.example", "https://10.1.0.0/16"];
const OTHER_PORT: &[&str] = &["https://api.example", "https://10.1.0.0/16:8443"];
const ANY: &[&str] = &["http://0.0.0.0/0", "http://[::/0]"];

/// Entries, target, address that the host resolves to, and the result.
type AddressRow = (
    &'static [&'static str],
    &'static str,
    &'static str,
    Result<(), AddressRefusal>,
);

/// Addresses by the entry that matches.
const ADDRESSES: &[AddressRow] = &[
    (PUBLIC, "https://api.example/", "93.184.216.34", Ok(())),
    (PUBLIC, "https://api.example/", "10.1.2.3", Err(Private)),
    (PUBLIC, "https://api.example/", "100.64.0.1", Err(Private)),
    (PUBLIC, "https://api.example/", "fd12::1", Err(Private)),
    (
        PUBLIC,
        "https://api.example/",
        "::ffff:10.1.2.3",
        Err(Private),
    ),
    (
        PUBLIC,
        "https://api.example/",
        "169.254.169.254",
        Err(Never("link_local")),
    ),
    (
        PUBLIC,
        "https://api.example/",
        "::ffff:169.254.169.254",
        Err(Never("link_local")),
    ),
    (
        PUBLIC,
        "https://api.example/",
        "64:ff9b::a9fe:a9fe",
        Err(Never("link_local")),
    ),
    (
        PUBLIC,
        "https://api.example/",
        "2002:a9fe:a9fe::",
        Err(Never("link_local")),
    ),
    (
        PUBLIC,
        "https://api.example/",
        "127.0.0.1",
        Err(Never("loopback")),
    ),
    (
        PUBLIC,
        "https://api.example/",
        "::1",
        Err(Never("loopback")),
    ),
    (
        PUBLIC,
        "https://api.example/",
        "fd00:ec2::254",
        Err(Never("metadata")),
    ),
    (BOTH, "https://api.example/", "10.1.2.3", Ok(())),
    (BOTH, "https://api.example/", "10.2.2.3", Err(Private)),
    (OTHER_PORT, "https://api.example/", "10.1.2.3", Err(Private)),
    (
        CLUSTER,
        "http://a.shop.svc.cluster.local/",
        "10.96.0.7",
        Ok(()),
    ),
    (
        CLUSTER,
        "http://a.shop.svc.cluster.local/",
        "fd12::7",
        Ok(()),
    ),
    (
        CLUSTER,
        "http://a.shop.svc.cluster.local/",
        "169.254.169.254",
        Err(Never("link_local")),
    ),
    (
        CLUSTER,
        "http://a.shop.svc.cluster.local/",
        "10.9.0.1",
        Err(Denied),
    ),
    (
        WIDE,
        "http://a.evil-cluster.local/",
        "10.1.2.3",
        Err(Private),
    ),
    (WIDE, "http://a.local.example/", "10.1.2.3", Err(Private)),
    (ANY, "http://10.1.2.3/", "10.1.2.3", Ok(())),
    (
        ANY,
        "http://127.0.0.1/",
        "127.0.0.1",
        Err(Never("loopback")),
    ),
    (ANY, "http://[::1]/", "::1", Err(Never("loopback"))),
    (ANY, "http://10.9.1.1/", "10.9.1.1", Err(Denied)),
    (
        ANY,
        "http://[::ffff:10.9.1.1]/",
        "::ffff:10.9.1.1",
        Err(Denied),
    ),
    (
        ANY,
        "http://[fe80::1]/",
        "fe80::1",
        Err(Never("link_local")),
    ),
];

/// HE-1, HE-2, HE-4: an address is checked whatever the name.
#[test]
fn addresses_are_checked_whatever_the_name() {
    let floor = AddressFloor {
        denied: vec!["10.9.0.0/16".parse().unwrap()],
        ..AddressFloor::default()
    };
    for (entries, uri, resolved, expected) in ADDRESSES {
        let allow = allow(entries);
        let target = target(uri).unwrap();
        assert!(allow.permits(&target), "{uri}");
        let found = allow.check_address(&target, address(resolved), &floor);
        assert_eq!(found, *expected, "{entries:?} {uri} {resolved}");
    }
}

/// HE-11: a name of the domain of functions stands for a function or is refused; it is never a name that DNS could resolve.
#[test]
fn names_of_functions_are_never_resolved() {
    let prices = TargetHost::Function(FunctionKey::new("shop", "prices"));
    let found = target("http://prices.shop.selvage.internal/").unwrap();
    assert_eq!(found.host, prices);
    for uri in [
        "https://prices.shop.selvage.internal/",
        "http://prices.shop.selvage.internal:8080/",
        "http://a.prices.shop.selvage.internal/",
        "http://shop.selvage.internal/",
        "http://selvage.internal./",
    ] {
        assert_eq!(target(uri), Err(TargetError::Function), "{uri}");
    }
    for (entry, allowed) in [
        ("function://shop/prices", true),
        ("function://shop/other", false),
        ("function://prices/shop", false),
        ("http://*.selvage.internal.example", false),
        ("http://*.shop.internal", false),
        ("http://0.0.0.0/0", false),
    ] {
        assert_eq!(allow(&[entry]).permits(&found), allowed, "{entry}");
    }
    let function = allow(&["function://shop/prices"]);
    let outside = target("http://api.example/").unwrap();
    assert!(!function.permits(&outside));
    let private = address("10.1.2.3");
    let checked = function.check_address(&outside, private, &AddressFloor::default());
    assert_eq!(checked, Err(Private));
}

#[test]
fn the_narrowest_entry_allows_its_target() {
    for uri in [
        "https://api.example/v1?x",
        "http://api.example:8080/",
        "http://10.1.2.3/",
        "https://[fd12::1]:8443/",
        "http://prices.shop.selvage.internal/v1",
    ] {
        let target = target(uri).unwrap();
        let entry = target.entry().to_string();
        assert!(allow(&[&entry]).permits(&target), "{uri}: {entry}");
    }
    let shown = target("https://api.example/v1")
        .unwrap()
        .entry()
        .to_string();
    assert_eq!(shown, "https://api.example");
}

/// HE-7: the host is the one that was checked, whatever the function wrote.
#[test]
fn the_host_and_the_fields_of_the_connection_are_the_nodes() {
    let headers = || {
        let fields = [
            ("host", "evil.example"),
            ("connection", "x-drop, te"),
            ("x-drop", "1"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "x"),
            ("trailer", "x-sum"),
            ("x-keep", "1"),
            ("selvage-hops", "0"),
            ("x_selvage_shadow", "1"),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    };
    let names = |headers: &HeaderMap| {
        let mut names: Vec<_> = headers.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    let mut http1 = headers();
    rewrite_request(&mut http1, "api.example:8080", false);
    assert_eq!(names(&http1), ["host", "trailer", "x-keep"]);
    assert_eq!(http1["host"], "api.example:8080");
    let mut http2 = headers();
    rewrite_request(&mut http2, "api.example", true);
    assert_eq!(names(&http2), ["te", "trailer", "x-keep"]);
    let mut response = headers();
    response.remove("host");
    rewrite_response(&mut response);
    let kept = ["expect", "selvage-hops", "te", "x-keep", "x_selvage_shadow"];
    assert_eq!(names(&response), kept);
}

/// HE-1: the address of a store in Redis is in a Secret, so private networks need no entry.
#[test]
fn stores_may_have_private_addresses_but_none_that_the_node_denies() {
    let floor = AddressFloor {
        denied: vec!["10.96.0.1/32".parse().unwrap()],
        ..AddressFloor::default()
    };
    let table = [
        ("93.184.216.34", Ok(())),
        ("10.0.0.1", Ok(())),
        ("fd12::1", Ok(())),
        ("10.96.0.1", Err(AddressRefusal::Denied)),
        ("::ffff:10.96.0.1", Err(AddressRefusal::Denied)),
        ("127.0.0.1", Err(AddressRefusal::Never("loopback"))),
        ("169.254.169.254", Err(AddressRefusal::Never("link_local"))),
    ];
    for (address, expected) in table {
        assert_eq!(
            floor.check_store(address.parse().unwrap()),
            expected,
            "{address}"
        );
    }
}

#[test]
fn labels_have_their_indices() {
    for (index, reason) in DenialReason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), index);
    }
    for (index, outcome) in EgressOutcome::ALL.iter().enumerate() {
        assert_eq!(outcome.index(), index);
    }
}

proptest! {
    /// HE-1, HE-2: no list of entries opens an address that is never allowed.
    #[test]
    fn no_entry_opens_the_floor(bits in any::<u32>(), wrap in 0_usize..5) {
        let v4 = std::net::Ipv4Addr::from(bits);
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let address: IpAddr = match wrap {
            0 => v4.into(),
            1 => v4.to_ipv6_mapped().into(),
            2 => std::net::Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(),
            3 => std::net::Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low).into(),
            _ => std::net::Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into(),
        };
        let allow = allow(&["http://0.0.0.0/0", "http://[::/0]", "http://*.svc.cluster.local"]);
        let never = v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
            || v4.is_unspecified() || v4.is_broadcast() || v4.is_documentation();
        for uri in ["http://1.2.3.4/", "http://a.svc.cluster.local/"] {
            let target = target(uri).unwrap();
            let checked = allow.check_address(&target, address, &AddressFloor::default());
            prop_assert!(!never || checked.is_err(), "{address}");
        }
        let store = AddressFloor::default().check_store(address);
        prop_assert!(!never || store.is_err(), "{address}");
    }

    #[test]
    fn reading_a_target_never_panics(text in "(https?://)?[a-z0-9.:@/\\\\\\[\\]%?#-]{0,40}") {
        if let Ok(target) = target(&text) {
            prop_assert_eq!(OutboundTarget::new(&target.absolute().unwrap()), Ok(target));
        }
    }

    #[test]
    fn reading_an_entry_never_panics_and_its_canonical_form_is_stable(
        text in "(https?|function|x)?(://)?[a-zA-Z0-9.:/*%@\\[\\]-]{0,40}"
    ) {
        if let Ok(entry) = EgressEntry::parse(&text) {
            prop_assert_eq!(EgressEntry::parse(&entry.to_string()), Ok(entry));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = EgressEntry::parse(&text);
    }
}
