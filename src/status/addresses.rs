//! Addresses of the server.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::ServerUrl;

/// Addresses of the server.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `server_url`: the URL that clients connect to.
    pub server_url: CurrentUrl,
    /// Listening address of plain HTTP.
    pub http: Option<SocketAddr>,
    /// Listening address of HTTPS.
    pub https: Option<SocketAddr>,
    /// Listening address of STUN.
    pub stun: Option<SocketAddr>,
    /// Path of the admin socket.
    pub socket: PathBuf,
}

/// The URL that clients connect to, shown without a trailing slash. One that is not configured follows the LAN address
/// of this machine. Clones share it.
#[derive(Debug, Clone)]
pub struct CurrentUrl(Arc<RwLock<ServerUrl>>);

impl CurrentUrl {
    /// This URL for now.
    pub fn new(url: ServerUrl) -> Self {
        Self(Arc::new(RwLock::new(url)))
    }

    /// The URL now.
    pub fn get(&self) -> ServerUrl {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sets the URL.
    pub fn set(&self, url: ServerUrl) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = url;
    }
}

impl fmt::Display for CurrentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.read().unwrap_or_else(PoisonError::into_inner).fmt(f)
    }
}
