//! Driver of a client's connection: moves bytes between a stream and its `Conn`.

use std::future::Future;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hearth_shares::TokenBucket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::{IO_PER_TURN, READ_LEN, Timer, poll_write};
use super::{RelayInner, wake};
use crate::Key;
use crate::admit::{AdmissionFuture, Standing};
use crate::conn::{Conn, Event};
use crate::pool::Reservation;
use crate::registry::{ClientRole, CloseReason, ConnId, Forwarded};

/// Future of one connection; resolves to the reason of its end. Made by
/// [`Relay::serve`](super::Relay::serve).
///
/// Reading and writing make progress independently: a client that does not read is still read
/// from.
#[must_use = "a connection is served only while its future is polled"]
pub struct Serve<S> {
    shared: Arc<RelayInner>,
    stream: S,
    source: IpAddr,
    already_read: Bytes,
    /// The open connection, or why there is none.
    session: Result<Session, CloseReason>,
}

struct Session {
    id: ConnId,
    conn: Conn,
    /// The key of the client and what it is admitted as, once it is.
    admitted: Option<(Key, Standing)>,
    timer: Timer,
    /// Bytes were written since the last flush.
    dirty: bool,
    ending: Ending,
    /// Set while the host decides about admission.
    pending_admission: Option<Box<PendingAdmission>>,
    /// The client's rate limit; none during the login, without a rate, and for mesh peers.
    bucket: Option<TokenBucket>,
    rates_version: usize,
    is_rate_limited: bool,
    /// Nothing is read before this moment.
    paused_until: Duration,
    last_read: Duration,
    deferred: Option<Deferred>,
}

/// Input that is deferred until the receivers had a turn to write.
struct Deferred {
    bytes: Box<[u8]>,
    /// Pool memory of `bytes`.
    _room: Reservation,
}

/// A login for which the host has not decided yet.
struct PendingAdmission {
    key: Key,
    role: ClientRole,
    decision: AdmissionFuture,
    /// Input after the login in the same read, at most [`READ_LEN`] bytes.
    rest: Vec<u8>,
}

/// Orderly end of a connection.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    No,
    /// Our side is being closed, until this time.
    ShuttingDown(Duration),
    /// Our side is closed; waiting for the client to close, until this time.
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
        shared: Arc<RelayInner>,
        stream: S,
        already_read: Bytes,
        source: IpAddr,
        opened: Result<(ConnId, Conn), CloseReason>,
    ) -> Self {
        let session = opened.map(|(id, conn)| Session {
            id,
            conn,
            admitted: None,
            timer: Timer::default(),
            dirty: false,
            ending: Ending::No,
            pending_admission: None,
            bucket: None,
            rates_version: 0,
            is_rate_limited: false,
            paused_until: Duration::ZERO,
            last_read: shared.now(),
            deferred: None,
        });
        Serve {
            shared,
            stream,
            source,
            already_read,
            session,
        }
    }

    /// The key of the client and what it is admitted as, from its admission to the end of the connection.
    pub fn admitted(&self) -> Option<(Key, Standing)> {
        self.session.as_ref().ok()?.admitted
    }

    /// Removes the connection from the registry. `reason` is none if the future was dropped early.
    fn leave(&mut self, reason: Option<CloseReason>) {
        let last = reason.unwrap_or(CloseReason::ByPeer);
        if let Ok(mut session) = std::mem::replace(&mut self.session, Err(last)) {
            let sent = session.conn.outbox().take_sent();
            let wakers = self.shared.registry().remove(session.id, reason, |stats| {
                stats.sent.add(sent);
                session.conn.outbox().abandon(&mut stats.drops);
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
    type Output = CloseReason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
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
                    repoll: false,
                    yield_to_receiver: false,
                };
                match turn.run(std::mem::take(&mut this.already_read), cx) {
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
    shared: &'a RelayInner,
    stream: &'a mut S,
    source: IpAddr,
    session: &'a mut Session,
    /// The admission future is new and must be polled.
    repoll: bool,
    /// A receiver's queue is filling: it gets a turn to write before more is read.
    yield_to_receiver: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Turn<'_, S> {
    /// Makes progress in both directions. An error ends the connection.
    fn run(mut self, already_read: Bytes, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if self.session.conn.poll_timeout() <= self.now {
            self.session.conn.handle_timeout(self.now)?;
        }
        if self
            .session
            .ending
            .deadline()
            .is_some_and(|at| at <= self.now)
        {
            return Err(CloseReason::ShuttingDown);
        }
        if self.idle_at().is_some_and(|at| at <= self.now) {
            return Err(CloseReason::Idle);
        }
        if let Some(reason) = self
            .shared
            .registry()
            .register_waker(self.session.id, cx.waker())
        {
            return Err(reason);
        }
        self.poll_admission(cx)?;
        if let Some(deferred) = self.session.deferred.take() {
            self.consume(&deferred.bytes)?;
        }
        self.consume(&already_read)?;
        let mut progress = self.read(cx)?;
        // A new future must be polled once to register its waker.
        if self.repoll {
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

    fn read(&mut self, cx: &mut Context<'_>) -> Result<Progress, CloseReason> {
        for _ in 0..IO_PER_TURN {
            if self.session.pending_admission.is_some() || self.session.paused_until > self.now {
                return Ok(Progress::Waiting);
            }
            if self.yield_to_receiver {
                return Ok(Progress::More);
            }
            let mut space = [const { MaybeUninit::uninit() }; READ_LEN];
            let mut buffer = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(Progress::Waiting),
                Poll::Ready(Err(error)) => return Err(CloseReason::Io(error.kind())),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Err(self.end_of_input());
                }
                Poll::Ready(Ok(())) => {
                    self.session.last_read = self.now;
                    self.consume(buffer.filled())?;
                    self.charge(buffer.filled().len());
                }
            }
        }
        Ok(Progress::More)
    }

    /// Applies the rate limits: pauses reading if the client exceeds one. Nothing is lost, because
    /// TCP flow control slows the client down.
    fn charge(&mut self, bytes: usize) {
        let Session {
            bucket,
            rates_version,
            is_rate_limited,
            paused_until,
            ..
        } = &mut *self.session;
        if !*is_rate_limited {
            return;
        }
        let version = self.shared.rates_version.load(Ordering::Relaxed);
        if *rates_version != version {
            *rates_version = version;
            *bucket = self.shared.client_bucket();
        }
        let own = bucket.as_mut().map(|bucket| bucket.charge(bytes, self.now));
        let all = self.shared.charge_total(bytes, self.now);
        *paused_until = all.max(own.unwrap_or_default());
        if *paused_until > self.now {
            self.shared.registry().note_rate_wait();
        }
    }

    fn idle_at(&self) -> Option<Duration> {
        let timeout = self.shared.limits.idle_timeout;
        let at = self.session.last_read.saturating_add(timeout);
        (!timeout.is_zero()).then_some(at)
    }

    /// Completes a pending login once the host has decided.
    fn poll_admission(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let Some(pending) = &mut self.session.pending_admission else {
            return Ok(());
        };
        let Poll::Ready(decided) = pending.decision.as_mut().poll(cx) else {
            return Ok(());
        };
        let Some(pending) = self.session.pending_admission.take() else {
            return Ok(());
        };
        if decided.is_none() {
            return Err(CloseReason::NotAdmitted(pending.key));
        }
        self.admit(pending.key, pending.role, decided)?;
        self.consume(&pending.rest)
    }

    /// Logs the client in. `decided` is the decision of a host that was asked before.
    fn admit(
        &mut self,
        key: Key,
        role: ClientRole,
        decided: Option<Standing>,
    ) -> Result<(), CloseReason> {
        let session = &mut *self.session;
        let (info, standing) = self
            .shared
            .admit(session.id, key, self.source, role, decided)?;
        session.conn.accept(&info, role.is_mesh_peer)?;
        session.admitted = Some((key, standing));
        session.is_rate_limited = !role.is_mesh_peer;
        session.rates_version = self.shared.rates_version.load(Ordering::Relaxed);
        session.bucket = match session.is_rate_limited {
            true => self.shared.client_bucket(),
            false => None,
        };
        Ok(())
    }

    fn end_of_input(&self) -> CloseReason {
        if self.session.ending == Ending::No {
            CloseReason::ByPeer
        } else {
            CloseReason::ShuttingDown
        }
    }

    /// Processes input. If a receiver needs a turn to write first, the rest is deferred, as far as
    /// the pool has room for it.
    fn consume(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let mut rest = self.input(bytes)?;
        while !rest.is_empty() {
            let spare = self.shared.limits.pool_reserve_bytes;
            let spare = spare.saturating_add(rest.len());
            if let Some(room) = self.shared.pool.reserve(rest.len(), spare) {
                self.session.deferred = Some(Deferred {
                    bytes: rest.into(),
                    _room: room,
                });
                break;
            }
            rest = self.input(rest)?;
        }
        Ok(())
    }

    /// Wakes the receiver of a packet or queues the "not here" notice. Returns true if the receiver
    /// needs a turn to write before more is read.
    fn after_forward(&mut self, forwarded: Forwarded, destination: Key) -> bool {
        match forwarded {
            Forwarded::Queued(waker) => wake(waker),
            Forwarded::Filling(waker) => {
                wake(waker);
                self.yield_to_receiver = true;
                return true;
            }
            Forwarded::Dropped => {}
            Forwarded::NotHere => {
                let sent = self.session.conn.push_not_here(destination, self.now);
                self.shared.registry().note_not_here(sent);
            }
        }
        false
    }

    /// Processes input until a receiver's queue is filling. Returns the rest.
    fn input<'b>(&mut self, mut rest: &'b [u8]) -> Result<&'b [u8], CloseReason> {
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
                    let mut registry = self.shared.registry();
                    let forwarded = registry.forward(*id, &destination, packet, self.now);
                    drop(registry);
                    if self.after_forward(forwarded, destination) {
                        return Ok(rest);
                    }
                }
                Some(Event::Login { key, info }) => {
                    let role = self.shared.client_role(&info);
                    let decision = match role.is_mesh_peer {
                        true => None,
                        false => self.shared.admit.admit_async(&key, self.source),
                    };
                    let Some(decision) = decision else {
                        self.admit(key, role, None)?;
                        continue;
                    };
                    self.session.pending_admission = Some(Box::new(PendingAdmission {
                        key,
                        role,
                        decision,
                        rest: rest.to_vec(),
                    }));
                    self.repoll = true;
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
                    if self.after_forward(forwarded, destination) {
                        return Ok(rest);
                    }
                }
                Some(Event::Watch) => self.shared.registry().watch(*id),
                Some(Event::ClosePeer(key)) => {
                    let wakers = self.shared.registry().disconnect(&key);
                    wake(wakers);
                }
                Some(Event::PoolExhausted) => self.shared.registry().note_pool_exhausted(*id),
                Some(Event::Preferred(preferred)) => {
                    self.shared.registry().note_preferred(*id, preferred)
                }
                Some(Event::Ping) => self.shared.registry().note_ping(*id),
                Some(Event::Other) => self.shared.registry().note_activity(*id),
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<Progress, CloseReason> {
        let Session {
            id, conn, dirty, ..
        } = &mut *self.session;
        for _ in 0..IO_PER_TURN {
            if conn.wants_load() {
                let mut registry = self.shared.registry();
                registry.note_sent(conn.outbox().take_sent());
                if let Some(mailbox) = registry.mailbox(*id) {
                    conn.load(mailbox);
                }
            }
            match poll_write(self.stream, conn.outbox(), dirty, self.now, cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending => return Ok(Progress::Waiting),
                Poll::Ready(Err(kind)) => return Err(CloseReason::Io(kind)),
            }
        }
        Ok(Progress::More)
    }

    /// Closes our side and then waits for the client to close.
    fn end(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let until = self.now.saturating_add(self.shared.limits.linger);
        if self.session.ending == Ending::No {
            self.session.ending = Ending::ShuttingDown(until);
        }
        if matches!(self.session.ending, Ending::ShuttingDown(_))
            && let Poll::Ready(result) = Pin::new(&mut *self.stream).poll_shutdown(cx)
        {
            result.map_err(|error| CloseReason::Io(error.kind()))?;
            self.session.ending = Ending::Lingering(until);
        }
        Ok(())
    }

    /// Schedules the next poll for the earliest deadline.
    fn arm_timer(&mut self, cx: &mut Context<'_>) {
        let idle_at = self.idle_at();
        let Session {
            conn,
            timer,
            ending,
            paused_until,
            ..
        } = &mut *self.session;
        let paused_until = Some(*paused_until).filter(|at| *at > self.now);
        let deadlines = [
            Some(conn.poll_timeout()),
            ending.deadline(),
            paused_until,
            idle_at,
        ];
        let at = self
            .shared
            .instant(deadlines.into_iter().flatten().min().unwrap_or_default());
        timer.arm(at, cx);
    }
}
