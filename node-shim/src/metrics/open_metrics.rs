//! The OpenMetrics text format, which has exemplars. Sample names and label values are those of the text format of Prometheus,
//! so a scrape in either format continues the same series.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use crate::counters::{BucketExemplars, Exemplar};

/// Media type of the format.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The histogram that has exemplars, for live traffic.
const WITH_EXEMPLARS: &str = "selvage_response_head_seconds";

/// Exemplars by namespace, function and revision.
pub(super) type ExemplarTable = BTreeMap<[String; 3], Box<BucketExemplars>>;

/// Returns the page of metrics with their exemplars.
pub(super) fn page(families: &[MetricFamily], exemplars: &ExemplarTable) -> String {
    let mut page = String::new();
    for family in families
        .iter()
        .filter(|family| !family.get_metric().is_empty())
    {
        // writing to a text cannot fail
        let _ = write_family(&mut page, family, exemplars);
    }
    page.push_str("# EOF\n");
    page
}

/// Whether a client prefers OpenMetrics to the text format, as the value of its `accept` says.
pub(super) fn is_preferred(accept: &str) -> bool {
    let (mut open, mut text) = (0.0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut is_known) = (1.0, true);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => is_known = value.trim().trim_matches('"') != "0.0.1",
                _ => {}
            }
        }
        match kind.as_str() {
            "application/openmetrics-text" if is_known => open = f64::max(open, quality),
            "text/plain" => text = f64::max(text, quality),
            _ => {}
        }
    }
    open > text
}

fn write_family(
    page: &mut String,
    family: &MetricFamily,
    exemplars: &ExemplarTable,
) -> std::fmt::Result {
    let name = family.name();
    // the format names a counter without the suffix of its samples
    let (metric, kind) = match family.get_field_type() {
        MetricType::COUNTER => match name.strip_suffix("_total") {
            Some(metric) => (metric, "counter"),
            None => (name, "unknown"),
        },
        MetricType::HISTOGRAM => (name, "histogram"),
        MetricType::GAUGE => (name, "gauge"),
        MetricType::SUMMARY | MetricType::UNTYPED => (name, "unknown"),
    };
    writeln!(page, "# HELP {metric} {}", escaped(family.help()))?;
    writeln!(page, "# TYPE {metric} {kind}")?;
    for one in family.get_metric() {
        match family.get_field_type() {
            MetricType::HISTOGRAM => {
                let found = (name == WITH_EXEMPLARS).then(|| key(one)).flatten();
                let buckets = found.and_then(|key| exemplars.get(&key));
                write_histogram(page, name, one, buckets.map(|held| &**held))?;
            }
            MetricType::COUNTER => sample(page, name, one, None, one.get_counter().get_value())?,
            _ => sample(page, name, one, None, one.get_gauge().get_value())?,
        }
        if !matches!(family.get_field_type(), MetricType::HISTOGRAM) {
            page.push('\n');
        }
    }
    Ok(())
}

fn write_histogram(
    page: &mut String,
    name: &str,
    metric: &Metric,
    exemplars: Option<&BucketExemplars>,
) -> std::fmt::Result {
    let histogram = metric.get_histogram();
    let total = histogram.get_sample_count();
    let buckets = histogram.get_bucket().iter();
    let buckets =
        buckets.map(|bucket| (bucket.upper_bound().to_string(), bucket.cumulative_count()));
    let bucket_name = format!("{name}_bucket");
    for (at, (bound, count)) in buckets.chain([("+Inf".to_owned(), total)]).enumerate() {
        sample(page, &bucket_name, metric, Some(&bound), count)?;
        if let Some(exemplar) = exemplars.and_then(|all| all.get(at).copied().flatten()) {
            write_exemplar(page, &exemplar)?;
        }
        page.push('\n');
    }
    sample(page, &format!("{name}_count"), metric, None, total)?;
    page.push('\n');
    sample(
        page,
        &format!("{name}_sum"),
        metric,
        None,
        histogram.get_sample_sum(),
    )?;
    page.push('\n');
    Ok(())
}

fn sample(
    page: &mut String,
    name: &str,
    metric: &Metric,
    bound: Option<&str>,
    value: impl Display,
) -> std::fmt::Result {
    page.push_str(name);
    let labels = metric
        .get_label()
        .iter()
        .map(|label| (label.name(), label.value()));
    let labels = labels.chain(bound.map(|bound| ("le", bound)));
    let mut separator = '{';
    for (label, value) in labels {
        write!(page, "{separator}{label}=\"{}\"", escaped(value))?;
        separator = ',';
    }
    if separator == ',' {
        page.push('}');
    }
    write!(page, " {value}")
}

fn write_exemplar(page: &mut String, exemplar: &Exemplar) -> std::fmt::Result {
    let Exemplar {
        trace_id,
        seconds,
        at_ms,
    } = exemplar;
    let (second, rest) = (at_ms / 1_000, at_ms % 1_000);
    write!(
        page,
        " # {{trace_id=\"{trace_id:032x}\"}} {seconds} {second}.{rest:03}"
    )
}

/// Namespace, function and revision of a series of live traffic.
fn key(metric: &Metric) -> Option<[String; 3]> {
    let value = |name: &str| {
        let labels: &[LabelPair] = metric.get_label();
        labels
            .iter()
            .find(|label| label.name() == name)
            .map(|label| label.value().to_owned())
    };
    if value("population").as_deref() != Some("live") {
        return None;
    }
    Some([
        value("function_namespace")?,
        value("function")?,
        value("revision")?,
    ])
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\")
        .replace('\n', r"\n")
        .replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::super::family::{add, counter, family, gauge, histogram, with};
    use super::*;
    use node_api::{LATENCY_BOUNDS, LATENCY_BUCKETS};

    #[test]
    fn samples_are_those_of_the_text_format_with_an_exemplar_of_each_bucket() {
        let labels = with(
            &[],
            &[
                ("function_namespace", "shop"),
                ("function", "a"),
                ("revision", "a-1"),
                ("population", "live"),
            ],
        );
        let mut head = family(WITH_EXEMPLARS, "Time.", MetricType::HISTOGRAM);
        let counts = [1; LATENCY_BUCKETS];
        add(
            &mut head,
            &labels,
            histogram(LATENCY_BOUNDS.iter().copied(), &counts, 2.5),
        );
        let mut requests = family("selvage_requests_total", "Number.", MetricType::COUNTER);
        add(&mut requests, &with(&[], &[("a", "q\"\\\n")]), counter(7));
        let mut open = family("selvage_instances", "Now.", MetricType::GAUGE);
        add(&mut open, &[], gauge(0.5));
        let mut buckets = [None; LATENCY_BUCKETS];
        let exemplar = |seconds| Exemplar {
            trace_id: 0xabc,
            seconds,
            at_ms: 1_700_000_000_005,
        };
        buckets[1] = Some(exemplar(LATENCY_BOUNDS[1]));
        buckets[LATENCY_BUCKETS - 1] = Some(exemplar(99.0));
        let key = ["shop", "a", "a-1"].map(str::to_owned);
        let families = [head, requests, open];
        let page = page(&families, &[(key, Box::new(buckets))].into());

        let mut text = String::new();
        super::super::encode(families.to_vec(), &mut text);
        let samples = |page: &str| -> Vec<String> {
            let lines = page.lines().filter(|line| !line.starts_with('#'));
            let mut all: Vec<_> = lines
                .map(|line| line.split(" # ").next().unwrap_or_default().to_owned())
                .collect();
            all.sort();
            all
        };
        assert_eq!(samples(&page), samples(&text));
        let trace = format!("trace_id=\"{:032x}\"", 0xabc);
        let with_exemplar: Vec<_> = page.lines().filter(|line| line.contains(" # {")).collect();
        assert_eq!(
            with_exemplar,
            [
                format!(
                    "{WITH_EXEMPLARS}_bucket{{function_namespace=\"shop\",function=\"a\",revision=\"a-1\",population=\"live\",le=\"{0}\"}} 2 # {{{trace}}} {0} 1700000000.005",
                    LATENCY_BOUNDS[1]
                ),
                format!(
                    "{WITH_EXEMPLARS}_bucket{{function_namespace=\"shop\",function=\"a\",revision=\"a-1\",population=\"live\",le=\"+Inf\"}} {LATENCY_BUCKETS} # {{{trace}}} 99 1700000000.005"
                ),
            ]
        );
        assert!(page.contains(" counter\nselvage_requests_total{"));
        assert!(page.ends_with("\nselvage_instances 0.5\n# EOF\n"));
    }

    #[test]
    fn the_format_that_the_client_prefers_is_sent() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, open) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text; version=0.0.1", false),
            (
                "application/openmetrics-text;q=0.2, text/plain;q=0.3",
                false,
            ),
            ("text/plain", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(is_preferred(accept), open, "{accept}");
        }
    }
}
