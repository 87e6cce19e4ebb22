//! The metrics of the operator: names, explanations and labels.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Error, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts,
    Registry,
};

use super::function_gauge;

const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const ROLLOUT_SECONDS: &[f64] = &[
    10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 7200.0, 14_400.0, 86_400.0,
];

/// Creates metrics and adds them to a registry.
pub(crate) struct Registrar<'a>(pub(crate) &'a Registry);

impl Registrar<'_> {
    pub(crate) fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(name, help)?)
    }

    pub(crate) fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: &[f64],
    ) -> Result<HistogramVec, Error> {
        let opts = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        self.add(HistogramVec::new(opts, labels)?)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, Error> {
        self.add(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn add<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, Error> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

/// All families of the operator.
pub(super) struct Families {
    pub(super) functions: Vec<GaugeVec>,
    pub(super) rollouts: RolloutFamilies,
    pub(super) work: WorkFamilies,
}

/// Families about rollouts, over all functions.
pub(super) struct RolloutFamilies {
    pub(super) states: GaugeVec,
    pub(super) ended: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) rollback_seconds: HistogramVec,
    pub(super) evaluations: IntCounterVec,
    pub(super) actions: IntCounterVec,
}

/// Families about the work of the operator.
pub(super) struct WorkFamilies {
    pub(super) leading: IntGauge,
    pub(super) queue: IntGauge,
    pub(super) queue_all: IntCounterVec,
    pub(super) wait: CounterVec,
    pub(super) reconcile_seconds: HistogramVec,
    pub(super) reconcile_failures: IntCounterVec,
    pub(super) status_writes: IntCounterVec,
    pub(super) events_dropped: IntCounterVec,
    pub(super) resolves: IntCounterVec,
    pub(super) unreadable: GaugeVec,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Result<Self, Error> {
        let registrar = Registrar(registry);
        Ok(Self {
            functions: function_gauge::register(&registrar)?,
            rollouts: RolloutFamilies::register(&registrar)?,
            work: WorkFamilies::register(&registrar)?,
        })
    }
}

impl RolloutFamilies {
    fn register(registrar: &Registrar<'_>) -> Result<Self, Error> {
        Ok(Self {
            states: registrar.gauges("selvage_rollouts", "Rollouts by state.", &["state"])?,
            ended: registrar.counter(
                "selvage_rollouts_total",
                "Finished rollouts.",
                &["strategy", "outcome", "reason"],
            )?,
            duration: registrar.histogram(
                "selvage_rollout_duration_seconds",
                "Duration of rollouts from start to end.",
                &["outcome"],
                ROLLOUT_SECONDS,
            )?,
            rollback_seconds: registrar.histogram(
                "selvage_rollback_seconds",
                "Time from the deciding evaluation to each stage of a rollback.",
                &["stage"],
                SECONDS,
            )?,
            evaluations: registrar.counter(
                "selvage_evaluations_total",
                "Evaluations of the sequential tests.",
                &["result", "reason"],
            )?,
            actions: registrar.counter(
                "selvage_actions_total",
                "Actions that users requested.",
                &["action", "result"],
            )?,
        })
    }
}

impl WorkFamilies {
    fn register(registrar: &Registrar<'_>) -> Result<Self, Error> {
        Ok(Self {
            leading: registrar.gauge("selvage_leading", "1 while this replica leads.")?,
            queue: registrar.gauge(
                "selvage_queue_length",
                "Functions that wait in the queue for their reconcile.",
            )?,
            queue_all: registrar.counter(
                "selvage_queue_all_total",
                "Times that all functions were queued for a reconcile, by reason.",
                &["reason"],
            )?,
            wait: registrar.add(CounterVec::new(
                Opts::new(
                    "selvage_queue_wait_seconds_total",
                    "Time that functions waited in the queue before their reconcile.",
                ),
                &["class"],
            )?)?,
            reconcile_seconds: registrar.histogram(
                "selvage_reconcile_seconds",
                "Duration of a reconcile.",
                &["result"],
                SECONDS,
            )?,
            reconcile_failures: registrar.counter(
                "selvage_reconcile_failures_total",
                "Reconciles that ended early because a step failed.",
                &["step"],
            )?,
            status_writes: registrar.counter(
                "selvage_status_writes_total",
                "Writes of the status of functions.",
                &["result"],
            )?,
            events_dropped: registrar.counter(
                "selvage_events_dropped_total",
                "Events that were dropped and not recorded.",
                &["reason"],
            )?,
            resolves: registrar.counter(
                "selvage_resolves_total",
                "Requests for images to registries.",
                &["result"],
            )?,
            unreadable: registrar.gauges(
                "selvage_unreadable_objects",
                "Objects whose newest version this operator cannot decode; the last readable version stays in use.",
                &["kind"],
            )?,
        })
    }
}
