//! Settings of the parts, from the command line.

use std::net::SocketAddr;

use anyhow::Context;

use super::args::RunArgs;
use crate::lease::LeaseConfig;
use crate::measure::{Matchers, Meter, Prometheus, PrometheusQueries};
use crate::metrics::Metrics;
use crate::node_api;
use crate::page;
use crate::queue::Queue;
use crate::reconcile::Settings;

impl RunArgs {
    /// Identity of this replica in the Lease: its pod and the address of its node API.
    pub(super) fn identity(&self) -> anyhow::Result<String> {
        let address = self.pod_ip.parse().context("--pod-ip")?;
        let address = SocketAddr::new(address, self.node_api_addr.port());
        Ok(format!("{}/{address}", self.pod_name))
    }

    pub(super) fn node_api(&self) -> node_api::Settings {
        let user = |account: &str| format!("system:serviceaccount:{}:{account}", self.namespace);
        node_api::Settings {
            audience: self.token_audience.clone(),
            shim_user: user(&self.shim_service_account),
            operator_user: user(&self.operator_service_account),
            operator_token: self.operator_token_file.clone(),
            unsupervised_ttl: self.unsupervised_ttl,
            ..node_api::Settings::new(self.node_api_addr, &self.namespace)
        }
    }

    pub(super) fn reconcile(&self) -> Settings {
        Settings {
            service_account: format!("{}:{}", self.namespace, self.operator_service_account),
            unsupervised_ttl: self.unsupervised_ttl,
            max_rollouts: self.max_rollouts,
            scrape_interval: self.scrape_interval,
        }
    }

    /// Settings of the page, if there is one.
    pub(super) fn page(&self) -> Option<page::Settings> {
        Some(page::Settings {
            address: self.page.address?,
            hosts: self.page.hosts.clone(),
            token_file: self.page.token_file.clone(),
            replica: self.pod_name.clone(),
        })
    }

    pub(super) fn lease(&self, identity: &str) -> LeaseConfig {
        LeaseConfig {
            namespace: self.namespace.clone(),
            name: self.lease_name.clone(),
            identity: identity.to_owned(),
            duration: self.lease_duration,
            renew_deadline: self.renew_deadline,
            retry_period: self.retry_period,
        }
    }

    pub(super) fn prometheus_queries(
        &self,
        metrics: &Metrics,
        fleet: &node_api::Fleet,
        queue: &Queue,
    ) -> anyhow::Result<PrometheusQueries> {
        if self.prometheus_url.is_empty() {
            tracing::info!(
                "Prometheus is not configured: rollouts are evaluated with the nodes' own counters"
            );
            return Ok(PrometheusQueries::default());
        }
        let meter = Meter::new(metrics.registry()).context("metrics of sampling")?;
        let (url, interval) = (&self.prometheus_url, self.scrape_interval);
        let targets = self.targets()?;
        tracing::info!("rollouts are evaluated with the series {{{targets}}} of Prometheus");
        let access = self.prometheus.access();
        let prometheus =
            Prometheus::new(url, access, interval, targets, meter).context("--prometheus-url")?;
        Ok(PrometheusQueries::new(
            prometheus,
            fleet.clone(),
            queue.clone(),
        ))
    }

    fn targets(&self) -> anyhow::Result<Matchers> {
        if self.prometheus_selector.trim().is_empty() {
            return Ok(Matchers::of_release(&self.namespace));
        }
        let targets = self.prometheus_selector.parse::<Matchers>();
        targets.context("--prometheus-selector")
    }
}
