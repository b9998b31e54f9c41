//! One connection of a client, without its socket: bytes and `now` in, events and bytes out.
//!
//! The driver feeds what it reads to [`Conn::recv`], writes what [`Conn::slices`] shows and reports
//! it to [`Conn::transmitted`], and calls [`Conn::handle_timeout`] at [`Conn::poll_timeout`]. What
//! others have for this client comes in by [`Conn::load`]. `now` is the time since any fixed moment
//! and must not go backwards.

pub(crate) mod input;
pub(crate) mod output;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use crate::frame::{Frame, FrameError, Header, Kind, PeerGoneReason};
use crate::handshake::{ClientInfo, Greeting, LoginError, Proven, ServerInfo};
use crate::nacl::NONCE_LEN;
use crate::pool::Pool;
use crate::queue::Mailbox;
use crate::stats::{Drops, Tally};
use crate::{Key, Limits};
use input::{Deframer, Item, Plan};
pub use output::MAX_SLICES;
use output::Output;

/// A client may be told "not here" this many times at once, and then once for each
/// [`NOT_HERE_PERIOD`]. Source: `peerGoneLim` in `derpserver.Server.accept`.
const NOT_HERE_BURST: u32 = 3;
/// See [`NOT_HERE_BURST`].
const NOT_HERE_PERIOD: Duration = Duration::from_secs(1);

/// Why a connection has to be closed through the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A frame breaks the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The first frame is not `ClientInfo`.
    #[error("frame of type {0:#04x} before the login")]
    BeforeLogin(u8),
    /// The login failed.
    #[error("login failed: {0}")]
    Login(#[from] LoginError),
    /// The client sent more before the relay let it in than the relay is willing to hold.
    #[error("login needs more memory than there is")]
    NoRoom,
    /// The frame is for mesh peers only.
    #[error("{0:?} frame from a client that is not a mesh peer")]
    NotMeshPeer(Kind),
    /// The login took too long.
    #[error("login not finished in time")]
    LoginTimeout,
    /// The client took none of its bytes for too long.
    #[error("client takes no bytes")]
    WriteTimeout,
}

impl Fault {
    /// Whether it happened before the client was logged in.
    pub fn is_login(&self) -> bool {
        matches!(
            self,
            Fault::BeforeLogin(_) | Fault::Login(_) | Fault::NoRoom | Fault::LoginTimeout
        )
    }
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// It has proved its key; the driver answers with [`Conn::accept`] or closes.
    Login {
        /// The client's key.
        key: Key,
        /// What it says about itself.
        info: ClientInfo,
    },
    /// It sends a packet.
    Packet {
        /// Who shall get it.
        destination: Key,
        /// The packet.
        packet: &'a [u8],
    },
    /// It sent a packet that the pool had no room to assemble; it is lost.
    NoRoom,
    /// It says whether this relay is its home.
    Preferred(bool),
    /// It forwards a packet from one of its clients; only mesh peers do.
    Forward {
        /// Who sent it.
        source: Key,
        /// Who shall get it.
        destination: Key,
        /// The packet.
        packet: &'a [u8],
    },
    /// It wants to know who comes and goes; only mesh peers do.
    Watch,
    /// It wants the connections of this key closed; only mesh peers do.
    ClosePeer(Key),
    /// It pinged; the answer is on its way.
    Ping,
    /// It sent something without effect.
    Other,
}

/// What [`Conn::recv`] did.
#[derive(Debug)]
pub struct Received<'a> {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// What they meant, if anything yet.
    pub event: Option<Event<'a>>,
}

/// Randomness for one connection.
#[derive(Clone, Copy, Debug)]
pub struct Entropy {
    /// The nonce of `ServerInfo`.
    pub nonce: [u8; NONCE_LEN],
    /// Spreads what would otherwise happen to all connections together: this many 65536ths of the
    /// keepalive jitter.
    pub jitter: u16,
}

enum Phase {
    Greeting(Greeting),
    Proven(Box<Proven>),
    Open,
    /// Nothing more is read; what is left is written and then the connection ends.
    Finishing,
}

/// The state of a connection.
pub struct Conn {
    phase: Phase,
    limits: Arc<Limits>,
    pool: Pool,
    entropy: Entropy,
    input: Deframer,
    output: Output,
    pong: Option<[u8; 8]>,
    not_here: heapless::Vec<Key, { NOT_HERE_BURST as usize }>,
    /// When the allowance for "not here" is whole again.
    not_here_paid: Duration,
    keepalive_due: bool,
    keepalive_at: Duration,
    is_mesh_peer: bool,
    login_deadline: Option<Duration>,
    write_deadline: Option<Duration>,
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
        let mut output = Output::default();
        greeting.server_key(public, output.head());
        Conn {
            phase: Phase::Greeting(greeting),
            login_deadline: Some(now.saturating_add(limits.login_timeout)),
            keepalive_at: now.saturating_add(keepalive_period(&limits, entropy)),
            limits,
            pool,
            entropy,
            input: Deframer::default(),
            output,
            pong: None,
            not_here: heapless::Vec::new(),
            not_here_paid: Duration::ZERO,
            keepalive_due: false,
            is_mesh_peer: false,
            write_deadline: None,
        }
    }

    /// Takes bytes from the client. Call it again with the rest until everything is consumed *and*
    /// it gives no event.
    pub fn recv<'a>(&'a mut self, input: &'a [u8]) -> Result<Received<'a>, Fault> {
        if matches!(self.phase, Phase::Proven(_) | Phase::Finishing) {
            // A driver never reads while it owes the decision; what comes while the connection ends
            // is dropped.
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
            Some(Item::NoRoom) if login => return Err(Fault::NoRoom),
            Some(Item::NoRoom) => Some(Event::NoRoom),
            Some(Item::Skipped) => Some(Event::Other),
            Some(Item::Frame(kind, body)) => Some(match Frame::decode(kind, body)? {
                Frame::ClientInfo { .. } => {
                    let Phase::Greeting(greeting) =
                        std::mem::replace(&mut self.phase, Phase::Finishing)
                    else {
                        return Err(Fault::BeforeLogin(kind.to_byte()));
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
                    // One answer waits at most; a client that pings faster gets fewer. Source:
                    // `derpserver.sclient.handleFramePing`.
                    self.pong.get_or_insert(data);
                    Event::Ping
                }
                _ => Event::Other,
            }),
        };
        Ok(Received { consumed, event })
    }

    /// Lets the client in, after [`Event::Login`]: `ServerInfo` will be sent. A mesh peer may send
    /// the frames that only relays of the region send each other.
    pub fn accept(&mut self, info: &ServerInfo, is_mesh_peer: bool) -> Result<(), Fault> {
        if let Phase::Proven(proven) = std::mem::replace(&mut self.phase, Phase::Open) {
            proven.server_info(info, &self.entropy.nonce, self.output.head())?;
        }
        self.login_deadline = None;
        self.is_mesh_peer = is_mesh_peer;
        Ok(())
    }

    /// Tells the client that a peer is not here; says false if it was told too often.
    pub fn tell_not_here(&mut self, peer: Key, now: Duration) -> bool {
        let paid = self.not_here_paid.max(now);
        let allowance = NOT_HERE_PERIOD.saturating_mul(NOT_HERE_BURST.saturating_sub(1));
        let allowed = paid.saturating_sub(now) <= allowance && self.not_here.push(peer).is_ok();
        if allowed {
            self.not_here_paid = paid.saturating_add(NOT_HERE_PERIOD);
        }
        allowed
    }

    /// Whether the bytes of the last [`Conn::load`] are all written, so that it may load again.
    pub fn wants_load(&self) -> bool {
        self.output.is_empty()
    }

    /// Takes the next batch of what waits for this client. Does nothing while an earlier one is
    /// being written.
    pub fn load(&mut self, mailbox: &mut Mailbox) {
        if !self.output.is_empty() {
            return;
        }
        if !matches!(self.phase, Phase::Open) {
            if mailbox.restart.is_some() {
                self.phase = Phase::Finishing;
            }
            return;
        }
        let head = self.output.head();
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
        for _ in 0..output::MAX_NOTICES {
            let Some(peer) = mailbox.pop_gone() else {
                break;
            };
            Frame::PeerGone {
                peer,
                reason: PeerGoneReason::Disconnected,
            }
            .encode(head);
        }
        for _ in 0..output::MAX_NOTICES {
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
        self.output
            .take_packets(&mut mailbox.queue, self.limits.batch_bytes);
        if let Some(restart) = mailbox.restart.filter(|_| self.output.is_empty()) {
            // Clients come back one after the other, in the second half of the time.
            let half = u64::from(restart.reconnect_in.div_ceil(2));
            let early = half.saturating_mul(u64::from(self.entropy.jitter)) >> 16;
            let reconnect_in = restart
                .reconnect_in
                .saturating_sub(u32::try_from(early).unwrap_or_default());
            Frame::Restarting {
                reconnect_in,
                try_for: restart.try_for,
            }
            .encode(self.output.head());
            self.phase = Phase::Finishing;
        }
    }

    /// The bytes to write now; empty if there are none.
    pub fn slices(&self) -> heapless::Vec<IoSlice<'_>, MAX_SLICES> {
        self.output.slices()
    }

    /// Notes that the first `length` bytes of [`Conn::slices`] were written.
    pub fn transmitted(&mut self, length: usize) {
        self.output.advance(length);
        self.write_deadline = None;
    }

    /// Notes that the client takes no bytes at the moment: the write timeout starts, unless it runs
    /// already.
    pub fn blocked(&mut self, now: Duration) {
        let timeout = match self.is_mesh_peer {
            true => self.limits.mesh_write_timeout,
            false => self.limits.write_timeout,
        };
        self.write_deadline
            .get_or_insert(now.saturating_add(timeout));
    }

    /// Whether everything to be said before the end of the connection is written.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finishing) && self.output.is_empty()
    }

    /// Packets written since the last call.
    pub fn take_sent(&mut self) -> Tally {
        self.output.take_sent()
    }

    /// Counts the packets that were loaded but never fully written, at the end of the connection.
    pub fn abandon(&mut self, drops: &mut Drops) {
        self.output.abandon(drops);
    }

    /// When to call [`Conn::handle_timeout`].
    pub fn poll_timeout(&self) -> Duration {
        let deadlines = [self.login_deadline, self.write_deadline];
        deadlines
            .into_iter()
            .flatten()
            .fold(self.keepalive_at, Duration::min)
    }

    /// Acts on the timers that have run out.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), Fault> {
        if self.login_deadline.is_some_and(|at| at <= now) {
            return Err(Fault::LoginTimeout);
        }
        if self.write_deadline.is_some_and(|at| at <= now) {
            return Err(Fault::WriteTimeout);
        }
        if self.keepalive_at <= now {
            self.keepalive_at = now.saturating_add(keepalive_period(&self.limits, self.entropy));
            self.keepalive_due = true;
            self.input.release();
            self.output.release();
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

/// What to do with a frame, decided on its header.
fn plan(header: Header, login: bool, is_mesh_peer: bool, limits: &Limits) -> Result<Plan, Fault> {
    let kind = Kind::from_byte(header.kind);
    if login {
        if kind != Some(Kind::ClientInfo) {
            return Err(Fault::BeforeLogin(header.kind));
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
            Err(Fault::NotMeshPeer(kind))
        }
        // The reference reads over anything else, of any length, so that clients may learn new
        // frames first. Source: `derpserver.sclient.handleUnknownFrame`.
        _ => Ok(Plan::Skip),
    }
}
