//! Options of what is reported about single requests, which `run` and `serve` share.

use clap::{Args, ValueEnum};

use crate::access_log::{AccessLogOptions, LoggedRequests};
use crate::traces::{OtlpProtocol, TraceOptions};

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
    /// URL of a collector that receives traces, like http://collector:4317, or http://collector:4318/v1/traces with
    /// http/protobuf, which uses the URL as it is. Default: the value of OTEL_EXPORTER_OTLP_ENDPOINT, to which http/protobuf
    /// adds /v1/traces; without both there are no traces
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Protocol of the collector. Default: the value of OTEL_EXPORTER_OTLP_PROTOCOL, or else grpc
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        value_enum,
        value_name = "PROTOCOL"
    )]
    otlp_protocol: Option<OtlpProtocol>,
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
        let protocol = self.otlp_protocol.unwrap_or_else(|| {
            variable("OTEL_EXPORTER_OTLP_PROTOCOL")
                .map_or_else(OtlpProtocol::default, |name| named_protocol(&name))
        });
        let collector = || {
            let url = variable("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            Some(protocol.traces_url(&url))
        };
        let endpoint = self.otlp_endpoint.clone().or_else(collector);
        TraceOptions {
            endpoint: endpoint.filter(|endpoint| !endpoint.is_empty()),
            protocol,
            sample_ratio: self.trace_sample_ratio,
            ..TraceOptions::default()
        }
    }
}

/// Returns a variable that is not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the protocol with this name. The variable is for all programs, so one may have a protocol that others do not have.
fn named_protocol(name: &str) -> OtlpProtocol {
    OtlpProtocol::from_str(name, false).unwrap_or_else(|_| {
        let used = OtlpProtocol::default();
        tracing::warn!(
            name,
            ?used,
            "OTEL_EXPORTER_OTLP_PROTOCOL is neither grpc nor http/protobuf"
        );
        used
    })
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
