//! Calls of the API server: each has a time-out, and an error knows what it means.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use crds::FIELD_MANAGER;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::client::ClientBuilder;
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::util::MapResponseLayer;

/// A call that takes longer has failed, as far as a reconcile is concerned.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that a `Retry-After` of the server delays the next call.
const MOST_PATIENCE: Duration = Duration::from_secs(900);

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time.
    #[error("the API server did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// An answer that is an error, or none at all.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl CallError {
    /// The precondition failed: another writer changed the object in between.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && !self.is_already_there()
    }

    /// The object to be created exists.
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.reason == "AlreadyExists")
    }

    /// The object does not exist.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object of this name does not exist. A kind that is not served is no answer: that names no object.
    #[must_use]
    pub fn is_gone_object(&self, name: &str) -> bool {
        let Self::Api(kube::Error::Api(status)) = self else {
            return false;
        };
        let named = |details: &kube::core::response::StatusDetails| details.name == name;
        status.code == 404 && status.details.as_ref().is_some_and(named)
    }

    /// Why the API server refuses the request as it is: invalid, too large, or against a quota, a webhook or a permission.
    /// Only another spec or an administrator changes that. `None` for every other error.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 413 | 422) => {
                Some(&status.message)
            }
            _ => None,
        }
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// What the server asked for with `Retry-After`, at most a quarter of an hour.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Api(kube::Error::Api(status)) = self else {
            return None;
        };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)).min(MOST_PATIENCE))
    }
}

/// A client that makes each call once and returns the answer. The default client of kube waits for `Retry-After` by itself:
/// within the time-out of the call, after which the delay that the server asked for is lost, and in a worker that other
/// functions need.
///
/// # Errors
/// The configuration cannot be used.
pub(crate) fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder
        .with_layer(&MapResponseLayer::new(keep_retry_after))
        .build())
}

/// Copies `Retry-After` into the body, from which kube reads errors. An overloaded server, or a proxy before it, sends it in
/// a header only.
fn keep_retry_after<B>(answer: Response<B>) -> Response<Either<B, Full<Bytes>>> {
    let status = answer.status();
    let asked = asks_for_patience(status)
        .then(|| seconds(answer.headers()))
        .flatten();
    let Some(seconds) = asked else {
        return answer.map(Either::Left);
    };
    let (mut parts, _) = answer.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    let body = serde_json::json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": status.as_u16(),
        "reason": status.canonical_reason(),
        "message": format!("the API server asks to come back in {seconds} s"),
        "details": { "retryAfterSeconds": seconds },
    });
    Response::from_parts(parts, Either::Right(Full::from(body.to_string())))
}

fn asks_for_patience(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Dates, which API servers do not send, are not read.
fn seconds(headers: &HeaderMap) -> Option<u32> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// Makes a call with a time-out.
pub(crate) async fn call<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(answer) => answer.map_err(CallError::Api),
        Err(_) => Err(CallError::Timeout),
    }
}

/// Writes the status of an object with a merge patch, as the operator's field manager.
///
/// # Errors
/// The call failed. A `metadata.resourceVersion` in `patch` that is not the present one is a conflict.
pub(crate) async fn patch_status<K>(
    objects: &Api<K>,
    name: &str,
    patch: &Value,
) -> Result<K, CallError>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    call(objects.patch_status(name, &params, &Patch::Merge(patch))).await
}

/// Deletes exactly the object that `meta` describes. Returns `false` if it does not exist any longer, or if another
/// object has its name by now.
///
/// # Errors
/// The call failed.
pub(crate) async fn delete<K>(objects: &Api<K>, meta: &ObjectMeta) -> Result<bool, CallError>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let preconditions = Preconditions {
        uid: meta.uid.clone(),
        resource_version: None,
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    let name = meta.name.as_deref().unwrap_or_default();
    match call(objects.delete(name, &params)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_gone() || error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::response::IntoResponse;
    use crds::EdgeFunction;

    use super::*;

    /// What a status write comes to, and how often the server was asked.
    async fn written(status: u16, header: &'static str, body: &'static str) -> (CallError, usize) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let asked = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&asked);
        let app = Router::new().fallback(move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let status = StatusCode::from_u16(status).unwrap();
            (status, [(RETRY_AFTER, header)], body).into_response()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = client(Config::new(url.parse().unwrap())).unwrap();
        let functions: Api<EdgeFunction> = Api::namespaced(client, "shop");
        let patch = Patch::Merge(serde_json::json!({}));
        let params = PatchParams::default();
        let error = call(functions.patch_status("f", &params, &patch))
            .await
            .unwrap_err();
        (error, asked.load(Ordering::SeqCst))
    }

    /// FC-2: a delay that the server or a proxy asks for, in any form, is returned at once, and no call is made before it ends.
    #[tokio::test]
    async fn retry_after_is_returned_at_once_and_not_waited_for() {
        let status = r#"{"kind":"Status","status":"Failure","code":429,"reason":"TooManyRequests","details":{"retryAfterSeconds":600}}"#;
        for (code, body) in [(429, status), (429, "Too many requests"), (503, "")] {
            let (error, asked) = written(code, "600", body).await;
            let wait = Some(Duration::from_secs(600));
            assert_eq!((error.retry_after(), asked), (wait, 1), "{code} {body}");
        }
        let (error, _) = written(429, "86400", "").await;
        assert_eq!(error.retry_after(), Some(MOST_PATIENCE));
        let (error, asked) = written(503, "Wed, 21 Oct 2026 07:28:00 GMT", "away").await;
        assert_eq!((error.retry_after(), asked), (None, 1));
        let (error, asked) = written(504, "600", "").await;
        assert_eq!((error.retry_after(), asked), (None, 1));
    }
}
