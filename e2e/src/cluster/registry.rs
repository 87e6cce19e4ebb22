//! A real OCI registry (plain HTTP) that the host, nodes and pods reach at the same address.

use super::{packages::program, process::Process, run::Run, wait};
use anyhow::{Context, Result};
use serde_json::json;
use std::{fs, time::Duration};

/// User name for a registry started by [`Registry::start_private`].
pub const USER: &str = "selvage";
/// Password of [`USER`].
pub const PASSWORD: &str = "open-sesame";
/// `USER:bcrypt(PASSWORD)`, the only format that the registry reads.
const HTPASSWD: &str = "selvage:$2a$05$QN.li5ttKu8UiZS5/Oy/AuU.oFFq5AKgX6N8YKMCaUSJGoaru0GVm\n";

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    address: String,
}

impl Registry {
    /// Starts a registry without authentication.
    ///
    /// # Errors
    /// Returns an error when the registry does not start.
    pub async fn start(run: &Run) -> Result<Self> {
        Self::launch(run, "registry", 5000, false).await
    }

    /// Starts a registry that requires [`USER`] and [`PASSWORD`] (basic authentication).
    ///
    /// # Errors
    /// Returns an error when the registry does not start.
    pub async fn start_private(run: &Run) -> Result<Self> {
        Self::launch(run, "registry-private", 5001, true).await
    }

    async fn launch(run: &Run, name: &str, port: u16, private: bool) -> Result<Self> {
        let dir = run.dir().join(name);
        fs::create_dir_all(&dir)?;
        let address = run.listen(port)?;
        let mut config = json!({
            "version": 0.1,
            "log": { "level": "info", "fields": { "service": name } },
            "storage": {
                "filesystem": { "rootdirectory": dir.join("data") },
                "delete": { "enabled": true }, "cache": { "blobdescriptor": "inmemory" },
            },
            // shared by replicas; here there is one, and no upload continues after a restart
            "http": { "addr": address, "secret": "one replica" },
        });
        if private {
            fs::write(dir.join("htpasswd"), HTPASSWD)?;
            if let Some(config) = config.as_object_mut() {
                let auth =
                    json!({ "htpasswd": { "realm": "selvage", "path": dir.join("htpasswd") } });
                config.insert("auth".into(), auth);
            }
        }
        let file = dir.join("config.yml");
        fs::write(&file, serde_yaml::to_string(&config)?)?;
        let arguments = ["serve".into(), file.into_os_string()];
        let process = Process::start(run.dir(), name, &program("docker-registry")?, arguments)?;
        let mut registry = Self { process, address };
        registry.ready().await?;
        Ok(registry)
    }

    /// Returns host and port, the first part of an image reference.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns its process, which a test may kill, freeze and restart.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until the registry answers, for example after a restart.
    ///
    /// # Errors
    /// Returns an error when the registry ends or does not answer for 60 s.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("http://{}/v2/", self.address);
        wait::until(
            Duration::from_secs(60),
            Duration::from_millis(50),
            async || {
                self.process.check()?;
                // a 401 also shows that it answers
                Ok(reqwest::get(&url).await.is_ok().then_some(()))
            },
        )
        .await
        .context("wait for the registry")
    }

    pub(super) fn into_process(self) -> Process {
        self.process
    }
}
