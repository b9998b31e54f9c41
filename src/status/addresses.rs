//! Where the server is reached.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::ServerUrl;

/// Where the server is reached.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The URL that clients connect to, without a slash at the end.
    pub server_url: String,
    /// The same in its parts.
    pub url: ServerUrl,
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// HTTPS.
    pub https: Option<SocketAddr>,
    /// STUN.
    pub stun: Option<SocketAddr>,
    /// The socket of the command line.
    pub socket: PathBuf,
}
