//! Every bound of the HTTP shell, in one place.

use std::time::Duration;

/// The most bytes a request's head may have. Less is not possible with the HTTP library.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// What connections may use. The defaults are for a router with 128 MB of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Network connections at one time, upgraded ones included; more wait in the system's queue.
    pub connections: usize,
    /// Network connections at one time from one IPv4 address or IPv6 /64; more are closed. Loopback is exempt.
    pub connections_per_source: usize,
    /// Connections at one time on the admin socket.
    pub admin_connections: usize,
    /// Noise handshakes at one time.
    pub handshakes: usize,
    /// How long a TLS handshake may take.
    pub tls_handshake: Duration,
    /// How long the first request's head may take from its first byte on.
    pub head: Duration,
    /// How long a connection may wait for its first request, or idle until the next one.
    ///
    /// The Rust client connects before it knows what to ask, so this is not a matter of seconds.
    pub idle: Duration,
    /// How long a connection may be used for plain HTTP altogether.
    pub lifetime: Duration,
    /// How long a Noise handshake may take, its answer included.
    pub noise_handshake: Duration,
    /// How long after its handshake a control connection may wait for its first request.
    pub first_request: Duration,
    /// HTTP/2 requests at one time on one control connection.
    pub streams: u32,
    /// Unread request bytes on one control connection, and on one of its requests.
    pub window_bytes: u32,
    /// Response bytes that one request holds for sending.
    pub send_bytes: usize,
    /// The decoded head of one HTTP/2 request.
    pub header_list_bytes: u32,
    /// How often a quiet control connection is asked whether it lives.
    pub ping: Duration,
    /// How long the answer to that may take.
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
