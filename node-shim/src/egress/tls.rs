//! TLS to the servers of outbound requests. Certificates are always verified.

use std::io;
use std::sync::{Arc, LazyLock};

use node_shim_core::egress::TargetHost;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use wasmtime_wasi_http::Error;

/// Protocols of outbound requests, in the order of preference.
pub(super) const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Certificate authorities of the system, and those of Mozilla where the system has none.
static SYSTEM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        tracing::info!("outbound requests use the built-in certificate authorities");
    } else {
        tracing::debug!(
            added,
            ignored,
            "outbound requests use the system's certificate authorities"
        );
    }
    Arc::new(roots)
});

/// Returns the certificate authorities of the system, or those of Mozilla where the system has none.
pub(crate) fn system_roots() -> &'static RootCertStore {
    &SYSTEM_ROOTS
}

/// Returns the configuration that offers these protocols and trusts these authorities; `None` means those of the system.
///
/// # Errors
/// Fails when the TLS provider does not support the protocol versions, which ring does.
pub(crate) fn client_config(
    roots: Option<&Arc<RootCertStore>>,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let roots = roots.map_or_else(|| Arc::clone(&SYSTEM_ROOTS), Arc::clone);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // sessions would be shared between functions, because they are found by the name of the server only
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Returns the name that the certificate has to contain.
pub(super) fn server_name(host: &TargetHost) -> Result<ServerName<'static>, Error> {
    match host {
        TargetHost::Address(address) => Ok(ServerName::from(*address)),
        // a function is called without TLS
        TargetHost::Name(_) | TargetHost::Function(_) => {
            ServerName::try_from(host.to_string()).map_err(|_| Error::TlsProtocolError)
        }
    }
}

/// Returns the error of a failed handshake as the function sees it.
pub(super) fn handshake_error(error: &io::Error) -> Error {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        _ => Error::TlsProtocolError,
    }
}
