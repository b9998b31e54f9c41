//! The decision who may use the relay, made by the host program.

use std::net::IpAddr;

use crate::Key;

/// Decides whether a client may use the relay.
///
/// It is asked after the client has proved that it owns `key` and before the relay tells it
/// anything but its own public key. The answer must come at once: no I/O and no waiting, because
/// other connections wait meanwhile.
pub trait Admit: Send + Sync {
    /// Whether the client with this key, connecting from `source`, is let in.
    fn admit(&self, key: &Key, source: IpAddr) -> bool;
}

impl<F> Admit for F
where
    F: Fn(&Key, IpAddr) -> bool + Send + Sync,
{
    fn admit(&self, key: &Key, source: IpAddr) -> bool {
        self(key, source)
    }
}
