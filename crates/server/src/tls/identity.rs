//! What the files hold, and what rustls makes of it.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use wire::pg::scram::Channel;
use zeroize::Zeroizing;

use super::{TlsError, TlsFiles};
use crate::secret_file;

/// The name of PostgreSQL's protocol in ALPN.
pub(crate) const POSTGRESQL: &[u8] = b"postgresql";

/// The names of HTTP/2 and HTTP/1.1 in ALPN.
const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files' bytes.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

/// Tells contents apart without keeping the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// What a connection is accepted with.
pub(crate) struct Identity {
    pgwire: TlsAcceptor,
    http: TlsAcceptor,
    end_point: Option<Vec<u8>>,
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let failed = |setting, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Read {
                setting,
                path,
                source,
            }
        };
        let read = |setting, path: &Path| std::fs::read(path).map_err(failed(setting, path));
        let key = secret_file::read(&files.key).map_err(failed("tls.key", &files.key))?;
        let client_ca = files.client_ca.as_deref();
        Ok(Self {
            certificate: read("tls.certificate", &files.certificate)?,
            key,
            client_ca: client_ca
                .map(|path| read("tls.client_ca", path))
                .transpose()?,
        })
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let client_ca = self.client_ca.as_deref().unwrap_or_default();
        let parts = [&self.certificate, &*self.key, client_ca];
        let hashes: Vec<u8> = parts.iter().flat_map(Sha256::digest).collect();
        Fingerprint(Sha256::digest(hashes).into())
    }
}

impl Fingerprint {
    pub(super) fn of_error(error: &TlsError) -> Self {
        Self(Sha256::digest(error.to_string()).into())
    }
}

impl Identity {
    pub(super) fn new(files: &TlsFiles, contents: &Contents) -> Result<Self, TlsError> {
        let wrong = |setting, path: &Path, reason: String| TlsError::Content {
            setting,
            path: path.to_owned(),
            reason,
        };
        let certificate = |reason| wrong("tls.certificate", &files.certificate, reason);
        let key = |reason| wrong("tls.key", &files.key, reason);
        let chain = certificates(&contents.certificate).map_err(certificate)?;
        let end_point = chain
            .first()
            .and_then(|first| wire::pg::scram::end_point(first));
        let private = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| {
            // What the parser met could be part of the key.
            key("there is no private key in PEM in it".to_owned())
        })?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| certificate(error.to_string()))?;
        let builder = match (&contents.client_ca, &files.client_ca) {
            (Some(bytes), Some(path)) => builder.with_client_cert_verifier(
                client_verifier(bytes, provider)
                    .map_err(|reason| wrong("tls.client_ca", path, reason))?,
            ),
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, private).map_err(|error| {
            key(format!(
                "it does not go with tls.certificate, or is of a kind that is not known ({error})"
            ))
        })?;
        // Nothing is kept of a session here: what HTTP resumes is in the client's ticket.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let mut http = config.clone();
        // With a new certificate, or other authorities, the tickets from before are of no use.
        http.ticketer = rustls::crypto::ring::Ticketer::new()
            .map_err(|error| certificate(format!("no tickets can be made: {error}")))?;
        http.send_tls13_tickets = 1;
        http.alpn_protocols = HTTP.map(<[u8]>::to_vec).to_vec();
        // PostgreSQL's clients resume no session.
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![POSTGRESQL.to_vec()];
        Ok(Self {
            pgwire: TlsAcceptor::from(Arc::new(config)),
            http: TlsAcceptor::from(Arc::new(http)),
            end_point,
        })
    }

    /// Accepts connections of PostgreSQL's protocol.
    pub(crate) fn pgwire(&self) -> &TlsAcceptor {
        &self.pgwire
    }

    /// Accepts connections of HTTP; what ALPN chose says which version.
    pub(crate) fn http(&self) -> &TlsAcceptor {
        &self.http
    }

    /// What a password exchange in such a connection can be bound to.
    pub(crate) fn channel(&self) -> Channel {
        Channel::Tls {
            end_point: self.end_point.clone(),
        }
    }
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("it is not PEM: {error}"))?;
    if found.is_empty() {
        return Err("there is no certificate in PEM in it".to_owned());
    }
    Ok(found)
}

fn client_verifier(
    pem: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())
}
