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
