//! What carries a connection's bytes, whichever it is: TCP, TLS, a Unix socket, a WebSocket inside one of them.
//!
//! HTTP, HTTP/2 and the relay are compiled once for all of them. The indirect call at each read and write
//! costs nothing beside the system call that follows.

use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection can be.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

/// An open connection.
pub type Stream = Box<dyn Io>;
