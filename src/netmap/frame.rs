//! A message on its way: length in front, compressed where that saves something.
//!
//! Source of the framing: `sendMapRequest` and `decodeMsg` in tailscale
//! `control/controlclient/direct.go`: a little-endian `u32` length, then JSON or one zstd frame.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// Below this many bytes compression costs more than it saves; the message goes as a stored block.
const COMPRESS_FROM: usize = 512;

/// Largest block of a zstd frame, in bytes (RFC 8878, section 3.1.1.2.4).
const BLOCK_MAX: usize = 128 * 1024;

/// Bytes of the length in front of a message.
const PREFIX_BYTES: usize = 4;

/// A stretch of text that several messages may have in common: compressed at most once.
#[derive(Debug, Clone)]
pub struct Part(Arc<Forms>);

#[derive(Debug)]
struct Forms {
    text: Bytes,
    /// A message of this part alone, compressed.
    framed: OnceLock<Bytes>,
}

impl Part {
    /// The part with this text, which need not be JSON by itself.
    pub fn new(text: Vec<u8>) -> Self {
        Self(Arc::new(Forms {
            text: text.into(),
            framed: OnceLock::new(),
        }))
    }

    /// A compressed message of this part alone.
    fn framed(&self) -> Bytes {
        let framed = || frame(&self.0.text, true);
        self.0.framed.get_or_init(framed).clone()
    }

    /// What the part is in a message of several.
    fn body(&self, zstd: bool) -> Bytes {
        match zstd {
            true => self.framed().slice(PREFIX_BYTES..),
            false => self.0.text.clone(),
        }
    }
}

/// A message that several streams may send, made of parts that follow each other.
///
/// Compressed, each part is a zstd frame of its own; a decoder gives what follows each other as one
/// (RFC 8878, section 3.1), and so does the client's (`AppendDecode` in tailscale `util/zstdframe`).
#[derive(Debug, Clone)]
pub struct Message(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    parts: Vec<Part>,
    /// The text of all parts, where they are several and somebody wants it.
    joined: OnceLock<Vec<u8>>,
}

impl Message {
    /// The message with this text.
    pub fn new(json: Vec<u8>) -> Self {
        Self::of(vec![Part::new(json)])
    }

    /// The message of these parts, which together are JSON.
    pub fn of(parts: Vec<Part>) -> Self {
        Self(Arc::new(Parts {
            parts,
            joined: OnceLock::new(),
        }))
    }

    /// The text.
    pub fn json(&self) -> &[u8] {
        let Parts { parts, joined } = &*self.0;
        match parts.as_slice() {
            [part] => &part.0.text,
            _ => joined.get_or_init(|| {
                let texts = parts.iter().map(|part| part.0.text.as_ref());
                texts.collect::<Vec<_>>().concat()
            }),
        }
    }

    /// The message as it is sent, in pieces that follow each other; shared parts are not copied.
    ///
    /// A message too long for its length field is cut as in [`frame`].
    pub fn pieces(&self, zstd: bool) -> Vec<Bytes> {
        let parts = &self.0.parts;
        if zstd && let [part] = parts.as_slice() {
            return vec![part.framed()];
        }
        let bodies: Vec<_> = parts.iter().map(|part| part.body(zstd)).collect();
        let total = bodies.iter().map(Bytes::len).sum();
        let prefix = Bytes::copy_from_slice(&length_prefix(total));
        std::iter::once(prefix).chain(bodies).collect()
    }
}

/// Frames a message; compressed when the client asked for zstd.
///
/// A message too long for its length field is cut to nothing, which the client takes for a broken
/// stream; at 4 GiB no client could take it anyway.
pub fn frame(message: &[u8], zstd: bool) -> Bytes {
    if !zstd {
        return prefixed(message);
    }
    if message.len() < COMPRESS_FROM {
        return prefixed(&stored(message));
    }
    prefixed(&compress_to_vec(message, CompressionLevel::Fastest))
}

fn prefixed(body: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(body.len().saturating_add(PREFIX_BYTES));
    framed.put_slice(&length_prefix(body.len()));
    framed.put_slice(body);
    framed.freeze()
}

fn length_prefix(length: usize) -> [u8; PREFIX_BYTES] {
    u32::try_from(length).unwrap_or(0).to_le_bytes()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn unframe(framed: &[u8]) -> Vec<u8> {
        let (length, body) = framed.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap());
        assert_eq!(length as usize, body.len());
        let (mut rest, mut message) = (body, Vec::new());
        while !rest.is_empty() {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut rest).unwrap();
            decoder.read_to_end(&mut message).unwrap();
        }
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
    fn parts_make_one_message() {
        let shared = Part::new(br#"{"ID":1,"Name":"one."},"#.repeat(100));
        let own = |text: &str| Part::new(text.as_bytes().to_vec());
        let message = Message::of(vec![own(r#"{"Peers":["#), shared.clone(), own("{}]}")]);
        let text = [br#"{"Peers":["#, shared.0.text.as_ref(), b"{}]}"].concat();
        assert_eq!(message.json(), text);
        assert_eq!(unframe(&message.pieces(true).concat()), text);
        assert_eq!(
            message.pieces(false).concat(),
            frame(&text, false),
            "uncompressed"
        );
        // Another message takes the same compressed bytes.
        let other = Message::of(vec![own("["), shared, own("{}]")]);
        let addresses = |message: &Message| message.pieces(true)[2].as_ptr();
        assert_eq!(addresses(&message), addresses(&other));
    }

    #[test]
    fn a_message_of_one_part_is_one_piece() {
        for text in ["{}".to_owned(), r#"{"ID":1}"#.repeat(200)] {
            let message = Message::new(text.clone().into());
            let [piece] = &message.pieces(true)[..] else {
                panic!("one piece");
            };
            assert_eq!(*piece, frame(text.as_bytes(), true));
            assert_eq!(message.json(), text.as_bytes());
            assert_eq!(
                message.pieces(false).concat(),
                frame(text.as_bytes(), false)
            );
        }
    }

    #[test]
    fn stored_blocks_may_be_many() {
        let message = vec![7; BLOCK_MAX * 2 + 5];
        assert_eq!(unframe(&prefixed(&stored(&message))), message);
    }

    #[test]
    fn maps_shrink() {
        let peer = r#"{"ID":17,"Name":"node-17.hearth.internal.","Online":true},"#;
        let message = peer.repeat(100).into_bytes();
        assert!(frame(&message, true).len() * 4 < message.len());
    }
}
