//! Outgoing TLS connections: to relays of the same region, to `derp.admit_url`, and for DERP maps.
//!
//! Trusts the CA certificates of the system, so hearth carries no list that becomes outdated. A pinned
//! certificate needs no CA.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{fs, io};

use data_encoding::HEXLOWER;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Presented, Trust};
use crate::config::{Host, WebUrl};

/// Paths of the CA bundle. Source: `certFiles` in Go `crypto/x509/root_linux.go`.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Environment variable with the path of another CA bundle, as in most programs.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// Longest CA bundle, in bytes; a typical one has about 220 KB.
const MAX_BUNDLE_BYTES: u64 = 4 << 20;

/// Why an outgoing TLS connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// The system has no CA certificates, so no server can be verified.
    #[error(
        "no CA certificates on this system: install the package ca-certificates or ca-bundle, or pin the certificate with `#sha256-raw:...` after the URL"
    )]
    NoCaCertificates,
    /// The host of the URL is invalid for a certificate.
    #[error("invalid host for a certificate")]
    Host,
    /// The handshake ended without a certificate of the server.
    #[error("the server presented no certificate")]
    NoCertificate,
    /// The TLS library refused the settings.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
    /// The connection failed, or the certificate of the server is not trusted.
    #[error("{0}")]
    Connection(#[from] io::Error),
}

/// Outgoing TLS connections.
#[derive(Debug, Default)]
pub struct ClientTls {
    /// Made on first use, because most servers never need them.
    public: OnceLock<Arc<ClientConfig>>,
}

impl ClientTls {
    /// Starts TLS with the server of this URL, which must prove its name or its pinned certificate.
    ///
    /// # Errors
    /// [`ClientTlsError`].
    pub async fn connect(
        &self,
        url: &WebUrl,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ClientTlsError> {
        let (settings, name) = self.settings(url)?;
        let connector = TlsConnector::from(settings);
        Ok(Box::pin(connector.connect(name, stream)).await?)
    }

    /// Starts TLS with the server of this URL whatever its certificate is, and returns what clients think of
    /// that. Nothing secret may be sent on this connection.
    ///
    /// # Errors
    /// [`ClientTlsError`].
    pub async fn observe(
        &self,
        url: &WebUrl,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Presented), ClientTlsError> {
        let provider = Arc::new(provider::default_provider());
        let roots = system_roots().map(|roots| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()
        });
        let presented = Arc::new(Mutex::new(None));
        let judge = Judge::Observer {
            roots: roots.and_then(Result::ok),
            presented: presented.clone(),
        };
        let connector = TlsConnector::from(judged_by(judge, provider)?);
        let stream = Box::pin(connector.connect(name(url)?, stream)).await?;
        Ok((stream, recorded(&presented)?))
    }

    fn settings(
        &self,
        url: &WebUrl,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), ClientTlsError> {
        let name = name(url)?;
        if let Some(pin) = url.pin {
            let provider = Arc::new(provider::default_provider());
            return Ok((judged_by(Judge::Pin(pin), provider)?, name));
        }
        if let Some(public) = self.public.get() {
            return Ok((public.clone(), name));
        }
        let made = with_system_cas()?;
        Ok((self.public.get_or_init(|| made).clone(), name))
    }
}

/// The certificate of a handshake. Every full handshake presents one, and there is no other kind without resumption.
fn recorded(presented: &Mutex<Option<Presented>>) -> Result<Presented, ClientTlsError> {
    let mut presented = presented.lock().unwrap_or_else(PoisonError::into_inner);
    presented.take().ok_or(ClientTlsError::NoCertificate)
}

fn name(url: &WebUrl) -> Result<ServerName<'static>, ClientTlsError> {
    Ok(match url.server.host() {
        Host::Name(name) => {
            ServerName::try_from(name.to_string()).map_err(|_| ClientTlsError::Host)?
        }
        Host::Address(address) => ServerName::IpAddress((*address).into()),
    })
}

/// The CA certificates of the system; `None` if there are none.
fn system_roots() -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let variable = std::env::var_os(BUNDLE_VARIABLE).map(PathBuf::from);
    let usual = BUNDLES.iter().map(PathBuf::from);
    let readable = variable.into_iter().chain(usual).find_map(|path| {
        let fits = fs::metadata(&path).is_ok_and(|file| file.len() <= MAX_BUNDLE_BYTES);
        fs::read(path).ok().filter(|_| fits)
    });
    let bundle = readable.unwrap_or_default();
    // A CA certificate that cannot be read is not trusted.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten());
    (!roots.is_empty()).then_some(roots)
}

fn with_system_cas() -> Result<Arc<ClientConfig>, ClientTlsError> {
    let roots = system_roots().ok_or(ClientTlsError::NoCaCertificates)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(plain(builder.with_no_client_auth()))
}

fn judged_by(
    judge: Judge,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, ClientTlsError> {
    let verifier = Verifier {
        judge,
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(plain(builder.with_no_client_auth()))
}

/// HTTP/1.1, no session resumption.
fn plain(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// How a certificate is judged.
#[derive(Debug)]
enum Judge {
    /// Trusts the certificate with this hash, whatever its names and dates, and no other.
    Pin([u8; 32]),
    /// Accepts every certificate, and records whether clients trust it by `roots`.
    Observer {
        roots: Option<Arc<WebPkiServerVerifier>>,
        presented: Arc<Mutex<Option<Presented>>>,
    },
}

#[derive(Debug)]
struct Verifier {
    judge: Judge,
    provider: Arc<CryptoProvider>,
}

/// The error in the words of a person who has to replace the certificate.
fn in_words(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(fault) = error else {
        return error.to_string();
    };
    match fault {
        CertificateError::UnknownIssuer => {
            "no authority that this system trusts has signed it, or its chain is incomplete"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not yet valid".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        // rustls has no name of its own for what webpki calls `CaUsedAsEndEntity`.
        CertificateError::Other(_) => "it is not a valid certificate of a server".to_owned(),
        other => other.to_string(),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let hash = ring::digest::digest(&ring::digest::SHA256, leaf);
        match &self.judge {
            Judge::Pin(pin) if hash.as_ref() != pin => Err(rustls::Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
            Judge::Pin(_) => Ok(ServerCertVerified::assertion()),
            Judge::Observer { roots, presented } => {
                let trust = match roots {
                    None => Trust::NoCaCertificates,
                    Some(roots) => {
                        match roots.verify_server_cert(leaf, intermediates, name, ocsp, now) {
                            Ok(_) => Trust::Trusted,
                            Err(error) => Trust::Rejected(in_words(&error)),
                        }
                    }
                };
                let seen = Presented {
                    sha256: HEXLOWER.encode(hash.as_ref()),
                    trust,
                };
                *presented.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::{Aes, CertNames, CertResolver, Identity, server_config};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    #[test]
    fn a_handshake_without_a_certificate_is_not_reported_as_an_invalid_host() {
        let error = recorded(&Mutex::new(None)).unwrap_err();
        assert_eq!(error.to_string(), "the server presented no certificate");
    }

    #[tokio::test]
    async fn an_untrusted_certificate_is_reported_by_observe_and_refused_by_connect() {
        let dir = tempfile::tempdir().unwrap();
        let names = CertNames {
            dns: vec!["hearth.lan".into()],
            ..CertNames::default()
        };
        let identity = Identity::self_signed(
            dir.path(),
            &names,
            hearth_core::clock::Timestamp::from_unix_ms(0),
        )
        .unwrap();
        let settings = server_config(CertResolver::new(identity.clone()), Aes::InHardware);
        let acceptor = TlsAcceptor::from(settings.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async {
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(stream).await;
            }
        };
        let url: WebUrl = "https://hearth.lan".parse().unwrap();
        let tls = ClientTls::default();
        let asking = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let (_, presented) = tls.observe(&url, stream).await.unwrap();
            assert_eq!(presented.sha256, identity.sha256());
            assert_ne!(presented.trust, Trust::Trusted);
            let stream = TcpStream::connect(address).await.unwrap();
            assert!(tls.connect(&url, stream).await.is_err());
            // Where there are no CA certificates, there is no second handshake.
            drop(TcpStream::connect(address).await);
        };
        let ((), ()) = tokio::join!(serving, asking);
    }
}
