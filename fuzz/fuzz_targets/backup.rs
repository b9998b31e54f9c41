//! Any bytes as a backup, as the archive inside of one, and as an encrypted one. A backup is read whole or refused; what is
//! read is bounded, has plain names, and is the same each time.
#![no_main]

use std::io::{self, Read as _, Write as _};

use hearth_core::age::{Decryptor, Encryptor, Identity, Keys, Lock};
use hearth_core::backup::{Kind, Name, Sink, read};
use libfuzzer_sys::fuzz_target;

/// Most bytes that are read.
const MOST: u64 = 1 << 20;
/// An identity, so that headers for it can be found. Source: C2SP, `CCTV/age`.
const IDENTITY: &str =
    "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6";

#[derive(Default, PartialEq, Eq, Debug)]
struct Files(Vec<(String, Vec<u8>)>);

impl Sink for Files {
    fn begin(&mut self, name: &Name, size: u64) -> io::Result<()> {
        assert!(size <= MOST);
        let path = name.path();
        assert!(!path.starts_with('/') && !path.split('/').any(|part| part.starts_with('.') || part.is_empty()));
        self.0.push((name.to_string(), Vec::new()));
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.last_mut().expect("a file has begun").1.extend_from_slice(bytes);
        assert!(self.0.iter().map(|(_, content)| content.len() as u64).sum::<u64>() <= MOST);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unpacked(mut input: &[u8]) -> Option<Files> {
    let mut files = Files::default();
    let read = read(&mut input, MOST, &mut files);
    read.is_ok().then_some(files)
}

/// A zstd frame of stored blocks (RFC 8878, section 3.1.1).
fn stored(content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
    let mut pieces = content.chunks(64 << 10).peekable();
    while let Some(piece) = pieces.next() {
        let last = u32::from(pieces.peek().is_none());
        frame.extend(&((piece.len() as u32) << 3 | last).to_le_bytes()[..3]);
        frame.extend(piece);
    }
    frame
}

fuzz_target!(|input: &[u8]| {
    let _ = Kind::of(input);
    if let Some(files) = unpacked(input) {
        assert_eq!(unpacked(input), Some(files));
    }
    // The archive without its compression, which hides it from the fuzzer.
    if !input.is_empty() {
        unpacked(&stored(input));
    }
    let identities = [IDENTITY.parse::<Identity>().expect("a right identity")];
    let keys = Keys {
        passphrase: Some("pass"),
        identities: &identities,
        memory: 1 << 20,
    };
    let mut file = input;
    if let Ok(mut decryptor) = Decryptor::new(&mut file, &keys) {
        let mut plain = Vec::new();
        let _ = decryptor.read_to_end(&mut plain);
        assert!(plain.len() <= input.len());
    }
    // What was sealed opens, and nothing of it after a changed byte.
    let mut sealed = Vec::new();
    let recipients = [identities[0].recipient()];
    let mut encryptor = Encryptor::new(&mut sealed, &Lock::Recipients(&recipients)).expect("randomness");
    encryptor.write_all(input).expect("it is in memory");
    encryptor.finish().expect("it is in memory");
    let open = |mut file: &[u8]| {
        let mut plain = Vec::new();
        Decryptor::new(&mut file, &keys).ok()?.read_to_end(&mut plain).ok()?;
        Some(plain)
    };
    assert_eq!(open(&sealed).as_deref(), Some(input));
    let place = input.first().map_or(0, |byte| usize::from(*byte) * 7 % sealed.len());
    sealed[place] ^= 1;
    assert_eq!(open(&sealed), None);
});
