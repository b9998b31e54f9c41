//! The relay over tokio streams. It spawns nothing: each connection is a future that the caller
//! polls.

mod driver;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::conn::{Conn, Entropy};
use crate::handshake::{Greeting, ServerInfo};
use crate::nacl::NONCE_LEN;
use crate::pool::Pool;
use crate::queue::Restart;
use crate::registry::{Closed, ConnId, Registry};
use crate::{Admit, Key, Limits, ServerSecret, Stats};
pub use driver::Serve;

/// A relay. Clones are handles of the same relay.
#[derive(Clone)]
pub struct Relay(Arc<Shared>);

struct Shared {
    secret: Arc<ServerSecret>,
    public: Key,
    limits: Arc<Limits>,
    pool: Pool,
    admit: Arc<dyn Admit>,
    random: SystemRandom,
    /// The moment that the sans-IO parts count their time from.
    epoch: Instant,
    /// Held for the length of one operation, never across an await, so a lock of the standard
    /// library is right.
    registry: Mutex<Registry>,
}

impl Relay {
    /// A relay without connections.
    pub fn new(secret: ServerSecret, mut limits: Limits, admit: Arc<dyn Admit>) -> Self {
        // A host that makes the pool small must not leave it to discovery packets alone.
        limits.pool_reserve_bytes = limits.pool_reserve_bytes.min(limits.pool_bytes >> 2);
        let pool = Pool::new(limits.pool_bytes);
        let limits = Arc::new(limits);
        Relay(Arc::new(Shared {
            public: secret.public(),
            secret: Arc::new(secret),
            registry: Mutex::new(Registry::new(limits.clone(), pool.clone())),
            limits,
            pool,
            admit,
            random: SystemRandom::new(),
            epoch: Instant::now(),
        }))
    }

    /// The key that clients know the relay by.
    pub fn public_key(&self) -> Key {
        self.0.public
    }

    /// Serves one client until its connection ends, and tells why it ended.
    ///
    /// To be called after the HTTP answer was written, or at once for a client that asked for a
    /// fast start; the first thing sent is the `ServerKey` frame. `already_read` are bytes that
    /// came after the HTTP request. The connection counts from this call on, and dropping the
    /// future ends it.
    ///
    /// Panics when it is polled outside a tokio runtime with timers.
    pub fn serve<S>(&self, stream: S, already_read: Bytes, source: SocketAddr) -> Serve<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let opened = self.0.open();
        Serve::new(
            self.0.clone(),
            stream,
            already_read,
            source.ip().to_canonical(),
            opened,
        )
    }

    /// Closes every connection of a key at once, because the client is not admitted any more.
    /// Nothing from it or to it is forwarded after this call.
    pub fn disconnect(&self, key: &Key) {
        let wakers = self.0.registry().disconnect(key);
        wake(wakers);
    }

    /// Closes the connections of all keys for which `admitted` says false.
    pub fn retain(&self, mut admitted: impl FnMut(&Key) -> bool) {
        let keys = self.0.registry().keys();
        for key in keys.iter().filter(|key| !admitted(key)) {
            self.disconnect(key);
        }
    }

    /// Takes no more connections, tells all clients that the relay restarts, and closes them once
    /// they know.
    ///
    /// Each is told to come back after a random time between half of `reconnect_in` and all of it,
    /// and to keep trying for `try_for`. The futures of [`Relay::serve`] end within the write
    /// timeout and the linger time.
    pub fn shutdown(&self, reconnect_in: Duration, try_for: Duration) {
        let milliseconds = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let restart = Restart {
            reconnect_in: milliseconds(reconnect_in),
            try_for: milliseconds(try_for),
        };
        let wakers = self.0.registry().shutdown(restart);
        wake(wakers);
    }

    /// The counters at this moment. Takes time in proportion to the number of connections.
    pub fn stats(&self) -> Stats {
        self.0.registry().stats()
    }
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic elsewhere does not make the registry wrong enough to stop all clients.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the epoch.
    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.epoch)
    }

    fn instant(&self, at: Duration) -> Instant {
        self.epoch.checked_add(at).unwrap_or(self.epoch)
    }

    /// Takes a connection into the registry.
    fn open(&self) -> Result<(ConnId, Conn), Closed> {
        let mut bytes = [0; NONCE_LEN.saturating_add(2)];
        self.random
            .fill(&mut bytes)
            .map_err(|_| Closed::NoRandomness)?;
        let [nonce @ .., high, low] = bytes;
        let entropy = Entropy {
            nonce,
            jitter: u16::from_be_bytes([high, low]),
        };
        let (id, evicted) = self.registry().connect()?;
        wake(evicted);
        let greeting = Greeting::new(self.secret.clone());
        let conn = Conn::new(
            greeting,
            self.public,
            self.limits.clone(),
            self.pool.clone(),
            entropy,
            self.now(),
        );
        Ok((id, conn))
    }

    /// Decides about a client that has proved its key.
    fn admit(&self, id: ConnId, key: Key, source: IpAddr) -> Result<ServerInfo, Closed> {
        if !self.admit.admit(&key, source) {
            return Err(Closed::Refused(key));
        }
        let replaced = self.registry().login(id, key)?;
        wake(replaced);
        // If the host took its decision back just before the login, `disconnect` found nothing to
        // close.
        if !self.admit.admit(&key, source) {
            return Err(Closed::Refused(key));
        }
        Ok(ServerInfo::default())
    }
}

/// Wakes drivers, outside the lock.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
