//! Headers of tar archives (ustar), of plain files only.
//!
//! Source: POSIX.1-2017, `pax`, "ustar Interchange Format".

/// Bytes of a header, and the unit in which contents are padded.
pub(super) const BLOCK: usize = 512;
/// Bytes of the name.
const NAME: usize = 100;
/// Largest content: eleven octal digits.
const MOST_SIZE: u64 = 0o77_777_777_777;

/// Fields: offset and length.
const MODE: (usize, usize) = (100, 8);
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const TIME: (usize, usize) = (136, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const TYPE: usize = 156;
const MAGIC: (usize, usize) = (257, 8);
/// Magic and version.
const USTAR: &[u8; 8] = b"ustar\x0000";
/// A regular file.
const FILE: u8 = b'0';

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Name of the file with its folders.
    pub(super) name: String,
    /// Bytes of its content.
    pub(super) size: u64,
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A header.
    Header(Header),
    /// A block of zeros: the end of the archive.
    End,
}

impl Header {
    /// The block; `None` when name or size do not fit. `seconds` is the time of the file.
    pub(super) fn block(&self, seconds: u64) -> Option<[u8; BLOCK]> {
        if self.name.len() > NAME || self.size > MOST_SIZE {
            return None;
        }
        let mut block = [0; BLOCK];
        let (name, _) = block.split_at_mut(self.name.len());
        name.copy_from_slice(self.name.as_bytes());
        put_octal(&mut block, MODE, 0o600)?;
        put_octal(&mut block, UID, 0)?;
        put_octal(&mut block, GID, 0)?;
        put_octal(&mut block, SIZE, self.size)?;
        put_octal(&mut block, TIME, seconds.min(MOST_SIZE))?;
        *block.get_mut(TYPE)? = FILE;
        field_mut(&mut block, MAGIC)?.copy_from_slice(USTAR);
        let sum = checksum(&block);
        put_octal(&mut block, (CHECKSUM.0, 7), sum)?;
        // The checksum ends with zero and space.
        *block.get_mut(CHECKSUM.0.checked_add(7)?)? = b' ';
        Some(block)
    }

    /// Reads a block; `None` when it is damaged or anything but a plain file.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Option<Parsed> {
        if block.iter().all(|byte| *byte == 0) {
            return Some(Parsed::End);
        }
        if octal(block, CHECKSUM)? != checksum(block) {
            return None;
        }
        // GNU tar writes two spaces after its magic; contents are the same.
        if !field(block, MAGIC)?.starts_with(b"ustar") {
            return None;
        }
        // A prefix belongs to names that are longer than any in a backup.
        let prefix = field(block, (345, 155))?;
        if !matches!(block.get(TYPE)?, &FILE | 0) || prefix.iter().any(|byte| *byte != 0) {
            return None;
        }
        let name = field(block, (0, NAME))?;
        let name = name.split(|byte| *byte == 0).next()?;
        Some(Parsed::Header(Self {
            name: std::str::from_utf8(name).ok()?.to_owned(),
            size: octal(block, SIZE)?,
        }))
    }

    /// Zeros after the content.
    pub(super) fn padding(&self) -> usize {
        let rest = self.size.checked_rem(BLOCK as u64).unwrap_or(0);
        let rest = usize::try_from(rest).unwrap_or(0);
        match rest {
            0 => 0,
            rest => BLOCK.saturating_sub(rest),
        }
    }
}

/// The sum of all bytes, where those of the checksum count as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let (begin, length) = CHECKSUM;
    let end = begin.saturating_add(length);
    let bytes = block.iter().enumerate();
    bytes.fold(0_u64, |sum, (place, byte)| {
        let byte = if (begin..end).contains(&place) {
            b' '
        } else {
            *byte
        };
        sum.saturating_add(u64::from(byte))
    })
}

fn field(block: &[u8; BLOCK], (begin, length): (usize, usize)) -> Option<&[u8]> {
    block.get(begin..begin.checked_add(length)?)
}

fn field_mut(block: &mut [u8; BLOCK], (begin, length): (usize, usize)) -> Option<&mut [u8]> {
    block.get_mut(begin..begin.checked_add(length)?)
}

/// Octal digits and a zero at the end.
fn put_octal(block: &mut [u8; BLOCK], place: (usize, usize), value: u64) -> Option<()> {
    let digits = place.1.checked_sub(1)?;
    let text = format!("{value:0digits$o}");
    let (field, _) = field_mut(block, place)?.split_at_mut_checked(digits)?;
    (text.len() == digits).then(|| field.copy_from_slice(text.as_bytes()))
}

fn octal(block: &[u8; BLOCK], place: (usize, usize)) -> Option<u64> {
    let text = std::str::from_utf8(field(block, place)?).ok()?;
    let text = text.trim_matches(|letter| letter == ' ' || letter == '\0');
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| u64::from_str_radix(text, 8).ok())?
}
