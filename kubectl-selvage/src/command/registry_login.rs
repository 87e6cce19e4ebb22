//! Logins for registries from the configuration of Docker, with its credential helpers.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use oci_client::secrets::RegistryAuth;

/// Registry of Docker, and the name under which its logins are stored.
const DOCKER: (&str, &str) = ("index.docker.io", "https://index.docker.io/v1/");
/// Part of the output of every credential helper that has no login for a registry.
const NOT_FOUND: &str = "credentials not found";

/// Reads the login for a registry from `$DOCKER_CONFIG/config.json`, which is `~/.docker/config.json` by default.
/// Anonymous if there is none.
///
/// # Errors
/// The file or the answer of a credential helper cannot be used. Texts never quote them.
pub(super) fn read(registry: &str) -> Result<RegistryAuth> {
    let Some(file) = path() else {
        return Ok(RegistryAuth::Anonymous);
    };
    let config = match std::fs::File::open(&file) {
        Ok(config) => std::io::BufReader::new(config),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", file.display()));
        }
    };
    let name = if registry == DOCKER.0 {
        DOCKER.1
    } else {
        registry
    };
    match get_credential_from_reader(config, name) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(RegistryAuth::Basic(user, password))
        }
        Ok(DockerCredential::IdentityToken(_)) => Err(anyhow!(
            "{} has an identity token for {registry}, which is not supported: log in with user name and password",
            file.display()
        )),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if stdout.contains(NOT_FOUND) || stderr.contains(NOT_FOUND) =>
        {
            Ok(RegistryAuth::Anonymous)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => Err(anyhow!(
            "the credential helper {helper} in {} failed for {registry}",
            file.display()
        )),
        Err(error) => Err(anyhow!(
            "the login for {registry} in {} cannot be used: {error}",
            file.display()
        )),
    }
}

fn path() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    Some(folder.or_else(home)?.join("config.json"))
}
