//! In place of the HTTPS client in programs that are built without it.

use tokio::net::TcpStream;

use crate::config::WebUrl;

/// Why no TLS connection can be tried.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// This program cannot.
    #[error(
        "this program was built without the HTTPS client (feature `https-client`): use an http:// URL"
    )]
    LeftOut,
}

/// TLS connections that hearth makes: none.
#[derive(Debug, Default)]
pub struct ClientTls;

impl ClientTls {
    /// Makes no connection.
    ///
    /// # Errors
    /// [`ClientTlsError::LeftOut`], always.
    pub async fn connect(&self, _: &WebUrl, _: TcpStream) -> Result<TcpStream, ClientTlsError> {
        Err(ClientTlsError::LeftOut)
    }
}
