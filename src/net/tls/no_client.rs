//! Replaces the HTTPS client in builds without the feature `https-client`.

use tokio::net::TcpStream;

use super::Presented;
use crate::config::WebUrl;

/// Why an outgoing TLS connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// This build has no HTTPS client.
    #[error("this build has no HTTPS client (feature `https-client`): use an http:// URL")]
    LeftOut,
}

/// Outgoing TLS connections: none in this build.
#[derive(Debug, Default)]
pub struct ClientTls;

impl ClientTls {
    /// Always fails.
    ///
    /// # Errors
    /// [`ClientTlsError::LeftOut`], always.
    pub async fn connect(&self, _: &WebUrl, _: TcpStream) -> Result<TcpStream, ClientTlsError> {
        Err(ClientTlsError::LeftOut)
    }

    /// Always fails.
    ///
    /// # Errors
    /// [`ClientTlsError::LeftOut`], always.
    pub async fn observe(
        &self,
        _: &WebUrl,
        _: TcpStream,
    ) -> Result<(TcpStream, Presented), ClientTlsError> {
        Err(ClientTlsError::LeftOut)
    }
}
