//! The future that moves bytes between a stream and its `Conn`.

use std::future::Future;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::{Shared, wake};
use crate::Key;
use crate::admit::Asked;
use crate::bucket::Bucket;
use crate::conn::{Conn, Event};
use crate::pool::Reservation;
use crate::registry::{Closed, ConnId, Forwarded, Standing};

/// Bytes read at once. The buffer lies on the stack, so that a connection that says nothing holds
/// no read buffer.
const READ_LEN: usize = 16 << 10;

/// Reads, and writes, of one turn; then the other connections get theirs.
const IO_PER_TURN: usize = 8;

/// One connection: resolves to the reason of its end. Made by
/// [`Relay::serve`](super::Relay::serve).
///
/// Reading and writing make progress independently of each other: a client that does not read is
/// still read from.
#[must_use = "a connection is served only while its future is polled"]
pub struct Serve<S> {
    shared: Arc<Shared>,
    stream: S,
    source: IpAddr,
    early: Bytes,
    /// What goes on, or why there is nothing to do.
    session: Result<Session, Closed>,
}

struct Session {
    id: ConnId,
    conn: Conn,
    /// Made at the first poll, because only then there must be a runtime. Boxed because it cannot
    /// be moved.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Bytes were written since the last flush.
    dirty: bool,
    ending: Ending,
    /// The host is still being asked whether the client is let in.
    asking: Option<Box<Asking>>,
    /// What the client may send; none while it logs in, and for other relays.
    rate: Option<Bucket>,
    rates_version: usize,
    is_rated: bool,
    /// Nothing is read before this moment.
    paused_until: Duration,
    last_heard: Duration,
    put_off: Option<PutOff>,
}

/// Input that waits until those whom it would fill up have had their turn.
struct PutOff {
    bytes: Box<[u8]>,
    /// Pays for `bytes`.
    _room: Reservation,
}

/// A client about whom the host is being asked.
struct Asking {
    key: Key,
    standing: Standing,
    answer: Asked,
    /// What came after its login in the same read, at most [`READ_LEN`] bytes.
    rest: Vec<u8>,
}

/// The polite end of a connection.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    No,
    /// Our side is being closed; until this time.
    ShuttingDown(Duration),
    /// Our side is closed and the client's is awaited; until this time.
    Lingering(Duration),
}

impl Ending {
    fn deadline(self) -> Option<Duration> {
        match self {
            Ending::No => None,
            Ending::ShuttingDown(at) | Ending::Lingering(at) => Some(at),
        }
    }
}

/// Whether a direction has more to do at once.
#[derive(PartialEq)]
enum Progress {
    Waiting,
    More,
}

impl<S> Serve<S> {
    pub(super) fn new(
        shared: Arc<Shared>,
        stream: S,
        early: Bytes,
        source: IpAddr,
        opened: Result<(ConnId, Conn), Closed>,
    ) -> Self {
        let session = opened.map(|(id, conn)| Session {
            id,
            conn,
            sleep: None,
            dirty: false,
            ending: Ending::No,
            asking: None,
            rate: None,
            rates_version: 0,
            is_rated: false,
            paused_until: Duration::ZERO,
            last_heard: shared.now(),
            put_off: None,
        });
        Serve {
            shared,
            stream,
            source,
            early,
            session,
        }
    }

    /// Leaves the registry. `reason` is none when the future is dropped before its end.
    fn leave(&mut self, reason: Option<Closed>) {
        let last = reason.unwrap_or(Closed::ByPeer);
        if let Ok(mut session) = std::mem::replace(&mut self.session, Err(last)) {
            let sent = session.conn.take_sent();
            let wakers = self.shared.registry().remove(session.id, reason, |stats| {
                stats.sent.add(sent);
                session.conn.abandon(&mut stats.drops);
            });
            wake(wakers);
        }
    }
}

impl<S> Drop for Serve<S> {
    fn drop(&mut self) {
        self.leave(None);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Serve<S> {
    type Output = Closed;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        let this = self.get_mut();
        let reason = match &mut this.session {
            Err(reason) => *reason,
            Ok(session) => {
                let turn = Turn {
                    now: this.shared.now(),
                    shared: &this.shared,
                    stream: &mut this.stream,
                    source: this.source,
                    session,
                    ask_again: false,
                    gives_way: false,
                };
                match turn.run(std::mem::take(&mut this.early), cx) {
                    Ok(()) => return Poll::Pending,
                    Err(reason) => reason,
                }
            }
        };
        this.leave(Some(reason));
        Poll::Ready(reason)
    }
}

/// One poll of a connection.
struct Turn<'a, S> {
    now: Duration,
    shared: &'a Shared,
    stream: &'a mut S,
    source: IpAddr,
    session: &'a mut Session,
    /// The host has just been asked for the first time.
    ask_again: bool,
    /// A receiver's queue fills: it is to have its turn before more is read.
    gives_way: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Turn<'_, S> {
    /// Does what can be done. The error is the end of the connection.
    fn run(mut self, early: Bytes, cx: &mut Context<'_>) -> Result<(), Closed> {
        if self.session.conn.poll_timeout() <= self.now {
            self.session.conn.handle_timeout(self.now)?;
        }
        if self
            .session
            .ending
            .deadline()
            .is_some_and(|at| at <= self.now)
        {
            return Err(Closed::ShuttingDown);
        }
        if self.idle_at().is_some_and(|at| at <= self.now) {
            return Err(Closed::Idle);
        }
        if let Some(reason) = self.shared.registry().attend(self.session.id, cx.waker()) {
            return Err(reason);
        }
        self.be_answered(cx)?;
        if let Some(put_off) = self.session.put_off.take() {
            self.take_in(&put_off.bytes)?;
        }
        self.take_in(&early)?;
        let mut progress = self.read(cx)?;
        if self.ask_again {
            progress = Progress::More;
        }
        if self.session.ending == Ending::No && self.write(cx)? == Progress::More {
            progress = Progress::More;
        }
        if self.session.conn.is_finished() && !self.session.dirty {
            self.end(cx)?;
        }
        if progress == Progress::More {
            cx.waker().wake_by_ref();
        }
        self.arm_timer(cx);
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<Progress, Closed> {
        for _ in 0..IO_PER_TURN {
            if self.session.asking.is_some() || self.session.paused_until > self.now {
                return Ok(Progress::Waiting);
            }
            if self.gives_way {
                return Ok(Progress::More);
            }
            let mut space = [const { MaybeUninit::uninit() }; READ_LEN];
            let mut buffer = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(Progress::Waiting),
                Poll::Ready(Err(error)) => return Err(Closed::Io(error.kind())),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Err(self.end_of_input());
                }
                Poll::Ready(Ok(())) => {
                    self.session.last_heard = self.now;
                    self.take_in(buffer.filled())?;
                    self.charge(buffer.filled().len());
                }
            }
        }
        Ok(Progress::More)
    }

    /// Makes the client wait if it has sent more than it may. Nothing is lost: what is not read
    /// fills the windows of the network, and the client itself comes to wait.
    fn charge(&mut self, bytes: usize) {
        let Session {
            rate,
            rates_version,
            is_rated,
            paused_until,
            ..
        } = &mut *self.session;
        if !*is_rated {
            return;
        }
        let version = self.shared.rates_version.load(Ordering::Relaxed);
        if *rates_version != version {
            *rates_version = version;
            *rate = self.shared.client_rate();
        }
        let own = rate.as_mut().map(|rate| rate.charge(bytes, self.now));
        let all = self.shared.charge_total(bytes, self.now);
        *paused_until = all.max(own.unwrap_or_default());
        if *paused_until > self.now {
            self.shared.registry().note_rate_wait();
        }
    }

    fn idle_at(&self) -> Option<Duration> {
        let timeout = self.shared.limits.idle_timeout;
        let at = self.session.last_heard.saturating_add(timeout);
        (!timeout.is_zero()).then_some(at)
    }

    /// Goes on with a client about whom the host was asked, once there is an answer.
    fn be_answered(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        let Some(asking) = &mut self.session.asking else {
            return Ok(());
        };
        let Poll::Ready(answer) = asking.answer.as_mut().poll(cx) else {
            return Ok(());
        };
        let Some(asking) = self.session.asking.take() else {
            return Ok(());
        };
        if !answer {
            return Err(Closed::Refused(asking.key));
        }
        self.let_in(asking.key, asking.standing, true)?;
        self.take_in(&asking.rest)
    }

    fn let_in(&mut self, key: Key, standing: Standing, is_asked: bool) -> Result<(), Closed> {
        let session = &mut *self.session;
        let info = self
            .shared
            .admit(session.id, key, self.source, standing, is_asked)?;
        session.conn.accept(&info, standing.is_mesh_peer)?;
        session.is_rated = !standing.is_mesh_peer;
        session.rates_version = self.shared.rates_version.load(Ordering::Relaxed);
        session.rate = match session.is_rated {
            true => self.shared.client_rate(),
            false => None,
        };
        Ok(())
    }

    fn end_of_input(&self) -> Closed {
        if self.session.ending == Ending::No {
            Closed::ByPeer
        } else {
            Closed::ShuttingDown
        }
    }

    /// Acts on what the client sent. If a receiver should have its turn first, the rest is put off,
    /// as far as the pool has room for it.
    fn take_in(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let mut rest = self.input(bytes)?;
        while !rest.is_empty() {
            let spare = self.shared.limits.pool_reserve_bytes;
            let spare = spare.saturating_add(rest.len());
            if let Some(room) = self.shared.pool.reserve(rest.len(), spare) {
                self.session.put_off = Some(PutOff {
                    bytes: rest.into(),
                    _room: room,
                });
                break;
            }
            rest = self.input(rest)?;
        }
        Ok(())
    }

    /// Does what follows from the way that a packet took, and says whether its receiver is to have its turn
    /// first.
    fn follow(&mut self, forwarded: Forwarded, destination: Key) -> bool {
        match forwarded {
            Forwarded::Queued(waker) => wake(waker),
            Forwarded::Filling(waker) => {
                wake(waker);
                self.gives_way = true;
                return true;
            }
            Forwarded::Dropped => {}
            Forwarded::NotHere => {
                let told = self.session.conn.tell_not_here(destination, self.now);
                self.shared.registry().note_not_here(told);
            }
        }
        false
    }

    /// Acts on what the client sent until a receiver's queue fills, and gives what is left.
    fn input<'b>(&mut self, mut rest: &'b [u8]) -> Result<&'b [u8], Closed> {
        loop {
            let Session { id, conn, .. } = &mut *self.session;
            let received = conn.recv(rest)?;
            rest = rest.get(received.consumed..).unwrap_or_default();
            match received.event {
                None if rest.is_empty() => return Ok(rest),
                None => {}
                Some(Event::Packet {
                    destination,
                    packet,
                }) => {
                    let forwarded = self.shared.registry().forward(*id, &destination, packet);
                    if self.follow(forwarded, destination) {
                        return Ok(rest);
                    }
                }
                Some(Event::Login { key, info }) => {
                    let standing = self.shared.standing(&info);
                    let asked = match standing.is_mesh_peer {
                        true => None,
                        false => self.shared.admit.ask(&key, self.source),
                    };
                    let Some(answer) = asked else {
                        self.let_in(key, standing, false)?;
                        continue;
                    };
                    self.session.asking = Some(Box::new(Asking {
                        key,
                        standing,
                        answer,
                        rest: rest.to_vec(),
                    }));
                    // The answer's future has to be polled to know whom to wake.
                    self.ask_again = true;
                    return Ok(&[]);
                }
                Some(Event::Forward {
                    source,
                    destination,
                    packet,
                }) => {
                    let mut registry = self.shared.registry();
                    let forwarded = registry.forward_from_mesh(*id, &source, &destination, packet);
                    drop(registry);
                    if self.follow(forwarded, destination) {
                        return Ok(rest);
                    }
                }
                Some(Event::Watch) => self.shared.registry().watch(*id),
                Some(Event::ClosePeer(key)) => {
                    let wakers = self.shared.registry().disconnect(&key);
                    wake(wakers);
                }
                Some(Event::NoRoom) => self.shared.registry().note_no_room(*id),
                Some(Event::Preferred(preferred)) => {
                    self.shared.registry().note_preferred(*id, preferred)
                }
                Some(Event::Ping) => self.shared.registry().note_ping(*id),
                Some(Event::Other) => self.shared.registry().note_activity(*id),
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<Progress, Closed> {
        let Session {
            id, conn, dirty, ..
        } = &mut *self.session;
        for _ in 0..IO_PER_TURN {
            if conn.wants_load() {
                let mut registry = self.shared.registry();
                registry.note_sent(conn.take_sent());
                if let Some(mailbox) = registry.mailbox(*id) {
                    conn.load(mailbox);
                }
            }
            let slices = conn.slices();
            let done = slices.is_empty();
            let result = if !done {
                Pin::new(&mut *self.stream).poll_write_vectored(cx, &slices)
            } else if *dirty {
                Pin::new(&mut *self.stream).poll_flush(cx).map_ok(|()| 0)
            } else {
                return Ok(Progress::Waiting);
            };
            drop(slices);
            match result {
                Poll::Pending => {
                    conn.blocked(self.now);
                    return Ok(Progress::Waiting);
                }
                Poll::Ready(Err(error)) => return Err(Closed::Io(error.kind())),
                Poll::Ready(Ok(0)) if !done => {
                    return Err(Closed::Io(std::io::ErrorKind::WriteZero));
                }
                Poll::Ready(Ok(length)) => {
                    conn.transmitted(length);
                    *dirty = !done;
                }
            }
        }
        Ok(Progress::More)
    }

    /// Closes our side and then waits for the client's.
    fn end(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        let until = self.now.saturating_add(self.shared.limits.linger);
        if self.session.ending == Ending::No {
            self.session.ending = Ending::ShuttingDown(until);
        }
        if matches!(self.session.ending, Ending::ShuttingDown(_))
            && let Poll::Ready(result) = Pin::new(&mut *self.stream).poll_shutdown(cx)
        {
            result.map_err(|error| Closed::Io(error.kind()))?;
            self.session.ending = Ending::Lingering(until);
        }
        Ok(())
    }

    /// Sees to it that the next poll is not later than the next timer. The sleep is left alone when
    /// it is too early: it then costs one poll without effect instead of a move in the timer wheel
    /// for each write.
    fn arm_timer(&mut self, cx: &mut Context<'_>) {
        let idle_at = self.idle_at();
        let Session {
            conn,
            sleep,
            ending,
            paused_until,
            ..
        } = &mut *self.session;
        let paused_until = Some(*paused_until).filter(|at| *at > self.now);
        let timers = [
            Some(conn.poll_timeout()),
            ending.deadline(),
            paused_until,
            idle_at,
        ];
        let at = self
            .shared
            .instant(timers.into_iter().flatten().min().unwrap_or_default());
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.is_elapsed() || sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}
