//! The header: stanzas, each of which wraps the file key, and an HMAC over all of them.

use std::io::{Read, Write};

use data_encoding::BASE64_NOPAD;
use ring::hmac;

use super::stanza::{COLUMNS, Stanza};
use super::{FIRST_LINE, Fault, FileKey, Keys, Kind, Lock, PayloadKey, random, scrypt, x25519};

/// Longest header, in bytes: a hundred recipients.
const MOST_BYTES: usize = 16 * 1024;
/// Most stanzas.
const MOST_STANZAS: usize = 128;
/// Bytes of the nonce after the header.
const NONCE: usize = 16;
/// What begins the last line; the HMAC covers it.
const END: &str = "---";

/// The kind of a stanza; `None` when it is not supported.
fn kind(stanza: &Stanza) -> Option<Kind> {
    match stanza.words.first().map(String::as_str) {
        Some(scrypt::TYPE) => Some(Kind::Passphrase),
        Some(x25519::TYPE) => Some(Kind::Recipients),
        _ => None,
    }
}

/// Writes a header and the nonce, and gives the key of the payload.
pub(super) fn write(out: &mut dyn Write, lock: &Lock<'_>) -> Result<PayloadKey, Fault> {
    let file_key = FileKey::random()?;
    let stanzas = match lock {
        Lock::Passphrase {
            passphrase,
            work_factor,
        } => vec![scrypt::stanza(passphrase, *work_factor, &file_key)?],
        Lock::Recipients(recipients) => recipients
            .iter()
            .map(|recipient| recipient.stanza(&file_key))
            .collect::<Result<_, _>>()?,
    };
    let mut text = String::from_utf8_lossy(FIRST_LINE).into_owned();
    for stanza in &stanzas {
        stanza.write(&mut text);
    }
    text.push_str(END);
    let mac = hmac::sign(&mac_key(&file_key), text.as_bytes());
    text.push(' ');
    text.push_str(&BASE64_NOPAD.encode(mac.as_ref()));
    text.push('\n');
    let nonce = random::<NONCE>()?;
    out.write_all(text.as_bytes())?;
    out.write_all(&nonce)?;
    Ok(file_key.derived(&nonce, b"payload"))
}

fn mac_key(file_key: &FileKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*file_key.derived(&[], b"header"))
}

/// Reads a header and the nonce, and gives the key of the payload. The first line was read before.
pub(super) fn read(input: &mut dyn Read, keys: &Keys<'_>) -> Result<PayloadKey, Fault> {
    let mut text = String::from_utf8_lossy(FIRST_LINE).into_owned();
    let mut stanzas: Vec<Stanza> = Vec::new();
    let mac = loop {
        let line = line(input, &mut text)?;
        if let Some(mac) = line.strip_prefix(END) {
            break mac.strip_prefix(' ').ok_or(Fault::Header)?.to_owned();
        }
        let words = line.strip_prefix("-> ").ok_or(Fault::Header)?;
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let is_word =
            |word: &String| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
        if stanzas.len() >= MOST_STANZAS || !words.iter().all(is_word) {
            return Err(Fault::Header);
        }
        let body = body(input, &mut text)?;
        stanzas.push(Stanza { words, body });
    };
    let file_key = file_key(&stanzas, keys)?;
    let end = text.rfind(END).and_then(|end| end.checked_add(END.len()));
    let covered = end.and_then(|end| text.as_bytes().get(..end));
    let mac = BASE64_NOPAD.decode(mac.as_bytes());
    let mac = mac.map_err(|_| Fault::Header)?;
    hmac::verify(&mac_key(&file_key), covered.unwrap_or_default(), &mac)
        .map_err(|_| Fault::Tampered)?;
    let mut nonce = [0; NONCE];
    input.read_exact(&mut nonce).map_err(|_| Fault::Header)?;
    Ok(file_key.derived(&nonce, b"payload"))
}

fn file_key(stanzas: &[Stanza], keys: &Keys<'_>) -> Result<FileKey, Fault> {
    let by_passphrase = |stanza: &&Stanza| kind(stanza) == Some(Kind::Passphrase);
    if let Some(stanza) = stanzas.iter().find(by_passphrase) {
        // A passphrase authenticates the file, so that it must be the only way.
        return match stanzas {
            [_] => scrypt::open(stanza, keys.passphrase, keys.memory),
            _ => Err(Fault::Header),
        };
    }
    let mut supported = stanzas
        .iter()
        .filter(|stanza| kind(stanza) == Some(Kind::Recipients))
        .peekable();
    if supported.peek().is_none() {
        return Err(Fault::Unsupported);
    }
    if keys.identities.is_empty() {
        return Err(Kind::Recipients.missing());
    }
    let opened = supported.find_map(|stanza| {
        let mut identities = keys.identities.iter();
        identities.find_map(|identity| identity.open(stanza))
    });
    opened.ok_or(Fault::WrongIdentity)
}

/// The lines of a body, down to the first that is shorter than 64 characters.
fn body(input: &mut dyn Read, text: &mut String) -> Result<Vec<u8>, Fault> {
    let mut encoded = String::new();
    loop {
        let line = line(input, text)?;
        encoded.push_str(&line);
        match line.len() {
            COLUMNS => {}
            0..COLUMNS => break,
            _ => return Err(Fault::Header),
        }
    }
    let body = BASE64_NOPAD.decode(encoded.as_bytes());
    body.map_err(|_| Fault::Header)
}

/// The next line without its end; `text` collects all of them.
fn line(input: &mut dyn Read, text: &mut String) -> Result<String, Fault> {
    let begin = text.len();
    loop {
        let mut byte = [0];
        if text.len() >= MOST_BYTES {
            return Err(Fault::Header);
        }
        input.read_exact(&mut byte).map_err(|_| Fault::Header)?;
        let [byte] = byte;
        if !byte.is_ascii() {
            return Err(Fault::Header);
        }
        text.push(char::from(byte));
        if byte == b'\n' {
            let line = text.get(begin..).unwrap_or_default();
            return Ok(line.trim_end_matches('\n').to_owned());
        }
    }
}
