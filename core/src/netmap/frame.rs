//! Framing of messages: a length prefix, and compression where it saves something.
//!
//! Source of the framing: `sendMapRequest` and `decodeMsg` in tailscale
//! `control/controlclient/direct.go`: a little-endian `u32` length, then JSON or one zstd frame.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// Smallest message that is compressed, in bytes; shorter ones are sent as a stored block.
const COMPRESS_FROM: usize = 512;

/// Largest block of a zstd frame, in bytes (RFC 8878, section 3.1.1.2.4).
const BLOCK_MAX: usize = 128 * 1024;

/// A message that several streams may send: framed at most once per encoding.
#[derive(Debug, Clone)]
pub struct Message(Arc<Encodings>);

#[derive(Debug)]
struct Encodings {
    json: Vec<u8>,
    plain: OnceLock<Bytes>,
    zstd: OnceLock<Bytes>,
}

impl Message {
    /// The message with this JSON.
    pub fn new(json: Vec<u8>) -> Self {
        Self(Arc::new(Encodings {
            json,
            plain: OnceLock::new(),
            zstd: OnceLock::new(),
        }))
    }

    /// The JSON.
    pub fn json(&self) -> &[u8] {
        &self.0.json
    }

    /// The message as it is sent; see [`frame`].
    pub fn framed(&self, zstd: bool) -> Bytes {
        let encoding = if zstd { &self.0.zstd } else { &self.0.plain };
        encoding.get_or_init(|| frame(&self.0.json, zstd)).clone()
    }
}

/// Frames a message; compressed if the client asked for zstd.
///
/// A message of 4 GiB or more, which no client could hold, gets the length 0; the client treats the stream as broken.
pub fn frame(message: &[u8], zstd: bool) -> Bytes {
    let body = encoded(message, zstd);
    let length = length(body.len());
    let mut framed = BytesMut::with_capacity(body.len().saturating_add(4));
    framed.put_u32_le(length);
    framed.put_slice(&body);
    framed.freeze()
}

/// A text, or a part of one, in the encoding that the client asked for.
pub(super) fn encoded(text: &[u8], zstd: bool) -> Cow<'_, [u8]> {
    match zstd {
        true => Cow::Owned(compressed(text)),
        false => Cow::Borrowed(text),
    }
}

/// A text as one zstd frame.
pub(super) fn compressed(text: &[u8]) -> Vec<u8> {
    if text.len() < COMPRESS_FROM {
        return stored(text);
    }
    compress_to_vec(text, CompressionLevel::Fastest)
}

/// The length prefix of a message that consists of these pieces.
pub(super) fn length_of(pieces: &[Bytes]) -> Bytes {
    let sum = pieces
        .iter()
        .fold(0_usize, |sum, piece| sum.saturating_add(piece.len()));
    Bytes::copy_from_slice(&length(sum).to_le_bytes())
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(0)
}

/// A zstd frame of stored blocks: single segment, with content size (RFC 8878, section 3.1.1).
fn stored(message: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0xFD2F_B528;
    /// Frame header descriptor: four bytes of content size, single segment.
    const DESCRIPTOR: u8 = 0b1010_0000;
    let mut out = Vec::with_capacity(message.len().saturating_add(16));
    out.put_u32_le(MAGIC);
    out.put_u8(DESCRIPTOR);
    out.put_u32_le(u32::try_from(message.len()).unwrap_or(u32::MAX));
    let mut rest = message;
    loop {
        let (block, after) = rest.split_at(rest.len().min(BLOCK_MAX));
        let last = u32::from(after.is_empty());
        let size = u32::try_from(block.len()).unwrap_or(0);
        // Block header, three bytes: last flag, type 0 (stored), size.
        let header = (size << 3 | last).to_le_bytes();
        out.extend_from_slice(header.get(..3).unwrap_or_default());
        out.extend_from_slice(block);
        if after.is_empty() {
            return out;
        }
        rest = after;
    }
}

#[cfg(any(test, feature = "testing"))]
#[allow(missing_docs, clippy::unwrap_used, reason = "fixtures of tests")]
pub mod testing {
    //! The client's half.

    use std::io::Read;

    /// The text of a message, which may be several compressed frames.
    pub fn text_of(body: &[u8]) -> Vec<u8> {
        if body.starts_with(b"{") {
            return body.to_vec();
        }
        let (mut text, mut rest) = (Vec::new(), body);
        while !rest.is_empty() {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest).unwrap();
            decoder.read_to_end(&mut text).unwrap();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn unframe(framed: &[u8]) -> Vec<u8> {
        let (length, body) = framed.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap());
        assert_eq!(length as usize, body.len());
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(body).unwrap();
        let mut message = Vec::new();
        decoder.read_to_end(&mut message).unwrap();
        message
    }

    #[test]
    fn messages_of_every_size_survive() {
        for size in [0, 1, COMPRESS_FROM - 1, COMPRESS_FROM, BLOCK_MAX, 300_000] {
            let message: Vec<u8> = (0..size)
                .map(|place| b"{\"Node\":1234}"[place % 13] ^ (place / 977) as u8)
                .collect();
            assert_eq!(unframe(&frame(&message, true)), message);
            assert_eq!(&frame(&message, false)[4..], message);
        }
    }

    #[test]
    fn stored_blocks_may_be_many() {
        let message = vec![7; BLOCK_MAX * 2 + 5];
        let body = Bytes::from(stored(&message));
        let framed = [length_of(std::slice::from_ref(&body)), body].concat();
        assert_eq!(unframe(&framed), message);
    }

    #[test]
    fn maps_shrink() {
        let peer = r#"{"ID":17,"Name":"node-17.hearth.internal.","Online":true},"#;
        let message = peer.repeat(100).into_bytes();
        assert!(frame(&message, true).len() * 4 < message.len());
    }
}
