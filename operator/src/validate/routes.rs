//! Routes: the rules within one function, and conflicts between two functions of a namespace.

use std::collections::BTreeSet;

use crds::EdgeFunction;
use crds::conditions::reasons;
use crds::function::{HeaderMatchType, PathMatchType, Route};
use node_api::egress::{FUNCTION_DOMAIN, is_function_domain};
use node_api::header_pattern;

use super::Violation;

/// Maximum number of Secrets with certificates that one function names. Their pairs are in one message to the nodes.
const MAX_CERTIFICATES: usize = 16;

/// Checks the routes of one function by themselves.
pub(super) fn check(routes: &[Route], violations: &mut Vec<Violation>) {
    if routes.is_empty() {
        violations.push(Violation::new(
            reasons::INVALID_ROUTE,
            "spec.routes",
            "at least one route is needed",
        ));
    }
    let certificates = tls_secrets(routes).len();
    if certificates > MAX_CERTIFICATES {
        let message = format!(
            "{certificates} Secrets with certificates are named, and a function has at most {MAX_CERTIFICATES}"
        );
        violations.push(Violation::new(
            reasons::INVALID_ROUTE,
            "spec.routes[].tls.secretRef",
            message,
        ));
    }
    for (index, route) in routes.iter().enumerate() {
        let at = format!("spec.routes[{index}]");
        check_hosts(route, &at, violations);
        for header in &route.headers {
            if header.match_type == Some(HeaderMatchType::Unknown) {
                let message = format!("{:?}: its type is not known to this version", header.name);
                violations.push(Violation::new(
                    reasons::NOT_YET_SUPPORTED,
                    format!("{at}.headers"),
                    message,
                ));
            }
            if header.match_type == Some(HeaderMatchType::RegularExpression)
                && let Err(error) = header_pattern(header.value.as_deref().unwrap_or_default())
            {
                let message = format!(
                    "{:?}: nodes cannot compile the regular expression: {error}",
                    header.name
                );
                violations.push(Violation::new(
                    reasons::INVALID_ROUTE,
                    format!("{at}.headers"),
                    message,
                ));
            }
        }
        let odd = route
            .paths
            .iter()
            .find(|path| path.match_type == Some(PathMatchType::Unknown));
        if let Some(path) = odd {
            let message = format!("{:?}: its type is not known to this version", path.value);
            violations.push(Violation::new(
                reasons::NOT_YET_SUPPORTED,
                format!("{at}.paths"),
                message,
            ));
        }
        let exact = route
            .paths
            .iter()
            .any(|path| path.match_type == Some(PathMatchType::Exact));
        if exact && route.rewrite.is_some() {
            let message = "a rewrite replaces a prefix, and an exact path has no prefix";
            violations.push(Violation::new(
                reasons::INVALID_ROUTE,
                format!("{at}.rewrite"),
                message,
            ));
        }
    }
}

/// Names of the Secrets with certificates for the hosts of these routes.
#[must_use]
pub fn tls_secrets(routes: &[Route]) -> BTreeSet<&str> {
    let tls = routes.iter().filter_map(|route| route.tls.as_ref());
    tls.map(|tls| tls.secret_ref.name.as_str()).collect()
}

/// Checks the hosts of the route at the path `at`.
fn check_hosts(route: &Route, at: &str, violations: &mut Vec<Violation>) {
    if route.hosts.iter().any(|host| host == "*") {
        let message = "\"*\": a catch-all host needs a policy of the cluster admin, which this version does not support";
        violations.push(Violation::new(
            reasons::POLICY_VIOLATION,
            format!("{at}.hosts"),
            message,
        ));
    }
    let reserved = route.hosts.iter().find(|host| {
        let name = host.strip_prefix("*.").unwrap_or(host);
        is_function_domain(&name.to_ascii_lowercase())
    });
    if let Some(host) = reserved {
        let message = format!(
            "{host:?}: names below {FUNCTION_DOMAIN} exist only between functions, and no client reaches one; write another host"
        );
        violations.push(Violation::new(
            reasons::INVALID_ROUTE,
            format!("{at}.hosts"),
            message,
        ));
    }
}

/// One combination of host, path, methods and headers that a request can match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Match<'a> {
    host: &'a str,
    exact: bool,
    path: &'a str,
    methods: BTreeSet<&'a str>,
    headers: BTreeSet<(String, u8, &'a str)>,
}

fn matches(routes: &[Route]) -> BTreeSet<Match<'_>> {
    let mut all = BTreeSet::new();
    for route in routes {
        let headers: BTreeSet<_> = route
            .headers
            .iter()
            .map(|header| {
                let kind = header.match_type.unwrap_or(HeaderMatchType::Exact) as u8;
                (
                    header.name.to_ascii_lowercase(),
                    kind,
                    header.value.as_deref().unwrap_or_default(),
                )
            })
            .collect();
        let methods: BTreeSet<&str> = route.methods.iter().map(String::as_str).collect();
        let paths: Vec<(bool, &str)> = if route.paths.is_empty() {
            vec![(false, "/")]
        } else {
            route
                .paths
                .iter()
                .map(|path| {
                    (
                        path.match_type == Some(PathMatchType::Exact),
                        path.value.as_str(),
                    )
                })
                .collect()
        };
        for host in &route.hosts {
            for (exact, path) in &paths {
                // Prefixes match whole path segments, so `/a` and `/a/` are the same prefix.
                let path = if *exact {
                    path
                } else {
                    path.trim_end_matches('/')
                };
                all.insert(Match {
                    host,
                    exact: *exact,
                    path,
                    methods: methods.clone(),
                    headers: headers.clone(),
                });
            }
        }
    }
    all
}

/// Host and path of every match. Functions whose matches conflict have at least one of these in common.
#[must_use]
pub fn places(routes: &[Route]) -> BTreeSet<String> {
    let all = matches(routes).into_iter();
    all.map(|one| {
        let kind = if one.exact { "=" } else { "" };
        format!("{}{kind}{}", one.host, one.path)
    })
    .collect()
}

/// Finds a match that one of these older functions of the namespace has too, by the routes that it serves.
pub fn route_conflict<'a>(
    mine: &[Route],
    older: impl IntoIterator<Item = &'a EdgeFunction>,
) -> Option<Violation> {
    older.into_iter().find_map(|other| {
        let status = other.status.as_ref();
        let routes = status
            .and_then(|status| status.accepted.as_ref())
            .map_or(&other.spec.routes, |accepted| &accepted.routes);
        let same = conflict(mine, routes)?;
        let name = other.metadata.name.as_deref().unwrap_or_default();
        let message = format!(
            "{same:?} is answered by the older function {name:?} with the same methods and headers"
        );
        Some(Violation::new(
            reasons::ROUTE_CONFLICT,
            "spec.routes",
            message,
        ))
    })
}

/// Describes the first match that two functions of one namespace both claim.
fn conflict(mine: &[Route], other: &[Route]) -> Option<String> {
    let other = matches(other);
    matches(mine)
        .into_iter()
        .find(|candidate| other.contains(candidate))
        .map(|same| {
            let path = if same.path.is_empty() { "/" } else { same.path };
            format!("{}{path}", same.host)
        })
}

#[cfg(test)]
mod tests {
    use crds::function::{HeaderMatch, PathMatch};

    use super::*;

    fn route(host: &str, path: &str) -> Route {
        let paths = vec![PathMatch {
            match_type: None,
            value: path.into(),
        }];
        Route {
            hosts: vec![host.into()],
            paths,
            ..Route::default()
        }
    }

    #[test]
    fn only_the_very_same_match_is_a_conflict() {
        let mine = [route("a.example", "/x")];
        assert_eq!(
            conflict(&mine, &[route("a.example", "/x/")]).as_deref(),
            Some("a.example/x")
        );
        assert_eq!(conflict(&mine, &[route("a.example", "/x/y")]), None);
        assert_eq!(conflict(&mine, &[route("b.example", "/x")]), None);
        let mut get = route("a.example", "/x");
        get.methods = vec!["GET".into()];
        assert_eq!(conflict(&mine, &[get]), None);
        let header = |name: &str| HeaderMatch {
            name: name.into(),
            value: Some("v".into()),
            ..HeaderMatch::default()
        };
        let (mut upper, mut lower) = (route("a.example", "/"), route("a.example", "/"));
        upper.headers = vec![header("X-Tenant")];
        lower.headers = vec![header("x-tenant")];
        assert!(conflict(&[upper], &[lower]).is_some());
    }

    #[test]
    fn an_expression_that_nodes_cannot_compile_is_a_violation() {
        let mut routes = [route("a.example", "/")];
        let found = |routes: &[Route]| {
            let mut violations = Vec::new();
            check(routes, &mut violations);
            violations
        };
        for (pattern, refused) in [("[0-9]+", false), ("[0-9", true), ("a)|(b", true)] {
            routes[0].headers = vec![HeaderMatch {
                name: "x-n".into(),
                match_type: Some(HeaderMatchType::RegularExpression),
                value: Some(pattern.into()),
            }];
            let violations = found(&routes);
            assert_eq!(violations.len(), usize::from(refused), "{violations:?}");
        }
    }

    #[test]
    fn a_function_names_at_most_sixteen_certificates() {
        for (count, refused) in [(16, false), (17, true)] {
            let with_certificate = |number: usize| Route {
                tls: Some(crds::function::RouteTls {
                    secret_ref: crds::LocalReference {
                        name: format!("tls-{number}"),
                    },
                }),
                ..route("a.example", "/")
            };
            // a Secret that several routes name counts once
            let routes: Vec<Route> = (0..count).chain(0..count).map(with_certificate).collect();
            let mut violations = Vec::new();
            check(&routes, &mut violations);
            assert_eq!(violations.len(), usize::from(refused), "{count}");
        }
    }

    /// HH-19: clients cannot reach a function by the name that functions use.
    #[test]
    fn a_host_in_the_domain_of_functions_is_a_violation() {
        for (host, refused) in [
            ("prices.shop.selvage.internal", true),
            ("*.selvage.internal", true),
            ("selvage.internal", true),
            ("*.internal", false),
            ("notselvage.internal", false),
        ] {
            let mut violations = Vec::new();
            check(&[route(host, "/")], &mut violations);
            assert_eq!(violations.len(), usize::from(refused), "{host}");
        }
    }

    #[test]
    fn conflicting_routes_share_a_place() {
        let mine = [route("a.example", "/x")];
        assert_eq!(places(&mine), places(&[route("a.example", "/x/")]));
        let other = [route("a.example", "/y"), route("b.example", "/x")];
        assert!(places(&mine).is_disjoint(&places(&other)));
        let mut exact = route("a.example", "/x");
        exact.paths[0].match_type = Some(PathMatchType::Exact);
        assert!(places(&mine).is_disjoint(&places(&[exact])));
    }

    #[test]
    fn a_route_without_a_path_matches_the_root() {
        let bare = Route {
            hosts: vec!["a.example".into()],
            ..Route::default()
        };
        assert_eq!(
            conflict(&[bare], &[route("a.example", "/")]).as_deref(),
            Some("a.example/")
        );
    }
}
