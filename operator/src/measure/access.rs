//! Access to Prometheus: credentials, additional headers and the trusted authority.
//!
//! Files are read again for each query, so that a rotated credential or authority works without a restart.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use reqwest::{Certificate, ClientBuilder};
use zeroize::Zeroizing;

use super::MeasureError;
use super::prometheus::TIMEOUT;

/// How the operator accesses Prometheus. The default sends no credentials and trusts the authorities of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Credentials in the header `Authorization`.
    pub credentials: Credentials,
    /// Additional headers of every query.
    pub headers: Vec<(HeaderName, HeaderSource)>,
    /// File with the only authorities to trust, in PEM format. `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Credentials for Prometheus, in files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// No header `Authorization` is sent.
    #[default]
    None,
    /// File with a bearer token.
    Bearer(PathBuf),
    /// Files with the user name and the password of basic authentication.
    Basic {
        /// File with the user name.
        username: PathBuf,
        /// File with the password.
        password: PathBuf,
    },
}

/// Origin of the value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// The value itself.
    Value(HeaderValue),
    /// File with the value.
    File(PathBuf),
}

impl Access {
    /// Reads the headers of a query.
    async fn headers(&self) -> Result<HeaderMap, MeasureError> {
        let mut headers = HeaderMap::new();
        for (name, source) in &self.headers {
            let value = match source {
                HeaderSource::Value(value) => value.clone(),
                HeaderSource::File(path) => {
                    let what = format!("the value of the header {name}");
                    let text = read_line(path, &what).await?;
                    secret_value(&text, path, &what)?
                }
            };
            headers.append(name, value);
        }
        match &self.credentials {
            Credentials::None => {}
            Credentials::Bearer(path) => {
                let what = "the bearer token";
                let text = Zeroizing::new(format!("Bearer {}", *read_line(path, what).await?));
                headers.insert(AUTHORIZATION, secret_value(&text, path, what)?);
            }
            Credentials::Basic { username, password } => {
                let user = read_line(username, "the user name").await?;
                if user.contains(':') {
                    return Err(unusable("the user name", username, &"it contains a colon"));
                }
                let secret = read_line(password, "the password").await?;
                let both = Zeroizing::new(format!("{}:{}", *user, *secret));
                let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(both.as_bytes())));
                let value = secret_value(&text, password, "the password")?;
                headers.insert(AUTHORIZATION, value);
            }
        }
        Ok(headers)
    }

    /// Explains a response with status 401 or 403, with a leading separator. Empty for any other status.
    pub(super) fn refusal(&self, status: u16) -> String {
        let sent = match &self.credentials {
            Credentials::None => {
                "the operator has no credentials for Prometheus (chart value prometheus.auth)"
            }
            Credentials::Bearer(_) => {
                "the operator sent the bearer token of the chart value prometheus.auth.bearerToken"
            }
            Credentials::Basic { .. } => {
                "the operator sent the user name and password of the chart value prometheus.auth.basic"
            }
        };
        match status {
            401 => format!(": Prometheus does not accept the credentials; {sent}"),
            403 => format!(": Prometheus does not permit the query; {sent}"),
            _ => String::new(),
        }
    }
}

/// Reads a file without the line ends at its end.
async fn read_line(path: &Path, what: &str) -> Result<Zeroizing<String>, MeasureError> {
    let text = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
    let text = text.map_err(|error| unusable(what, path, &error))?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        return Err(unusable(what, path, &"it is empty"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Creates the value of a header that no log shows.
fn secret_value(text: &str, path: &Path, what: &str) -> Result<HeaderValue, MeasureError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        let why = "it contains characters that a header cannot have";
        unusable(what, path, &why)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn unusable(what: &str, path: &Path, why: &dyn std::fmt::Display) -> MeasureError {
    MeasureError::Access(format!(
        "{what} for Prometheus cannot be read from {}: {why}",
        path.display()
    ))
}

/// HTTP client that sends the headers of an [`Access`] and trusts its authorities.
#[derive(Debug)]
pub(super) struct Client {
    access: Access,
    /// The content of the file of authorities, and the client that trusts them.
    built: Mutex<Option<(Vec<u8>, reqwest::Client)>>,
}

impl Client {
    /// Creates a client. With a file of authorities, the first query reads it.
    ///
    /// # Errors
    /// No TLS provider is installed.
    pub(super) fn new(access: Access) -> Result<Self, MeasureError> {
        let built = if access.ca_file.is_none() {
            let client = build(reqwest::Client::builder());
            Some((Vec::new(), client.map_err(|error| malformed(&error))?))
        } else {
            None
        };
        Ok(Self {
            access,
            built: Mutex::new(built),
        })
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Returns a POST request with the present credentials.
    ///
    /// # Errors
    /// [`MeasureError::Access`] if a file cannot be used.
    pub(super) async fn post(&self, url: &str) -> Result<reqwest::RequestBuilder, MeasureError> {
        let client = self.trusting().await?;
        let headers = self.access.headers().await?;
        Ok(client.post(url).headers(headers))
    }

    async fn trusting(&self) -> Result<reqwest::Client, MeasureError> {
        let what = "the certificate authority";
        let pem = match &self.access.ca_file {
            Some(path) => tokio::fs::read(path).await,
            None => Ok(Vec::new()),
        };
        let path = self.access.ca_file.as_deref().unwrap_or(Path::new(""));
        let pem = pem.map_err(|error| unusable(what, path, &error))?;
        let mut built = self.built.lock();
        if let Some((_, client)) = built.as_ref().filter(|(of, _)| *of == pem) {
            return Ok(client.clone());
        }
        let roots = Certificate::from_pem_bundle(&pem);
        let roots = roots.map_err(|error| unusable(what, path, &error))?;
        if roots.is_empty() {
            let why = "it contains no certificate in PEM format";
            return Err(unusable(what, path, &why));
        }
        let client = build(reqwest::Client::builder().tls_certs_only(roots));
        let client = client.map_err(|error| unusable(what, path, &error))?;
        *built = Some((pem, client.clone()));
        Ok(client)
    }
}

fn build(client: ClientBuilder) -> reqwest::Result<reqwest::Client> {
    client
        .timeout(TIMEOUT)
        // credentials are never sent to another server
        .redirect(reqwest::redirect::Policy::none())
        .user_agent("selvage-operator")
        .build()
}

fn malformed(what: &dyn std::fmt::Display) -> MeasureError {
    MeasureError::Malformed(what.to_string())
}

/// Returns the endpoint of queries below a base URL, which may have a path.
///
/// # Errors
/// The URL is not one of HTTP, or has a part that a base URL cannot have.
pub(super) fn endpoint(url: &str) -> Result<String, MeasureError> {
    let base = reqwest::Url::parse(url).map_err(|error| malformed(&error))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(malformed(&"the URL of Prometheus must be http or https"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(malformed(
            &"the URL of Prometheus must not contain credentials: put them into a Secret (chart value prometheus.auth)",
        ));
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err(malformed(
            &"the URL of Prometheus must not have a query or a fragment",
        ));
    }
    Ok(format!("{}/api/v1/query", url.trim_end_matches('/')))
}
