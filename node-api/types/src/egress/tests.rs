use super::*;

fn message(text: &str) -> String {
    match EgressEntry::parse(text) {
        Ok(entry) => panic!("{text:?} is read as {entry}"),
        Err(error) => error.to_string(),
    }
}

/// HE-6: every accepted form, and its canonical form.
#[test]
fn entries_are_read_in_their_canonical_form() {
    let table = [
        ("https://api.pay.example", "https://api.pay.example", 443),
        ("http://api.pay.example", "http://api.pay.example", 80),
        ("HTTPS://API.Pay.Example.", "https://api.pay.example", 443),
        (
            "https://api.pay.example:443",
            "https://api.pay.example",
            443,
        ),
        (
            "http://api.pay.example:443",
            "http://api.pay.example:443",
            443,
        ),
        (
            "http://*.svc.cluster.local:8080",
            "http://*.svc.cluster.local:8080",
            8080,
        ),
        (
            "https://xn--bcher-kva.example",
            "https://xn--bcher-kva.example",
            443,
        ),
        ("https://1.2.3.4", "https://1.2.3.4", 443),
        ("http://10.0.0.0/8:8080", "http://10.0.0.0/8:8080", 8080),
        ("http://10.1.2.3/32", "http://10.1.2.3", 80),
        ("https://[fd00::/8]", "https://[fd00::/8]", 443),
        ("https://[FD12::1]:8443", "https://[fd12::1]:8443", 8443),
        ("http://0.0.0.0/0", "http://0.0.0.0/0", 80),
        ("function://shop/prices", "function://shop/prices", 80),
        ("Function://Shop/Prices", "function://shop/prices", 80),
        ("function://1/2", "function://1/2", 80),
    ];
    for (text, canonical, port) in table {
        let entry = EgressEntry::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((entry.to_string().as_str(), entry.port), (canonical, port));
        assert_eq!(EgressEntry::parse(canonical), Ok(entry));
    }
}

#[test]
fn names_of_functions_have_two_labels_before_their_domain() {
    let key = |namespace, name| Some(FunctionKey::new(namespace, name));
    let table = [
        ("prices.shop.selvage.internal", true, key("shop", "prices")),
        ("p-1.2.selvage.internal", true, key("2", "p-1")),
        ("prices.selvage.internal", true, None),
        ("a.prices.shop.selvage.internal", true, None),
        ("-a.shop.selvage.internal", true, None),
        ("selvage.internal", true, None),
        ("notselvage.internal", false, None),
        ("prices.shop.notselvage.internal", false, None),
        ("internal", false, None),
        ("prices.shop.selvage.internal.example", false, None),
    ];
    for (name, inside, called) in table {
        assert_eq!(is_function_domain(name), inside, "{name}");
        assert_eq!(called_function(name), called, "{name}");
        if let Some(key) = called {
            assert_eq!(function_name(&key), name);
        }
    }
}

/// HE-6: what is not an entry, and the fix that its message names.
#[test]
fn everything_else_is_refused_with_its_fix() {
    let table = [
        ("api.pay.example", "write https://api.pay.example"),
        ("10.1.0.0/16", "write https://10.1.0.0/16"),
        ("fd00::/8", "write https://[fd00::/8]"),
        (
            "ftp://api.pay.example",
            "write http://, https:// or function://",
        ),
        ("function://prices", "write function://namespace/name"),
        ("function://shop/", "write function://namespace/name"),
        ("function:///prices", "write function://namespace/name"),
        (
            "function://shop/prices:80",
            "write function://namespace/name",
        ),
        ("function://shop/*", "write function://namespace/name"),
        ("function://shop/pri_ces", "write function://namespace/name"),
        ("function://shop/prices/v1", "write function://shop/prices"),
        ("function://shop/prices?x=1", "write function://shop/prices"),
        (
            "http://prices.shop.selvage.internal",
            "write function://shop/prices",
        ),
        (
            "https://PRICES.shop.selvage.internal.:8443",
            "write function://shop/prices",
        ),
        (
            "http://*.shop.selvage.internal",
            "write function://namespace/name",
        ),
        ("http://selvage.internal", "write function://namespace/name"),
        ("https://user@api.pay.example", "no user name"),
        ("https://allowed.com@evil.com", "no user name"),
        (
            "https://api.pay.example/v1",
            "write https://api.pay.example",
        ),
        (
            "https://api.pay.example:8443/v1",
            "write https://api.pay.example",
        ),
        ("https://api.pay.example/", "write https://api.pay.example"),
        (
            "https://api.pay.example?a=b",
            "write https://api.pay.example",
        ),
        ("https://evil.com#.allowed.com", "write https://evil.com"),
        ("https://[fd00::1]/v1", "write https://[fd00::1]"),
        ("https://api.pay.example:", "from 1 to 65535"),
        ("https://api.pay.example:0", "from 1 to 65535"),
        ("https://api.pay.example:65536", "from 1 to 65535"),
        ("https://api.pay.example:+80", "from 1 to 65535"),
        ("https://", "empty label"),
        ("https://a..example", "empty label"),
        ("https://.pay.example", "empty label"),
        ("https://*", "whole first label"),
        ("https://*.*.example", "whole first label"),
        ("https://a.*.example", "whole first label"),
        ("https://a*.pay.example", "whole first label"),
        ("https://*.com", "*.pay.com"),
        ("http://prices", "http://prices.shop.svc.cluster.local"),
        ("http://localhost:8080", "search domains"),
        ("https://p\u{430}y.example", "xn--"),
        ("https://a_b.pay.example", "letters, digits"),
        ("https://-a.pay.example", "letters, digits"),
        ("https://a b.pay.example", "letters, digits"),
        ("http://127.1", "last label is a number"),
        ("http://0x7f.0.0.0x1", "last label is a number"),
        ("http://010.0.0.1", "last label is a number"),
        ("http://1.2.3.4.5", "last label is a number"),
        ("http://2130706433", "last label is a number"),
        ("http://fd00::1", "in brackets"),
        ("http://[fd00::1", "in brackets"),
        ("http://[10.0.0.1]", "in brackets"),
        ("http://[fe80::1%eth0]", "no zone"),
        ("http://[::ffff:10.0.0.1]", "write http://10.0.0.1"),
        ("http://10.1.2.3/8", "write http://10.0.0.0/8"),
        ("http://[fd12::1/8]", "write http://[fd00::/8]"),
        ("http://10.0.0.0/33", "from 0 to 32"),
        ("http://10.0.0.1/v1", "write http://10.0.0.1"),
        (
            "http://127.0.0.1:8080",
            "no function may reach 127.0.0.1 (loopback)",
        ),
        ("http://169.254.169.254", "(link_local)"),
        ("http://169.254.0.0/16", "(link_local)"),
        ("http://[::1]", "(loopback)"),
        ("http://[fd00:ec2::254]", "(metadata)"),
    ];
    for (text, fix) in table {
        let message = message(text);
        assert!(message.contains(fix), "{text}: {message}");
    }
    let long = format!("https://{}.example", "a.".repeat(200));
    assert_eq!(EgressEntry::parse(&long), Err(EgressEntryError::TooLong));
    let label = format!("https://{}.example", "a".repeat(64));
    assert!(message(&label).contains("at most 63"));
}
