//! Limits of connections and requests.

use std::time::Duration;

/// Longest request head, in bytes: as much as other servers accept, because browsers send the cookies of everything else
/// that has the same host name. The HTTP library does not allow less than 8 KiB.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Limits of connections. The defaults are for a router with 128 MB of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent TCP connections, upgraded ones included; more wait in the listen queue.
    pub connections: usize,
    /// Concurrent TCP connections per IPv4 address or IPv6 /64; more are closed. Loopback is exempt.
    pub connections_per_source: usize,
    /// Concurrent connections on the admin socket.
    pub admin_connections: usize,
    /// Concurrent Noise handshakes.
    pub handshakes: usize,
    /// Timeout for a TLS handshake.
    pub tls_handshake: Duration,
    /// Timeout for the head of the first request, from its first byte.
    pub head: Duration,
    /// Timeout for the first request, and idle timeout between requests.
    ///
    /// The Rust client connects before it has a request to send, so a few seconds are not enough.
    pub idle: Duration,
    /// Time limit for plain HTTP on one connection.
    pub lifetime: Duration,
    /// Timeout for a Noise handshake, response included.
    pub noise_handshake: Duration,
    /// Timeout for the first request of a control connection, from its handshake.
    pub first_request: Duration,
    /// Concurrent HTTP/2 requests per control connection.
    pub streams: u32,
    /// Receive window in bytes, of a control connection and of each of its requests.
    pub window_bytes: u32,
    /// Response bytes buffered per request.
    pub send_bytes: usize,
    /// Largest decoded header list of an HTTP/2 request, in bytes.
    pub header_list_bytes: u32,
    /// Interval of HTTP/2 keepalive pings on an idle control connection.
    pub ping: Duration,
    /// Timeout for the response to a keepalive ping.
    pub pong: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_source: 64,
            admin_connections: 8,
            handshakes: 4,
            tls_handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            lifetime: Duration::from_secs(600),
            noise_handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(60),
            streams: 16,
            window_bytes: 64 * 1024,
            send_bytes: 16 * 1024,
            header_list_bytes: 8 * 1024,
            ping: Duration::from_secs(60),
            pong: Duration::from_secs(20),
        }
    }
}
