//! What is wrong with a function although each of its values has the right form. The messages are those of the operator, and
//! of the definition of the kind. Pure.

use std::collections::BTreeSet;

use node_api::{header_pattern, store_label};

use super::spec::{HeaderMatchType, PathMatchType, Route, Spec};

/// Collects violations: the field and what is wrong with it.
pub(super) struct Violations(Vec<String>);

impl Violations {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn add(&mut self, field: impl AsRef<str>, message: impl AsRef<str>) {
        let (field, message) = (field.as_ref(), message.as_ref());
        self.0.push(format!("{field}: {message}"));
    }

    /// Returns all violations as one sentence, or `None` if there are none.
    pub(super) fn sentence(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

/// Checks everything but references to other objects.
pub(super) fn check(spec: &Spec, violations: &mut Violations) {
    if spec.routes.is_empty() {
        violations.add("spec.routes", "at least one route is needed");
    }
    for (index, route) in spec.routes.iter().enumerate() {
        check_route(&format!("spec.routes[{index}]"), route, violations);
    }
    if spec.source.image.is_some() == spec.source.inline.is_some() {
        violations.add("spec.source", "write exactly one of image and inline");
    }
    let names = spec.env.iter().map(|variable| &variable.name.0);
    unique("spec.env", "name", names, violations);
    for (index, entry) in spec.config.iter().enumerate() {
        if entry.values.is_some() == entry.config_map_ref.is_some() {
            let message = "write exactly one of values and configMapRef in an entry; several entries are merged";
            violations.add(format!("spec.config[{index}]"), message);
        }
    }
    check_stores(spec, violations);
}

fn check_route(at: &str, route: &Route, violations: &mut Violations) {
    if route.hosts.is_empty() {
        violations.add(format!("{at}.hosts"), "at least one host is needed");
    }
    if route.hosts.iter().any(|host| host.0 == "*") {
        let message = "\"*\": a catch-all host needs a policy of the cluster admin, which this version does not support";
        violations.add(format!("{at}.hosts"), message);
    }
    for header in &route.headers {
        let present = header.match_type == HeaderMatchType::Present;
        if present == header.value.is_some() {
            let message = "write value, except for type Present, which has none";
            violations.add(format!("{at}.headers[{}]", header.name.0), message);
        }
        if header.match_type == HeaderMatchType::RegularExpression
            && let Err(error) = header_pattern(header.value.as_ref().map_or("", |value| &value.0))
        {
            let message = format!(
                "{:?}: nodes cannot compile the regular expression: {error}",
                header.name.0
            );
            violations.add(format!("{at}.headers"), message);
        }
    }
    let exact = |path: &super::spec::PathMatch| path.match_type == PathMatchType::Exact;
    if route.rewrite.is_some() && route.paths.iter().any(exact) {
        let message = "a rewrite replaces a prefix, and an exact path has no prefix";
        violations.add(format!("{at}.rewrite"), message);
    }
}

fn check_stores(spec: &Spec, violations: &mut Violations) {
    let labels = spec.key_value.iter().map(|store| &store.label.0);
    unique("spec.keyValue", "label", labels, violations);
    for store in &spec.key_value {
        let field = store_label::field(&store.label.0);
        match (&store.store, &store.redis) {
            (Some(kind), None) if kind.0 == "memory" => {}
            (Some(_), None) => violations.add(
                format!("{field}.store"),
                "this kind of key-value store is not yet supported by this version",
            ),
            (None, Some(_)) => {}
            (Some(_), Some(_)) | (None, None) => {
                violations.add(field, "write exactly one of store and redis");
            }
        }
    }
}

/// The API server refuses lists with two entries of one name.
fn unique<'a>(
    field: &str,
    key: &str,
    names: impl Iterator<Item = &'a String>,
    violations: &mut Violations,
) {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            let message = format!("{name:?}: another entry has this {key}; write each {key} once");
            violations.add(format!("{field}[{index}].{key}"), message);
        }
    }
}
