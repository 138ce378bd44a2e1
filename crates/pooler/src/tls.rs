//! TLS to an origin: whom we believe, and how much.

mod words;

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

pub(crate) use words::in_words;

use crate::failure::{Failure, FailureKind};
use crate::origin::{Tls, TlsMode};

/// The configuration of an origin's connections, or nothing where all is in clear.
///
/// # Errors
///
/// If the authorities or the identity cannot be used.
pub(crate) fn config(tls: &Tls) -> Result<Option<Arc<ClientConfig>>, Failure> {
    if tls.mode == TlsMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let named = match &tls.authorities {
        Some(authorities) => certificates("the authorities", authorities)?,
        None => Vec::new(),
    };
    let believed = believed(tls, &named, &provider)?;
    let verifier = Arc::new(Checking {
        provider: Arc::clone(&provider),
        believed,
        named,
        any_name: tls.mode != TlsMode::VerifyFull,
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS", &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates("the client certificate", &identity.chain)?;
            let key = PrivateKeyDer::from_pem_slice(identity.key.reveal().as_bytes())
                .map_err(|error| unusable("the client certificate's key", &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| unusable("the client certificate", &error))?
        }
    };
    Ok(Some(Arc::new(config)))
}

/// Who checks certificates; nobody where they are not looked at.
fn believed(
    tls: &Tls,
    named: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ServerCertVerifier>>, Failure> {
    let is_checked = matches!(tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
    if !named.is_empty() {
        let mut roots = RootCertStore::empty();
        for certificate in named {
            roots
                .add(certificate.clone())
                .map_err(|error| unusable("the authorities", &error))?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| unusable("the authorities", &error))?;
        return Ok(Some(verifier));
    }
    if !is_checked {
        return Ok(None);
    }
    let system = rustls_platform_verifier::Verifier::new(Arc::clone(provider))
        .map_err(|error| unusable("the system's authorities", &error))?;
    Ok(Some(Arc::new(system)))
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| unusable(what, &error))?;
    match found.is_empty() {
        true => Err(unusable(what, &"there is no certificate in the PEM")),
        false => Ok(found),
    }
}

fn unusable(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Tls,
        format!("{what} cannot be used for TLS: {error}"),
    )
}

/// Whether a certificate was refused for being an authority's.
fn is_of_an_authority(error: &CertificateError) -> bool {
    let CertificateError::Other(OtherError(cause)) = error else {
        return false;
    };
    matches!(cause.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Checks as much of a certificate as libpq does in the same mode.
#[derive(Debug)]
struct Checking {
    provider: Arc<CryptoProvider>,
    believed: Option<Arc<dyn ServerCertVerifier>>,
    /// Authorities by name.
    named: Vec<CertificateDer<'static>>,
    any_name: bool,
}

impl ServerCertVerifier for Checking {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(believed) = &self.believed else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified =
            believed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let verified = match verified {
            // Signed by itself, and believed by name: as an authority it was refused after its time was looked at, and before
            // its name was. Its key is that of who signs the handshake.
            Err(Error::InvalidCertificate(error))
                if is_of_an_authority(&error) && self.named.iter().any(|it| it == end_entity) =>
            {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                verify_server_name(&certificate, server_name)
                    .map(|()| ServerCertVerified::assertion())
            }
            verified => verified,
        };
        match verified {
            // The chain was good: the name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
