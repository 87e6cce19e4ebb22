//! Authentication challenges of registries, and the answers to them.

use http_auth::ChallengeParser;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::Login;

/// How a registry wants requests to be authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password in each request.
    Basic,
    /// A token of the service at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// Value of the `Authorization` header.
pub(crate) enum Authorization {
    Basic(Login),
    Bearer(Zeroizing<String>),
}

#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
}

// === impl Challenge ===

impl Challenge {
    /// Selects the challenge to answer from `headers`: tokens are preferred to passwords, other schemes are not
    /// supported.
    pub(crate) fn select(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let values = values.filter_map(|value| value.to_str().ok());
        let mut selected = None;
        for challenge in values.flat_map(ChallengeParser::new).flatten() {
            let parameter = |name: &str| {
                let mut found = challenge.params.iter();
                let found = found.find(|(known, _)| known.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                let service = parameter("service");
                return Some(Self::Bearer { realm, service });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                selected = Some(Self::Basic);
            }
        }
        selected
    }
}

/// Address at which the token service at `realm` issues a token to pull from `repository`.
pub(crate) fn token_url(realm: &str, service: Option<&str>, repository: &str) -> Option<Url> {
    let mut url = Url::parse(realm).ok()?;
    url.query_pairs_mut()
        .extend_pairs(service.map(|service| ("service", service)))
        .append_pair("scope", &format!("repository:{repository}:pull"));
    Some(url)
}

/// Parses the answer of a token service.
pub(crate) fn token(body: &[u8]) -> Option<Authorization> {
    let response: TokenResponse = serde_json::from_slice(body).ok()?;
    let token = response.token.or(response.access_token)?;
    Some(Authorization::Bearer(Zeroizing::new(token)))
}

// === impl Authorization ===

impl Authorization {
    pub(crate) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic(login) => request.basic_auth(&login.user, Some(login.password.as_str())),
            Self::Bearer(token) => request.bearer_auth(token.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::select(&headers)
    }

    #[test]
    fn tokens_are_preferred_in_whatever_header_they_stand() {
        let bearer = |service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: "https://a/t?x=1,2".into(),
                service: service.map(Into::into),
            })
        };
        let text = r#"Bearer realm="https://a/t?x=1,2",service="s",scope="x""#;
        assert_eq!(select(&[text]), bearer(Some("s")));
        assert_eq!(select(&["Basic realm=\"x\"", text]), bearer(Some("s")));
        assert_eq!(select(&["Negotiate", text]), bearer(Some("s")));
        let joined = format!(r#"Basic realm="a, b", {text}"#);
        assert_eq!(select(&[&joined]), bearer(Some("s")));
        assert_eq!(
            select(&[r#"bearer Realm="https://a/t?x=1,2""#]),
            bearer(None)
        );
        assert_eq!(select(&["basic"]), Some(Challenge::Basic));
        assert_eq!(select(&["Bearer", "Basic realm=x"]), Some(Challenge::Basic));
        for other in [&[][..], &["Bearer"], &["Negotiate"], &["\"\""], &[""]] {
            assert_eq!(select(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_token_service_is_asked_for_one_repository() {
        let url = token_url("https://a/t?x=1", Some("r & s"), "shop/app").unwrap();
        let query = "x=1&service=r+%26+s&scope=repository%3Ashop%2Fapp%3Apull";
        assert_eq!(url.query(), Some(query));
        assert_eq!(token_url("no address", None, "shop/app"), None);
    }

    #[test]
    fn both_names_of_a_token_are_read() {
        for body in [
            r#"{"token":"t"}"#,
            r#"{"access_token":"t"}"#,
            r#"{"token":"t","access_token":"u"}"#,
        ] {
            let Some(Authorization::Bearer(token)) = token(body.as_bytes()) else {
                panic!("{body}")
            };
            assert_eq!(token.as_str(), "t");
        }
        assert!(token(b"{}").is_none() && token(b"t").is_none());
    }
}
