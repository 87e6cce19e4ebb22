//! Pull secrets: `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_spec::distribution::Reference;
use regex::Regex;
use serde::Deserialize;
use zeroize::Zeroizing;

/// User name and password for a registry. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name of the login.
    pub user: String,
    /// Password or token; overwritten when dropped.
    pub password: Zeroizing<String>,
}

/// Logins by registry, with the same rules as the kubelet: an entry may name a path (`ghcr.io/team-a`) and its host may have
/// `*` and `?` for parts of a label (`*.registry.example`). `Debug` shows only the entries' names.
#[derive(Clone, Default)]
pub struct Credentials(BTreeMap<String, Vec<Login>>);

/// Why a Secret cannot be used as a pull secret. Messages never quote its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The Secret has a type for something else.
    #[error("its type is {0:?}, not kubernetes.io/dockerconfigjson")]
    Type(String),
    /// The Secret lacks the key of its type.
    #[error("it has no key {0}")]
    MissingKey(&'static str),
    /// The value is not JSON in the form of its type.
    #[error("{key} is not valid JSON of its kind (line {line})")]
    Invalid {
        /// Key of the Secret.
        key: &'static str,
        /// Line of the value, from 1.
        line: usize,
    },
    /// The field `auth` of an entry is not base64 of `user:password`.
    #[error("the entry for {0:?} has an auth that is not base64 of user:password")]
    Auth(String),
}

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

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

// === impl Credentials ===

impl Credentials {
    /// Returns the logins for an image in the order in which to try them: those of the most specific entry first, and
    /// those of one entry in the order of their Secrets.
    #[must_use]
    pub fn logins(&self, image: &Reference) -> Vec<Login> {
        let image = format!("{}/{}", image.registry(), image.repository());
        // A longer path sorts after a shorter one, and a name after a pattern.
        let entries = self.0.iter().rev();
        let matching = entries.filter(|(entry, _)| matches(entry, &image));
        matching.flat_map(|(_, logins)| logins).cloned().collect()
    }

    /// Adds the logins of another Secret. They are tried after the existing ones.
    pub fn merge(&mut self, other: Self) {
        for (entry, logins) in other.0 {
            self.0.entry(entry).or_default().extend(logins);
        }
    }
}

/// Reads the content of one pull secret by the type of the Secret. Entries without a login are skipped.
///
/// # Errors
/// The Secret has another type, lacks a key, or its content does not match its type.
pub fn parse_pull_secret(
    kind: &str,
    data: &BTreeMap<String, Vec<u8>>,
) -> Result<Credentials, CredentialsError> {
    let (key, nested) = match kind {
        "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", true),
        "kubernetes.io/dockercfg" => (".dockercfg", false),
        other => return Err(CredentialsError::Type(other.to_owned())),
    };
    let bytes = data.get(key).ok_or(CredentialsError::MissingKey(key))?;
    let auths: Result<BTreeMap<String, Entry>, _> = if nested {
        serde_json::from_slice::<Config>(bytes).map(|config| config.auths)
    } else {
        serde_json::from_slice(bytes)
    };
    // serde's own message may quote the input, which is the secret
    let auths = auths.map_err(|error| CredentialsError::Invalid {
        key,
        line: error.line(),
    })?;
    let mut credentials = Credentials::default();
    for (name, entry) in auths {
        let Some(login) = entry
            .login()
            .map_err(|()| CredentialsError::Auth(name.clone()))?
        else {
            continue;
        };
        let logins = credentials.0.entry(normalize(&name)).or_default();
        logins.push(login);
    }
    Ok(credentials)
}

impl Entry {
    fn login(self) -> Result<Option<Login>, ()> {
        let login = |user: &str, password: &str| Login {
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        };
        if let (Some(user), Some(password)) = (&self.username, self.password.map(Zeroizing::new)) {
            return Ok(Some(login(user, &password)));
        }
        let Some(auth) = self
            .auth
            .map(Zeroizing::new)
            .filter(|auth| !auth.is_empty())
        else {
            return Ok(None);
        };
        let decoded = Zeroizing::new(STANDARD.decode(auth.trim()).map_err(|_| ())?);
        let text = std::str::from_utf8(&decoded).map_err(|_| ())?;
        let (user, password) = text.split_once(':').ok_or(())?;
        Ok(Some(login(user, password)))
    }
}

/// `https://index.docker.io/v1/` stands for `docker.io`, `registry.example/v2/` for its host.
fn normalize(entry: &str) -> String {
    let bare = entry
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    let path = ["v1", "v2"]
        .iter()
        .find_map(|version| match path.strip_prefix(version) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                Some(rest.trim_start_matches('/'))
            }
            _ => None,
        })
        .unwrap_or(path);
    if path.is_empty() {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    }
}

/// Whether an entry applies to an image `host/repository`: the host matches by its labels, the path by its beginning.
fn matches(entry: &str, image: &str) -> bool {
    let (host, path) = entry.split_once('/').unwrap_or((entry, ""));
    let host = regex::escape(host)
        .replace(r"\*", "[^.:/]*")
        .replace(r"\?", "[^.:/]");
    Regex::new(&format!("^{host}/{}", regex::escape(path)))
        .is_ok_and(|pattern| pattern.is_match(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG_JSON: &str = "kubernetes.io/dockerconfigjson";

    fn secret(key: &str, content: &str) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([(key.to_owned(), content.as_bytes().to_vec())])
    }

    fn config(auths: &str) -> Result<Credentials, CredentialsError> {
        let content = format!(r#"{{"auths":{auths}}}"#);
        parse_pull_secret(CONFIG_JSON, &secret(".dockerconfigjson", &content))
    }

    /// A Secret with one login per entry; the user name identifies the entry.
    fn entries(names: &[(&str, &str)]) -> Credentials {
        let entry = |(name, user): &(&str, &str)| {
            format!(r#""{name}":{{"username":"{user}","password":"p"}}"#)
        };
        let entries: Vec<String> = names.iter().map(entry).collect();
        config(&format!("{{{}}}", entries.join(","))).unwrap()
    }

    fn users(credentials: &Credentials, image: &str) -> Vec<String> {
        let logins = credentials.logins(&image.parse().unwrap());
        logins.into_iter().map(|login| login.user).collect()
    }

    #[test]
    fn both_kinds_and_both_spellings_are_read() {
        let parsed = config(r#"{"https://r.example/v2/":{"auth":"dTpw"}}"#).unwrap();
        let logins = parsed.logins(&"r.example/a".parse().unwrap());
        let [Login { user, password }] = logins.as_slice() else {
            panic!("{logins:?}")
        };
        assert_eq!((user.as_str(), password.as_str()), ("u", "p"));
        let old = r#"{"index.docker.io":{"username":"a","password":"b"}}"#;
        let old = parse_pull_secret("kubernetes.io/dockercfg", &secret(".dockercfg", old));
        assert_eq!(users(&old.unwrap(), "busybox"), ["a"]);
        let hub = entries(&[("https://index.docker.io/v1/", "hub")]);
        assert_eq!(users(&hub, "docker.io/team/app:1"), ["hub"]);
    }

    #[test]
    fn nothing_of_a_secret_reaches_a_message_or_debug() {
        for (auth, word) in [
            ("12345", "12345"),
            (r#""aHVzaA==""#, "hush"),
            (r#""hush""#, "hush"),
        ] {
            let error = config(&format!(r#"{{"r":{{"auth":{auth}}}}}"#)).unwrap_err();
            assert!(!error.to_string().contains(word), "{error}");
        }
        let error = parse_pull_secret("Opaque", &BTreeMap::new()).unwrap_err();
        assert_eq!(error, CredentialsError::Type("Opaque".into()));
        let error = parse_pull_secret(CONFIG_JSON, &BTreeMap::new()).unwrap_err();
        assert_eq!(error, CredentialsError::MissingKey(".dockerconfigjson"));
        let good = config(r#"{"r.example":{"auth":"dXNlcjpodXNo"}}"#).unwrap();
        let logins = good.logins(&"r.example/a".parse().unwrap());
        assert_eq!(logins[0].password.as_str(), "hush");
        assert!(!format!("{good:?}{logins:?}").contains("hush"));
    }

    /// Content that `kubectl create secret docker-registry` and `docker logout` leave behind.
    #[test]
    fn an_empty_entry_does_not_spoil_the_others() {
        for empty in [r"{}", r#"{"auth":""}"#, r#"{"identitytoken":"x"}"#] {
            let auths = format!(r#"{{"a.example":{empty},"b.example":{{"auth":"dTpw"}}}}"#);
            let parsed = config(&auths).unwrap();
            assert!(users(&parsed, "a.example/x").is_empty());
            assert_eq!(users(&parsed, "b.example/x"), ["u"]);
        }
    }

    #[test]
    fn entries_with_a_path_match_by_prefix_and_come_first() {
        let known = entries(&[
            ("ghcr.io", "all"),
            ("ghcr.io/team-a", "a"),
            ("https://ghcr.io/v2/team-a/app", "app"),
            ("ghcr.io:8443/team-a", "port"),
        ]);
        assert_eq!(users(&known, "ghcr.io/team-a/app:1"), ["app", "a", "all"]);
        assert_eq!(users(&known, "ghcr.io/team-a/other"), ["a", "all"]);
        assert_eq!(users(&known, "ghcr.io/team-b/app"), ["all"]);
        assert_eq!(users(&known, "ghcr.io:8443/team-a/x"), ["port"]);
        assert!(users(&known, "ghcr.io.evil.example/team-a/app").is_empty());
        assert!(users(&known, "evil.example/ghcr.io/team-a").is_empty());
    }

    #[test]
    fn patterns_stand_for_parts_of_one_label() {
        let known = entries(&[
            ("*.azurecr.io", "azure"),
            ("app*.k8s.io", "k8s"),
            ("r?.example/team", "single"),
        ]);
        assert_eq!(users(&known, "shop.azurecr.io/a"), ["azure"]);
        assert_eq!(users(&known, "app-7.k8s.io/a"), ["k8s"]);
        assert_eq!(users(&known, "r1.example/team/a"), ["single"]);
        for image in [
            "a.b.azurecr.io/x",
            "azurecr.io/x",
            "shop.azurecr.io:443/a",
            "evil.example/shop.azurecr.io/a",
            "r12.example/team/a",
            "xapp.k8s.io/a",
        ] {
            assert!(users(&known, image).is_empty(), "{image}");
        }
    }

    #[test]
    fn several_secrets_for_one_registry_are_tried_in_their_order() {
        let mut known = entries(&[("r.example", "first")]);
        known.merge(entries(&[
            ("r.example", "second"),
            ("r.example/team", "team"),
        ]));
        assert_eq!(
            users(&known, "r.example/team/app"),
            ["team", "first", "second"]
        );
        assert_eq!(users(&known, "r.example/app"), ["first", "second"]);
    }
}
