//! FE-1: a Prometheus that demands credentials, headers and a path gets them in every query, and a refusal is explained.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::any;
use parking_lot::Mutex;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::super::{Access, Credentials, HeaderSource, Matchers, MeasureError, Meter, Prometheus};
use super::{SCRAPE, batch, known, one_node, wanted};

/// A server behind a path that answers only queries with these headers.
#[derive(Default)]
struct Guarded {
    demanded: Mutex<Vec<(&'static str, String)>>,
    /// Status of a response to a query without them; 401 by default.
    refuses_with: Option<StatusCode>,
    answered: Mutex<usize>,
}

impl Guarded {
    fn demanding(demanded: &[(&'static str, &str)]) -> Self {
        let demanded = demanded
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        Self {
            demanded: Mutex::new(demanded.collect()),
            ..Self::default()
        }
    }

    fn answer(&self, uri: &Uri, headers: &HeaderMap, body: &str) -> (StatusCode, String) {
        let has = |(name, value): &(&str, String)| {
            headers
                .get(*name)
                .is_some_and(|sent| sent.as_bytes() == value.as_bytes())
        };
        if uri.path() != "/tenants/select/api/v1/query" {
            return (StatusCode::NOT_FOUND, String::new());
        }
        if !self.demanded.lock().iter().all(has) {
            let status = self.refuses_with.unwrap_or(StatusCode::UNAUTHORIZED);
            let body = json!({ "status": "error", "error": "no such tenant" });
            return (status, body.to_string());
        }
        *self.answered.lock() += 1;
        let form = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
        let query = form
            .query_pairs()
            .find(|(key, _)| key == "query")
            .unwrap()
            .1;
        let series = one_node().remove(query.split('{').next().unwrap());
        let data = json!({ "resultType": "matrix", "result": series.unwrap_or_default() });
        let answer = json!({ "status": "success", "data": data });
        (StatusCode::OK, answer.to_string())
    }

    async fn serve(self, access: Access) -> (Prometheus, Arc<Self>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Arc::new(self);
        let served = Arc::clone(&server);
        let handler = move |request: Request| async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            served
                .answer(&head.uri, &head.headers, &body)
                .into_response()
        };
        let app = Router::new().fallback(any(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/tenants/select/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let meter = Meter::new(&::prometheus::Registry::new()).unwrap();
        let prometheus = Prometheus::new(&url, access, SCRAPE, Matchers::default(), meter).unwrap();
        (prometheus, server)
    }
}

/// A folder as the kubelet mounts a Secret.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, content) in files {
            folder.write(name, content);
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn bearer(&self) -> Access {
        Access {
            credentials: Credentials::Bearer(self.path("token")),
            ..Access::default()
        }
    }

    fn basic(&self) -> Access {
        let credentials = Credentials::Basic {
            username: self.path("username"),
            password: self.path("password"),
        };
        Access {
            credentials,
            ..Access::default()
        }
    }
}

#[tokio::test]
async fn every_query_has_the_credentials_the_headers_and_the_path() {
    let files = Files::new(&[
        ("token", "abc\n"),
        ("username", "edge"),
        ("password", "pass:wörd\n"),
        ("key", "k-1"),
    ]);
    let headers = vec![
        (
            HeaderName::from_static("x-scope-orgid"),
            HeaderSource::Value(HeaderValue::from_static("shop|edge")),
        ),
        (
            HeaderName::from_static("x-api-key"),
            HeaderSource::File(files.path("key")),
        ),
    ];
    for (access, authorization) in [
        (files.bearer(), "Bearer abc"),
        (files.basic(), "Basic ZWRnZTpwYXNzOnfDtnJk"),
    ] {
        let demanded = [
            ("authorization", authorization),
            ("x-scope-orgid", "shop|edge"),
            ("x-api-key", "k-1"),
        ];
        let access = Access {
            headers: headers.clone(),
            ..access
        };
        let (prometheus, server) = Guarded::demanding(&demanded).serve(access).await;
        assert_eq!(batch(&prometheus).await.unwrap().snapshots.len(), 1);
        assert_eq!(*server.answered.lock(), 5, "the newest samples");
        let past = prometheus.history(wanted(), &known()).await.unwrap();
        assert!(!past.snapshots.is_empty());
        assert_eq!(*server.answered.lock(), 10, "the past");
    }
}

#[tokio::test]
async fn a_rotated_token_is_used_without_a_restart() {
    let files = Files::new(&[("token", "old")]);
    let server = Guarded::demanding(&[("authorization", "Bearer old")]);
    let (prometheus, server) = server.serve(files.bearer()).await;
    assert!(batch(&prometheus).await.is_ok());
    *server.demanded.lock() = vec![("authorization", "Bearer new".to_owned())];
    let error = batch(&prometheus).await.unwrap_err();
    assert!(error.to_string().starts_with("status 401"), "{error}");
    files.write("token", "new");
    assert!(batch(&prometheus).await.is_ok());
}

#[tokio::test]
async fn a_refusal_names_the_value_of_the_chart() {
    let files = Files::new(&[("token", "abc"), ("username", "edge"), ("password", "x")]);
    let (none, demands) = (Access::default(), [("authorization", "Bearer other")]);
    for (access, status, message) in [
        (
            none,
            StatusCode::UNAUTHORIZED,
            "status 401: Prometheus does not accept the credentials; the operator has no credentials for Prometheus (chart \
             value prometheus.auth): no such tenant",
        ),
        (
            files.bearer(),
            StatusCode::UNAUTHORIZED,
            "status 401: Prometheus does not accept the credentials; the operator sent the bearer token of the chart value \
             prometheus.auth.bearerToken: no such tenant",
        ),
        (
            files.basic(),
            StatusCode::FORBIDDEN,
            "status 403: Prometheus does not permit the query; the operator sent the user name and password of the chart \
             value prometheus.auth.basic: no such tenant",
        ),
    ] {
        let server = Guarded {
            refuses_with: Some(status),
            ..Guarded::demanding(&demands)
        };
        let (prometheus, _) = server.serve(access).await;
        let error = batch(&prometheus).await.unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.reason(), "bad_status");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_and_nothing_is_sent() {
    let files = Files::new(&[]);
    let (prometheus, server) = Guarded::default().serve(files.bearer()).await;
    let path = files.path("token").display().to_string();
    for (content, why) in [
        (None, "No such file or directory (os error 2)"),
        (Some("\n"), "it is empty"),
        (
            Some("a\u{1}b"),
            "it contains characters that a header cannot have",
        ),
    ] {
        if let Some(content) = content {
            files.write("token", content);
        }
        let error = batch(&prometheus).await.unwrap_err();
        let text = format!("the bearer token for Prometheus cannot be read from {path}: {why}");
        assert_eq!(error, MeasureError::Access(text));
        assert_eq!(error.reason(), "access");
    }
    files.write("username", "a:b");
    files.write("password", "x");
    let (prometheus, basic) = Guarded::default().serve(files.basic()).await;
    let error = batch(&prometheus).await.unwrap_err().to_string();
    assert!(error.ends_with("it contains a colon"), "{error}");
    assert_eq!((*server.answered.lock(), *basic.answered.lock()), (0, 0));
}
