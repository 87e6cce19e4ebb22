//! Settings of the access to Prometheus.

use std::path::PathBuf;

use clap::Args;
use http::header::{self, HeaderName, HeaderValue};

use crate::measure::{Access, Credentials, HeaderSource};

/// Headers that the operator sets itself.
const RESERVED: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TRANSFER_ENCODING,
];

/// Settings of the access to Prometheus. Files are read again for each query.
#[derive(Debug, Clone, Default, Args)]
pub struct PrometheusArgs {
    /// File with a bearer token for Prometheus.
    #[arg(
        long = "prometheus-token-file",
        env = "SELVAGE_PROMETHEUS_TOKEN_FILE",
        conflicts_with_all = ["username_file", "password_file"]
    )]
    pub token_file: Option<PathBuf>,
    /// File with the user name for basic authentication at Prometheus.
    #[arg(
        long = "prometheus-username-file",
        env = "SELVAGE_PROMETHEUS_USERNAME_FILE",
        requires = "password_file"
    )]
    pub username_file: Option<PathBuf>,
    /// File with the password for basic authentication at Prometheus.
    #[arg(
        long = "prometheus-password-file",
        env = "SELVAGE_PROMETHEUS_PASSWORD_FILE",
        requires = "username_file"
    )]
    pub password_file: Option<PathBuf>,
    /// File with the certificate authorities of Prometheus, in PEM format, which are then the only ones it may have. Without it,
    /// those of the system are trusted.
    #[arg(long = "prometheus-ca-file", env = "SELVAGE_PROMETHEUS_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Header of each query, as `NAME=VALUE`, such as `X-Scope-OrgID=edge`. Repeatable.
    #[arg(
        long = "prometheus-header",
        env = "SELVAGE_PROMETHEUS_HEADERS",
        value_delimiter = '\n',
        value_parser = header
    )]
    pub headers: Vec<(HeaderName, HeaderSource)>,
    /// Header of each query whose value is in a file, as `NAME=PATH`. Repeatable.
    #[arg(
        long = "prometheus-header-file",
        env = "SELVAGE_PROMETHEUS_HEADER_FILES",
        value_delimiter = '\n',
        value_parser = header_file
    )]
    pub header_files: Vec<(HeaderName, HeaderSource)>,
}

impl PrometheusArgs {
    /// Returns the access with these settings.
    pub(super) fn access(&self) -> Access {
        let basic = self.username_file.clone().zip(self.password_file.clone());
        let credentials = match (&self.token_file, basic) {
            (Some(token), _) => Credentials::Bearer(token.clone()),
            (None, Some((username, password))) => Credentials::Basic { username, password },
            (None, None) => Credentials::None,
        };
        let headers = self.headers.iter().chain(&self.header_files);
        Access {
            credentials,
            headers: headers.cloned().collect(),
            ca_file: self.ca_file.clone(),
        }
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderSource), String> {
    let (name, value) = named(text)?;
    let value = HeaderValue::from_str(value)
        .map_err(|_| "the value contains characters that a header cannot have".to_owned())?;
    Ok((name, HeaderSource::Value(value)))
}

fn header_file(text: &str) -> Result<(HeaderName, HeaderSource), String> {
    let (name, path) = named(text)?;
    Ok((name, HeaderSource::File(path.into())))
}

fn named(text: &str) -> Result<(HeaderName, &str), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    let name: HeaderName = name
        .parse()
        .map_err(|_| format!("{name:?} is not the name of a header"))?;
    if RESERVED.contains(&name) {
        return Err(format!("the operator sets the header {name} itself"));
    }
    if value.is_empty() {
        return Err(format!("the header {name} has no value"));
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: PrometheusArgs,
    }

    fn access(flags: &[&str]) -> Result<Access, clap::Error> {
        let flags = flags.iter().map(|flag| format!("--prometheus-{flag}"));
        let parsed = Command::try_parse_from(std::iter::once("run".to_owned()).chain(flags));
        parsed.map(|command| command.args.access())
    }

    #[test]
    fn flags_become_the_access() {
        assert_eq!(access(&[]).unwrap(), Access::default());
        let bearer = access(&["token-file=/t", "ca-file=/ca"]).unwrap();
        assert_eq!(bearer.credentials, Credentials::Bearer("/t".into()));
        assert_eq!(bearer.ca_file, Some("/ca".into()));
        let flags = [
            "username-file=/u",
            "password-file=/p",
            "header=X-Scope-OrgID=a,b=c",
            "header-file=X-Api-Key=/k",
        ];
        let basic = access(&flags).unwrap();
        let (username, password) = ("/u".into(), "/p".into());
        assert_eq!(basic.credentials, Credentials::Basic { username, password });
        let value = HeaderSource::Value(HeaderValue::from_static("a,b=c"));
        let headers = [
            (HeaderName::from_static("x-scope-orgid"), value),
            (
                HeaderName::from_static("x-api-key"),
                HeaderSource::File("/k".into()),
            ),
        ];
        assert_eq!(basic.headers, headers);
    }

    #[test]
    fn contradictions_and_reserved_headers_are_refused() {
        for (flags, message) in [
            (
                &["token-file=/t", "username-file=/u", "password-file=/p"][..],
                "cannot be used with",
            ),
            (&["username-file=/u"], "required"),
            (&["password-file=/p"], "required"),
            (
                &["header=authorization=x"],
                "sets the header authorization itself",
            ),
            (&["header=X-Scope-OrgID"], "expected NAME=VALUE"),
            (&["header=X-Scope-OrgID="], "has no value"),
            (&["header=a b=c"], "is not the name of a header"),
            (&["header-file=Host=/k"], "sets the header host itself"),
        ] {
            let error = access(flags).unwrap_err().to_string();
            assert!(error.contains(message), "{flags:?}: {error}");
        }
    }
}
