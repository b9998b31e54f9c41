//! NoiseStream: a byte stream over Noise records.
//!
//! Writes are sent at the next flush, or once a whole frame is buffered; so the handshake response, the
//! early payload and the first HTTP/2 frames go out in one segment.
//! Memory: nothing while idle, at most 4 KiB of received and 8 KiB of unsent bytes (more received
//! ones only when they came with the upgrade request). Cancel safe: nothing is lost when a poll is not
//! repeated.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use hearth_core::noise::record::{
    HEADER_BYTES, MAX_FRAME_BYTES, Open, RecordError, Seal, frame_bytes,
};

/// Unsent bytes from which on a write waits for the transport.
const FULL_BYTES: usize = MAX_FRAME_BYTES;

/// The plaintext of a Noise connection over the transport `S`.
#[derive(Debug)]
pub struct NoiseStream<S> {
    transport: S,
    open: Open,
    seal: Seal,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// Received bytes: `bytes[plaintext]` is decrypted and unread, `bytes[frame_end..]` is still encrypted.
#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    plaintext: Range<usize>,
    frame_end: usize,
}

/// Frames to send, of which the first `sent` bytes are sent.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl<S> NoiseStream<S> {
    /// A stream after its handshake.
    ///
    /// `first` is sent before any record (the handshake response); `received` are the bytes of the client
    /// that were read together with its upgrade request.
    pub fn new(transport: S, seal: Seal, open: Open, first: &[u8], received: &[u8]) -> Self {
        Self {
            transport,
            open,
            seal,
            incoming: Incoming {
                bytes: received.to_vec(),
                ..Incoming::default()
            },
            outgoing: Outgoing {
                bytes: first.to_vec(),
                sent: 0,
            },
        }
    }
}

impl Incoming {
    /// Copies out unread plaintext; `false` when there is none.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let length = self.plaintext.len().min(buffer.remaining());
        let end = self.plaintext.start.saturating_add(length);
        match self.bytes.get(self.plaintext.start..end) {
            Some(ready) if !self.plaintext.is_empty() => buffer.put_slice(ready),
            _ => return false,
        }
        self.plaintext.start = end;
        if self.plaintext.is_empty() && self.frame_end == self.bytes.len() {
            *self = Self::default();
        }
        true
    }

    /// Decrypts the next frame if it is complete; `false` when more bytes are needed.
    fn decrypt(&mut self, open: &mut Open) -> Result<bool, RecordError> {
        let rest = self.bytes.get_mut(self.frame_end..).unwrap_or_default();
        let Some(length) = frame_bytes(rest)? else {
            return Ok(false);
        };
        let Some(frame) = rest.get_mut(..length) else {
            return Ok(false);
        };
        let plaintext = open.open(frame)?.len();
        let start = self.frame_end.saturating_add(HEADER_BYTES);
        self.plaintext = start..start.saturating_add(plaintext);
        self.frame_end = self.frame_end.saturating_add(length);
        Ok(true)
    }

    /// Reads more bytes of an incomplete frame; `false` at the end of the transport.
    fn receive<S: AsyncRead + Unpin>(
        &mut self,
        transport: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        // The buffer is on the stack, so an idle connection uses no memory for it.
        let mut space = [MaybeUninit::uninit(); MAX_FRAME_BYTES];
        let held = self.bytes.len().saturating_sub(self.frame_end);
        let room = MAX_FRAME_BYTES.saturating_sub(held);
        let mut arrived = ReadBuf::uninit(space.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(transport).poll_read(context, &mut arrived))?;
        if arrived.filled().is_empty() {
            return Poll::Ready(Ok(false));
        }
        let tail = self.bytes.get(self.frame_end..).unwrap_or_default();
        self.bytes = [tail, arrived.filled()].concat();
        self.plaintext = 0..0;
        self.frame_end = 0;
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NoiseStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.incoming.give(buffer) {
                return Poll::Ready(Ok(()));
            }
            // A record may be empty, so decrypting one does not mean that there is plaintext.
            if this.incoming.decrypt(&mut this.open).map_err(invalid)? {
                continue;
            }
            if !ready!(this.incoming.receive(&mut this.transport, context))? {
                let whole = this.incoming.frame_end == this.incoming.bytes.len();
                return Poll::Ready(if whole {
                    Ok(())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                });
            }
        }
    }
}

impl Outgoing {
    /// Sends until at most `leave` bytes are buffered, and frees the buffer once it is empty.
    fn send<S: AsyncWrite + Unpin>(
        &mut self,
        transport: &mut S,
        context: &mut Context<'_>,
        leave: usize,
    ) -> Poll<io::Result<()>> {
        while self.bytes.len().saturating_sub(self.sent) > leave {
            let unsent = self.bytes.get(self.sent..).unwrap_or_default();
            let length = ready!(Pin::new(&mut *transport).poll_write(context, unsent))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent = self.sent.saturating_add(length);
        }
        if self.sent >= self.bytes.len() {
            *self = Self::default();
        } else if self.sent > 0 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        plaintext: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(plaintext)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let below_full = FULL_BYTES.saturating_sub(1);
        ready!(this.outgoing.send(&mut this.transport, context, below_full))?;
        let taken = this.seal.seal_parts(parts, &mut this.outgoing.bytes);
        Poll::Ready(taken.map_err(invalid))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.outgoing.send(&mut this.transport, context, 0))?;
        Pin::new(&mut this.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.get_mut().transport).poll_shutdown(context)
    }
}

fn invalid(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::noise::record::MAX_PLAINTEXT_BYTES;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn pair(pipe_bytes: usize) -> (NoiseStream<DuplexStream>, NoiseStream<DuplexStream>) {
        let (near, far) = duplex(pipe_bytes);
        let (a, b) = ([1; 32], [2; 32]);
        (
            NoiseStream::new(near, Seal::new(&a), Open::new(&b), &[], &[]),
            NoiseStream::new(far, Seal::new(&b), Open::new(&a), &[], &[]),
        )
    }

    #[tokio::test]
    async fn many_records_pass_both_ways_through_a_narrow_pipe() {
        let (mut near, mut far) = pair(61);
        let sent: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let echo = async {
            let mut received = vec![0; expected.len()];
            far.read_exact(&mut received).await.unwrap();
            assert_eq!(received, expected);
            far.write_all(&received).await.unwrap();
            far.flush().await.unwrap();
        };
        let ask = async {
            near.write_all(&sent).await.unwrap();
            near.flush().await.unwrap();
            let mut received = vec![0; sent.len()];
            near.read_exact(&mut received).await.unwrap();
            assert_eq!(received, sent);
        };
        tokio::join!(echo, ask);
        assert_eq!(near.incoming.bytes.capacity(), 0, "idle needs no memory");
        assert_eq!(far.outgoing.bytes.capacity(), 0);
    }

    #[tokio::test]
    async fn small_writes_leave_together_at_the_flush() {
        let (near, mut far) = duplex(64 * 1024);
        let mut near = NoiseStream::new(
            near,
            Seal::new(&[1; 32]),
            Open::new(&[2; 32]),
            b"first",
            &[],
        );
        near.write_all(b"one").await.unwrap();
        near.write_all(b"two").await.unwrap();
        let mut space = [0; 256];
        tokio::select! { biased;
            _ = far.read(&mut space) => panic!("sent before the flush"),
            () = std::future::ready(()) => {}
        }
        near.flush().await.unwrap();
        assert_eq!(far.read(&mut space).await.unwrap(), 5 + 22 + 22);
        assert_eq!(&space[..5], b"first");
    }

    #[tokio::test]
    async fn gathered_pieces_share_a_record() {
        let (near, mut far) = duplex(64 * 1024);
        let mut near = NoiseStream::new(near, Seal::new(&[1; 32]), Open::new(&[2; 32]), &[], &[]);
        let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        assert_eq!(near.write_vectored(&parts).await.unwrap(), 8);
        near.flush().await.unwrap();
        assert_eq!(far.read(&mut [0; 64]).await.unwrap(), 3 + 8 + 16);
    }

    #[tokio::test]
    async fn bytes_that_came_with_the_request_are_read_first() {
        let (transport, mut client) = duplex(1024);
        let mut seal = Seal::new(&[2; 32]);
        let mut early = Vec::new();
        seal.seal(b"early ", &mut early).unwrap();
        seal.seal(b"", &mut early).unwrap();
        seal.seal(b"bird", &mut early).unwrap();
        let split = early.len() - 5;
        let mut stream = NoiseStream::new(
            transport,
            Seal::new(&[1; 32]),
            Open::new(&[2; 32]),
            &[],
            &early[..split],
        );
        client.write_all(&early[split..]).await.unwrap();
        let mut text = [0; 10];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"early bird");
    }

    #[tokio::test]
    async fn a_bad_record_closes_the_stream_for_good() {
        let (transport, mut client) = duplex(1024);
        let (seal, open) = (Seal::new(&[1; 32]), Open::new(&[2; 32]));
        let mut stream = NoiseStream::new(transport, seal, open, &[], &[]);
        let mut frame = Vec::new();
        let mut seal = Seal::new(&[2; 32]);
        seal.seal(b"x", &mut frame).unwrap();
        frame[7] ^= 1;
        seal.seal(b"y", &mut frame).unwrap();
        client.write_all(&frame).await.unwrap();
        for _ in 0..2 {
            let error = stream.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error_and_between_frames_is_not() {
        for (cut, whole) in [(0, true), (1, false)] {
            let (transport, mut client) = duplex(1024);
            let (seal, open) = (Seal::new(&[1; 32]), Open::new(&[2; 32]));
            let mut stream = NoiseStream::new(transport, seal, open, &[], &[]);
            let mut frames = Vec::new();
            let mut seal = Seal::new(&[2; 32]);
            seal.seal(b"x", &mut frames).unwrap();
            client.write_all(&frames).await.unwrap();
            let mut second = Vec::new();
            seal.seal(b"y", &mut second).unwrap();
            client.write_all(&second[..cut]).await.unwrap();
            drop(client);
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 1);
            let end = stream.read(&mut [0; 8]).await;
            assert_eq!(end.is_ok_and(|length| length == 0), whole);
        }
    }

    #[tokio::test]
    async fn unsent_bytes_are_bounded() {
        let (mut near, _far) = pair(16);
        let mut accepted = 0;
        while let Ok(taken) = tokio::time::timeout(
            std::time::Duration::from_millis(5),
            near.write(&[0; MAX_PLAINTEXT_BYTES]),
        )
        .await
        {
            accepted += taken.unwrap();
            assert!(near.outgoing.bytes.len() < 2 * MAX_FRAME_BYTES);
            assert!(accepted < 4 * MAX_FRAME_BYTES, "the transport is full");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_the_wire_gives_the_same_plaintext(
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 3..8),
            cuts in proptest::collection::vec(1_usize..90, 1..40),
        ) {
            let mut seal = Seal::new(&[2; 32]);
            let mut wire = Vec::new();
            for line in &lines { seal.seal(line, &mut wire).unwrap(); }
            let mut script = script(&wire, &cuts);
            let mut stream = NoiseStream::new(&mut script, Seal::new(&[1; 32]), Open::new(&[2; 32]), &[], &[]);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut received = Vec::new();
            runtime.block_on(stream.read_to_end(&mut received)).unwrap();
            prop_assert_eq!(received, lines.concat());
        }
    }

    /// Returns the bytes in pieces of the given lengths, then all the rest, then the end.
    struct Script {
        pieces: std::collections::VecDeque<Vec<u8>>,
    }

    fn script(wire: &[u8], cuts: &[usize]) -> Script {
        let mut rest = wire;
        let mut pieces = std::collections::VecDeque::new();
        for &cut in cuts {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            pieces.push_back(piece.to_vec());
            rest = tail;
        }
        pieces.push_back(rest.to_vec());
        pieces.retain(|piece| !piece.is_empty());
        Script { pieces }
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.pieces.pop_front() {
                let rest = piece.split_off(piece.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                if !rest.is_empty() {
                    self.pieces.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }
}
