//! Client admission, decided by the host program.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use crate::Key;

/// What the host program knows of a client that it admits.
///
/// When the relay is full, known clients replace strangers and never the other way round. Known clients
/// share it by key, because each has only one; strangers share it by address, because they can have any
/// number of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The key is known: that of a node, or one in the configuration.
    Known,
    /// Everyone is admitted.
    Stranger,
}

/// Decides whether a client may use the relay.
///
/// Called after the client has proved that it owns `key`, and before the relay sends it anything but
/// its own public key. Must not block or do I/O, because other connections wait meanwhile.
pub trait Admit: Send + Sync {
    /// Whether the client with this key, connecting from `source`, is admitted, and as what; none
    /// refuses it.
    fn admit(&self, key: &Key, source: IpAddr) -> Option<Standing>;

    /// For a host program that has to ask another server: a future of the decision. None means that
    /// [`Admit::admit`] decides. Until the future resolves, nothing more is read from the client, and
    /// the login timeout keeps running. Dropped when the client disconnects.
    fn admit_async(&self, _key: &Key, _source: IpAddr) -> Option<AdmissionFuture> {
        None
    }
}

/// A pending decision about admission.
pub type AdmissionFuture = Pin<Box<dyn Future<Output = Option<Standing>> + Send>>;

/// Those that the function admits are known clients.
impl<F> Admit for F
where
    F: Fn(&Key, IpAddr) -> bool + Send + Sync,
{
    fn admit(&self, key: &Key, source: IpAddr) -> Option<Standing> {
        self(key, source).then_some(Standing::Known)
    }
}
