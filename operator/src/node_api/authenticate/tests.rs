use super::*;

fn token_with(claims: &str) -> String {
    format!("header.{}.signature", URL_SAFE_NO_PAD.encode(claims))
}

/// HK-4: no review outlives its token.
#[test]
fn the_expiry_of_a_token_is_never_extended() {
    let now = Timestamp::from_second(1_000).unwrap();
    for (claims, left) in [
        (r#"{"exp":1600}"#, Some(600)),
        (r#"{"exp":1001}"#, Some(30)),
        (r#"{"exp":-5}"#, Some(30)),
        (r#"{"exp":"soon"}"#, None),
        ("{}", None),
        ("not json", None),
    ] {
        let expected = left.map(Duration::from_secs);
        assert_eq!(expires_in(&token_with(claims), now), expected, "{claims}");
    }
    assert_eq!(expires_in("opaque", now), None);
    assert_eq!(expires_in("a.%%%.c", now), None);
}

#[test]
fn only_a_bearer_token_of_sane_length_is_read() {
    let with = |value: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", value.parse().unwrap());
        bearer(&metadata).map(str::to_owned)
    };
    assert_eq!(with("Bearer abc"), Some("abc".to_owned()));
    assert_eq!(with("Basic abc"), None);
    assert_eq!(with("Bearer "), None);
    assert_eq!(with(&format!("Bearer {}", "x".repeat(MAX_TOKEN + 1))), None);
    assert_eq!(bearer(&MetadataMap::new()), None);
}
