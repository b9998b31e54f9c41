//! Connection to another relay of the region, as its client, without its socket: bytes and `now`
//! in, events and bytes out.
//!
//! The counterpart of [`conn`](crate::conn): it logs in with the mesh key, subscribes to presence
//! updates, and forwards packets to the clients of the other relay.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::conn::Entropy;
use crate::deframer::{Deframer, Item, Plan};
use crate::frame::{Frame, FrameError, Header, Kind, PROTOCOL_VERSION};
use crate::handshake::ClientInfo;
use crate::nacl::{NotAuthentic, SharedKey};
use crate::outbox::{Expired, Outbox};
use crate::pool::Pool;
use crate::queue::Queue;
use crate::{Key, Limits, MeshKey, ServerSecret};

/// How long the other relay may send nothing: twice the keepalive interval of the reference, which the
/// other relay may be. Source: `derp.KeepAlive`; the timeout of `derp.Client.Recv`.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a mesh link must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeshLinkError {
    /// Invalid frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The first frame is not `ServerKey`.
    #[error("frame of type {0:#04x} instead of the relay's key")]
    NoServerKey(u8),
    /// The other relay is this one. Source: `derphttp.Client.RunWatchConnectionLoop`.
    #[error("connected to itself")]
    ConnectedToSelf,
    /// The login box cannot be sealed.
    #[error(transparent)]
    Box(#[from] NotAuthentic),
    /// The pool has no room for a frame.
    #[error("out of memory for the mesh link")]
    PoolExhausted,
    /// The login timed out.
    #[error("login timed out")]
    LoginTimeout,
    /// The other relay sent nothing for [`IDLE_TIMEOUT`].
    #[error("no data from the relay for too long")]
    IdleTimeout,
    /// The other relay accepted no bytes for the write timeout.
    #[error("write timed out")]
    WriteTimeout,
}

impl From<Expired> for MeshLinkError {
    fn from(expired: Expired) -> Self {
        match expired {
            Expired::Login => MeshLinkError::LoginTimeout,
            Expired::Write => MeshLinkError::WriteTimeout,
        }
    }
}

/// What the other relay sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshEvent {
    /// The login is done.
    Open,
    /// A client is connected to the other relay.
    Present(Key),
    /// A client has left the other relay.
    Gone(Key),
    /// A frame without effect.
    Other,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    AwaitKey,
    AwaitInfo,
    Open,
}

/// The state of a mesh link.
pub struct MeshLink {
    phase: Phase,
    secret: Arc<ServerSecret>,
    public: Key,
    mesh_key: MeshKey,
    limits: Arc<Limits>,
    pool: Pool,
    entropy: Entropy,
    input: Deframer,
    outbox: Outbox,
    idle_deadline: Duration,
}

impl MeshLink {
    /// A new link; the other relay speaks first. `public` is the public half of `secret`, this
    /// relay's key.
    pub fn new(
        secret: Arc<ServerSecret>,
        public: Key,
        mesh_key: MeshKey,
        limits: Arc<Limits>,
        pool: Pool,
        entropy: Entropy,
        now: Duration,
    ) -> Self {
        MeshLink {
            phase: Phase::AwaitKey,
            secret,
            public,
            mesh_key,
            outbox: Outbox::new(
                now.saturating_add(limits.login_timeout),
                limits.mesh_write_timeout,
            ),
            idle_deadline: now.saturating_add(IDLE_TIMEOUT),
            limits,
            pool,
            entropy,
            input: Deframer::default(),
        }
    }

    /// Processes bytes from the other relay; returns how many were consumed, and the event they
    /// completed. Call it again with the rest until all bytes are consumed *and* there is no event.
    pub fn recv(
        &mut self,
        input: &[u8],
        now: Duration,
    ) -> Result<(usize, Option<MeshEvent>), MeshLinkError> {
        if !input.is_empty() {
            self.idle_deadline = now.saturating_add(IDLE_TIMEOUT);
        }
        let phase = self.phase;
        let plan = |header: Header| plan(header, phase);
        let (consumed, item) = self.input.next(input, plan, &self.pool, &self.limits)?;
        let event = match item {
            None => None,
            Some(Item::PoolExhausted) => return Err(MeshLinkError::PoolExhausted),
            Some(Item::Skipped) if phase == Phase::AwaitKey => {
                return Err(MeshLinkError::NoServerKey(0));
            }
            Some(Item::Skipped) => Some(MeshEvent::Other),
            Some(Item::Frame(kind, body)) => Some(match Frame::decode(kind, body)? {
                Frame::ServerKey(relay) => {
                    log_in(
                        &mut self.outbox,
                        (&self.secret, self.public),
                        relay,
                        &self.mesh_key,
                        &self.entropy,
                    )?;
                    self.phase = Phase::AwaitInfo;
                    MeshEvent::Other
                }
                // Its content is unused: mesh peers are not rate-limited.
                Frame::ServerInfo(_) => {
                    self.phase = Phase::Open;
                    self.outbox.login_done();
                    MeshEvent::Open
                }
                Frame::PeerPresent { peer, .. } if peer != self.public => MeshEvent::Present(peer),
                Frame::PeerGone { peer, .. } => MeshEvent::Gone(peer),
                Frame::Ping(data) => {
                    Frame::Pong(data).encode(self.outbox.head());
                    MeshEvent::Other
                }
                _ => MeshEvent::Other,
            }),
        };
        Ok((consumed, event))
    }

    /// Whether the outbox is fully written, so that [`MeshLink::load`] may fill it again.
    pub fn wants_load(&self) -> bool {
        self.outbox.is_empty() && self.phase == Phase::Open
    }

    /// Loads the next packets from the queue into the outbox. Does nothing while others are being
    /// written.
    pub fn load(&mut self, queue: &mut Queue) {
        if self.wants_load() {
            self.outbox.take_packets(queue, self.limits.batch_bytes);
        }
    }

    /// The bytes to write, which the driver reports as written or blocked.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// When to call [`MeshLink::handle_timeout`].
    pub fn poll_timeout(&self) -> Duration {
        self.outbox.next_deadline(self.idle_deadline)
    }

    /// Handles the deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), MeshLinkError> {
        self.outbox.check_deadlines(now)?;
        if self.idle_deadline <= now {
            return Err(MeshLinkError::IdleTimeout);
        }
        Ok(())
    }
}

/// Appends the login with the mesh key and the subscription to presence updates.
fn log_in(
    outbox: &mut Outbox,
    (secret, public): (&ServerSecret, Key),
    relay: Key,
    mesh_key: &MeshKey,
    entropy: &Entropy,
) -> Result<(), MeshLinkError> {
    if relay == public {
        return Err(MeshLinkError::ConnectedToSelf);
    }
    let info = ClientInfo {
        version: PROTOCOL_VERSION,
        can_ack_pings: true,
        mesh_key: Some(mesh_key.clone()),
        ..ClientInfo::default()
    };
    let text = Zeroizing::new(serde_json::to_vec(&info).unwrap_or_default());
    let sealed = SharedKey::new(secret, &relay).seal(&entropy.nonce, &text)?;
    let frame = Frame::ClientInfo {
        key: public,
        sealed: &sealed,
    };
    frame.encode(outbox.head());
    Frame::WatchConns.encode(outbox.head());
    Ok(())
}

/// Decides by its header what to do with a frame.
fn plan(header: Header, phase: Phase) -> Result<Plan, MeshLinkError> {
    let wanted = match (phase, Kind::from_byte(header.kind)) {
        (Phase::AwaitKey, kind @ Some(Kind::ServerKey)) => kind,
        (Phase::AwaitInfo, kind @ Some(Kind::ServerInfo)) => kind,
        (Phase::AwaitInfo | Phase::Open, kind @ Some(Kind::Ping)) => kind,
        (Phase::Open, kind @ Some(Kind::PeerPresent | Kind::PeerGone)) => kind,
        // Packets for this relay's own key, keepalives and frames of newer versions.
        _ => None,
    };
    let Some(kind) = wanted else {
        return Ok(Plan::Skip);
    };
    kind.check_len(header.length)?;
    Ok(Plan::Take(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PeerGoneReason;
    use crate::handshake::{Greeting, ServerInfo};
    use crate::stats::{Drops, Tally};
    use crate::testing::{encoded, frames, secret};

    const NOW: Duration = Duration::from_secs(10);

    fn mesh_key() -> MeshKey {
        "ab".repeat(32).parse().unwrap()
    }

    fn link() -> MeshLink {
        let limits = Limits::default();
        let pool = Pool::new(limits.pool_bytes);
        let entropy = Entropy {
            nonce: [1; 24],
            jitter: 0,
        };
        let secret = Arc::new(secret(1));
        let public = secret.public();
        MeshLink::new(
            secret,
            public,
            mesh_key(),
            Arc::new(limits),
            pool,
            entropy,
            NOW,
        )
    }

    fn written(link: &mut MeshLink) -> Vec<u8> {
        let bytes: Vec<u8> = link
            .outbox()
            .slices()
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        link.outbox().transmitted(bytes.len());
        bytes
    }

    /// All events of these bytes, passed in chunks of `piece`.
    fn feed(
        link: &mut MeshLink,
        bytes: &[u8],
        piece: usize,
    ) -> Result<Vec<MeshEvent>, MeshLinkError> {
        let mut events = Vec::new();
        for mut rest in bytes.chunks(piece) {
            loop {
                let (consumed, event) = link.recv(rest, NOW)?;
                rest = &rest[consumed..];
                match event {
                    None if rest.is_empty() => break,
                    event => events.extend(event.filter(|event| *event != MeshEvent::Other)),
                }
            }
        }
        Ok(events)
    }

    fn open() -> MeshLink {
        let (mut link, relay) = (link(), secret(2));
        feed(&mut link, &encoded(Frame::ServerKey(relay.public())), 7).unwrap();
        let sent = frames(written(&mut link));
        assert_eq!(sent.len(), 2);
        let proven = Greeting::new(Arc::new(relay))
            .client_info(&sent[0].body)
            .unwrap();
        assert_eq!(proven.key, secret(1).public());
        assert_eq!(proven.info.mesh_key, Some(mesh_key()));
        assert_eq!(sent[1].kind, Kind::WatchConns);
        let mut answer = Vec::new();
        proven
            .server_info(&ServerInfo::default(), &[2; 24], &mut answer)
            .unwrap();
        assert_eq!(feed(&mut link, &answer, 5), Ok(vec![MeshEvent::Open]));
        link
    }

    #[test]
    fn relay_logs_in_and_gets_presence_updates() {
        let mut link = open();
        let peer = Key::from([7; 32]);
        let bytes = [
            encoded(Frame::PeerPresent {
                peer,
                presence: None,
            }),
            encoded(Frame::KeepAlive),
            encoded(Frame::RecvPacket {
                source: peer,
                packet: b"not for a relay",
            }),
            encoded(Frame::PeerPresent {
                peer: secret(1).public(),
                presence: None,
            }),
            encoded(Frame::Ping([5; 8])),
            encoded(Frame::PeerGone {
                peer,
                reason: PeerGoneReason::Disconnected,
            }),
        ]
        .concat();
        for piece in [1, 3, 1000] {
            let events = feed(&mut link, &bytes, piece).unwrap();
            assert_eq!(events, [MeshEvent::Present(peer), MeshEvent::Gone(peer)]);
            assert_eq!(written(&mut link), encoded(Frame::Pong([5; 8])));
        }
    }

    #[test]
    fn packets_are_sent_as_forward_packet_frames() {
        let mut link = open();
        let (mut queue, mut drops) = (Queue::default(), Drops::default());
        let (source, destination) = (Key::from([3; 32]), Key::from([4; 32]));
        let route = crate::queue::Route::Forward {
            source,
            destination,
        };
        queue.push(&route, b"hello", &link.limits, &link.pool, &mut drops);
        link.load(&mut queue);
        let packet = b"hello";
        assert_eq!(
            written(&mut link),
            encoded(Frame::ForwardPacket {
                source,
                destination,
                packet
            })
        );
        assert_eq!(
            link.outbox().take_sent(),
            Tally {
                packets: 1,
                bytes: 5
            }
        );
    }

    #[test]
    fn link_to_itself_or_to_a_web_server_is_closed() {
        let own = encoded(Frame::ServerKey(secret(1).public()));
        assert_eq!(
            feed(&mut link(), &own, 100),
            Err(MeshLinkError::ConnectedToSelf)
        );
        assert_eq!(
            feed(&mut link(), b"HTTP/1.1 400", 100),
            Err(MeshLinkError::NoServerKey(0))
        );
    }

    #[test]
    fn idle_link_times_out() {
        let mut silent = open();
        assert_eq!(
            silent.handle_timeout(NOW + Duration::from_secs(119)),
            Ok(())
        );
        let end = silent.poll_timeout();
        assert_eq!(silent.handle_timeout(end), Err(MeshLinkError::IdleTimeout));
        let mut link = link();
        let end = link.poll_timeout();
        assert_eq!(link.handle_timeout(end), Err(MeshLinkError::LoginTimeout));
    }

    #[test]
    fn link_that_accepts_no_bytes_times_out() {
        let mut link = open();
        link.outbox().blocked(NOW);
        let timeout = Limits::default().mesh_write_timeout;
        assert_eq!(link.poll_timeout(), NOW + timeout);
        assert_eq!(link.handle_timeout(NOW), Ok(()));
        let error = link.handle_timeout(NOW + timeout).unwrap_err();
        assert_eq!(error, MeshLinkError::WriteTimeout);
        assert_eq!(error.to_string(), "write timed out");
    }
}
