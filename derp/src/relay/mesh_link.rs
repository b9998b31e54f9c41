//! Driver of a link to another relay: moves bytes between a stream and its `MeshLink`.

use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::{IO_PER_TURN, READ_LEN, Timer, poll_write};
use super::{RelayInner, wake};
use crate::MeshKey;
use crate::mesh_link::{MeshEvent, MeshLink, MeshLinkError};
use crate::registry::MeshLinkId;

/// Why a mesh link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeshLinkEnd {
    /// The other relay closed it; it also does so, without an error, if the mesh key is wrong.
    #[error("{}", match .was_open {
        true => "relay closed the connection",
        false => "relay closed the connection during the login; check that both have the same mesh key",
    })]
    Closed {
        /// Whether the login was done.
        was_open: bool,
    },
    /// The stream failed.
    #[error("connection failed: {0}")]
    Io(std::io::ErrorKind),
    /// Protocol error or timeout of the other relay.
    #[error("{0}")]
    Error(#[from] MeshLinkError),
    /// This relay is shutting down.
    #[error("relay is shutting down")]
    ShuttingDown,
    /// The system's random source failed.
    #[error("system random source failed")]
    NoRandomness,
}

/// Future of one mesh link; resolves to the reason of its end. Made by
/// [`Relay::serve_mesh_link`](super::Relay::serve_mesh_link).
#[must_use = "a mesh link lives only while its future is polled"]
pub struct ServeMeshLink<S> {
    shared: Arc<RelayInner>,
    stream: S,
    already_read: Bytes,
    session: Option<Session>,
}

struct Session {
    id: MeshLinkId,
    link: MeshLink,
    timer: Timer,
    dirty: bool,
    is_open: bool,
}

impl<S> ServeMeshLink<S> {
    pub(super) fn new(
        shared: Arc<RelayInner>,
        stream: S,
        already_read: Bytes,
        mesh_key: MeshKey,
    ) -> Self {
        let session = shared.entropy().ok().map(|entropy| Session {
            id: shared.registry().add_link(),
            link: MeshLink::new(
                shared.secret.clone(),
                shared.public,
                mesh_key,
                shared.limits.clone(),
                shared.pool.clone(),
                entropy,
                shared.now(),
            ),
            timer: Timer::default(),
            dirty: false,
            is_open: false,
        });
        ServeMeshLink {
            shared,
            stream,
            already_read,
            session,
        }
    }
}

impl<S> Drop for ServeMeshLink<S> {
    fn drop(&mut self) {
        if let Some(mut session) = self.session.take() {
            let sent = session.link.outbox().take_sent();
            let mut registry = self.shared.registry();
            registry.note_forwarded(sent);
            registry.note_abandoned(|drops| session.link.outbox().abandon(drops));
            let wakers = registry.remove_link(session.id);
            drop(registry);
            wake(wakers);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for ServeMeshLink<S> {
    type Output = MeshLinkEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<MeshLinkEnd> {
        let this = self.get_mut();
        let Some(session) = &mut this.session else {
            return Poll::Ready(MeshLinkEnd::NoRandomness);
        };
        let already_read = std::mem::take(&mut this.already_read);
        match turn(&this.shared, &mut this.stream, session, &already_read, cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }
}

/// Makes progress in both directions. An error ends the link.
fn turn<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &RelayInner,
    stream: &mut S,
    session: &mut Session,
    already_read: &[u8],
    cx: &mut Context<'_>,
) -> Result<(), MeshLinkEnd> {
    session.link.handle_timeout(shared.now())?;
    if !shared
        .registry()
        .register_link_waker(session.id, cx.waker())
    {
        return Err(MeshLinkEnd::ShuttingDown);
    }
    input(shared, session, already_read)?;
    let is_read = read(shared, stream, session, cx)?;
    let is_written = write(shared, stream, session, cx)?;
    if !is_read || !is_written {
        cx.waker().wake_by_ref();
    }
    let at = shared.instant(session.link.poll_timeout());
    session.timer.arm(at, cx);
    Ok(())
}

/// Reads what is available. Returns false if there may be more.
fn read<S: AsyncRead + Unpin>(
    shared: &RelayInner,
    stream: &mut S,
    session: &mut Session,
    cx: &mut Context<'_>,
) -> Result<bool, MeshLinkEnd> {
    for _ in 0..IO_PER_TURN {
        let mut space = [const { MaybeUninit::uninit() }; READ_LEN];
        let mut buffer = ReadBuf::uninit(&mut space);
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(true),
            Poll::Ready(Err(error)) => return Err(MeshLinkEnd::Io(error.kind())),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                let was_open = session.is_open;
                return Err(MeshLinkEnd::Closed { was_open });
            }
            Poll::Ready(Ok(())) => input(shared, session, buffer.filled())?,
        }
    }
    Ok(false)
}

fn input(shared: &RelayInner, session: &mut Session, mut rest: &[u8]) -> Result<(), MeshLinkEnd> {
    loop {
        let (consumed, event) = session.link.recv(rest, shared.now())?;
        rest = rest.get(consumed..).unwrap_or_default();
        match event {
            None if rest.is_empty() => return Ok(()),
            None | Some(MeshEvent::Other) => {}
            Some(MeshEvent::Open) => session.is_open = true,
            Some(MeshEvent::Present(key)) => shared.registry().add_forwarder(session.id, key),
            Some(MeshEvent::Gone(key)) => {
                let wakers = shared.registry().remove_forwarder(session.id, &key);
                wake(wakers);
            }
        }
    }
}

/// Writes what is queued. Returns false if there may be more.
fn write<S: AsyncWrite + Unpin>(
    shared: &RelayInner,
    stream: &mut S,
    session: &mut Session,
    cx: &mut Context<'_>,
) -> Result<bool, MeshLinkEnd> {
    let Session {
        id, link, dirty, ..
    } = session;
    for _ in 0..IO_PER_TURN {
        if link.wants_load() {
            let mut registry = shared.registry();
            registry.note_forwarded(link.outbox().take_sent());
            if let Some(queue) = registry.link_queue(*id) {
                link.load(queue);
            }
        }
        match poll_write(stream, link.outbox(), dirty, shared.now(), cx) {
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false)) | Poll::Pending => return Ok(true),
            Poll::Ready(Err(kind)) => return Err(MeshLinkEnd::Io(kind)),
        }
    }
    Ok(false)
}
