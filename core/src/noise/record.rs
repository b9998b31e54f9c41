//! Records: encrypted frames of at most 4096 bytes, numbered per direction.
//!
//! A record is `04`, the length of the ciphertext as u16 big-endian, and the ciphertext. The two
//! directions have a type each, so that a key cannot be used in the wrong direction.
//! Source: tailscale `control/controlbase/conn.go`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::fmt;
use std::io::IoSlice;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// The most bytes a frame may have, its header included.
/// Source: `maxMessageSize` in tailscale `control/controlbase/conn.go`.
pub const MAX_FRAME_BYTES: usize = 4096;

/// Bytes before the ciphertext: type and length.
pub const HEADER_BYTES: usize = 3;

/// Bytes that encryption adds.
pub const TAG_BYTES: usize = 16;

/// The most bytes of plaintext in one record.
/// Source: `maxPlaintextSize` in tailscale `control/controlbase/conn.go`.
pub const MAX_PLAINTEXT_BYTES: usize = MAX_FRAME_BYTES - HEADER_BYTES - TAG_BYTES;

const TYPE_RECORD: u8 = 4;

/// Why no more records can be read or written. Close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The frame is not a record.
    #[error("unexpected message type {0}, want a record")]
    Type(u8),
    /// The header announces a frame above [`MAX_FRAME_BYTES`].
    #[error("record of {0} bytes is longer than a frame may be")]
    TooLong(usize),
    /// The ciphertext is shorter than its tag, or the frame is not what its header announces.
    #[error("record is shorter than its header announces or its tag needs")]
    TooShort,
    /// The record was tampered with, is encrypted with another key, or is out of order.
    #[error("record does not decrypt")]
    Decrypt,
    /// All 2^64-1 numbers are used, or an earlier record was bad.
    #[error("no more records with this key")]
    Finished,
}

/// Counts the records of one direction.
///
/// The number is big-endian in the nonce, unlike Noise's own.
/// Source: `nonce` in tailscale `control/controlbase/conn.go`.
struct Counter(u64);

impl Counter {
    fn next(&mut self) -> Result<Nonce, RecordError> {
        let following = self.0.checked_add(1).ok_or(RecordError::Finished)?;
        let [a, b, c, d, e, f, g, h] = self.0.to_be_bytes();
        self.0 = following;
        Ok(Nonce::assume_unique_for_key([
            0, 0, 0, 0, a, b, c, d, e, f, g, h,
        ]))
    }
}

fn aead(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .ok()
        .map(LessSafeKey::new)
}

/// Encrypts the records of one direction, in order.
pub struct Seal {
    key: Option<LessSafeKey>,
    counter: Counter,
}

impl Seal {
    /// Starts with record 0 of the key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            key: aead(key),
            counter: Counter(0),
        }
    }

    /// Appends one record to `out` and returns how many bytes of `plaintext` are in it: all, up to [`MAX_PLAINTEXT_BYTES`].
    ///
    /// # Errors
    /// [`RecordError::Finished`]; `out` is then unchanged.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<usize, RecordError> {
        self.seal_parts(&[IoSlice::new(plaintext)], out)
    }

    /// As [`Seal::seal`], for several consecutive pieces.
    ///
    /// # Errors
    /// [`RecordError::Finished`]; `out` is then unchanged.
    pub fn seal_parts(
        &mut self,
        parts: &[IoSlice<'_>],
        out: &mut Vec<u8>,
    ) -> Result<usize, RecordError> {
        let key = self.key.as_ref().ok_or(RecordError::Finished)?;
        let nonce = self.counter.next()?;
        let total = parts
            .iter()
            .fold(0_usize, |sum, part| sum.saturating_add(part.len()))
            .min(MAX_PLAINTEXT_BYTES);
        let ciphertext = total.saturating_add(TAG_BYTES);
        let start = out.len();
        out.reserve(ciphertext.saturating_add(HEADER_BYTES));
        let [l0, l1] = u16::try_from(ciphertext).unwrap_or(u16::MAX).to_be_bytes();
        out.extend_from_slice(&[TYPE_RECORD, l0, l1]);
        let body = out.len();
        let mut left = total;
        for part in parts {
            let taken = part.get(..left).unwrap_or(part);
            out.extend_from_slice(taken);
            left = left.saturating_sub(taken.len());
        }
        let in_place = out.get_mut(body..).unwrap_or_default();
        match key.seal_in_place_separate_tag(nonce, Aad::empty(), in_place) {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            Err(_) => {
                out.truncate(start);
                self.key = None;
                return Err(RecordError::Finished);
            }
        }
        Ok(total)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal {{ next: {}, key: [redacted] }}", self.counter.0)
    }
}

/// Decrypts the records of one direction, in order. The first bad record is the last one.
pub struct Open {
    key: Option<LessSafeKey>,
    counter: Counter,
}

impl Open {
    /// Starts with record 0 of the key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            key: aead(key),
            counter: Counter(0),
        }
    }

    /// Decrypts one whole frame in place and returns its plaintext, which may be empty.
    ///
    /// # Errors
    /// Any [`RecordError`]; every later call then fails with [`RecordError::Finished`].
    pub fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<&'a mut [u8], RecordError> {
        let key = self.key.take().ok_or(RecordError::Finished)?;
        if frame_bytes(frame)? != Some(frame.len()) {
            return Err(RecordError::TooShort);
        }
        let ciphertext = frame.get_mut(HEADER_BYTES..).unwrap_or_default();
        if ciphertext.len() < TAG_BYTES {
            return Err(RecordError::TooShort);
        }
        let plaintext = key
            .open_in_place(self.counter.next()?, Aad::empty(), ciphertext)
            .map_err(|_| RecordError::Decrypt)?;
        self.key = Some(key);
        Ok(plaintext)
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Open {{ next: {}, key: [redacted] }}", self.counter.0)
    }
}

/// Length of the frame that starts with these bytes; `None` while its header is incomplete.
///
/// # Errors
/// [`RecordError::Type`] and [`RecordError::TooLong`], as soon as they can be detected.
pub fn frame_bytes(start: &[u8]) -> Result<Option<usize>, RecordError> {
    match start {
        [] => return Ok(None),
        [TYPE_RECORD, ..] => {}
        [other, ..] => return Err(RecordError::Type(*other)),
    }
    let [_, l0, l1, ..] = *start else {
        return Ok(None);
    };
    let total = usize::from(u16::from_be_bytes([l0, l1])).saturating_add(HEADER_BYTES);
    if total > MAX_FRAME_BYTES {
        return Err(RecordError::TooLong(total));
    }
    Ok(Some(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (Seal, Open) {
        (Seal::new(&[7; 32]), Open::new(&[7; 32]))
    }

    fn sealed(seal: &mut Seal, plaintext: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        assert_eq!(seal.seal(plaintext, &mut frame), Ok(plaintext.len()));
        frame
    }

    #[test]
    fn the_largest_record_fills_a_frame() {
        let (mut seal, mut open) = pair();
        let mut frame = Vec::new();
        let taken = seal.seal(&[1; 5000], &mut frame).unwrap();
        assert_eq!((taken, frame.len()), (MAX_PLAINTEXT_BYTES, MAX_FRAME_BYTES));
        assert_eq!(open.open(&mut frame).unwrap(), [1; MAX_PLAINTEXT_BYTES]);
    }

    #[test]
    fn an_empty_record_is_legal() {
        let (mut seal, mut open) = pair();
        let mut frame = sealed(&mut seal, b"");
        assert_eq!(frame.len(), HEADER_BYTES + TAG_BYTES);
        assert!(open.open(&mut frame).unwrap().is_empty());
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = sealed(&mut pair().0, b"hearth");
        for length in 0..whole.len() {
            let (_, mut open) = pair();
            let mut cut = whole[..length].to_vec();
            assert_eq!(open.open(&mut cut), Err(RecordError::TooShort));
            assert_eq!(
                open.open(&mut whole.clone()),
                Err(RecordError::Finished),
                "one bad record ends it"
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let whole = sealed(&mut pair().0, b"hearth");
        for byte in 0..whole.len() {
            for bit in 0..8_u8 {
                let mut bad = whole.clone();
                bad[byte] ^= 1 << bit;
                assert!(pair().1.open(&mut bad).is_err());
            }
        }
    }

    #[test]
    fn records_out_of_order_are_refused() {
        let (mut seal, mut open) = pair();
        let _first = sealed(&mut seal, b"first");
        let mut second = sealed(&mut seal, b"second");
        assert_eq!(open.open(&mut second), Err(RecordError::Decrypt));
    }

    #[test]
    fn numbers_end_before_the_invalid_one() {
        let (mut seal, mut open) = pair();
        seal.counter = Counter(u64::MAX - 1);
        open.counter = Counter(u64::MAX - 1);
        let mut last = sealed(&mut seal, b"last");
        assert_eq!(open.open(&mut last).unwrap(), b"last");
        let mut nothing = Vec::new();
        assert_eq!(seal.seal(b"more", &mut nothing), Err(RecordError::Finished));
        assert!(nothing.is_empty());
    }

    #[test]
    fn bad_headers_are_seen_at_once() {
        assert_eq!(frame_bytes(&[]), Ok(None));
        assert_eq!(frame_bytes(&[4, 0]), Ok(None));
        assert_eq!(frame_bytes(&[3]), Err(RecordError::Type(3)));
        assert_eq!(frame_bytes(&[4, 0x0f, 0xfd]), Ok(Some(4096)));
        assert_eq!(
            frame_bytes(&[4, 0x0f, 0xfe]),
            Err(RecordError::TooLong(4097))
        );
    }

    #[test]
    fn keys_do_not_show() {
        let (seal, open) = pair();
        let text = format!("{seal:?} {open:?}");
        assert!(text.contains("[redacted]") && !text.contains('7'));
    }

    proptest! {
        #[test]
        fn pieces_arrive_as_one(
            records in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..4), 3..6)
        ) {
            let (mut seal, mut open) = pair();
            for parts in records {
                let whole = parts.concat();
                let parts: Vec<IoSlice> = parts.iter().map(|part| IoSlice::new(part)).collect();
                let mut frame = b"before".to_vec();
                let taken = seal.seal_parts(&parts, &mut frame).unwrap();
                prop_assert_eq!(taken, whole.len().min(MAX_PLAINTEXT_BYTES));
                prop_assert_eq!(&frame[..6], b"before");
                let frame = &mut frame[6..];
                prop_assert_eq!(&*open.open(frame).unwrap(), &whole[..taken]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(first) = bytes.first_mut() { *first = TYPE_RECORD; }
            let _ = pair().1.open(&mut bytes);
        }
    }
}
