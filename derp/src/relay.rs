//! Relay over tokio streams. Spawns no task: each connection is a future that the caller polls.

mod driver;
mod io;
mod mesh_link;
mod rewind;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use hearth_shares::TokenBucket;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::conn::{Conn, Entropy};
use crate::handshake::{ClientInfo, Greeting, ServerInfo};
use crate::nacl::NONCE_LEN;
use crate::pool::Pool;
use crate::queue::Restart;
use crate::registry::{ClientRole, CloseReason, ConnId, ConnInfo, Registry};
use crate::{Admit, Key, Limits, MeshKey, Rates, ServerSecret, Standing, Stats};
pub use driver::Serve;
pub use mesh_link::{MeshLinkEnd, ServeMeshLink};
pub use rewind::Rewind;

/// A DERP relay. Clones are handles of the same relay.
#[derive(Clone)]
pub struct Relay(Arc<RelayInner>);

struct RelayInner {
    secret: Arc<ServerSecret>,
    public: Key,
    limits: Arc<Limits>,
    mesh_key: Option<MeshKey>,
    rates: Mutex<RateState>,
    /// Incremented when `rates` change, so that connections notice without the lock.
    rates_version: AtomicUsize,
    /// Whether there is a total rate limit.
    has_total: AtomicBool,
    pool: Pool,
    admit: Arc<dyn Admit>,
    random: SystemRandom,
    /// Start of the time that the sans-IO modules see.
    epoch: Instant,
    /// Locked for one operation, never across an await, so a standard library mutex will do.
    registry: Mutex<Registry>,
}

impl Relay {
    /// A relay that is alone in its region.
    pub fn new(secret: ServerSecret, limits: Limits, admit: Arc<dyn Admit>) -> Self {
        Self::with_mesh_key(secret, limits, admit, None)
    }

    /// A relay of a region with several relays. A client that presents the mesh key is a mesh peer:
    /// it is admitted without asking the host, and not rate-limited.
    pub fn with_mesh_key(
        secret: ServerSecret,
        mut limits: Limits,
        admit: Arc<dyn Admit>,
        mesh_key: Option<MeshKey>,
    ) -> Self {
        let rates = RateState::new(limits.rates);
        // In a small pool, the reserve for discovery packets must leave room for data.
        limits.pool_reserve_bytes = limits.pool_reserve_bytes.min(limits.pool_bytes >> 2);
        let pool = Pool::new(limits.pool_bytes);
        let limits = Arc::new(limits);
        Relay(Arc::new(RelayInner {
            public: secret.public(),
            secret: Arc::new(secret),
            registry: Mutex::new(Registry::new(limits.clone(), pool.clone())),
            limits,
            mesh_key,
            has_total: AtomicBool::new(rates.total.is_some()),
            rates: Mutex::new(rates),
            rates_version: AtomicUsize::new(0),
            pool,
            admit,
            random: SystemRandom::new(),
            epoch: Instant::now(),
        }))
    }

    /// The relay's public key.
    pub fn public_key(&self) -> Key {
        self.0.public
    }

    /// Serves one client until its connection ends; resolves to the reason.
    ///
    /// Call it after the HTTP response was written, or at once for a client that asked for a fast
    /// start; the first bytes sent are the `ServerKey` frame. `already_read` are bytes that came
    /// after the HTTP request. The connection counts from this call on; dropping the future closes
    /// it. `conn_info` can be just the client's address.
    ///
    /// Panics if polled outside a tokio runtime with timers.
    pub fn serve<S>(
        &self,
        stream: S,
        already_read: Bytes,
        conn_info: impl Into<ConnInfo>,
    ) -> Serve<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let conn_info = conn_info.into();
        let opened = self.0.open(conn_info);
        let source = conn_info.source.ip().to_canonical();
        Serve::new(self.0.clone(), stream, already_read, source, opened)
    }

    /// Serves one link to another relay of the region until it ends; resolves to the reason.
    ///
    /// Call it after that relay has answered the upgrade request with 101; `already_read` are bytes
    /// that came after its response. While the future lives, packets for clients of the other relay
    /// are forwarded to it; dropping the future closes the link. The mesh key is sent to the other
    /// relay, so use an encrypted stream.
    ///
    /// Panics if polled outside a tokio runtime with timers.
    pub fn serve_mesh_link<S>(
        &self,
        stream: S,
        already_read: Bytes,
        mesh_key: MeshKey,
    ) -> ServeMeshLink<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        ServeMeshLink::new(self.0.clone(), stream, already_read, mesh_key)
    }

    /// Closes all connections of a key whose admission was revoked. No packet from or to the key is
    /// forwarded after this call.
    pub fn disconnect(&self, key: &Key) {
        let wakers = self.0.registry().disconnect(key);
        wake(wakers);
    }

    /// Changes the rate limits, at once for all clients. The limits that clients apply themselves
    /// are those of their login.
    pub fn set_rates(&self, rates: Rates) {
        let rates = RateState::new(rates);
        let has_total = rates.total.is_some();
        *self.0.rates() = rates;
        self.0.has_total.store(has_total, Ordering::Relaxed);
        self.0.rates_version.fetch_add(1, Ordering::Relaxed);
    }

    /// Keys of the connected clients without mesh peers, in no order.
    pub fn keys(&self) -> Vec<Key> {
        self.0.registry().keys()
    }

    /// Closes the connections of all keys for which `admitted` returns false.
    pub fn retain(&self, mut admitted: impl FnMut(&Key) -> bool) {
        let keys = self.0.registry().keys();
        for key in keys.iter().filter(|key| !admitted(key)) {
            self.disconnect(key);
        }
    }

    /// Stops accepting connections, tells all clients that the relay restarts, and closes them after
    /// that.
    ///
    /// Each client is told to reconnect after a random time between half of `reconnect_in` and all
    /// of it, and to keep trying for `try_for`. The futures of [`Relay::serve`] end within the write
    /// timeout plus the linger time.
    pub fn shutdown(&self, reconnect_in: Duration, try_for: Duration) {
        let milliseconds = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let restart = Restart {
            reconnect_in: milliseconds(reconnect_in),
            try_for: milliseconds(try_for),
        };
        let wakers = self.0.registry().shutdown(restart);
        wake(wakers);
    }

    /// The current statistics. Takes time proportional to the number of connections.
    pub fn stats(&self) -> Stats {
        self.0.registry().stats()
    }
}

/// The rate limits, and the bucket of the total one.
struct RateState {
    rates: Rates,
    total: Option<TokenBucket>,
}

impl RateState {
    fn new(rates: Rates) -> Self {
        let rates = rates.with_min_burst();
        RateState {
            rates,
            total: TokenBucket::for_bytes(rates.total_bytes_per_second, rates.total_burst_bytes),
        }
    }
}

impl RelayInner {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // After a panic elsewhere the registry is still usable.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the epoch.
    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.epoch)
    }

    fn instant(&self, at: Duration) -> Instant {
        self.epoch.checked_add(at).unwrap_or(self.epoch)
    }

    /// Adds a connection to the registry.
    fn open(&self, conn_info: ConnInfo) -> Result<(ConnId, Conn), CloseReason> {
        let entropy = self.entropy()?;
        let (id, evicted) = self.registry().connect(conn_info)?;
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

    fn entropy(&self) -> Result<Entropy, CloseReason> {
        let mut bytes = [0; NONCE_LEN.saturating_add(2)];
        self.random
            .fill(&mut bytes)
            .map_err(|_| CloseReason::NoRandomness)?;
        let [nonce @ .., high, low] = bytes;
        Ok(Entropy {
            nonce,
            jitter: u16::from_be_bytes([high, low]),
        })
    }

    /// The role of a client that has proved its key.
    fn client_role(&self, info: &ClientInfo) -> ClientRole {
        let keys = self.mesh_key.as_ref().zip(info.mesh_key.as_ref());
        ClientRole {
            is_mesh_peer: keys.is_some_and(|(ours, theirs)| ours.matches(theirs)),
            is_prober: info.is_prober,
            is_stranger: false,
        }
    }

    /// Logs a client in that has proved its key, if the host admits it, and says as what. `decided` is
    /// the decision of a host that was asked before.
    fn admit(
        &self,
        id: ConnId,
        key: Key,
        source: IpAddr,
        role: ClientRole,
        decided: Option<Standing>,
    ) -> Result<(ServerInfo, Standing), CloseReason> {
        let standing = || match role.is_mesh_peer {
            true => Ok(Standing::Known),
            false => decided
                .or_else(|| self.admit.admit(&key, source))
                .ok_or(CloseReason::NotAdmitted(key)),
        };
        let role = ClientRole {
            is_stranger: standing()? == Standing::Stranger,
            ..role
        };
        let wakers = self.registry().login(id, key, role, self.now())?;
        wake(wakers);
        // If the host revoked admission just before the login, `disconnect` had nothing to close.
        let standing = standing()?;
        let rates = self.rates().rates;
        let is_limited = !role.is_mesh_peer && rates.client_bytes_per_second > 0;
        let info = match is_limited {
            false => ServerInfo::default(),
            true => ServerInfo {
                bytes_per_second: rates.client_bytes_per_second,
                burst_bytes: rates.client_burst_bytes,
                ..ServerInfo::default()
            },
        };
        Ok((info, standing))
    }

    /// Charges the total rate limit. Returns until when the client has to wait.
    fn charge_total(&self, bytes: usize, now: Duration) -> Duration {
        if !self.has_total.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let mut rates = self.rates();
        let total = rates.total.as_mut();
        total.map_or(Duration::ZERO, |total| total.charge(bytes, now))
    }

    /// A full bucket for the rate limit of one client.
    fn client_bucket(&self) -> Option<TokenBucket> {
        let rates = self.rates().rates;
        TokenBucket::for_bytes(rates.client_bytes_per_second, rates.client_burst_bytes)
    }

    fn rates(&self) -> MutexGuard<'_, RateState> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes drivers, outside the lock.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
