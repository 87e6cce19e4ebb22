//! Creates all certificates, keys and kubeconfigs of a cluster. All keys are ECDSA.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;
use std::{
    fs,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A certificate authority and the folder of its certificates.
#[derive(Debug)]
pub(super) struct Authority {
    dir: PathBuf,
    name: &'static str,
    issuer: Issuer<'static, KeyPair>,
}

/// Subject of a certificate.
pub(super) struct Holder<'a> {
    /// File name without ending.
    pub(super) file: &'a str,
    /// Common name: the user, for a client.
    pub(super) name: &'a str,
    /// Organisation: the group, for a client.
    pub(super) group: Option<&'a str>,
}

impl Authority {
    /// Creates an authority and writes `<name>.crt` and `<name>.key` into `dir`.
    pub(super) fn create(dir: &Path, name: &'static str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let key = KeyPair::generate().context("make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context("sign an authority")?;
        write(dir, &format!("{name}.crt"), &certificate.pem())?;
        write(dir, &format!("{name}.key"), &key.serialize_pem())?;
        Ok(Self {
            dir: dir.to_owned(),
            name,
            issuer: Issuer::new(params, key),
        })
    }

    /// Issues a client certificate.
    pub(super) fn client(&self, holder: &Holder<'_>) -> Result<()> {
        self.issue(holder, ExtendedKeyUsagePurpose::ClientAuth, Vec::new())
    }

    /// Issues a server certificate for names and addresses.
    pub(super) fn server(
        &self,
        holder: &Holder<'_>,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<()> {
        let mut all = Vec::new();
        for name in names {
            all.push(SanType::DnsName((*name).try_into().context("a DNS name")?));
        }
        all.extend(addresses.iter().copied().map(SanType::IpAddress));
        self.issue(holder, ExtendedKeyUsagePurpose::ServerAuth, all)
    }

    fn issue(
        &self,
        holder: &Holder<'_>,
        usage: ExtendedKeyUsagePurpose,
        names: Vec<SanType>,
    ) -> Result<()> {
        let key = KeyPair::generate().context("make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished(holder.name, holder.group);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = names;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("sign a certificate")?;
        write(
            &self.dir,
            &format!("{}.crt", holder.file),
            &certificate.pem(),
        )?;
        write(
            &self.dir,
            &format!("{}.key", holder.file),
            &key.serialize_pem(),
        )
    }

    /// Issues a client certificate and writes `<file>.kubeconfig` that uses it.
    pub(super) fn kubeconfig(&self, holder: &Holder<'_>, server: &str) -> Result<PathBuf> {
        self.client(holder)?;
        let file = |ending: &str| self.dir.join(format!("{}.{ending}", holder.file));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "selvage",
            "clusters": [{ "name": "selvage", "cluster": {
                "server": server, "certificate-authority": self.dir.join(format!("{}.crt", self.name)),
            }}],
            "users": [{ "name": holder.file, "user": {
                "client-certificate": file("crt"), "client-key": file("key"),
            }}],
            "contexts": [{ "name": "selvage", "context": { "cluster": "selvage", "user": holder.file } }],
        });
        write(
            &self.dir,
            &format!("{}.kubeconfig", holder.file),
            &serde_yaml::to_string(&config)?,
        )?;
        Ok(file("kubeconfig"))
    }
}

/// Creates the key pair that signs service account tokens: `sa.key` and `sa.pub`.
pub(super) fn service_account_key(dir: &Path) -> Result<()> {
    let key = KeyPair::generate().context("make a key")?;
    write(dir, "sa.key", &key.serialize_pem())?;
    write(dir, "sa.pub", &key.public_key_pem())
}

fn distinguished(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    if let Some(group) = group {
        distinguished.push(DnType::OrganizationName, group);
    }
    distinguished
}

fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}
