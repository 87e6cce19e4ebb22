//! Explains why there was no answer, in words that name what to fix.

use std::error::Error;
use std::io;

use rustls::{CertificateError, InvalidMessage};

use super::MeasureError;

/// Returns the cause of a failed request.
pub(super) fn failed(error: &reqwest::Error) -> MeasureError {
    if error.is_timeout() {
        return MeasureError::Timeout;
    }
    let text = tls(error).map_or_else(|| innermost(error), str::to_owned);
    MeasureError::NoAnswer(text)
}

/// Explains TLS errors, whose own messages are written for programmers.
fn tls(error: &reqwest::Error) -> Option<&'static str> {
    use CertificateError as Bad;
    let text = match rustls_error(error)? {
        rustls::Error::InvalidCertificate(bad) => match bad {
            // a signature is bad when a trusted authority has the name of the issuer and another key
            Bad::UnknownIssuer | Bad::BadSignature => {
                "its certificate comes from an issuer that is not trusted"
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "its certificate is for another name than that in the URL"
            }
            Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "its certificate is not valid yet",
            _ => return None,
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS, but the URL is https"
        }
        _ => return None,
    };
    Some(text)
}

fn rustls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(one) = next {
        if let Some(found) = one.downcast_ref() {
            return Some(found);
        }
        // An IO error returns as its source the source of the wrapped error, and never the wrapped error itself.
        let wrapped = one.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map_or_else(|| one.source(), |wrapped| Some(wrapped));
    }
    None
}

/// Returns the innermost cause: "connection refused" rather than "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    // Strips the suffix of "Connection refused (os error 111)".
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}
