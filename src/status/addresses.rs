//! Addresses of the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::ServerUrl;

/// Addresses of the server.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `server_url`: the URL that clients connect to, without a trailing slash.
    pub server_url: String,
    /// `server_url`, parsed.
    pub url: ServerUrl,
    /// Listening address of plain HTTP.
    pub http: Option<SocketAddr>,
    /// Listening address of HTTPS.
    pub https: Option<SocketAddr>,
    /// Listening address of STUN.
    pub stun: Option<SocketAddr>,
    /// Path of the admin socket.
    pub socket: PathBuf,
}
