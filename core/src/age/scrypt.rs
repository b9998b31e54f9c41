//! Passphrases: scrypt (RFC 7914) with a block size of 8 and a parallelization of 1, as age has it.

use std::num::NonZeroU32;

use data_encoding::BASE64_NOPAD;
use ring::pbkdf2;
use zeroize::Zeroizing;

use super::stanza::Stanza;
use super::{Fault, FileKey, Kind, random, unwrap, wrap};

/// The first word of a stanza for a passphrase.
pub(super) const TYPE: &str = "scrypt";
const LABEL: &[u8] = b"age-encryption.org/v1/scrypt";
/// Words of 32 bits in a block: 128 bytes times the block size of 8.
const WORDS: usize = 256;
/// The largest work factor that a file may have: more than any machine would finish.
const MOST: u8 = 30;

/// Bytes of memory that a work factor needs.
pub(super) const fn memory(factor: u8) -> u64 {
    let factor = if factor > MOST { MOST } else { factor };
    1024_u64 << factor
}

/// The stanza by which a passphrase opens the file.
pub(super) fn stanza(passphrase: &str, factor: u8, file_key: &FileKey) -> Result<Stanza, Fault> {
    let salt = random::<16>()?;
    let key = key(passphrase, &salt, factor);
    Ok(Stanza {
        words: vec![
            TYPE.to_owned(),
            BASE64_NOPAD.encode(&salt),
            factor.to_string(),
        ],
        body: wrap(&key, file_key),
    })
}

/// The file key in a stanza.
pub(super) fn open(stanza: &Stanza, passphrase: Option<&str>, most: u64) -> Result<FileKey, Fault> {
    let [_, salt, factor] = stanza.words.as_slice() else {
        return Err(Fault::Header);
    };
    let salt = BASE64_NOPAD.decode(salt.as_bytes());
    let salt: Option<[u8; 16]> = salt.ok().and_then(|salt| salt.try_into().ok());
    let salt = salt.ok_or(Fault::Header)?;
    let is_number = factor.bytes().all(|byte| byte.is_ascii_digit()) && !factor.starts_with('0');
    let number = factor.parse::<u8>().ok();
    let factor = number.filter(|number| is_number && *number > 0 && *number <= MOST);
    let factor = factor.ok_or(Fault::Header)?;
    let passphrase = passphrase.ok_or(Kind::Passphrase.missing())?;
    if memory(factor) > most {
        let needs = memory(factor) >> 20;
        return Err(Fault::TooMuchWork { needs });
    }
    let key = key(passphrase, &salt, factor);
    unwrap(&key, &stanza.body).ok_or(Fault::WrongPassphrase)
}

fn key(passphrase: &str, salt: &[u8; 16], factor: u8) -> Zeroizing<[u8; 32]> {
    let salt = [LABEL, salt].concat();
    scrypt(passphrase.as_bytes(), &salt, factor)
}

/// One round of PBKDF2-HMAC-SHA-256 (RFC 8018, section 5.2).
fn pbkdf2(password: &[u8], salt: &[u8], out: &mut [u8]) {
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        NonZeroU32::MIN,
        salt,
        password,
        out,
    );
}

/// A block: sixteen chunks of sixteen words.
type Block = [u32; WORDS];

/// Sources: RFC 7914, sections 5 and 6.
fn scrypt(password: &[u8], salt: &[u8], factor: u8) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 4 * WORDS]);
    pbkdf2(password, salt, &mut *bytes);
    let mut block: Block = [0; WORDS];
    for (word, bytes) in block.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let count = 1_usize.wrapping_shl(u32::from(factor));
    let mut table = Vec::with_capacity(count);
    for _ in 0..count {
        table.push(block);
        block = mixed(&block);
    }
    let mask = u32::try_from(count).unwrap_or(0).wrapping_sub(1);
    for _ in 0..count {
        // The first word of the last chunk; the table has no more than 2^30 blocks.
        let number = block.get(WORDS - 16).copied().unwrap_or(0) & mask;
        let chosen = usize::try_from(number).unwrap_or(0);
        if let Some(chosen) = table.get(chosen) {
            for (word, other) in block.iter_mut().zip(chosen) {
                *word ^= *other;
            }
        }
        block = mixed(&block);
    }
    for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(&block) {
        *bytes = word.to_le_bytes();
    }
    let mut out = Zeroizing::new([0; 32]);
    pbkdf2(password, &*bytes, &mut *out);
    out
}

/// scryptBlockMix: RFC 7914, section 4.
fn mixed(block: &Block) -> Block {
    let chunks = block.as_chunks::<16>().0;
    let mut last = chunks.last().copied().unwrap_or_default();
    let mut out = [0; WORDS];
    let (even, odd) = out.split_at_mut(WORDS / 2);
    let (even, odd) = (even.as_chunks_mut::<16>().0, odd.as_chunks_mut::<16>().0);
    for (pair, (even, odd)) in chunks
        .as_chunks::<2>()
        .0
        .iter()
        .zip(even.iter_mut().zip(odd))
    {
        let [first, second] = pair;
        for (chunk, place) in [(first, even), (second, odd)] {
            for (word, other) in last.iter_mut().zip(chunk) {
                *word ^= *other;
            }
            last = salsa20_8(&last);
            *place = last;
        }
    }
    out
}

/// The Salsa20/8 core: RFC 7914, section 3.
fn salsa20_8(input: &[u32; 16]) -> [u32; 16] {
    let mut x = *input;
    for _ in 0..4 {
        // Columns, then rows.
        for [a, b, c, d] in [[0, 4, 8, 12], [5, 9, 13, 1], [10, 14, 2, 6], [15, 3, 7, 11]] {
            quarter(&mut x, [a, b, c, d]);
        }
        for [a, b, c, d] in [[0, 1, 2, 3], [5, 6, 7, 4], [10, 11, 8, 9], [15, 12, 13, 14]] {
            quarter(&mut x, [a, b, c, d]);
        }
    }
    for (word, before) in x.iter_mut().zip(input) {
        *word = word.wrapping_add(*before);
    }
    x
}

#[expect(
    clippy::indexing_slicing,
    reason = "all places are constants below 16, in the two tables above"
)]
#[inline]
fn quarter(x: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    x[b] ^= x[a].wrapping_add(x[d]).rotate_left(7);
    x[c] ^= x[b].wrapping_add(x[a]).rotate_left(9);
    x[d] ^= x[c].wrapping_add(x[b]).rotate_left(13);
    x[a] ^= x[d].wrapping_add(x[c]).rotate_left(18);
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    /// RFC 7914, section 8.
    #[test]
    fn the_core_and_the_block_are_those_of_the_rfc() {
        let words = |hex: &str| -> Vec<u32> {
            let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
            let (words, _) = bytes.as_chunks();
            words.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        let input = "7e879a214f3ec9867ca940e641718f26baee555b8c61c1b50df846116dcd3b1d\
                     ee24f319df9b3d8514121e4b5ac5aa3276021d2909c74829edebc68db8b8c25e";
        let output = "a41f859c6608cc993b81cacb020cef05044b2181a2fd337dfd7b1c6396682f29\
                      b4393168e3c9e6bcfe6bc5b7a06d96bae424cc102c91745c24ad673dc7618f81";
        assert_eq!(
            salsa20_8(&words(input).try_into().unwrap()).to_vec(),
            words(output)
        );
    }

    /// RFC 7914, section 12, third vector (its second one has another block size and parallelization, as the first):
    /// the one with a block size of 8 and a parallelization of 1, N = 16384.
    #[test]
    fn the_key_is_that_of_the_rfc() {
        let key = scrypt(b"pleaseletmein", b"SodiumChloride", 14);
        // The first half: PBKDF2 computes its blocks of 32 bytes one by one.
        assert_eq!(
            HEXLOWER.encode(&*key),
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        );
    }
}
