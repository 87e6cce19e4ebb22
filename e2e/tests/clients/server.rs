//! A function that `node-shim serve` serves.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use e2e::selvage;
use rcgen::PublicKeyData;

/// A running `node-shim serve`.
pub(crate) struct Server {
    child: Child,
    /// Address of the port without TLS.
    pub(crate) plain: SocketAddr,
    /// Address of the port with TLS.
    pub(crate) tls: SocketAddr,
    /// Public key of the certificate, as DER.
    pub(crate) public_key: Vec<u8>,
}

impl Server {
    /// Starts a function of the examples with variables such as `NAME=value`, and with a certificate for `localhost`, which it writes
    /// to `tls.crt` in `folder`.
    pub(crate) fn start(folder: &Path, example: &str, variables: &[&str]) -> Self {
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.join("tls.crt"), identity.cert.pem()).unwrap();
        fs::write(folder.join("tls.key"), identity.signing_key.serialize_pem()).unwrap();
        let dist = selvage::dist();
        let mut child = Command::new(dist.join("node-shim"))
            .args([
                "serve",
                "--addr",
                "127.0.0.1:0",
                "--tls-addr",
                "127.0.0.1:0",
            ])
            .args(variables.iter().flat_map(|variable| ["--env", variable]))
            .arg("--tls-certificate")
            .arg(folder)
            .arg(dist.join("examples").join(example))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("run `make dist` first: {error}"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = |prefix: &str| {
            let line = lines.next().unwrap().unwrap();
            let address = line.strip_prefix(prefix);
            address
                .and_then(|address| address.parse().ok())
                .unwrap_or_else(|| panic!("{line}"))
        };
        let (plain, tls) = (
            address("Serving on http://"),
            address("Serving on https://"),
        );
        // a full pipe would stop the server, and a closed one would be an error
        std::thread::spawn(move || lines.for_each(drop));
        let public_key = identity.signing_key.subject_public_key_info();
        Self {
            child,
            plain,
            tls,
            public_key,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
