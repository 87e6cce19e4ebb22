//! Pull secrets: `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

/// User names and passwords by registry host. `Debug` shows neither.
#[derive(Clone, Default)]
pub struct Credentials(BTreeMap<String, (String, Zeroizing<String>)>);

#[derive(Deserialize)]
struct Config {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Credentials {
    /// What to show to `registry`, if anything.
    #[must_use]
    pub fn get(&self, registry: &str) -> Option<(&str, &str)> {
        self.0
            .get(registry)
            .map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// Adds those of `other` for hosts that are not known yet: the first secret in the list wins.
    pub fn merge(&mut self, other: Self) {
        for (host, entry) in other.0 {
            self.0.entry(host).or_insert(entry);
        }
    }
}

/// Reads the content of one pull secret by its type.
///
/// # Errors
/// One sentence that names what is wrong and never the content.
pub fn parse_pull_secret(
    kind: &str,
    data: &BTreeMap<String, Vec<u8>>,
) -> Result<Credentials, String> {
    let (key, nested) = match kind {
        "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", true),
        "kubernetes.io/dockercfg" => (".dockercfg", false),
        other => {
            return Err(format!(
                "its type is {other:?}, not kubernetes.io/dockerconfigjson"
            ));
        }
    };
    let bytes = data
        .get(key)
        .ok_or_else(|| format!("it has no key {key}"))?;
    // serde's own message may quote the input, which is the secret.
    let auths = if nested {
        serde_json::from_slice::<Config>(bytes).map(|config| config.auths)
    } else {
        serde_json::from_slice(bytes)
    }
    .map_err(|error| {
        format!(
            "{key} is not valid JSON of its kind (line {})",
            error.line()
        )
    })?;
    let mut known = BTreeMap::new();
    for (host, entry) in auths {
        let Some(pair) = entry.pair() else {
            return Err("an entry has neither auth nor username and password".to_owned());
        };
        known.insert(normalise(&host), pair);
    }
    Ok(Credentials(known))
}

impl Entry {
    fn pair(self) -> Option<(String, Zeroizing<String>)> {
        if let (Some(user), Some(password)) = (self.username, self.password) {
            return Some((user, Zeroizing::new(password)));
        }
        let decoded = STANDARD.decode(self.auth?.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, password) = text.split_once(':')?;
        Some((user.to_owned(), Zeroizing::new(password.to_owned())))
    }
}

/// `https://index.docker.io/v1/` and `registry.example/` are written for hosts.
fn normalise(host: &str) -> String {
    let bare = host
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or(bare);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(key: &str, content: &str) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([(key.to_owned(), content.as_bytes().to_vec())])
    }

    #[test]
    fn both_kinds_and_both_spellings_are_read() {
        let new = secret(
            ".dockerconfigjson",
            r#"{"auths":{"https://r.example/v2/":{"auth":"dTpw"}}}"#,
        );
        let parsed = parse_pull_secret("kubernetes.io/dockerconfigjson", &new).unwrap();
        assert_eq!(parsed.get("r.example"), Some(("u", "p")));
        let old = secret(
            ".dockercfg",
            r#"{"index.docker.io":{"username":"a","password":"b"}}"#,
        );
        let parsed = parse_pull_secret("kubernetes.io/dockercfg", &old).unwrap();
        assert_eq!(parsed.get("docker.io"), Some(("a", "b")));
    }

    #[test]
    fn nothing_of_a_secret_reaches_a_message_or_debug() {
        let broken = secret(".dockerconfigjson", r#"{"auths":{"r":{"auth":12345}}}"#);
        let error = parse_pull_secret("kubernetes.io/dockerconfigjson", &broken).unwrap_err();
        assert!(!error.contains("12345"), "{error}");
        assert!(
            parse_pull_secret("Opaque", &broken)
                .unwrap_err()
                .contains("Opaque")
        );
        let good = secret(
            ".dockerconfigjson",
            r#"{"auths":{"r":{"auth":"dXNlcjpodXNo"}}}"#,
        );
        let parsed = parse_pull_secret("kubernetes.io/dockerconfigjson", &good).unwrap();
        assert!(!format!("{parsed:?}").contains("hush"));
    }
}
