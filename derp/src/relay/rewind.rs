//! A stream whose first bytes were read before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream some of whose bytes were already read; they are read again first. Writes go through.
#[derive(Debug)]
pub struct Rewind<S> {
    already_read: Bytes,
    stream: S,
}

impl<S> Rewind<S> {
    /// The stream, preceded by `already_read`.
    pub fn new(stream: S, already_read: Bytes) -> Self {
        Rewind {
            already_read,
            stream,
        }
    }

    /// The stream, and the bytes that were not read again.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.already_read)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.already_read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.already_read.len().min(buffer.remaining());
        buffer.put_slice(self.already_read.get(..length).unwrap_or_default());
        self.already_read.advance(length);
        if self.already_read.is_empty() {
            // Frees the memory at once instead of at the end of the connection.
            self.already_read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn bytes_already_read_come_first() {
        let mut stream = Rewind::new(&b"rest"[..], Bytes::from_static(b"first "));
        let mut part = [0; 3];
        stream.read_exact(&mut part).await.unwrap();
        let (stream, left) = stream.into_parts();
        assert_eq!((&part, &left[..]), (b"fir", &b"st "[..]));
        let mut text = String::new();
        let mut stream = Rewind::new(stream, left);
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "st rest");
    }
}
