//! Connection of a client, without its socket: bytes and `now` in, events and bytes out.
//!
//! The driver passes what it reads to [`Conn::recv`], writes the [`Outbox`], and calls
//! [`Conn::handle_timeout`] at [`Conn::poll_timeout`]. [`Conn::load`] moves what others queued for
//! this client into the outbox. `now` is the time since any fixed moment and must not go backwards.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::deframer::{Deframer, Item, Plan};
use crate::frame::{Frame, FrameError, Header, Kind, PeerGoneReason};
use crate::handshake::{ClientInfo, Greeting, LoginError, Proven, ServerInfo};
use crate::nacl::NONCE_LEN;
use crate::outbox::{Expired, MAX_NOTICES, Outbox};
use crate::pool::Pool;
use crate::queue::Mailbox;
use crate::{Key, Limits};

/// Burst of "not here" notices to one client; after it, one each [`NOT_HERE_PERIOD`]. Source:
/// `peerGoneLim` in `derpserver.Server.accept`.
const NOT_HERE_BURST: u32 = 3;
/// See [`NOT_HERE_BURST`].
const NOT_HERE_PERIOD: Duration = Duration::from_secs(1);

/// Why a connection must be closed: a protocol error or a timeout of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnError {
    /// Invalid frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The first frame is not `ClientInfo`.
    #[error("frame of type {0:#04x} before the login")]
    BeforeLogin(u8),
    /// The login failed.
    #[error("login failed: {0}")]
    Login(#[from] LoginError),
    /// The pool has no room for the `ClientInfo` frame.
    #[error("out of memory for the login")]
    PoolExhausted,
    /// A frame that only mesh peers may send.
    #[error("{0:?} frame from a client that is not a mesh peer")]
    NotMeshPeer(Kind),
    /// The login timed out.
    #[error("login timed out")]
    LoginTimeout,
    /// The client accepted no bytes for the write timeout.
    #[error("write timed out")]
    WriteTimeout,
}

impl ConnError {
    /// Whether it happened before the client was logged in.
    pub fn is_login(&self) -> bool {
        matches!(
            self,
            ConnError::BeforeLogin(_)
                | ConnError::Login(_)
                | ConnError::PoolExhausted
                | ConnError::LoginTimeout
        )
    }
}

impl From<Expired> for ConnError {
    fn from(expired: Expired) -> Self {
        match expired {
            Expired::Login => ConnError::LoginTimeout,
            Expired::Write => ConnError::WriteTimeout,
        }
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A login: the client has proved its key. The driver calls [`Conn::accept`] or closes.
    Login {
        /// The client's key.
        key: Key,
        /// Its client information.
        info: ClientInfo,
    },
    /// A packet.
    Packet {
        /// The receiver's key.
        destination: Key,
        /// The packet.
        packet: &'a [u8],
    },
    /// A packet that was dropped because the pool had no room to assemble it.
    PoolExhausted,
    /// Whether this relay is the client's home.
    Preferred(bool),
    /// A packet forwarded for a client of a mesh peer; only mesh peers send it.
    Forward {
        /// The sender's key.
        source: Key,
        /// The receiver's key.
        destination: Key,
        /// The packet.
        packet: &'a [u8],
    },
    /// A subscription to presence updates; only mesh peers send it.
    Watch,
    /// A request to close the connections of this key; only mesh peers send it.
    ClosePeer(Key),
    /// A ping; the pong is already queued.
    Ping,
    /// A frame without effect.
    Other,
}

/// Result of [`Conn::recv`].
#[derive(Debug)]
pub struct Received<'a> {
    /// Bytes of the input that were consumed.
    pub consumed: usize,
    /// The event they completed, if any.
    pub event: Option<Event<'a>>,
}

/// Randomness for one connection.
#[derive(Clone, Copy, Debug)]
pub struct Entropy {
    /// Nonce of the login box.
    pub nonce: [u8; NONCE_LEN],
    /// Keepalive jitter in 65536ths of [`Limits::keepalive_jitter`], so that connections do not send
    /// keepalives at the same moment.
    pub jitter: u16,
}

enum Phase {
    Greeting(Greeting),
    Proven(Box<Proven>),
    Open,
    /// Input is ignored; what is queued is written, and then the connection ends.
    Finishing,
}

/// The state of a connection.
pub struct Conn {
    phase: Phase,
    limits: Arc<Limits>,
    pool: Pool,
    entropy: Entropy,
    input: Deframer,
    outbox: Outbox,
    pong: Option<[u8; 8]>,
    not_here: heapless::Vec<Key, { NOT_HERE_BURST as usize }>,
    /// When the full burst of "not here" notices is available again.
    not_here_full_at: Duration,
    keepalive_due: bool,
    keepalive_at: Duration,
    is_mesh_peer: bool,
}

impl Conn {
    /// A new connection, which starts by sending `ServerKey`.
    pub fn new(
        greeting: Greeting,
        public: Key,
        limits: Arc<Limits>,
        pool: Pool,
        entropy: Entropy,
        now: Duration,
    ) -> Self {
        let login_deadline = now.saturating_add(limits.login_timeout);
        let mut outbox = Outbox::new(login_deadline, limits.write_timeout);
        greeting.server_key(public, outbox.head());
        Conn {
            phase: Phase::Greeting(greeting),
            keepalive_at: now.saturating_add(keepalive_period(&limits, entropy)),
            limits,
            pool,
            entropy,
            input: Deframer::default(),
            outbox,
            pong: None,
            not_here: heapless::Vec::new(),
            not_here_full_at: Duration::ZERO,
            keepalive_due: false,
            is_mesh_peer: false,
        }
    }

    /// Processes bytes from the client. Call it again with the rest until all bytes are consumed *and*
    /// there is no event.
    pub fn recv<'a>(&'a mut self, input: &'a [u8]) -> Result<Received<'a>, ConnError> {
        if matches!(self.phase, Phase::Proven(_) | Phase::Finishing) {
            // A driver does not read before it has called `accept`; input at the end of the
            // connection is dropped.
            return Ok(Received {
                consumed: input.len(),
                event: None,
            });
        }
        let login = matches!(self.phase, Phase::Greeting(_));
        let (limits, is_mesh_peer) = (&self.limits, self.is_mesh_peer);
        let plan = |header: Header| plan(header, login, is_mesh_peer, limits);
        let (consumed, item) = self.input.next(input, plan, &self.pool, limits)?;
        let event = match item {
            None => None,
            Some(Item::PoolExhausted) if login => return Err(ConnError::PoolExhausted),
            Some(Item::PoolExhausted) => Some(Event::PoolExhausted),
            Some(Item::Skipped) => Some(Event::Other),
            Some(Item::Frame(kind, body)) => Some(match Frame::decode(kind, body)? {
                Frame::ClientInfo { .. } => {
                    let Phase::Greeting(greeting) =
                        std::mem::replace(&mut self.phase, Phase::Finishing)
                    else {
                        return Err(ConnError::BeforeLogin(kind.to_byte()));
                    };
                    let proven = greeting.client_info(body)?;
                    let event = Event::Login {
                        key: proven.key,
                        info: proven.info.clone(),
                    };
                    self.phase = Phase::Proven(Box::new(proven));
                    event
                }
                Frame::SendPacket {
                    destination,
                    packet,
                } => Event::Packet {
                    destination,
                    packet,
                },
                Frame::ForwardPacket {
                    source,
                    destination,
                    packet,
                } => Event::Forward {
                    source,
                    destination,
                    packet,
                },
                Frame::WatchConns => Event::Watch,
                Frame::ClosePeer(peer) => Event::ClosePeer(peer),
                Frame::NotePreferred(preferred) => Event::Preferred(preferred),
                Frame::Ping(data) => {
                    // At most one pong is queued; a client that pings faster gets fewer. Source:
                    // `derpserver.sclient.handleFramePing`.
                    self.pong.get_or_insert(data);
                    Event::Ping
                }
                _ => Event::Other,
            }),
        };
        Ok(Received { consumed, event })
    }

    /// Completes the login after [`Event::Login`]: `ServerInfo` will be sent. A mesh peer may send
    /// the frames of the mesh protocol, and has a longer write timeout.
    pub fn accept(&mut self, info: &ServerInfo, is_mesh_peer: bool) -> Result<(), ConnError> {
        if let Phase::Proven(proven) = std::mem::replace(&mut self.phase, Phase::Open) {
            proven.server_info(info, &self.entropy.nonce, self.outbox.head())?;
        }
        self.outbox.login_done();
        self.is_mesh_peer = is_mesh_peer;
        if is_mesh_peer {
            self.outbox
                .set_write_timeout(self.limits.mesh_write_timeout);
        }
        Ok(())
    }

    /// Queues the notice that a peer is not here. Returns false if it is rate-limited.
    pub fn push_not_here(&mut self, peer: Key, now: Duration) -> bool {
        let full_at = self.not_here_full_at.max(now);
        let burst = NOT_HERE_PERIOD.saturating_mul(NOT_HERE_BURST.saturating_sub(1));
        let allowed = full_at.saturating_sub(now) <= burst && self.not_here.push(peer).is_ok();
        if allowed {
            self.not_here_full_at = full_at.saturating_add(NOT_HERE_PERIOD);
        }
        allowed
    }

    /// Whether the outbox is fully written, so that [`Conn::load`] may fill it again.
    pub fn wants_load(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Loads the next batch from the mailbox into the outbox. Does nothing while an earlier batch is
    /// being written.
    pub fn load(&mut self, mailbox: &mut Mailbox) {
        if !self.outbox.is_empty() {
            return;
        }
        if !matches!(self.phase, Phase::Open) {
            if mailbox.restart.is_some() {
                self.phase = Phase::Finishing;
            }
            return;
        }
        let head = self.outbox.head();
        if let Some(data) = self.pong.take() {
            Frame::Pong(data).encode(head);
        }
        if std::mem::take(&mut self.keepalive_due) {
            Frame::KeepAlive.encode(head);
            mailbox.queue.release();
        }
        for peer in self.not_here.iter() {
            Frame::PeerGone {
                peer: *peer,
                reason: PeerGoneReason::NotHere,
            }
            .encode(head);
        }
        self.not_here.clear();
        for _ in 0..MAX_NOTICES {
            let Some(peer) = mailbox.pop_gone() else {
                break;
            };
            Frame::PeerGone {
                peer,
                reason: PeerGoneReason::Disconnected,
            }
            .encode(head);
        }
        for _ in 0..MAX_NOTICES {
            let Some((peer, presence)) = mailbox.pop_presence() else {
                break;
            };
            match presence {
                Some(_) => Frame::PeerPresent { peer, presence },
                None => Frame::PeerGone {
                    peer,
                    reason: PeerGoneReason::Disconnected,
                },
            }
            .encode(head);
        }
        self.outbox
            .take_packets(&mut mailbox.queue, self.limits.batch_bytes);
        if let Some(restart) = mailbox.restart.filter(|_| self.outbox.is_empty()) {
            // Spreads the reconnects over the second half of the time.
            let half = u64::from(restart.reconnect_in.div_ceil(2));
            let earlier = half.saturating_mul(u64::from(self.entropy.jitter)) >> 16;
            let reconnect_in = restart
                .reconnect_in
                .saturating_sub(u32::try_from(earlier).unwrap_or_default());
            Frame::Restarting {
                reconnect_in,
                try_for: restart.try_for,
            }
            .encode(self.outbox.head());
            self.phase = Phase::Finishing;
        }
    }

    /// The bytes to write, which the driver reports as written or blocked.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Whether the last bytes before the end of the connection are written.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finishing) && self.outbox.is_empty()
    }

    /// When to call [`Conn::handle_timeout`].
    pub fn poll_timeout(&self) -> Duration {
        self.outbox.next_deadline(self.keepalive_at)
    }

    /// Handles the deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), ConnError> {
        self.outbox.check_deadlines(now)?;
        if self.keepalive_at <= now {
            self.keepalive_at = now.saturating_add(keepalive_period(&self.limits, self.entropy));
            self.keepalive_due = true;
            self.input.release();
            self.outbox.release();
        }
        Ok(())
    }
}

/// `part` 65536ths of `whole`.
fn share(whole: Duration, part: u16) -> Duration {
    whole
        .saturating_mul(u32::from(part))
        .checked_div(1 << 16)
        .unwrap_or_default()
}

fn keepalive_period(limits: &Limits, entropy: Entropy) -> Duration {
    limits
        .keepalive
        .saturating_add(share(limits.keepalive_jitter, entropy.jitter))
}

/// Decides by its header what to do with a frame.
fn plan(
    header: Header,
    login: bool,
    is_mesh_peer: bool,
    limits: &Limits,
) -> Result<Plan, ConnError> {
    let kind = Kind::from_byte(header.kind);
    if login {
        if kind != Some(Kind::ClientInfo) {
            return Err(ConnError::BeforeLogin(header.kind));
        }
        Kind::ClientInfo.check_len(header.length)?;
        if header.length > limits.client_info_bytes {
            return Err(FrameError::Length {
                kind: Kind::ClientInfo,
                length: header.length,
            }
            .into());
        }
        return Ok(Plan::Take(Kind::ClientInfo));
    }
    match kind {
        Some(kind @ (Kind::SendPacket | Kind::NotePreferred | Kind::Ping)) => {
            kind.check_len(header.length)?;
            Ok(Plan::Take(kind))
        }
        Some(kind @ (Kind::ForwardPacket | Kind::WatchConns | Kind::ClosePeer)) if is_mesh_peer => {
            kind.check_len(header.length)?;
            Ok(Plan::Take(kind))
        }
        Some(kind @ (Kind::ForwardPacket | Kind::WatchConns | Kind::ClosePeer)) => {
            Err(ConnError::NotMeshPeer(kind))
        }
        // Like the reference, skips unknown frames of any length, for newer clients. Source:
        // `derpserver.sclient.handleUnknownFrame`.
        _ => Ok(Plan::Skip),
    }
}
