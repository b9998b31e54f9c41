//! The decision who may use the relay, made by the host program.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use crate::Key;

/// Decides whether a client may use the relay.
///
/// It is asked after the client has proved that it owns `key` and before the relay tells it
/// anything but its own public key. The answer must come at once: no I/O and no waiting, because
/// other connections wait meanwhile.
pub trait Admit: Send + Sync {
    /// Whether the client with this key, connecting from `source`, is let in.
    fn admit(&self, key: &Key, source: IpAddr) -> bool;

    /// For a host program that has to ask somebody else first: the answer to wait for. None means
    /// that [`Admit::admit`] can answer at once. While it waits, nothing more is read from the
    /// client, and the time for the login goes on. Dropped when the client goes away.
    fn admit_async(&self, _key: &Key, _source: IpAddr) -> Option<AdmissionFuture> {
        None
    }
}

/// An admission that is still being decided.
pub type AdmissionFuture = Pin<Box<dyn Future<Output = bool> + Send>>;

impl<F> Admit for F
where
    F: Fn(&Key, IpAddr) -> bool + Send + Sync,
{
    fn admit(&self, key: &Key, source: IpAddr) -> bool {
        self(key, source)
    }
}
