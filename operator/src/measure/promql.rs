//! Builds PromQL selectors from names. User input never becomes PromQL: names are escaped and matched literally.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use super::SampleQuery;
use super::matchers::{Matchers, quoted};

/// A vector selector under construction.
pub(super) struct Selector {
    text: String,
    first: bool,
}

impl Selector {
    /// Selects the series of a metric of the targets that `targets` selects.
    pub(super) fn new(metric: &str, targets: &Matchers) -> Self {
        let targets = targets.to_string();
        Self {
            first: targets.is_empty(),
            text: format!("{metric}{{{targets}"),
        }
    }

    /// Adds a matcher: `label` is one of `values`, each taken literally.
    pub(super) fn one_of<'a>(
        mut self,
        label: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let values: BTreeSet<String> = values.into_iter().map(literal).collect();
        let pattern = values.into_iter().collect::<Vec<_>>().join("|");
        let comma = if self.first { "" } else { "," };
        self.first = false;
        // A string in double quotes has its own escapes.
        let _ = write!(self.text, "{comma}{label}=~\"{}\"", quoted(&pattern));
        self
    }

    /// Finishes the selector: raw samples of the last `window`.
    pub(super) fn range(self, window: Duration) -> String {
        format!("{}}}[{}ms]", self.text, window.as_millis())
    }
}

/// Builds the selector of everything that `wanted` needs of one metric.
pub(super) fn of_functions(
    metric: &str,
    targets: &Matchers,
    wanted: &[SampleQuery],
    window: Duration,
) -> String {
    let namespaces = wanted.iter().map(|one| &*one.function.namespace);
    let names = wanted.iter().map(|one| &*one.function.name);
    let revisions = wanted.iter().flat_map(|one| &one.revisions);
    let populations = wanted.iter().map(|one| one.population.as_str());
    Selector::new(metric, targets)
        .one_of("function_namespace", namespaces)
        .one_of("function", names)
        .one_of("revision", revisions.map(String::as_str))
        .one_of("population", populations)
        .range(window)
}

/// Escapes everything but letters, digits, `-` and `_` for a regular expression (RE2).
fn literal(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '-' && c != '_' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_api::{FunctionKey, Latency};

    fn wanted(function: &str, revisions: usize) -> SampleQuery {
        SampleQuery {
            function: FunctionKey::new("shop", function),
            revisions: (0..revisions).map(|n| format!("{function}-{n}")).collect(),
            latency: Latency::Head,
            population: "live".to_owned(),
        }
    }

    #[test]
    fn one_selector_covers_several_functions() {
        let both = [wanted("cart", 1), wanted("pay.v2", 2)];
        let (metric, window) = ("selvage_requests_total", Duration::from_secs(60));
        assert_eq!(
            of_functions(metric, &Matchers::default(), &both, window),
            "selvage_requests_total{function_namespace=~\"shop\",function=~\"cart|pay\\\\.v2\",\
             revision=~\"cart-0|pay\\\\.v2-0|pay\\\\.v2-1\",population=~\"live\"}[60000ms]"
        );
        let targets = Matchers::of_release("edge");
        assert!(of_functions(metric, &targets, &both, window).starts_with(
            "selvage_requests_total{namespace=\"edge\",pod=~\"selvage-node-shim-.+\",function_namespace=~"
        ));
    }

    #[test]
    fn a_malicious_name_stays_inside_its_string() {
        let hostile = "\"} or vector(1) or {\n";
        let text = Selector::new("m", &Matchers::default())
            .one_of("l", [hostile])
            .range(Duration::from_secs(1));
        assert_eq!(
            text,
            "m{l=~\"\\\\\\\"\\\\}\\\\ or\\\\ vector\\\\(1\\\\)\\\\ or\\\\ \\\\{\\\\\\n\"}[1000ms]"
        );
    }
}
