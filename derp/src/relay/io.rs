//! What the drivers of clients and of mesh links share: writing an outbox, and the timer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::outbox::Outbox;

/// Bytes of one read. The buffer is on the stack, so an idle connection holds none.
pub(super) const READ_LEN: usize = 16 << 10;

/// Reads, and writes, of one poll; after that other connections get their turn.
pub(super) const IO_PER_TURN: usize = 8;

/// Writes part of an outbox, or flushes the stream once the outbox is empty. False means that there
/// was nothing to do. `dirty` is whether bytes were written since the last flush. While the peer
/// accepts no bytes, the write timeout runs.
pub(super) fn poll_write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    outbox: &mut Outbox,
    dirty: &mut bool,
    now: Duration,
    cx: &mut Context<'_>,
) -> Poll<Result<bool, io::ErrorKind>> {
    let slices = outbox.slices();
    let is_flush = slices.is_empty();
    let result = if !is_flush {
        Pin::new(stream).poll_write_vectored(cx, &slices)
    } else if *dirty {
        Pin::new(stream).poll_flush(cx).map_ok(|()| 0)
    } else {
        return Poll::Ready(Ok(false));
    };
    drop(slices);
    if result.is_pending() {
        outbox.blocked(now);
    }
    Poll::Ready(match ready!(result) {
        Err(error) => Err(error.kind()),
        Ok(0) if !is_flush => Err(io::ErrorKind::WriteZero),
        Ok(length) => {
            outbox.transmitted(length);
            *dirty = !is_flush;
            Ok(true)
        }
    })
}

/// Wakes a driver at its next deadline. Made at the first poll, because a runtime is needed only
/// then; boxed because it cannot be moved.
#[derive(Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Makes the next poll happen at `at` or earlier. A sleep that ends earlier is left alone: that
    /// costs one poll without effect instead of a move in the timer wheel for each write.
    pub(super) fn arm(&mut self, at: Instant, cx: &mut Context<'_>) {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.is_elapsed() || sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}
