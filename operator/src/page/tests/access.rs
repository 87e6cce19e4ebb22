//! Which requests are answered, and with which headers.

use std::fs;

use axum::http::{Method, StatusCode};

use super::super::access::Access;
use super::{Page, request, text};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

async fn status(page: &Page, path: &str, headers: &[(&'static str, &str)]) -> StatusCode {
    let mut request = request(path);
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    page.send(request).await.status()
}

#[tokio::test]
async fn every_response_forbids_scripts_and_frames_of_others() {
    let page = Page::open();
    for path in [
        "/",
        "/page.js",
        "/page.css",
        "/api/functions",
        "/api/none",
        "/none",
    ] {
        let response = page.get(path).await;
        let header = |name| response.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{path}"
        );
        assert!(
            !policy.contains("unsafe") && policy.contains("require-trusted-types-for 'script'")
        );
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-origin")
        );
        assert!(!response.headers().contains_key("set-cookie"));
        assert!(header("cache-control").starts_with("no-"));
    }
}

/// Inline scripts, styles and handlers would be refused by the policy, and HTML from text by Trusted Types.
#[tokio::test]
async fn the_files_have_nothing_inline_and_make_no_html_of_text() {
    let page = Page::open();
    let html = text(page.get("/").await).await;
    assert!(html.contains("<script type=\"module\" src=\"page.js\">"));
    for inline in [
        "<style",
        "style=",
        "onclick",
        "onload",
        "javascript:",
        "http:",
        "https:",
    ] {
        assert!(!html.contains(inline), "{inline}");
    }
    for path in [
        "/page.js",
        "/dom.js",
        "/charts.js",
        "/function.js",
        "/nodes.js",
    ] {
        let script = text(page.get(path).await).await;
        assert!(script.len() > 1000, "{path}");
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "setAttribute('on",
        ] {
            assert!(!script.contains(sink), "{path}: {sink}");
        }
    }
}

#[tokio::test]
async fn only_own_names_are_served() {
    let page = Page::new(Access::new(vec!["Edge.example".to_owned()], None), 1);
    for host in [
        "127.0.0.1:9181",
        "[::1]:9181",
        "localhost:8080",
        "LOCALHOST",
        "edge.example",
        "edge.example:443",
        "10.0.0.7",
    ] {
        assert_eq!(
            status(&page, "/", &[("host", host)]).await,
            StatusCode::OK,
            "{host}"
        );
    }
    // the names of an attacker that resolve to the address of a port-forward
    for host in [
        "rebound.example:9181",
        "127.0.0.1.rebound.example",
        "edge.example.rebound.example",
        "",
        "localhost.rebound.example",
    ] {
        for path in ["/", "/api/functions", "/api/streams"] {
            let status = status(&page, path, &[("host", host)]).await;
            assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{host} {path}");
        }
    }
    let mut absolute = request("http://rebound.example/api/functions");
    absolute
        .headers_mut()
        .insert("host", "127.0.0.1:9181".parse().unwrap());
    assert_eq!(
        page.send(absolute).await.status(),
        StatusCode::MISDIRECTED_REQUEST
    );
    let mut nameless = request("/");
    nameless.headers_mut().remove("host");
    assert_eq!(
        page.send(nameless).await.status(),
        StatusCode::MISDIRECTED_REQUEST
    );
}

#[tokio::test]
async fn other_sites_request_no_data() {
    let page = Page::open();
    let path = "/api/streams";
    let of = |origin: &'static str| [("origin", origin)];
    assert_eq!(
        status(&page, path, &of("http://127.0.0.1:9181")).await,
        StatusCode::OK
    );
    for origin in ["http://other.example", "http://127.0.0.1:9999", "null"] {
        assert_eq!(
            status(&page, path, &of(origin)).await,
            StatusCode::FORBIDDEN,
            "{origin}"
        );
    }
    for (site, expected) in [
        ("cross-site", StatusCode::FORBIDDEN),
        ("same-site", StatusCode::FORBIDDEN),
        ("same-origin", StatusCode::OK),
        ("none", StatusCode::OK),
    ] {
        assert_eq!(
            status(&page, path, &[("sec-fetch-site", site)]).await,
            expected,
            "{site}"
        );
    }
    // a link from elsewhere may open the page
    assert_eq!(
        status(&page, "/", &[("sec-fetch-site", "cross-site")]).await,
        StatusCode::OK
    );
}

#[tokio::test]
async fn nothing_can_be_written() {
    let page = Page::open();
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for path in ["/", "/api/functions", "/api/functions/shop/checkout"] {
            let mut request = request(path);
            *request.method_mut() = method.clone();
            let status = page.send(request).await.status();
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn data_needs_the_token_and_files_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let page = Page::new(Access::new(Vec::new(), Some(file.clone())), 2);
    let sent = |value: &str| [("authorization", value.to_owned())];
    assert_eq!(status(&page, "/", &[]).await, StatusCode::OK);
    for path in [
        "/api/functions",
        "/api/functions/shop/checkout",
        "/api/nodes",
        "/api/streams",
        "/api/streams/nodes",
        "/api/streams/shop/checkout",
        "/api/none",
    ] {
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdef0123456789abcdee",
            &format!("Basic {TOKEN}"),
            TOKEN,
        ] {
            let [(name, value)] = sent(wrong);
            assert_eq!(
                status(&page, path, &[(name, &value)]).await,
                StatusCode::UNAUTHORIZED,
                "{path} {wrong}"
            );
        }
        assert_eq!(
            status(&page, path, &[]).await,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    let [(name, value)] = sent(&format!("Bearer {TOKEN}"));
    assert_eq!(
        status(&page, "/api/functions", &[(name, &value)]).await,
        StatusCode::OK
    );
    // a token that changes is used without a restart
    fs::write(&file, "fedcba9876543210").unwrap();
    assert_eq!(
        status(&page, "/api/functions", &[(name, &value)]).await,
        StatusCode::UNAUTHORIZED
    );
    let fresh = [("authorization", "bearer fedcba9876543210")];
    assert_eq!(
        status(&page, "/api/functions", &fresh).await,
        StatusCode::OK
    );
    // neither a short token nor a missing Secret opens the page
    for content in ["", "\n", "short"] {
        fs::write(&file, content).unwrap();
        let sent = format!("Bearer {}", content.trim());
        let status = status(&page, "/api/functions", &[("authorization", &sent)]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{content:?}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(
        status(&page, "/api/functions", &fresh).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
}
