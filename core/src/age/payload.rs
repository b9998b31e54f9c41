//! The payload: chunks of 64 KiB, each sealed by itself with a counter and a mark on the last one (STREAM).

use std::io::{self, Read, Write};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{FIRST_LINE, Fault, Keys, Lock, PayloadKey, header};

/// Plain bytes of a chunk.
const CHUNK: usize = 64 * 1024;
/// Bytes of the tag of Poly1305.
const TAG: usize = 16;

fn aead(key: &[u8; 32]) -> Option<LessSafeKey> {
    // 32 bytes are what this algorithm takes.
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
    Some(LessSafeKey::new(key))
}

/// Seals bytes in place and adds the tag. They are at most a chunk, which the algorithm never refuses.
pub(super) fn seal(key: &[u8; 32], nonce: [u8; 12], bytes: &mut Vec<u8>) {
    if let Some(key) = aead(key) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = key.seal_in_place_append_tag(nonce, Aad::empty(), bytes);
        debug_assert!(sealed.is_ok());
    }
}

/// The bytes that were sealed; `None` when they were changed, or sealed with another key.
pub(super) fn open<'a>(key: &[u8; 32], nonce: [u8; 12], bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let opened = aead(key)?.open_in_place(nonce, Aad::empty(), bytes);
    opened.ok().map(|bytes| &*bytes)
}

/// Nonce of a chunk: its number in eleven bytes, big-endian, and a mark on the last one.
fn nonce(number: u64, is_last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    let bytes = number.to_be_bytes();
    for (place, byte) in nonce.iter_mut().skip(3).zip(bytes) {
        *place = byte;
    }
    if let Some(mark) = nonce.last_mut() {
        *mark = u8::from(is_last);
    }
    nonce
}

/// Encrypts what is written to it. [`Self::finish`] must be called: a file without its last chunk is refused.
pub struct Encryptor<'a> {
    out: &'a mut dyn Write,
    key: PayloadKey,
    number: u64,
    /// The chunk that grows. It is sealed when more follows, since the last one is marked.
    chunk: Vec<u8>,
}

impl<'a> Encryptor<'a> {
    /// Writes the header.
    ///
    /// # Errors
    /// When `out` fails, or the system has no random bytes.
    pub fn new(out: &'a mut dyn Write, lock: &Lock<'_>) -> Result<Self, Fault> {
        let key = header::write(out, lock)?;
        Ok(Self {
            out,
            key,
            number: 0,
            chunk: Vec::with_capacity(CHUNK.saturating_add(TAG)),
        })
    }

    /// Writes the last chunk.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn finish(mut self) -> io::Result<()> {
        self.seal(true)?;
        self.out.flush()
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        seal(&self.key, nonce(self.number, is_last), &mut self.chunk);
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        self.number = self.number.saturating_add(1);
        Ok(())
    }
}

impl Write for Encryptor<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.chunk.len() >= CHUNK {
            self.seal(false)?;
        }
        let room = CHUNK.saturating_sub(self.chunk.len());
        let (taken, _) = bytes.split_at(bytes.len().min(room));
        self.chunk.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Decrypts what is read through it. Only whole chunks that are as they were sealed come out; the end is reported only
/// after the last one.
pub struct Decryptor<'a> {
    input: &'a mut dyn Read,
    key: PayloadKey,
    number: u64,
    /// The open chunk, and how much of it was read.
    chunk: Zeroizing<Vec<u8>>,
    read: usize,
    /// The first byte of the next chunk: without one, a chunk is the last.
    next: Option<u8>,
    is_at_end: bool,
}

impl<'a> Decryptor<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn new(input: &'a mut dyn Read, keys: &Keys<'_>) -> Result<Self, Fault> {
        let mut first = [0; FIRST_LINE.len()];
        input.read_exact(&mut first).map_err(|_| Fault::Header)?;
        if first != FIRST_LINE {
            return Err(Fault::Header);
        }
        let key = header::read(input, keys)?;
        let next = byte(input)?;
        Ok(Self {
            input,
            key,
            number: 0,
            chunk: Zeroizing::new(Vec::new()),
            read: 0,
            next,
            is_at_end: false,
        })
    }

    fn advance(&mut self) -> io::Result<()> {
        let damaged = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        let Some(first) = self.next.take() else {
            return Err(damaged("the encrypted file is truncated"));
        };
        // The chunk holds nothing but what was read already.
        let chunk = &mut *self.chunk;
        chunk.clear();
        chunk.push(first);
        let rest = u64::try_from(CHUNK.saturating_add(TAG).saturating_sub(1)).unwrap_or(0);
        (&mut *self.input).take(rest).read_to_end(chunk)?;
        if chunk.len() == CHUNK.saturating_add(TAG) {
            self.next = byte(self.input)?;
        }
        self.is_at_end = self.next.is_none();
        let nonce = nonce(self.number, self.is_at_end);
        let Some(length) = open(&self.key, nonce, chunk).map(<[u8]>::len) else {
            let text = match self.is_at_end {
                true => "the encrypted file is truncated or damaged",
                false => "the encrypted file is damaged",
            };
            return Err(damaged(text));
        };
        // Only a payload without any bytes ends with an empty chunk.
        if length == 0 && self.number > 0 {
            return Err(damaged("the encrypted file is damaged"));
        }
        chunk.truncate(length);
        self.read = 0;
        self.number = self.number.saturating_add(1);
        Ok(())
    }
}

fn byte(input: &mut dyn Read) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(byte.first().copied()),
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
}

impl Read for Decryptor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read >= self.chunk.len() {
            if self.is_at_end {
                return Ok(0);
            }
            self.advance()?;
        }
        let rest = self.chunk.get(self.read..).unwrap_or_default();
        let (taken, _) = rest.split_at(rest.len().min(out.len()));
        let (place, _) = out.split_at_mut(taken.len());
        place.copy_from_slice(taken);
        self.read = self.read.saturating_add(taken.len());
        Ok(taken.len())
    }
}
