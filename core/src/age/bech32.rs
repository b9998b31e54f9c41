//! Bech32 (BIP 173) of 32 bytes, in which age writes its keys.

use zeroize::Zeroizing;

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// Letters after the data.
const CHECKSUM: usize = 6;
/// Letters of 32 bytes: 256 bits, five in a letter.
const DATA: usize = 52;

/// The text of 32 bytes with this prefix, in lower case.
pub(super) fn encode(prefix: &str, bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut values = Zeroizing::new(regroup(bytes.iter().map(|byte| (*byte, 8)), 5));
    let checked = checksum(prefix, &values);
    values.extend(checked);
    let letters = values.iter().filter_map(|value| {
        let letter = CHARSET.get(usize::from(*value))?;
        Some(char::from(*letter))
    });
    let mut text = Zeroizing::new(String::with_capacity(prefix.len().saturating_add(64)));
    text.push_str(prefix);
    text.push('1');
    text.extend(letters);
    text
}

/// The 32 bytes of a text with this prefix (in lower case); `None` when it has another prefix, a mistyped letter, or mixes
/// cases.
pub(super) fn decode(prefix: &str, text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let is_mixed = text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_mixed {
        return None;
    }
    let text = Zeroizing::new(text.to_ascii_lowercase());
    let letters = text.strip_prefix(prefix)?.strip_prefix('1')?;
    if letters.len() != DATA.checked_add(CHECKSUM)? {
        return None;
    }
    let place = |letter| CHARSET.iter().position(|known| *known == letter);
    let values: Option<Vec<u8>> = letters
        .bytes()
        .map(|letter| u8::try_from(place(letter)?).ok())
        .collect();
    let values = Zeroizing::new(values?);
    let (data, check) = values.split_at_checked(DATA)?;
    if checksum(prefix, data) != *check {
        return None;
    }
    // 260 bits: four of them must be zero.
    let bytes = Zeroizing::new(regroup(data.iter().map(|value| (*value, 5)), 8));
    let (bytes, padding) = bytes.split_at_checked(32)?;
    let bytes: [u8; 32] = bytes.try_into().ok()?;
    (padding == [0]).then(|| Zeroizing::new(bytes))
}

/// Bits regrouped into values of `width` bits; the last one is filled up with zeros.
fn regroup(values: impl Iterator<Item = (u8, u32)>, width: u32) -> Vec<u8> {
    let (mut pool, mut bits) = (0_u32, 0_u32);
    let mut out = Vec::with_capacity(64);
    for (value, count) in values {
        pool = pool.wrapping_shl(count) | u32::from(value);
        bits = bits.saturating_add(count);
        while bits >= width {
            bits = bits.saturating_sub(width);
            out.push(low_bits(pool.wrapping_shr(bits), width));
        }
    }
    if bits > 0 {
        out.push(low_bits(
            pool.wrapping_shl(width.saturating_sub(bits)),
            width,
        ));
    }
    out
}

fn low_bits(value: u32, width: u32) -> u8 {
    let mask = 1_u32.wrapping_shl(width).wrapping_sub(1);
    u8::try_from(value & mask).unwrap_or_default()
}

fn checksum(prefix: &str, data: &[u8]) -> [u8; CHECKSUM] {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    let high = prefix.bytes().map(|byte| byte.wrapping_shr(5));
    let low = prefix.bytes().map(|byte| byte & 31);
    let values = high
        .chain([0])
        .chain(low)
        .chain(data.iter().copied())
        .chain([0; CHECKSUM]);
    let sum = values.fold(1_u32, |sum, value| {
        let top = sum.wrapping_shr(25);
        let shifted = (sum & 0x1ff_ffff).wrapping_shl(5) ^ u32::from(value);
        let mut bits = GENERATOR.iter().enumerate();
        bits.by_ref().fold(shifted, |sum, (bit, term)| {
            let is_set = top.wrapping_shr(u32::try_from(bit).unwrap_or(0)) & 1 == 1;
            sum ^ if is_set { *term } else { 0 }
        })
    }) ^ 1;
    let mut out = [0; CHECKSUM];
    for (shift, value) in [25_u32, 20, 15, 10, 5, 0].into_iter().zip(&mut out) {
        *value = low_bits(sum.wrapping_shr(shift), 5);
    }
    out
}
