//! Failures of outbound requests, as the function and the metrics see them.

use std::error::Error as _;
use std::io;

use node_shim_core::egress::EgressOutcome;
use wasmtime_wasi_http::Error;

use super::network::ResolveError;

/// A failure of a request that was not denied.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) outcome: EgressOutcome,
    pub(super) error: Error,
}

impl Failure {
    pub(super) const fn new(outcome: EgressOutcome, error: Error) -> Self {
        Self { outcome, error }
    }

    /// Returns the failure of a name that has no addresses.
    pub(super) fn dns(error: ResolveError) -> Self {
        let error = match error {
            ResolveError::Timeout => Error::DnsTimeout,
            ResolveError::NotFound => dns_error("NXDOMAIN"),
            ResolveError::Failed(_) => dns_error("SERVFAIL"),
        };
        Self::new(EgressOutcome::Dns, error)
    }

    /// Returns the failure of a connection attempt.
    pub(super) fn connect(error: &io::Error) -> Self {
        let error = match error.kind() {
            io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                Error::DestinationIpUnroutable
            }
            io::ErrorKind::TimedOut => Error::ConnectionTimeout,
            _ => Error::DestinationUnavailable,
        };
        Self::new(EgressOutcome::Connect, error)
    }

    /// Returns the failure of a connection attempt that took too long.
    pub(super) const fn connect_timeout() -> Self {
        Self::new(EgressOutcome::Timeout, Error::ConnectionTimeout)
    }

    /// Returns the failure of a request without the head of a response.
    pub(super) fn exchange(error: &hyper::Error) -> Self {
        let error = if error.is_parse_too_large() {
            Error::HttpResponseHeaderSectionSize(None)
        } else if connection_ended(error) {
            Error::ConnectionTerminated
        } else {
            Error::HttpProtocolError
        };
        Self::new(EgressOutcome::Broken, error)
    }
}

fn dns_error(rcode: &str) -> Error {
    Error::DnsError {
        rcode: Some(rcode.to_owned()),
        info_code: None,
    }
}

/// Returns the error of a response that broke off after its head.
pub(super) fn body_error(error: &hyper::Error) -> Error {
    if error.is_parse() && !connection_ended(error) {
        Error::HttpProtocolError
    } else {
        Error::HttpResponseIncomplete
    }
}

/// Returns whether the server closed the connection or reset the stream.
fn connection_ended(error: &hyper::Error) -> bool {
    let source = error.source();
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || source.is_some_and(|source| source.is::<io::Error>() || source.is::<h2::Error>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_to_connect_are_distinguished() {
        let code = |kind: io::ErrorKind| Failure::connect(&kind.into()).error.to_string();
        assert_eq!(code(io::ErrorKind::ConnectionRefused), "connection refused");
        assert_eq!(code(io::ErrorKind::TimedOut), "connection timeout");
        assert_eq!(
            code(io::ErrorKind::NetworkUnreachable),
            "destination IP address is unroutable"
        );
        let timeout = Failure::dns(ResolveError::Timeout).error.to_string();
        assert_eq!(timeout, "DNS lookup timed out");
    }
}
