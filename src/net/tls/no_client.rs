//! Replacement of the HTTPS client in builds without it.

use tokio::net::TcpStream;

use crate::config::WebUrl;

/// Why a TLS connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// This build has no HTTPS client.
    #[error("this build has no HTTPS client (feature `https-client`): use an http:// URL")]
    LeftOut,
}

/// Outgoing TLS connections: none.
#[derive(Debug, Default)]
pub struct ClientTls;

impl ClientTls {
    /// Refuses the connection.
    ///
    /// # Errors
    /// [`ClientTlsError::LeftOut`], always.
    pub async fn connect(&self, _: &WebUrl, _: TcpStream) -> Result<TcpStream, ClientTlsError> {
        Err(ClientTlsError::LeftOut)
    }
}
