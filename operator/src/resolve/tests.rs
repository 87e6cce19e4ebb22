use axum::Router;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse;
use futures::FutureExt;
use serde_json::json;

use super::*;

/// HS-9: delays double up to five minutes and are never shorter than the registry requested.
#[test]
fn backoff_doubles_to_a_ceiling_and_honours_the_registry() {
    let error = ResolveError::new(Failure::PullFailed, "x");
    let worst: Vec<u64> = (1..=11)
        .map(|attempt| error.backoff(attempt, 1.0).as_secs())
        .collect();
    assert_eq!(worst, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(error.backoff(9, 0.0), Duration::from_millis(500));
    let asked = ResolveError {
        retry_after: Some(Duration::from_secs(77)),
        ..error
    };
    assert_eq!(asked.backoff(1, 0.3), Duration::from_secs(77));
}

/// Resolves `shop/app:1` with a registry that answers each path with `answer`.
async fn resolve<R: IntoResponse>(
    answer: impl Fn(&str) -> R + Clone + Send + Sync + 'static,
) -> (String, Result<Artifact, ResolveError>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let router = Router::new()
        .fallback(move |uri: axum::http::Uri| async move { answer(uri.path()).into_response() });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let resolver = Resolver::new([host.clone()]).unwrap();
    let image = format!("{host}/shop/app:1");
    let resolved = resolver
        .resolve("shop", &image, &Credentials::default())
        .await;
    (host, resolved)
}

fn manifest(media_type: &str, layer: &[u8]) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest_of(b"{}"), "size": 2 },
        "layers": [{ "mediaType": media_type, "digest": digest_of(layer), "size": layer.len() }],
    })
    .to_string()
    .into_bytes()
}

#[tokio::test]
async fn a_component_is_found_in_its_layer_and_in_an_archive() {
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(COMPONENT.len() as u64);
    archive
        .append_data(&mut header, "app.wasm", COMPONENT)
        .unwrap();
    let archive = archive.into_inner().unwrap();
    for (media_type, layer) in [
        ("application/wasm", COMPONENT.to_vec()),
        ("application/vnd.oci.image.layer.v1.tar", archive),
    ] {
        let manifest = manifest(media_type, &layer);
        let digest = digest_of(&manifest);
        let (host, resolved) = resolve(move |path| {
            if path.contains("/manifests/") {
                manifest.clone()
            } else {
                layer.clone()
            }
        })
        .await;
        let artifact = resolved.unwrap();
        assert_eq!(artifact.manifest_digest, digest);
        assert_eq!(artifact.component_digest, digest_of(COMPONENT));
        assert_eq!(artifact.bytes, COMPONENT);
        assert_eq!(artifact.repository, format!("{host}/shop/app"));
        assert_eq!(artifact.media_type, media_type);
        assert!(!artifact.private);
    }
}

/// HS-2, HS-3: wrong bytes and malicious manifests are refused with the right reason.
#[tokio::test]
async fn content_that_differs_from_its_declaration_has_its_reason() {
    for (blob, failure) in [
        (&b"other"[..], Failure::DigestMismatch),
        (b"core-longer", Failure::DigestMismatch),
        (b"wasm!", Failure::NotAComponent),
    ] {
        let declared = manifest("application/wasm", b"wasm!");
        let (_, resolved) = resolve(move |path| match path.contains("/manifests/") {
            true => declared.clone(),
            false => blob.to_vec(),
        })
        .await;
        assert_eq!(resolved.unwrap_err().failure, failure);
    }
    let (_, resolved) = resolve(|_| "{}").await;
    assert_eq!(resolved.unwrap_err().failure, Failure::NotAComponent);
}

/// HS-9: 404, 403, 429 and 502 have distinct reasons and keep `Retry-After`.
#[tokio::test]
async fn hs_9_answers_have_their_class_and_retry_after_is_kept() {
    for (status, failure) in [
        (StatusCode::NOT_FOUND, Failure::NotFound),
        (StatusCode::FORBIDDEN, Failure::Unauthorized),
        (StatusCode::TOO_MANY_REQUESTS, Failure::PullFailed),
        (StatusCode::BAD_GATEWAY, Failure::PullFailed),
    ] {
        let (host, resolved) = resolve(move |_| (status, [(RETRY_AFTER, "17")])).await;
        let error = resolved.unwrap_err();
        assert_eq!(
            (error.failure, error.retry_after),
            (failure, Some(Duration::from_secs(17))),
            "{status}"
        );
        assert!(error.message.contains(&host), "{error}");
    }
}

#[tokio::test]
async fn an_invalid_image_reference_is_reported_as_not_found() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let resolver = Resolver::new([]).unwrap();
    for image in ["", "r.example/UPPER", "r.example/a@sha256:1"] {
        let resolved = resolver
            .resolve("shop", image, &Credentials::default())
            .await;
        assert_eq!(resolved.unwrap_err().failure, Failure::NotFound, "{image}");
    }
}

/// Serves every request with `router` on the loopback. Returns `host:port`.
async fn listen(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    host
}

/// HS-9: functions whose registries never answer do not delay those of another namespace.
#[tokio::test]
async fn hs_9_a_registry_that_hangs_delays_its_own_namespace_alone() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let silent = listen(Router::new().fallback(std::future::pending::<StatusCode>)).await;
    let good = listen(Router::new().fallback(|| async { StatusCode::NOT_FOUND })).await;
    let resolver = Resolver::new([silent.clone(), good.clone()]).unwrap();
    let anonymous = Credentials::default();
    let slow = format!("{silent}/shop/app:1");
    let mut waiting: Vec<_> = (0..20)
        .map(|_| Box::pin(resolver.resolve("slow", &slow, &anonymous)))
        .collect();
    for one in &mut waiting {
        assert!(one.as_mut().now_or_never().is_none());
    }
    let image = format!("{good}/shop/app:1");
    let other = resolver.resolve("quick", &image, &anonymous);
    let answer = tokio::time::timeout(Duration::from_secs(60), other).await;
    assert_eq!(answer.unwrap().unwrap_err().failure, Failure::NotFound);
}
