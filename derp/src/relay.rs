//! The relay over tokio streams. It spawns nothing: each connection is a future that the caller
//! polls.

mod driver;
mod link;
#[cfg(test)]
mod tests;
mod websocket;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::conn::{Conn, Entropy};
use crate::handshake::{ClientInfo, Greeting, ServerInfo};
use crate::nacl::NONCE_LEN;
use crate::pool::Pool;
use crate::queue::Restart;
use crate::registry::{Arrival, Closed, ConnId, Registry, Standing};
use crate::{Admit, Key, Limits, MeshKey, Rates, ServerSecret, Stats};
pub use driver::Serve;
pub use link::{LinkEnd, Mesh};
pub use websocket::WebSocket;

/// A relay. Clones are handles of the same relay.
#[derive(Clone)]
pub struct Relay(Arc<Shared>);

struct Shared {
    secret: Arc<ServerSecret>,
    public: Key,
    limits: Arc<Limits>,
    mesh_key: Option<MeshKey>,
    rates: Mutex<Paced>,
    /// Counts the changes of `rates`, so that connections notice them without the lock.
    rates_version: AtomicUsize,
    /// Whether there is a rate for all clients together.
    has_total: AtomicBool,
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
    /// A relay without connections, alone in its region.
    pub fn new(secret: ServerSecret, limits: Limits, admit: Arc<dyn Admit>) -> Self {
        Self::with_mesh_key(secret, limits, admit, None)
    }

    /// A relay without connections. Whoever shows the mesh key is one of the other relays of the
    /// region: it is let in without asking, and no rate holds for it.
    pub fn with_mesh_key(
        secret: ServerSecret,
        mut limits: Limits,
        admit: Arc<dyn Admit>,
        mesh_key: Option<MeshKey>,
    ) -> Self {
        let paced = Paced::new(limits.rates);
        // A host that makes the pool small must not leave it to discovery packets alone.
        limits.pool_reserve_bytes = limits.pool_reserve_bytes.min(limits.pool_bytes >> 2);
        let pool = Pool::new(limits.pool_bytes);
        let limits = Arc::new(limits);
        Relay(Arc::new(Shared {
            public: secret.public(),
            secret: Arc::new(secret),
            registry: Mutex::new(Registry::new(limits.clone(), pool.clone())),
            limits,
            mesh_key,
            has_total: AtomicBool::new(paced.total.is_some()),
            rates: Mutex::new(paced),
            rates_version: AtomicUsize::new(0),
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
    /// future ends it. `arrival` is where the client comes from; its address alone will do.
    ///
    /// Panics when it is polled outside a tokio runtime with timers.
    pub fn serve<S>(&self, stream: S, already_read: Bytes, arrival: impl Into<Arrival>) -> Serve<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let arrival = arrival.into();
        let opened = self.0.open(arrival);
        let source = arrival.source.ip().to_canonical();
        Serve::new(self.0.clone(), stream, already_read, source, opened)
    }

    /// Runs one link to another relay of the region until it ends, and tells why it ended.
    ///
    /// To be called after that relay has answered the upgrade request with 101; `already_read` are
    /// bytes that came after its answer. As long as the future lives, packets for clients of the
    /// other relay are forwarded there; dropping it ends the link. The other relay gets the mesh
    /// key: the stream must be one that only that relay can read.
    ///
    /// Panics when it is polled outside a tokio runtime with timers.
    pub fn mesh<S>(&self, stream: S, already_read: Bytes, mesh_key: MeshKey) -> Mesh<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        Mesh::new(self.0.clone(), stream, already_read, mesh_key)
    }

    /// Closes every connection of a key at once, because the client is not admitted any more.
    /// Nothing from it or to it is forwarded after this call.
    pub fn disconnect(&self, key: &Key) {
        let wakers = self.0.registry().disconnect(key);
        wake(wakers);
    }

    /// Changes how fast clients may send. It holds at once for all; what clients were told at their
    /// login stays what they go by themselves.
    pub fn set_rates(&self, rates: Rates) {
        let paced = Paced::new(rates);
        let has_total = paced.total.is_some();
        *self.0.rates() = paced;
        self.0.has_total.store(has_total, Ordering::Relaxed);
        self.0.rates_version.fetch_add(1, Ordering::Relaxed);
    }

    /// The keys of the clients that are connected, other relays of the region left out, in no order.
    pub fn keys(&self) -> Vec<Key> {
        self.0.registry().keys()
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

/// The rates, and what is left of the one for all.
struct Paced {
    rates: Rates,
    total: Option<Bucket>,
}

impl Paced {
    fn new(rates: Rates) -> Self {
        let rates = rates.with_room_for_frames();
        Paced {
            rates,
            total: Bucket::new(rates.total_bytes_per_second, rates.total_burst_bytes),
        }
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
    fn open(&self, arrival: Arrival) -> Result<(ConnId, Conn), Closed> {
        let entropy = self.entropy()?;
        let (id, evicted) = self.registry().connect(arrival)?;
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

    fn entropy(&self) -> Result<Entropy, Closed> {
        let mut bytes = [0; NONCE_LEN.saturating_add(2)];
        self.random
            .fill(&mut bytes)
            .map_err(|_| Closed::NoRandomness)?;
        let [nonce @ .., high, low] = bytes;
        Ok(Entropy {
            nonce,
            jitter: u16::from_be_bytes([high, low]),
        })
    }

    /// What a client that has proved its key is.
    fn standing(&self, info: &ClientInfo) -> Standing {
        let keys = self.mesh_key.as_ref().zip(info.mesh_key.as_ref());
        Standing {
            is_mesh_peer: keys.is_some_and(|(ours, theirs)| ours.matches(theirs)),
            is_prober: info.is_prober,
        }
    }

    /// Lets a client in that has proved its key, if the host does. `is_asked` means that the host
    /// has just decided for it.
    fn admit(
        &self,
        id: ConnId,
        key: Key,
        source: IpAddr,
        standing: Standing,
        is_asked: bool,
    ) -> Result<ServerInfo, Closed> {
        let is_admitted = || standing.is_mesh_peer || is_asked || self.admit.admit(&key, source);
        if !is_admitted() {
            return Err(Closed::Refused(key));
        }
        let wakers = self.registry().login(id, key, standing)?;
        wake(wakers);
        // If the host took its decision back just before the login, `disconnect` found nothing to
        // close.
        if !is_admitted() {
            return Err(Closed::Refused(key));
        }
        let rates = self.rates().rates;
        let is_told = !standing.is_mesh_peer && rates.client_bytes_per_second > 0;
        Ok(match is_told {
            false => ServerInfo::default(),
            true => ServerInfo {
                bytes_per_second: rates.client_bytes_per_second,
                burst_bytes: rates.client_burst_bytes,
                ..ServerInfo::default()
            },
        })
    }

    /// Until when a client that has just sent `bytes` has to wait.
    fn charge_total(&self, bytes: usize, now: Duration) -> Duration {
        if !self.has_total.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let mut rates = self.rates();
        let total = rates.total.as_mut();
        total.map_or(Duration::ZERO, |total| total.charge(bytes, now))
    }

    /// What one client may send.
    fn client_rate(&self) -> Option<Bucket> {
        let rates = self.rates().rates;
        Bucket::new(rates.client_bytes_per_second, rates.client_burst_bytes)
    }

    fn rates(&self) -> MutexGuard<'_, Paced> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes drivers, outside the lock.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
