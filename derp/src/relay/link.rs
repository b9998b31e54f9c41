//! The future that moves bytes between a stream and its `Link`.

use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::{Shared, wake};
use crate::MeshKey;
use crate::link::{Link, LinkFault, News};
use crate::registry::LinkId;

/// Bytes read at once, on the stack.
const READ_LEN: usize = 16 << 10;

/// Reads, and writes, of one turn.
const IO_PER_TURN: usize = 8;

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// The other relay closed it. It does so without a word when the mesh key is not the right one.
    #[error("{}", match .was_open {
        true => "the other relay closed the connection",
        false => "the other relay closed the connection during the login: is its mesh key the same?",
    })]
    Closed {
        /// Whether the other relay had let us in.
        was_open: bool,
    },
    /// The stream failed.
    #[error("connection failed: {0}")]
    Io(std::io::ErrorKind),
    /// The other relay broke the protocol or ran out of time.
    #[error("{0}")]
    Fault(#[from] LinkFault),
    /// This relay shuts down.
    #[error("relay is shutting down")]
    ShuttingDown,
    /// The system's random source failed.
    #[error("no randomness")]
    NoRandomness,
}

/// One link to another relay: resolves to the reason of its end. Made by
/// [`Relay::mesh`](super::Relay::mesh).
#[must_use = "a link lives only while its future is polled"]
pub struct Mesh<S> {
    shared: Arc<Shared>,
    stream: S,
    early: Bytes,
    session: Option<Session>,
}

struct Session {
    id: LinkId,
    link: Link,
    sleep: Option<Pin<Box<Sleep>>>,
    dirty: bool,
    is_open: bool,
}

impl<S> Mesh<S> {
    pub(super) fn new(shared: Arc<Shared>, stream: S, early: Bytes, mesh_key: MeshKey) -> Self {
        let session = shared.entropy().ok().map(|entropy| Session {
            id: shared.registry().add_link(),
            link: Link::new(
                shared.secret.clone(),
                shared.public,
                mesh_key,
                shared.limits.clone(),
                shared.pool.clone(),
                entropy,
                shared.now(),
            ),
            sleep: None,
            dirty: false,
            is_open: false,
        });
        Mesh {
            shared,
            stream,
            early,
            session,
        }
    }
}

impl<S> Drop for Mesh<S> {
    fn drop(&mut self) {
        if let Some(mut session) = self.session.take() {
            let sent = session.link.take_sent();
            let mut registry = self.shared.registry();
            registry.note_forwarded(sent);
            registry.note_abandoned(|drops| session.link.abandon(drops));
            let wakers = registry.remove_link(session.id);
            drop(registry);
            wake(wakers);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Mesh<S> {
    type Output = LinkEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        let this = self.get_mut();
        let Some(session) = &mut this.session else {
            return Poll::Ready(LinkEnd::NoRandomness);
        };
        let early = std::mem::take(&mut this.early);
        match turn(&this.shared, &mut this.stream, session, &early, cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }
}

/// Does what can be done. The error is the end of the link.
fn turn<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut S,
    session: &mut Session,
    early: &[u8],
    cx: &mut Context<'_>,
) -> Result<(), LinkEnd> {
    session.link.handle_timeout(shared.now())?;
    if !shared.registry().attend_link(session.id, cx.waker()) {
        return Err(LinkEnd::ShuttingDown);
    }
    input(shared, session, early)?;
    let is_read = read(shared, stream, session, cx)?;
    let is_written = write(shared, stream, session, cx)?;
    if !is_read || !is_written {
        cx.waker().wake_by_ref();
    }
    let at = shared.instant(session.link.poll_timeout());
    let sleep = session
        .sleep
        .get_or_insert_with(|| Box::pin(sleep_until(at)));
    if sleep.is_elapsed() || sleep.deadline() > at {
        sleep.as_mut().reset(at);
    }
    if sleep.as_mut().poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
    Ok(())
}

/// Reads what there is; says whether that was all.
fn read<S: AsyncRead + Unpin>(
    shared: &Shared,
    stream: &mut S,
    session: &mut Session,
    cx: &mut Context<'_>,
) -> Result<bool, LinkEnd> {
    for _ in 0..IO_PER_TURN {
        let mut space = [const { MaybeUninit::uninit() }; READ_LEN];
        let mut buffer = ReadBuf::uninit(&mut space);
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(true),
            Poll::Ready(Err(error)) => return Err(LinkEnd::Io(error.kind())),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                let was_open = session.is_open;
                return Err(LinkEnd::Closed { was_open });
            }
            Poll::Ready(Ok(())) => input(shared, session, buffer.filled())?,
        }
    }
    Ok(false)
}

fn input(shared: &Shared, session: &mut Session, mut rest: &[u8]) -> Result<(), LinkEnd> {
    loop {
        let (consumed, news) = session.link.recv(rest, shared.now())?;
        rest = rest.get(consumed..).unwrap_or_default();
        match news {
            None if rest.is_empty() => return Ok(()),
            None | Some(News::Other) => {}
            Some(News::Open) => session.is_open = true,
            Some(News::Present(key)) => shared.registry().add_forwarder(session.id, key),
            Some(News::Gone(key)) => {
                let wakers = shared.registry().remove_forwarder(session.id, &key);
                wake(wakers);
            }
        }
    }
}

/// Writes what there is; says whether that was all.
fn write<S: AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut S,
    session: &mut Session,
    cx: &mut Context<'_>,
) -> Result<bool, LinkEnd> {
    let Session {
        id, link, dirty, ..
    } = session;
    for _ in 0..IO_PER_TURN {
        if link.wants_load() {
            let mut registry = shared.registry();
            registry.note_forwarded(link.take_sent());
            if let Some(queue) = registry.link_queue(*id) {
                link.load(queue);
            }
        }
        let slices = link.slices();
        let done = slices.is_empty();
        let result = if !done {
            Pin::new(&mut *stream).poll_write_vectored(cx, &slices)
        } else if *dirty {
            Pin::new(&mut *stream).poll_flush(cx).map_ok(|()| 0)
        } else {
            return Ok(true);
        };
        drop(slices);
        match result {
            Poll::Pending => {
                link.blocked(shared.now());
                return Ok(true);
            }
            Poll::Ready(Err(error)) => return Err(LinkEnd::Io(error.kind())),
            Poll::Ready(Ok(0)) if !done => {
                return Err(LinkEnd::Io(std::io::ErrorKind::WriteZero));
            }
            Poll::Ready(Ok(length)) => {
                link.transmitted(length);
                *dirty = !done;
            }
        }
    }
    Ok(false)
}
