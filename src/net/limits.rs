//! Limits of connections and requests.

use std::time::Duration;

/// Longest request head, in bytes: as much as other servers accept, because browsers send the cookies of everything else
/// that has the same host name. The HTTP library does not allow less than 8 KiB.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Limits of connections. The defaults are for a router with 128 MB of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent TCP connections, upgraded ones included.
    pub connections: usize,
    /// Those of them that are for strangers only.
    pub reserved_for_strangers: usize,
    /// Concurrent TCP connections of strangers per IPv4 address or IPv6 /48. Loopback and trusted proxies are exempt.
    pub connections_per_source: usize,
    /// Time within which a client has to prove who it is. A device that waits for approval proves nothing, but connects
    /// again by itself.
    pub stranger_life: Duration,
    /// Concurrent connections on the admin socket.
    pub admin_connections: usize,
    /// Timeout for a TLS handshake.
    pub tls_handshake: Duration,
    /// Timeout for the first byte of the first request.
    ///
    /// The Rust client connects before it has a request to send, so a few seconds are not enough.
    pub first_byte: Duration,
    /// Timeout for the head of the first request, from its first byte.
    pub head: Duration,
    /// Idle timeout between requests.
    pub idle: Duration,
    /// Time limit for plain HTTP on one connection.
    pub lifetime: Duration,
    /// Timeout for a Noise handshake, response included.
    pub noise_handshake: Duration,
    /// Timeout for the first request of a control connection, from its handshake. Later on the connection of a stranger
    /// may be without requests for that time to twice that, and no longer than [`Limits::idle`] allows.
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
            reserved_for_strangers: 64,
            connections_per_source: 256,
            stranger_life: Duration::from_secs(600),
            admin_connections: 8,
            tls_handshake: Duration::from_secs(10),
            first_byte: Duration::from_secs(30),
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
