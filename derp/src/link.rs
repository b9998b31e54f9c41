//! One connection to another relay of the region, as its client, without its socket: bytes and
//! `now` in, news and bytes out.
//!
//! The counterpart of [`conn`](crate::conn): it logs in with the mesh key, asks to be told who is
//! connected there, and forwards packets to them.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::conn::input::{Deframer, Item, Plan};
use crate::conn::output::{MAX_SLICES, Output};
use crate::conn::{Entropy, Fault};
use crate::frame::{Frame, FrameError, Header, Kind, PROTOCOL_VERSION};
use crate::handshake::ClientInfo;
use crate::nacl::{NotAuthentic, Shared};
use crate::pool::Pool;
use crate::queue::Queue;
use crate::stats::{Drops, Tally};
use crate::{Key, Limits, MeshKey, ServerSecret};

/// Why a link has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    /// A frame breaks the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other relay sent something else than its key first.
    #[error("frame of type {0:#04x} instead of the relay's key")]
    NoKey(u8),
    /// The other relay is this one. Source: `derphttp.Client.RunWatchConnectionLoop`.
    #[error("the other relay is this one")]
    Itself,
    /// The login cannot be made.
    #[error(transparent)]
    Box(#[from] NotAuthentic),
    /// The other relay sent more than there is memory for.
    #[error("link needs more memory than there is")]
    NoRoom,
    /// The login took too long.
    #[error("login not finished in time")]
    LoginTimeout,
    /// The other relay said nothing for twice the time of its keepalives.
    #[error("relay said nothing for too long")]
    Silence,
    /// The other relay took none of its bytes for too long.
    #[error("relay takes no bytes")]
    WriteTimeout,
}

impl From<Fault> for LinkFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Frame(fault) => LinkFault::Frame(fault),
            _ => LinkFault::NoRoom,
        }
    }
}

/// What the other relay says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It has let us in.
    Open,
    /// A client is connected to it.
    Present(Key),
    /// A client is not connected to it any more.
    Gone(Key),
    /// Something without effect.
    Other,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    AwaitKey,
    AwaitInfo,
    Open,
}

/// The state of a link.
pub struct Link {
    phase: Phase,
    secret: Arc<ServerSecret>,
    public: Key,
    mesh_key: MeshKey,
    limits: Arc<Limits>,
    pool: Pool,
    entropy: Entropy,
    input: Deframer,
    output: Output,
    login_deadline: Option<Duration>,
    write_deadline: Option<Duration>,
    silent_at: Duration,
}

impl Link {
    /// A new link, on which the other relay speaks first. `public` is the public half of `secret`,
    /// this relay's key.
    pub fn new(
        secret: Arc<ServerSecret>,
        public: Key,
        mesh_key: MeshKey,
        limits: Arc<Limits>,
        pool: Pool,
        entropy: Entropy,
        now: Duration,
    ) -> Self {
        Link {
            phase: Phase::AwaitKey,
            secret,
            public,
            mesh_key,
            login_deadline: Some(now.saturating_add(limits.login_timeout)),
            silent_at: silent_at(&limits, now),
            limits,
            pool,
            entropy,
            input: Deframer::default(),
            output: Output::default(),
            write_deadline: None,
        }
    }

    /// Takes bytes from the other relay, and gives how many are done with. Call it again with the
    /// rest until everything is consumed *and* there is no news.
    pub fn recv(
        &mut self,
        input: &[u8],
        now: Duration,
    ) -> Result<(usize, Option<News>), LinkFault> {
        if !input.is_empty() {
            self.silent_at = silent_at(&self.limits, now);
        }
        let phase = self.phase;
        let plan = |header: Header| plan(header, phase);
        let (consumed, item) = self.input.next(input, plan, &self.pool, &self.limits)?;
        let news = match item {
            None => None,
            Some(Item::NoRoom) => return Err(LinkFault::NoRoom),
            Some(Item::Skipped) if phase == Phase::AwaitKey => return Err(LinkFault::NoKey(0)),
            Some(Item::Skipped) => Some(News::Other),
            Some(Item::Frame(kind, body)) => Some(match Frame::decode(kind, body)? {
                Frame::ServerKey(relay) => {
                    log_in(
                        &mut self.output,
                        (&self.secret, self.public),
                        relay,
                        &self.mesh_key,
                        &self.entropy,
                    )?;
                    self.phase = Phase::AwaitInfo;
                    News::Other
                }
                // Its content is of no use: no rate holds for relays of the region.
                Frame::ServerInfo(_) => {
                    self.phase = Phase::Open;
                    self.login_deadline = None;
                    News::Open
                }
                Frame::PeerPresent { peer, .. } if peer != self.public => News::Present(peer),
                Frame::PeerGone { peer, .. } => News::Gone(peer),
                Frame::Ping(data) => {
                    Frame::Pong(data).encode(self.output.head());
                    News::Other
                }
                _ => News::Other,
            }),
        };
        Ok((consumed, news))
    }

    /// Whether the bytes of the last [`Link::load`] are all written, so that it may load again.
    pub fn wants_load(&self) -> bool {
        self.output.is_empty() && self.phase == Phase::Open
    }

    /// Takes the next packets that wait for this link. Does nothing while others are being written.
    pub fn load(&mut self, queue: &mut Queue) {
        if self.wants_load() {
            self.output.take_packets(queue, self.limits.batch_bytes);
        }
    }

    /// The bytes to write now; empty if there are none.
    pub fn slices(&self) -> heapless::Vec<IoSlice<'_>, MAX_SLICES> {
        self.output.slices()
    }

    /// Notes that the first `length` bytes of [`Link::slices`] were written.
    pub fn transmitted(&mut self, length: usize) {
        self.output.advance(length);
        self.write_deadline = None;
    }

    /// Notes that the other relay takes no bytes at the moment.
    pub fn blocked(&mut self, now: Duration) {
        self.write_deadline
            .get_or_insert(now.saturating_add(self.limits.mesh_write_timeout));
    }

    /// Packets written since the last call.
    pub fn take_sent(&mut self) -> Tally {
        self.output.take_sent()
    }

    /// Drops what is not written and counts it.
    pub fn abandon(&mut self, drops: &mut Drops) {
        self.output.abandon(drops);
    }

    /// When [`Link::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Duration {
        let deadlines = [self.login_deadline, self.write_deadline];
        deadlines
            .into_iter()
            .flatten()
            .fold(self.silent_at, Duration::min)
    }

    /// Acts on the timers that have run out.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), LinkFault> {
        if self.login_deadline.is_some_and(|at| at <= now) {
            return Err(LinkFault::LoginTimeout);
        }
        if self.write_deadline.is_some_and(|at| at <= now) {
            return Err(LinkFault::WriteTimeout);
        }
        if self.silent_at <= now {
            return Err(LinkFault::Silence);
        }
        Ok(())
    }
}

/// Clients give up after twice the time of a keepalive. Source: `derp.Client.recvTimeout`.
fn silent_at(limits: &Limits, now: Duration) -> Duration {
    now.saturating_add(limits.keepalive.saturating_mul(2))
}

/// Appends the login with the mesh key, and the wish to be told who comes and goes.
fn log_in(
    output: &mut Output,
    (secret, public): (&ServerSecret, Key),
    relay: Key,
    mesh_key: &MeshKey,
    entropy: &Entropy,
) -> Result<(), LinkFault> {
    if relay == public {
        return Err(LinkFault::Itself);
    }
    let info = ClientInfo {
        version: PROTOCOL_VERSION,
        can_ack_pings: true,
        mesh_key: Some(mesh_key.clone()),
        ..ClientInfo::default()
    };
    let text = Zeroizing::new(serde_json::to_vec(&info).unwrap_or_default());
    let sealed = Shared::new(secret, &relay).seal(&entropy.nonce, &text)?;
    let frame = Frame::ClientInfo {
        key: public,
        sealed: &sealed,
    };
    frame.encode(output.head());
    Frame::WatchConns.encode(output.head());
    Ok(())
}

/// What to do with a frame, decided on its header.
fn plan(header: Header, phase: Phase) -> Result<Plan, Fault> {
    let wanted = match (phase, Kind::from_byte(header.kind)) {
        (Phase::AwaitKey, kind @ Some(Kind::ServerKey)) => kind,
        (Phase::AwaitInfo, kind @ Some(Kind::ServerInfo)) => kind,
        (Phase::AwaitInfo | Phase::Open, kind @ Some(Kind::Ping)) => kind,
        (Phase::Open, kind @ Some(Kind::PeerPresent | Kind::PeerGone)) => kind,
        // Packets for this relay's own key, keepalives and what later versions may send.
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
    use crate::testing::{encoded, frames, secret};

    const NOW: Duration = Duration::from_secs(10);

    fn mesh_key() -> MeshKey {
        "ab".repeat(32).parse().unwrap()
    }

    fn link() -> Link {
        let limits = Limits::default();
        let pool = Pool::new(limits.pool_bytes);
        let entropy = Entropy {
            nonce: [1; 24],
            jitter: 0,
        };
        let secret = Arc::new(secret(1));
        let public = secret.public();
        Link::new(
            secret,
            public,
            mesh_key(),
            Arc::new(limits),
            pool,
            entropy,
            NOW,
        )
    }

    fn written(link: &mut Link) -> Vec<u8> {
        let bytes: Vec<u8> = link
            .slices()
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        link.transmitted(bytes.len());
        bytes
    }

    /// Everything that comes of these bytes, given `piece` at a time.
    fn feed(link: &mut Link, bytes: &[u8], piece: usize) -> Result<Vec<News>, LinkFault> {
        let mut news = Vec::new();
        for mut rest in bytes.chunks(piece) {
            loop {
                let (consumed, new) = link.recv(rest, NOW)?;
                rest = &rest[consumed..];
                match new {
                    None if rest.is_empty() => break,
                    new => news.extend(new.filter(|new| *new != News::Other)),
                }
            }
        }
        Ok(news)
    }

    fn open() -> Link {
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
        assert_eq!(feed(&mut link, &answer, 5), Ok(vec![News::Open]));
        link
    }

    #[test]
    fn relay_logs_in_and_hears_who_comes_and_goes() {
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
            let news = feed(&mut link, &bytes, piece).unwrap();
            assert_eq!(news, [News::Present(peer), News::Gone(peer)]);
            assert_eq!(written(&mut link), encoded(Frame::Pong([5; 8])));
        }
    }

    #[test]
    fn packets_leave_as_forwarded_ones() {
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
            link.take_sent(),
            Tally {
                packets: 1,
                bytes: 5
            }
        );
    }

    #[test]
    fn link_to_oneself_and_to_what_is_no_relay_end() {
        let own = encoded(Frame::ServerKey(secret(1).public()));
        assert_eq!(feed(&mut link(), &own, 100), Err(LinkFault::Itself));
        assert_eq!(
            feed(&mut link(), b"HTTP/1.1 400", 100),
            Err(LinkFault::NoKey(0))
        );
    }

    #[test]
    fn silence_ends_a_link() {
        let mut silent = open();
        assert_eq!(
            silent.handle_timeout(NOW + Duration::from_secs(119)),
            Ok(())
        );
        let end = silent.poll_timeout();
        assert_eq!(silent.handle_timeout(end), Err(LinkFault::Silence));
        let mut link = link();
        let end = link.poll_timeout();
        assert_eq!(link.handle_timeout(end), Err(LinkFault::LoginTimeout));
    }
}
