//! Stream: the transport of a connection, either TCP, TLS, a Unix socket or a WebSocket inside one of them.
//!
//! HTTP, HTTP/2 and the relay are compiled once for all transports. The indirect call per read and write
//! is negligible next to the system call.

use tokio::io::{AsyncRead, AsyncWrite};

/// Transport of a connection.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

/// An open connection.
pub type Stream = Box<dyn Io>;
