//! Identity of a caller: the result of a TokenReview, and the checks on it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;

/// Result of a token review.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Review {
    /// Whether the token is valid at all.
    pub authenticated: bool,
    /// User name, `system:serviceaccount:<namespace>:<name>`.
    pub username: String,
    /// Requested audiences for which the token is valid.
    pub audiences: Vec<String>,
    /// Further claims, for example `authentication.kubernetes.io/node-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The review failed; this implies nothing about the token.
#[derive(Debug, thiserror::Error)]
#[error("token review: {0}")]
pub struct ReviewError(pub String);

/// Reviews tokens with the API server.
pub trait Reviewer: Send + Sync + 'static {
    /// Reviews `token` for `audience`.
    fn review<'a>(
        &'a self,
        token: &'a str,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Review, ReviewError>>;
}

/// A [`Reviewer`] that creates TokenReviews.
#[derive(Clone)]
pub struct KubeReviewer {
    api: kube::Api<TokenReview>,
}

impl KubeReviewer {
    /// Creates a reviewer that uses `client`, whose identity needs `create` on `tokenreviews`.
    pub fn new(client: kube::Client) -> Self {
        Self {
            api: kube::Api::all(client),
        }
    }
}

const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

impl Reviewer for KubeReviewer {
    fn review<'a>(
        &'a self,
        token: &'a str,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Review, ReviewError>> {
        Box::pin(async move {
            let ask = TokenReview {
                spec: TokenReviewSpec {
                    audiences: Some(vec![audience.to_owned()]),
                    token: Some(token.to_owned()),
                },
                ..TokenReview::default()
            };
            let params = PostParams::default();
            let answer = tokio::time::timeout(REVIEW_TIMEOUT, self.api.create(&params, &ask))
                .await
                .map_err(|_| ReviewError("no answer within 10 s".to_owned()))?
                .map_err(|error| ReviewError(error.to_string()))?;
            let status = answer.status.unwrap_or_default();
            let user = status.user.unwrap_or_default();
            Ok(Review {
                authenticated: status.authenticated.unwrap_or(false),
                username: user.username.unwrap_or_default(),
                audiences: status.audiences.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// Converts the API server's answer about a token, which was reviewed for Selvage's audience only.
    async fn reviewed(status: Value) -> Review {
        let service = tower::service_fn(move |request: Request<Body>| {
            let status = status.clone();
            async move {
                let asked = request.into_body().collect_bytes().await.unwrap();
                let mut review: Value = serde_json::from_slice(&asked).unwrap();
                let spec = json!({ "audiences": ["selvage-node-api"], "token": "t" });
                assert_eq!(review["spec"], spec);
                review["status"] = status;
                let body = Body::from(review.to_string().into_bytes());
                Ok::<_, Infallible>(Response::new(body))
            }
        });
        let reviewer = KubeReviewer::new(Client::new(service, "default"));
        reviewer.review("t", "selvage-node-api").await.unwrap()
    }

    /// HK-4: a positive review names node and pod; that of an expired token, or of one for other audiences, grants
    /// nothing.
    #[tokio::test]
    async fn an_answer_grants_only_what_it_contains() {
        let user = json!({
            "username": "system:serviceaccount:sys:selvage-node-shim",
            "extra": {
                "authentication.kubernetes.io/node-name": ["node-2"],
                "authentication.kubernetes.io/pod-uid": ["u-2"],
            },
        });
        let audiences = json!(["selvage-node-api"]);
        let good = json!({ "authenticated": true, "user": user, "audiences": audiences });
        let review = reviewed(good).await;
        assert!(review.authenticated);
        assert_eq!(review.audiences, ["selvage-node-api"]);
        let claim =
            |name: &str| review.extra[&format!("authentication.kubernetes.io/{name}")].clone();
        assert_eq!(
            (claim("node-name"), claim("pod-uid")),
            (vec!["node-2".to_owned()], vec!["u-2".to_owned()])
        );
        // Answers of a server about an expired token, and about one whose pod is gone.
        for error in ["token has expired", "pod has been invalidated"] {
            let review = reviewed(json!({ "error": error, "user": {} })).await;
            assert_eq!(review, Review::default(), "{error}");
        }
        // A server that does not support audiences.
        let review = reviewed(json!({ "authenticated": true, "user": user })).await;
        assert_eq!(review.audiences, Vec::<String>::new());
    }
}
