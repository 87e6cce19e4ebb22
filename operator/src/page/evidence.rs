//! Evidence against a candidate, as numbers. The status has them as text.

use crds::rollout::{Evidence, MetricEvidence, RequestCounts};
use crds::{EdgeFunction, Percentage, RolloutPolicy};
use serde::Serialize;

/// Evidence at which a candidate is rolled back unless `falseRollbacks` is set.
const LIMIT: f64 = 100.0;

/// Measurements of both revisions.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EvidenceView {
    /// Combined evidence against the candidate: the weighted mean over the metrics.
    combined: Option<f64>,
    /// Evidence at which the candidate is rolled back.
    limit: f64,
    evaluations: u64,
    /// Time of the last evaluation, in milliseconds since 1970.
    evaluated_at: Option<i64>,
    /// Source of the counts.
    source: Option<&'static str>,
    /// Share of stable's requests that come from nodes with fresh counts, for example `100%`.
    coverage: Option<String>,
    candidate: Option<RequestCounts>,
    stable: Option<RequestCounts>,
    metrics: Vec<MetricView>,
    progress: Option<Progress>,
    dominant_node: Option<String>,
    decisive: Option<DecisiveView>,
}

/// Evidence and observed rates of one metric, such as `errors` or `latency/300ms`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricView {
    name: String,
    evidence: Option<f64>,
    /// Tolerated increase as the operator writes it, for example `+0.5 pp`.
    tolerance: Option<String>,
    /// The same as a share of requests (0 to 1).
    tolerated_increase: Option<f64>,
    /// Rate of the candidate, a share of requests (0 to 1).
    candidate: Option<f64>,
    /// Rate of stable.
    stable: Option<f64>,
}

/// Progress towards the next step.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    /// 0 to 1.
    share: f64,
    limiting_metric: Option<String>,
    remaining_requests: Option<u64>,
}

/// The evaluation that caused a rollback.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct DecisiveView {
    metric: String,
    evaluation: Option<u64>,
    evidence: Option<f64>,
    /// Events and requests, for example `11 of 11`.
    candidate: Option<String>,
    stable: Option<String>,
}

impl EvidenceView {
    pub(super) fn of(evidence: &Evidence, limit: f64) -> Self {
        let pass = evidence.pass.as_ref();
        Self {
            combined: combined(evidence),
            limit,
            evaluations: evidence.evaluations.unwrap_or(0),
            evaluated_at: evidence
                .evaluated_at
                .as_ref()
                .map(|at| at.0.as_millisecond()),
            source: evidence.source.map(crds::rollout::EvidenceSource::as_str),
            coverage: evidence.coverage.clone(),
            candidate: evidence.candidate.clone(),
            stable: evidence.stable.clone(),
            metrics: evidence.metrics.iter().map(metric).collect(),
            progress: pass.and_then(|pass| {
                Some(Progress {
                    share: number(pass.progress.as_ref())?,
                    limiting_metric: pass.limiting_metric.clone(),
                    remaining_requests: pass.remaining_requests,
                })
            }),
            dominant_node: evidence.dominant_node.clone(),
            decisive: evidence.decisive.as_ref().map(|decisive| DecisiveView {
                metric: decisive.metric.clone(),
                evaluation: decisive.evaluation,
                evidence: number(decisive.e.as_ref()),
                candidate: decisive.candidate.clone(),
                stable: decisive.stable.clone(),
            }),
        }
    }
}

fn metric(metric: &MetricEvidence) -> MetricView {
    let rates = rates(metric);
    MetricView {
        name: metric.name.clone(),
        evidence: number(metric.e.as_ref()),
        tolerance: metric.tolerance.clone(),
        tolerated_increase: metric.tolerance.as_deref().and_then(points),
        candidate: rates.map(|(candidate, _)| candidate),
        stable: rates.map(|(_, stable)| stable),
    }
}

/// Combined evidence against the candidate. `None` without metrics.
pub(super) fn combined(evidence: &Evidence) -> Option<f64> {
    let terms: Vec<f64> = evidence
        .metrics
        .iter()
        .filter_map(|metric| Some(number(metric.e.as_ref())? * number(metric.share.as_ref())?))
        .collect();
    (!terms.is_empty()).then(|| terms.iter().sum())
}

/// Rates of candidate and stable. `None` until both had requests.
pub(super) fn rates(metric: &MetricEvidence) -> Option<(f64, f64)> {
    let observed = metric.observed.as_ref()?;
    Some((
        number(observed.candidate.as_ref())?,
        number(observed.stable.as_ref())?,
    ))
}

/// Evidence at which a candidate is rolled back: 1 / `falseRollbacks` of the function or of the policy that it names.
pub(super) fn limit(function: &EdgeFunction, policy: Option<&RolloutPolicy>) -> f64 {
    let inline = function.spec.rollout.as_ref();
    let body = match inline {
        Some(rollout) if rollout.policy_ref.is_none() => Some(&rollout.body),
        _ => policy.map(|policy| &policy.spec.body),
    };
    let analysis = body.and_then(|body| body.analysis.as_ref());
    let share = analysis.and_then(|analysis| analysis.false_rollbacks.as_ref());
    let share = share.and_then(|share| share.parse::<Percentage>().ok());
    match share.map(Percentage::as_fraction) {
        Some(share) if share > 0.0 => 1.0 / share,
        _ => LIMIT,
    }
}

fn number(text: Option<&String>) -> Option<f64> {
    let number = text?.parse::<f64>().ok()?;
    number.is_finite().then_some(number)
}

/// Reads percentage points such as `+0.5 pp` as a share.
fn points(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches('+').strip_suffix("pp")?;
    let points = digits.trim().parse::<f64>().ok()?;
    points.is_finite().then_some(points / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_points_are_shares() {
        assert_eq!(points("+0.5 pp"), Some(0.005));
        assert_eq!(points("+12 pp"), Some(0.12));
        assert_eq!(points("much"), None);
        assert_eq!(points("+inf pp"), None);
    }

    #[test]
    fn the_limit_is_that_of_the_function_or_of_its_policy() {
        let function = |rollout: serde_json::Value| -> EdgeFunction {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction",
                "metadata": { "name": "checkout", "namespace": "shop" },
                "spec": {
                    "source": { "image": "registry.example/shop/checkout:1" },
                    "routes": [{ "hosts": ["checkout.example"] }],
                    "rollout": rollout,
                },
            }))
            .unwrap()
        };
        let policy: RolloutPolicy = serde_json::from_value(serde_json::json!({
            "apiVersion": "selvage.dev/v1alpha1", "kind": "RolloutPolicy",
            "metadata": { "name": "careful", "namespace": "shop" },
            "spec": { "analysis": { "falseRollbacks": "5%" } },
        }))
        .unwrap();
        let near = |limit: f64, expected: f64| (limit - expected).abs() < 1e-9;
        let named = function(serde_json::json!({ "policyRef": { "name": "careful" } }));
        assert!(near(limit(&named, Some(&policy)), 20.0));
        assert!(near(limit(&named, None), 100.0));
        let inline = function(serde_json::json!({ "analysis": { "falseRollbacks": "0.1%" } }));
        assert!(near(limit(&inline, Some(&policy)), 1000.0));
    }
}
