//! Lines for the shell of a person who works in a cluster.

use super::{Cluster, tools::helm};
use anyhow::Result;
use std::path::Path;

/// What the lines name.
struct Access<'a> {
    kubeconfig: &'a Path,
    kubectl: &'a Path,
    /// Only with nodes: without them nothing can be installed.
    helm: Option<&'a Path>,
    /// Host and port.
    registry: Option<&'a str>,
    /// Base URL of the API.
    prometheus: Option<&'a str>,
}

impl Access<'_> {
    fn lines(&self) -> Vec<String> {
        let helm = self
            .helm
            .map_or_else(String::new, |helm| format!(" helm={}", helm.display()));
        let mut lines = vec![
            format!("export KUBECONFIG={}", self.kubeconfig.display()),
            format!("alias kubectl={}{helm}", self.kubectl.display()),
        ];
        if let Some(registry) = self.registry {
            lines.push(format!("export REGISTRY={registry}   # plain HTTP"));
        }
        if let Some(url) = self.prometheus {
            lines.push(format!("curl '{url}/api/v1/query?query=up'   # Prometheus"));
        }
        lines
    }
}

impl Cluster {
    /// Returns commands of a shell that give access to the cluster, its registry and its Prometheus. With nodes, the first
    /// use downloads Helm.
    ///
    /// # Errors
    /// Returns an error when Helm cannot be downloaded.
    pub fn shell(&self) -> Result<Vec<String>> {
        let installs = !self.nodes.is_empty() || self.is_existing();
        let helm = installs.then(helm).transpose()?;
        let access = Access {
            kubeconfig: self.kubeconfig(),
            kubectl: &self.tools.program("kubectl"),
            helm: helm.as_deref(),
            registry: self.registry.as_ref().map(super::Registry::address),
            prometheus: self.prometheus.as_ref().map(super::Prometheus::url),
        };
        Ok(access.lines())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_name_what_the_cluster_has() {
        let mut access = Access {
            kubeconfig: Path::new("/run/a/admin.kubeconfig"),
            kubectl: Path::new("/cache/kubectl"),
            helm: Some(Path::new("/cache/helm")),
            registry: Some("10.200.0.1:5000"),
            prometheus: Some("http://10.200.0.1:9090"),
        };
        assert_eq!(
            access.lines(),
            [
                "export KUBECONFIG=/run/a/admin.kubeconfig",
                "alias kubectl=/cache/kubectl helm=/cache/helm",
                "export REGISTRY=10.200.0.1:5000   # plain HTTP",
                "curl 'http://10.200.0.1:9090/api/v1/query?query=up'   # Prometheus",
            ]
        );
        access.helm = None;
        access.registry = None;
        access.prometheus = None;
        assert_eq!(
            access.lines(),
            [
                "export KUBECONFIG=/run/a/admin.kubeconfig",
                "alias kubectl=/cache/kubectl"
            ]
        );
    }
}
