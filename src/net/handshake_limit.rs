//! HandshakeLimit: a stream that stops reading after a number of bytes, until the TLS handshake is done.
//!
//! rustls buffers up to 64 KB of an unfinished handshake message (`MAX_HANDSHAKE_SIZE` in its
//! `msgs/deframer`), and anyone can start one. Real clients send about two kilobytes before the handshake is
//! done: a ClientHello with a post-quantum key share.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that a client can send before its TLS handshake is done.
pub(super) const HANDSHAKE_BYTES: usize = 8 * 1024;

/// A stream with a limit on the bytes read.
#[derive(Debug)]
pub(super) struct HandshakeLimit<S> {
    stream: S,
    /// Bytes that can still be read; unlimited when `None`.
    left: Option<usize>,
}

impl<S> HandshakeLimit<S> {
    /// A stream from which `bytes` can be read.
    pub(super) fn new(stream: S, bytes: usize) -> Self {
        Self {
            stream,
            left: Some(bytes),
        }
    }

    /// Removes the limit.
    pub(super) fn trust(&mut self) {
        self.left = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HandshakeLimit<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let stream = Pin::new(&mut this.stream);
        let Some(left) = &mut this.left else {
            return stream.poll_read(context, buffer);
        };
        if *left == 0 {
            let fault = "TLS handshake is too long";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
        }
        let most = buffer.remaining().min(*left);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        let read = stream.poll_read(context, &mut part);
        let length = part.filled().len();
        buffer.advance(length);
        *left = left.saturating_sub(length);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HandshakeLimit<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn no_more_than_the_allowance_is_read_until_the_stream_is_trusted() {
        let mut early = HandshakeLimit::new(&b"0123456789"[..], 6);
        let mut buffer = [0; 4];
        for expected in [&b"0123"[..], b"45"] {
            let length = early.read(&mut buffer).await.unwrap();
            assert_eq!(buffer.get(..length), Some(expected));
        }
        let fault = early.read(&mut buffer).await.unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::InvalidData);
        early.trust();
        let length = early.read(&mut buffer).await.unwrap();
        assert_eq!(buffer.get(..length), Some(&b"6789"[..]));
    }
}
