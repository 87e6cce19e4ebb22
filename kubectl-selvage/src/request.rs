//! The request of `invoke`: host and path from the routes of a function, fields and body from the command line. Pure.

use bytes::Bytes;
use crds::EdgeFunction;
use crds::function::{PathMatch, PathMatchType, Route};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) path: PathAndQuery,
}

/// Body of a request, and the media type that it has unless a field says otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) bytes: Bytes,
    pub(crate) media_type: Option<&'static str>,
}

/// Selects host and path: those that are given, else those of the first accepted route that fits.
///
/// # Errors
/// No route is accepted, or none has a host that can be used as it is.
pub(crate) fn target(
    function: &EdgeFunction,
    host: Option<&str>,
    path: Option<&str>,
) -> Result<Target, String> {
    let given = path.map(parse).transpose()?;
    let accepted = function.status.as_ref().and_then(|s| s.accepted.as_ref());
    let routes = accepted.map_or(&[][..], |accepted| accepted.routes.as_slice());
    let fits = |route: &&Route| {
        given.as_ref().is_none_or(|path| has(route, path.path()))
            && host.is_none_or(|host| route.hosts.iter().any(|known| names(known, host)))
    };
    let exact = |route: &Route| route.hosts.iter().find(|host| !host.contains('*')).cloned();
    let named = |route: &Route| host.map(str::to_owned).or_else(|| exact(route));
    // what no route has is sent as well: the node answers it
    let mut ordered = routes.iter().filter(fits).chain(routes);
    let found = ordered.find_map(|route| Some((route, named(route)?)));
    let (host, default) = match (found, host) {
        (Some((route, host)), _) => (host, route.paths.first().map(|path| path.value.as_str())),
        (None, Some(host)) => (host.to_owned(), None),
        (None, None) => return Err(without_host(function, routes)),
    };
    let path = match given {
        Some(path) => path,
        None => parse(default.unwrap_or("/"))?,
    };
    Ok(Target { host, path })
}

fn parse(path: &str) -> Result<PathAndQuery, String> {
    let invalid = || format!("{path} is not a path: it starts with / and is percent-encoded");
    if !path.starts_with('/') {
        return Err(invalid());
    }
    path.parse().map_err(|_| invalid())
}

/// Whether a host of a route is a host, or a pattern for it.
fn names(known: &str, host: &str) -> bool {
    match known.strip_prefix('*') {
        Some(end) => host.ends_with(end),
        None => known == host,
    }
}

fn has(route: &Route, path: &str) -> bool {
    let is_met = |condition: &PathMatch| {
        let value = condition.value.as_str();
        if condition.match_type == Some(PathMatchType::Exact) {
            return path == value;
        }
        let prefix = value.trim_end_matches('/');
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    route.paths.is_empty() || route.paths.iter().any(is_met)
}

fn without_host(function: &EdgeFunction, routes: &[Route]) -> String {
    if let Some(pattern) = routes.iter().flat_map(|route| &route.hosts).next() {
        return format!(
            "the routes have patterns only, such as {pattern}: name a host with --host"
        );
    }
    let message = function.status.as_ref().and_then(|s| s.message.as_deref());
    format!(
        "no routes are accepted yet: {}",
        message.unwrap_or("the operator has not handled the function")
    )
}

/// Returns the name of a revision: that of the candidate or of the stable revision, or the given one.
///
/// # Errors
/// The function has no candidate, or no stable revision.
pub(crate) fn revision(function: &EdgeFunction, named: &str) -> Result<String, String> {
    let status = function.status.as_ref();
    match named {
        "candidate" => {
            let candidate = status.and_then(|status| status.candidate.as_ref());
            let name = candidate.map(|candidate| candidate.revision.clone());
            name.ok_or_else(|| {
                "the function has no candidate: no rollout is in progress".to_owned()
            })
        }
        "stable" => {
            let stable = status.and_then(|status| status.stable.as_ref());
            let name = stable.map(|stable| stable.revision.clone());
            name.ok_or_else(|| "the function has no stable revision yet".to_owned())
        }
        name => Ok(name.to_owned()),
    }
}

/// Builds the request. Given fields replace those that are set here.
pub(crate) fn build(
    target: &Target,
    method: Option<&Method>,
    headers: &[(HeaderName, HeaderValue)],
    content: Option<&Content>,
) -> http::Result<Request<Full<Bytes>>> {
    let agent = concat!("kubectl-selvage/", env!("CARGO_PKG_VERSION"));
    let default = if content.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    let mut fields = HeaderMap::new();
    fields.insert(HOST, HeaderValue::from_str(&target.host)?);
    fields.insert(ACCEPT, HeaderValue::from_static("*/*"));
    fields.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Some(media_type) = content.and_then(|content| content.media_type) {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    for (name, _) in headers {
        fields.remove(name);
    }
    for (name, value) in headers {
        fields.append(name, value.clone());
    }
    let body = content.map(|content| content.bytes.clone());
    let mut request = Request::new(Full::new(body.unwrap_or_default()));
    *request.method_mut() = method.cloned().unwrap_or(default);
    *request.uri_mut() = target.path.clone().into();
    *request.headers_mut() = fields;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::object;
    use serde_json::{Value, json};

    fn with(routes: Value) -> EdgeFunction {
        let mut object = object("ready");
        object["status"]["accepted"] = json!({ "generation": 7, "routes": routes });
        serde_json::from_value(object).unwrap()
    }

    fn selected(function: &EdgeFunction, host: Option<&str>, path: Option<&str>) -> String {
        match target(function, host, path) {
            Ok(target) => format!("{}{}", target.host, target.path),
            Err(why) => why,
        }
    }

    #[test]
    fn the_first_route_that_fits_has_host_and_path() {
        let function = with(json!([
            { "hosts": ["*.shop.example"] },
            { "hosts": ["*.b.example", "b.example"], "paths": [{ "value": "/cart" }] },
            { "hosts": ["c.example"], "paths": [{ "type": "Exact", "value": "/pay" }] },
        ]));
        for (host, path, expected) in [
            (None, None, "b.example/cart"),
            (None, Some("/cart/1?x=1"), "b.example/cart/1?x=1"),
            (None, Some("/pay"), "c.example/pay"),
            (None, Some("/cartoon"), "b.example/cartoon"),
            (Some("a.shop.example"), None, "a.shop.example/"),
            (Some("c.example"), None, "c.example/pay"),
            (Some("a.b.example"), None, "a.b.example/cart"),
            (Some("other.example"), Some("/pay"), "other.example/pay"),
        ] {
            assert_eq!(selected(&function, host, path), expected);
        }
        assert!(selected(&function, None, Some("cart")).starts_with("cart is not a path"));
        assert!(selected(&function, None, Some("/a b")).starts_with("/a b is not a path"));
    }

    #[test]
    fn without_a_host_the_reason_is_named() {
        let patterns = with(json!([{ "hosts": ["*.shop.example"] }]));
        assert_eq!(
            selected(&patterns, None, None),
            "the routes have patterns only, such as *.shop.example: name a host with --host"
        );
        let none = with(json!([]));
        assert!(selected(&none, None, None).starts_with("no routes are accepted yet: "));
        assert_eq!(selected(&none, Some("a.example"), None), "a.example/");
    }

    #[test]
    fn a_revision_is_named_by_its_part_in_the_rollout() {
        let of =
            |fixture: &str| -> EdgeFunction { serde_json::from_value(object(fixture)).unwrap() };
        let stepping = of("stepping");
        let status = stepping.status.clone().unwrap();
        let (stable, candidate) = (status.stable.unwrap(), status.candidate.unwrap());
        assert_eq!(revision(&stepping, "stable"), Ok(stable.revision));
        assert_eq!(revision(&stepping, "candidate"), Ok(candidate.revision));
        assert_eq!(
            revision(&stepping, "checkout-1"),
            Ok("checkout-1".to_owned())
        );
        let none = revision(&of("ready"), "candidate").unwrap_err();
        assert!(none.starts_with("the function has no candidate"), "{none}");
    }

    #[test]
    fn given_fields_replace_defaults() {
        let target = Target {
            host: "a.example".to_owned(),
            path: "/x?y=1".parse().unwrap(),
        };
        let get = build(&target, None, &[], None).unwrap();
        assert_eq!(
            (get.method(), get.uri().to_string()),
            (&Method::GET, "/x?y=1".to_owned())
        );
        assert_eq!(get.headers()[HOST], "a.example");
        let content = Content {
            bytes: "a=1".into(),
            media_type: Some("application/x-www-form-urlencoded"),
        };
        let field = |name: HeaderName, value| (name, HeaderValue::from_static(value));
        let fields = [
            field(CONTENT_TYPE, "application/json"),
            field(ACCEPT, "text/html"),
            field(ACCEPT, "text/plain"),
        ];
        let post = build(&target, None, &fields, Some(&content)).unwrap();
        assert_eq!(post.method(), Method::POST);
        assert_eq!(post.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(post.headers().get_all(ACCEPT).iter().count(), 2);
        let put = build(&target, Some(&Method::PUT), &[], Some(&content)).unwrap();
        assert_eq!(put.method(), Method::PUT);
        assert_eq!(
            put.headers()[CONTENT_TYPE],
            "application/x-www-form-urlencoded"
        );
    }
}
