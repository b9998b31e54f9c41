//! Stream of bytes over a WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{CONTROL_LEN, Control, Decoder, NORMAL, binary_header};
use crate::outbox::MAX_SLICES;
use crate::relay::Rewind;

/// Reads without message bytes after which other connections get their turn.
const EMPTY_READS: usize = 8;

/// Longest message that is sent, in bytes. Clients reject more than 32 KiB, the default of the
/// official client's library (`Conn.SetReadLimit` in coder/websocket).
const MAX_MESSAGE: usize = 16 << 10;

/// WebSocket after its handshake, the server's side: writes are sent as binary messages, reads return
/// the bytes of the client's messages.
///
/// A partial write has already sent the header for all of its bytes, so the next write must start
/// with the bytes that were left.
#[derive(Debug)]
pub struct WebSocket<S> {
    stream: Rewind<S>,
    decoder: Decoder,
    /// Unwritten rest of a message's header.
    header: heapless::Vec<u8, 10>,
    /// Unwritten bytes of a message whose header is already made.
    message_left: usize,
    /// Unwritten rest of a control frame, which is sent between messages.
    control: heapless::Vec<u8, CONTROL_LEN>,
    is_closed: bool,
}

impl<S> WebSocket<S> {
    /// A WebSocket on a stream; `already_read` are bytes read from it before.
    pub fn new(stream: S, already_read: Bytes) -> Self {
        WebSocket {
            stream: Rewind::new(stream, already_read),
            decoder: Decoder::default(),
            header: heapless::Vec::new(),
            message_left: 0,
            control: heapless::Vec::new(),
            is_closed: false,
        }
    }

    /// Sets the close code, instead of [`NORMAL`], for the next shutdown of the stream.
    pub fn close(&mut self, code: u16) {
        self.queue_control(&Control::Close(code));
    }

    /// Queues a control frame, unless another one is queued.
    fn queue_control(&mut self, control: &Control) {
        if self.control.is_empty() && !self.is_closed {
            self.is_closed = matches!(control, Control::Close(_));
            self.control = control.frame();
        }
    }
}

/// Removes the first `length` bytes.
fn advance<const N: usize>(bytes: &mut heapless::Vec<u8, N>, length: usize) {
    let rest = bytes.get(length..).unwrap_or_default();
    *bytes = heapless::Vec::from_slice(rest).unwrap_or_default();
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Sends the queued control frame, unless a message is incomplete.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.message_left == 0 && self.header.is_empty() && !self.control.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.control))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => advance(&mut self.control, length),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        for _ in 0..EMPTY_READS {
            if this.decoder.is_closed() {
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let new = buffer.filled_mut().get_mut(before..).unwrap_or_default();
            if new.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let decoded = this.decoder.decode(new);
            if let Some(control) = this.decoder.take_control() {
                this.queue_control(&control);
            }
            let kept = match decoded {
                Ok(kept) => kept,
                Err(error) => {
                    this.queue_control(&Control::Close(error.code()));
                    let _ = this.poll_control(cx);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            };
            buffer.set_filled(before.saturating_add(kept));
            // If it cannot be sent now, the next write sends it.
            if let Poll::Ready(result) = this.poll_control(cx) {
                result?;
            }
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_control(cx))?;
        let total = slices.iter().map(|slice| slice.len());
        let total = total.fold(0, usize::saturating_add);
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        if this.message_left == 0 {
            let mut header = [0; 10];
            let total = total.min(MAX_MESSAGE);
            let used = binary_header(total, &mut header);
            let used = header.get(..used).unwrap_or_default();
            this.header = heapless::Vec::from_slice(used).unwrap_or_default();
            this.message_left = total;
        }
        loop {
            let mut parts = heapless::Vec::<io::IoSlice<'_>, { MAX_SLICES + 1 }>::new();
            if !this.header.is_empty() {
                let _ = parts.push(io::IoSlice::new(&this.header));
            }
            let mut left = this.message_left;
            for slice in slices {
                let part = slice.get(..slice.len().min(left)).unwrap_or_default();
                left = left.saturating_sub(part.len());
                if part.is_empty() || parts.push(io::IoSlice::new(part)).is_err() {
                    break;
                }
            }
            let written = Pin::new(&mut this.stream).poll_write_vectored(cx, &parts);
            drop(parts);
            let length = ready!(written)?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let payload = length.saturating_sub(this.header.len());
            let of_header = length.min(this.header.len());
            advance(&mut this.header, of_header);
            this.message_left = this.message_left.saturating_sub(payload);
            if payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.queue_control(&Control::Close(NORMAL));
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// The content of a server's messages.
    fn messages(mut bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        while let [0x82, length, rest @ ..] = bytes {
            let (length, rest) = match length {
                126 => (
                    usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                    &rest[2..],
                ),
                127 => (
                    u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize,
                    &rest[8..],
                ),
                length => (usize::from(*length), rest),
            };
            all.extend_from_slice(&rest[..length]);
            bytes = &rest[length..];
        }
        assert_eq!(bytes, [0x88, 2, 3, 232]);
        all
    }

    #[tokio::test]
    async fn writes_arrive_with_network_buffers_of_any_size() {
        for room in [1, 3, 100, 1 << 20] {
            let (near, mut far) = duplex(room);
            let mut socket = WebSocket::new(near, Bytes::new());
            let sent: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
            let write = async {
                socket.write_all(&sent[..10]).await.unwrap();
                socket.write_all(&sent[10..]).await.unwrap();
                socket.shutdown().await.unwrap();
                drop(socket);
            };
            let mut got = Vec::new();
            let read = async { far.read_to_end(&mut got).await.unwrap() };
            tokio::join!(write, read);
            assert_eq!(messages(&got), sent);
        }
    }

    #[tokio::test]
    async fn bytes_already_read_pings_and_close_are_handled() {
        let (near, mut far) = duplex(1 << 10);
        // Unmasked by a mask of zeros.
        let already_read = Bytes::from_static(b"\x82\x82\0\0\0\0he");
        let mut socket = WebSocket::new(near, already_read);
        far.write_all(b"\x89\x81\0\0\0\0p\x82\x83\0\0\0\0llo\x88\x80\0\0\0\0")
            .await
            .unwrap();
        let mut got = Vec::new();
        socket.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"hello");
        drop(socket);
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        // The close came in the same read as the ping; only the last one is answered.
        assert_eq!(answer, [0x88, 2, 3, 232]);
    }

    #[tokio::test]
    async fn invalid_frames_close_the_connection_with_a_code() {
        let (near, mut far) = duplex(1 << 10);
        let mut socket = WebSocket::new(near, Bytes::new());
        far.write_all(b"\x81\x80\0\0\0\0").await.unwrap();
        let error = socket.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(socket);
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [0x88, 2, 3, 235]);
    }
}
