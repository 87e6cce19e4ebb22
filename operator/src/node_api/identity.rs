//! Who is calling: what a TokenReview says about a token, and what we require of it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;

/// What the API server says about a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Review {
    /// Whether the token is valid at all.
    pub authenticated: bool,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub username: String,
    /// The audiences for which the token is valid, of those asked for.
    pub audiences: Vec<String>,
    /// Further claims, e.g. `authentication.kubernetes.io/node-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The review did not take place; says nothing about the token.
#[derive(Debug, thiserror::Error)]
#[error("token review: {0}")]
pub struct ReviewError(pub String);

/// Asks the API server about tokens.
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
    /// Asks through `client`, whose identity needs `create` on `tokenreviews`.
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

    /// What is made of an API server's answer about a token, which is asked about for our audience alone.
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

    /// HK-4: a good answer names node and pod; that of an expired token, or of one for others, grants nothing.
    #[tokio::test]
    async fn an_answer_grants_only_what_it_says() {
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
        // as a server says of a token that has expired, and of one whose pod is gone
        for error in ["token has expired", "pod has been invalidated"] {
            let review = reviewed(json!({ "error": error, "user": {} })).await;
            assert_eq!(review, Review::default(), "{error}");
        }
        // a server that knows no audiences
        let review = reviewed(json!({ "authenticated": true, "user": user })).await;
        assert_eq!(review.audiences, Vec::<String>::new());
    }
}
