//! A stand-in for the package of the same name: instead of the authorities of the
//! web it has those in the file that `SSL_CERT_FILE` names, none if there is none.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

/// Converts into the list of trusted authorities.
#[derive(Clone, Copy)]
pub struct Roots;

/// Takes the place of the constant list.
pub static TLS_SERVER_ROOTS: Roots = Roots;

impl From<Roots> for Vec<TrustAnchor<'static>> {
    fn from(_: Roots) -> Self {
        let Some(file) = std::env::var_os("SSL_CERT_FILE") else {
            return Vec::new();
        };
        CertificateDer::pem_file_iter(file)
            .expect("SSL_CERT_FILE can be read")
            .map(|certificate| {
                let certificate = certificate.expect("SSL_CERT_FILE holds certificates");
                webpki::anchor_from_trusted_cert(&certificate)
                    .expect("SSL_CERT_FILE holds authorities")
                    .to_owned()
            })
            .collect()
    }
}
