//! Asks Services whether they are ready, for `helm test`.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::time::Instant;

use crate::run::duration;

/// Interval between two questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest time of one question.
const ANSWER: Duration = Duration::from_secs(5);

/// Settings of `operator probe`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProbeArgs {
    /// Service to ask, as `NAME:PORT-NAME/PATH`, such as `selvage-operator:admin/readyz`. Its address comes from the variables that
    /// the kubelet sets for the Services of a namespace. Repeatable.
    #[arg(long = "service", required = true)]
    services: Vec<Service>,
    /// Time after which a Service that is not ready is an error.
    #[arg(long, default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

/// A Service, one of its ports, and the path of its readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    name: String,
    port: String,
    path: String,
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').and_then(|(service, path)| {
            let (name, port) = service.split_once(':')?;
            (!name.is_empty() && !port.is_empty()).then(|| Self {
                name: name.to_owned(),
                port: port.to_owned(),
                path: path.to_owned(),
            })
        });
        parts.ok_or_else(|| "expected NAME:PORT-NAME/PATH".to_owned())
    }
}

impl Service {
    /// Returns the URL of the readiness, given the environment.
    fn url(&self, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<String> {
        let upper = |text: &str| text.to_ascii_uppercase().replace('-', "_");
        let name = upper(&self.name);
        let read = |key: String| {
            let value = variable(&key);
            value.with_context(|| {
                format!(
                    "{key} is not set: this pod was created before the Service {}",
                    self.name
                )
            })
        };
        let host = read(format!("{name}_SERVICE_HOST"))?;
        let host: IpAddr = host
            .parse()
            .with_context(|| format!("{name}_SERVICE_HOST"))?;
        let port = read(format!("{name}_SERVICE_PORT_{}", upper(&self.port)))?;
        let port = port
            .parse()
            .with_context(|| format!("port {} of {}", self.port, self.name))?;
        Ok(format!(
            "http://{}/{}",
            SocketAddr::new(host, port),
            self.path
        ))
    }
}

/// Waits until every Service is ready, and prints each of them.
///
/// # Errors
/// A Service has no address, or is not ready in time; with its last answer.
pub(crate) async fn run(args: &ProbeArgs) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(ANSWER).build()?;
    let deadline = Instant::now() + args.timeout;
    for service in &args.services {
        let url = service.url(|key| std::env::var(key).ok())?;
        wait(&client, &url, deadline)
            .await
            .with_context(|| format!("Service {} is not ready ({url})", service.name))?;
        writeln!(std::io::stdout(), "{} is ready", service.name)?;
    }
    Ok(())
}

async fn wait(client: &reqwest::Client, url: &str, deadline: Instant) -> anyhow::Result<()> {
    loop {
        let Err(error) = ask(client, url).await else {
            return Ok(());
        };
        if Instant::now() + INTERVAL > deadline {
            return Err(error);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn ask(client: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    let answer = client.get(url).send().await?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let text = answer.text().await.unwrap_or_default();
    let short: String = text.chars().take(200).collect();
    anyhow::bail!("status {}: {}", status.as_u16(), short.trim())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;

    #[test]
    fn the_address_is_that_of_the_kubelet() {
        let service: Service = "selvage-operator:admin/readyz".parse().unwrap();
        let url = |host: &str| {
            service.url(|key| match key {
                "SELVAGE_OPERATOR_SERVICE_HOST" => Some(host.to_owned()),
                "SELVAGE_OPERATOR_SERVICE_PORT_ADMIN" => Some("9180".to_owned()),
                _ => None,
            })
        };
        assert_eq!(url("10.0.0.7").unwrap(), "http://10.0.0.7:9180/readyz");
        assert_eq!(url("fd00::7").unwrap(), "http://[fd00::7]:9180/readyz");
        assert!(url("operator").is_err());
        let error = service.url(|_| None).unwrap_err().to_string();
        assert!(error.contains("SELVAGE_OPERATOR_SERVICE_HOST"), "{error}");
        for text in ["", "a", "a/readyz", "a:/readyz", ":b/readyz"] {
            assert!(text.parse::<Service>().is_err(), "{text}");
        }
    }

    /// A server whose first `refused` answers are 503.
    async fn serve(refused: usize) -> (String, Arc<AtomicUsize>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let handler = move || {
            let count = counted.fetch_add(1, Ordering::SeqCst);
            let status = if count < refused {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            };
            async move { (status, "waiting for the cache\n") }
        };
        let app = Router::new().route("/readyz", get(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_until_the_service_is_ready_or_the_time_is_over() {
        let (url, asked) = serve(1).await;
        let client = reqwest::Client::new();
        let late = Instant::now() + Duration::from_secs(60);
        wait(&client, &url, late).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        let (url, asked) = serve(usize::MAX).await;
        let error = wait(&client, &url, Instant::now()).await.unwrap_err();
        assert_eq!(error.to_string(), "status 503: waiting for the cache");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
