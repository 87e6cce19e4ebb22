//! Options of what is reported about single requests, which `run` and `serve` share.

use clap::Args;

use crate::access_log::{AccessLogOptions, LoggedRequests};
use crate::traces::TraceOptions;

/// Options of the access log, of traces and of `server-timing`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Requests in the access log on stdout: none, those that failed, or all
    #[arg(long, env = "SELVAGE_ACCESS_LOG", value_enum, default_value_t)]
    access_log: LoggedRequests,
    /// Part of the requests that did not fail in the access log of all requests, from 0 to 1
    #[arg(long, env = "SELVAGE_ACCESS_LOG_SAMPLE", default_value_t = 1.0, value_parser = ratio)]
    access_log_sample: f64,
    /// Add the header field server-timing to the responses of functions
    #[arg(long, env = "SELVAGE_SERVER_TIMING")]
    pub(crate) server_timing: bool,
    /// URL of a collector that receives traces with OTLP over gRPC, like http://collector:4317. Default: the value of
    /// OTEL_EXPORTER_OTLP_ENDPOINT; without both there are no traces
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Part of the requests that is recorded if no trusted proxy has decided it with traceparent, from 0 to 1
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value_t = 0.0, value_parser = ratio)]
    trace_sample_ratio: f64,
}

impl ReportArgs {
    pub(crate) fn access_log(&self) -> AccessLogOptions {
        AccessLogOptions {
            requests: self.access_log,
            sample: self.access_log_sample,
        }
    }

    pub(crate) fn traces(&self) -> TraceOptions {
        let named = || std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok();
        let endpoint = self.otlp_endpoint.clone().or_else(named);
        TraceOptions {
            endpoint: endpoint.filter(|endpoint| !endpoint.is_empty()),
            sample_ratio: self.trace_sample_ratio,
            ..TraceOptions::default()
        }
    }
}

/// Error returned when a string is not a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number from 0 to 1, like 0.01")]
struct RatioError;

fn ratio(text: &str) -> Result<f64, RatioError> {
    let number: f64 = text.parse().map_err(|_| RatioError)?;
    (0.0..=1.0)
        .contains(&number)
        .then_some(number)
        .ok_or(RatioError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_number_from_0_to_1() {
        assert_eq!(ratio("0"), Ok(0.0));
        assert_eq!(ratio("0.01"), Ok(0.01));
        assert_eq!(ratio("1"), Ok(1.0));
        for wrong in ["", "x", "-0.1", "1.1", "NaN", "inf", "1%"] {
            assert_eq!(ratio(wrong), Err(RatioError), "{wrong}");
        }
    }
}
