//! Builders of metric families, metrics and labels.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Returns a family without metrics.
pub(crate) fn family(name: &str, help: &str, kind: MetricType) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family
}

/// Returns a gauge without labels.
pub(crate) fn gauge_family(name: &str, help: &str, value: f64) -> MetricFamily {
    labelled_gauges(name, help, &[(&[], value)])
}

/// Returns a gauge with one metric for each set of labels.
pub(crate) fn labelled_gauges(
    name: &str,
    help: &str,
    metrics: &[(Labels<'_>, f64)],
) -> MetricFamily {
    let mut family = family(name, help, MetricType::GAUGE);
    for (labels, value) in metrics {
        add(&mut family, &with(&[], labels), gauge(*value));
    }
    family
}

/// Returns a counter without labels.
pub(crate) fn counter_family(name: &str, help: &str, value: u64) -> MetricFamily {
    let mut family = family(name, help, MetricType::COUNTER);
    add(&mut family, &[], counter(value));
    family
}

/// Adds a metric with labels to a family.
pub(crate) fn add(family: &mut MetricFamily, labels: &[LabelPair], mut metric: Metric) {
    metric.set_label(labels.to_vec());
    family.mut_metric().push(metric);
}

/// Returns the labels of `base` and more.
pub(crate) fn with(base: &[LabelPair], more: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    base.iter().cloned().chain(more.iter().map(pair)).collect()
}

pub(crate) fn counter(value: u64) -> Metric {
    counter_of(value as f64)
}

pub(crate) fn counter_of(value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    metric
}

pub(crate) fn gauge(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
}

/// Builds a histogram. Buckets of the format are cumulative, and the +Inf bucket is the sample count.
pub(crate) fn histogram(bounds: impl Iterator<Item = f64>, counts: &[u64], sum: f64) -> Metric {
    let mut total = 0;
    let mut buckets = Vec::new();
    for (bound, count) in bounds.zip(counts) {
        total += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(total);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}
