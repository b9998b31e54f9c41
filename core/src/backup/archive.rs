//! The archive: written and read as a stream, with the checksums of all its files at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read, Write};

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};

use super::tar::{BLOCK, Header, Parsed};
use super::zstd::{Compressor, Decompressor};
use super::{InvalidName, Manifest, Name};

/// The folder of the archive.
const FOLDER: &str = "hearth-backup/";
/// The first file.
const MANIFEST: &str = "manifest.json";
/// The last file.
const SUMS: &str = "SHA256SUMS";
/// Longest of these two, in bytes.
const MOST_OWN: u64 = 64 * 1024;
/// Most files.
const MOST_FILES: usize = 64;
/// Bytes that are copied at once.
const COPIED: usize = 64 * 1024;
/// Most padding at the end: `tar` fills up its last record of 20 blocks, people use others.
const MOST_PADDING: u64 = 1 << 20;

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read, decompressed or decrypted, or what it contains cannot be stored.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ends before its checksums.
    #[error("the backup is truncated")]
    Truncated,
    /// Not the format of a backup.
    #[error("not a hearth backup: {0}")]
    Format(&'static str),
    /// A name that leads elsewhere.
    #[error("the backup is damaged or was changed: {0}")]
    Name(#[from] InvalidName),
    /// A file occurs twice.
    #[error("the backup is damaged or was changed: {0} occurs twice")]
    Twice(Name),
    /// It has more bytes or files than are allowed.
    #[error("the backup is larger than {most} bytes when it is unpacked, or has too many files")]
    TooLarge {
        /// The limit.
        most: u64,
    },
    /// A checksum differs.
    #[error("the backup is damaged: checksum mismatch in {0}")]
    Checksum(String),
    /// A newer hearth made it.
    #[error("this backup was made by hearth {0}; install that version or a newer one")]
    Newer(String),
}

/// Takes what a backup contains while it is read. Nothing of it is verified before [`read`] returns.
pub trait Sink {
    /// A file begins.
    ///
    /// # Errors
    /// When it cannot be stored.
    fn begin(&mut self, name: &Name, size: u64) -> io::Result<()>;

    /// The next bytes of the file.
    ///
    /// # Errors
    /// When they cannot be stored.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The file is complete.
    ///
    /// # Errors
    /// When it cannot be stored.
    fn end(&mut self) -> io::Result<()>;
}

/// Writes a backup.
pub struct Writer<'a> {
    out: Compressor<'a>,
    /// Seconds since 1970, the time of all files.
    seconds: u64,
    /// The content of [`SUMS`].
    sums: String,
}

impl<'a> Writer<'a> {
    /// Begins with the manifest.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn new(out: &'a mut dyn Write, manifest: &Manifest) -> io::Result<Self> {
        let seconds = manifest.created.unix_seconds();
        let mut writer = Self {
            out: Compressor::new(out),
            seconds: u64::try_from(seconds).unwrap_or(0),
            sums: String::new(),
        };
        let mut text = serde_json::to_string_pretty(manifest)?;
        text.push('\n');
        writer.entry(MANIFEST, text.len() as u64, &mut text.as_bytes())?;
        Ok(writer)
    }

    /// Adds a file of exactly `size` bytes.
    ///
    /// # Errors
    /// When `out` or `content` fails, or `content` has fewer bytes.
    pub fn file(&mut self, name: &Name, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.entry(&name.to_string(), size, content)
    }

    /// Ends with the checksums.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn finish(mut self) -> io::Result<()> {
        let sums = std::mem::take(&mut self.sums);
        self.entry(SUMS, sums.len() as u64, &mut sums.as_bytes())?;
        self.out.write_all(&[0; BLOCK])?;
        self.out.write_all(&[0; BLOCK])?;
        self.out.finish()
    }

    fn entry(&mut self, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let header = Header {
            name: format!("{FOLDER}{name}"),
            size,
        };
        let block = header.block(self.seconds);
        let block = block.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.out.write_all(&block)?;
        let mut sum = Context::new(&SHA256);
        let out = &mut self.out;
        copy(content, size, &mut |bytes| {
            sum.update(bytes);
            out.write_all(bytes)
        })?;
        let zeros = [0; BLOCK];
        self.out
            .write_all(zeros.get(..header.padding()).unwrap_or_default())?;
        let sum = HEXLOWER.encode(sum.finish().as_ref());
        self.sums.push_str(&format!("{sum}  {name}\n"));
        Ok(())
    }
}

/// Takes pieces of a file.
type Take<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Copies exactly `size` bytes.
fn copy(from: &mut dyn Read, size: u64, take: &mut Take<'_>) -> io::Result<()> {
    let mut buffer = vec![0; COPIED];
    let mut rest = size;
    while rest > 0 {
        let room = usize::try_from(rest).unwrap_or(COPIED).min(COPIED);
        let piece = buffer.get_mut(..room).unwrap_or_default();
        from.read_exact(piece)?;
        take(piece)?;
        rest = rest.saturating_sub(room as u64);
    }
    Ok(())
}

/// Reads a backup that is not encrypted; its files go to `sink`, of at most `most` bytes together. On success all
/// checksums agree and nothing follows.
///
/// # Errors
/// [`Fault`]; what `sink` has then is worthless.
pub fn read(input: &mut dyn BufRead, most: u64, sink: &mut dyn Sink) -> Result<Manifest, Fault> {
    let mut reader = Reader {
        input: Decompressor::new(input),
        rest: most,
        most,
        sums: BTreeMap::new(),
    };
    let fault = match reader.read(sink) {
        Ok(manifest) => return Ok(manifest),
        Err(fault) => fault,
    };
    match fault {
        Fault::Io(cut) if cut.kind() == io::ErrorKind::UnexpectedEof => Err(Fault::Truncated),
        fault => Err(fault),
    }
}

struct Reader<'a> {
    input: Decompressor<'a>,
    /// Bytes that may still come.
    rest: u64,
    most: u64,
    /// Checksums of what was read, by name.
    sums: BTreeMap<String, String>,
}

impl Reader<'_> {
    fn read(&mut self, sink: &mut dyn Sink) -> Result<Manifest, Fault> {
        let first = self.header()?;
        let (name, size) = first.ok_or(Fault::Truncated)?;
        if name != MANIFEST {
            return Err(Fault::Format("its first file is not manifest.json"));
        }
        let text = self.own(MANIFEST, size)?;
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|_| Fault::Format("damaged manifest.json"))?;
        if !manifest.is_readable() {
            return Err(Fault::Newer(manifest.hearth));
        }
        let mut seen = BTreeSet::new();
        loop {
            let next = self.header()?;
            let (name, size) = next.ok_or(Fault::Truncated)?;
            if name == SUMS {
                let text = self.own(SUMS, size)?;
                self.compare(&text)?;
                break;
            }
            let name: Name = name.parse()?;
            if seen.len() >= MOST_FILES {
                return Err(Fault::TooLarge { most: self.most });
            }
            self.spend(size)?;
            sink.begin(&name, size)?;
            self.content(&name.to_string(), size, &mut |bytes| sink.content(bytes))?;
            sink.end()?;
            if !seen.insert(name.clone()) {
                return Err(Fault::Twice(name));
            }
        }
        match self.header()? {
            None => self.nothing_follows()?,
            Some(_) => return Err(Fault::Format("files after the checksums")),
        }
        Ok(manifest)
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Fault> {
        let rest = self.rest.checked_sub(bytes);
        self.rest = rest.ok_or(Fault::TooLarge { most: self.most })?;
        Ok(())
    }

    /// Name, without the folder, and size of the next file; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<(String, u64)>, Fault> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block)?;
        let parsed = Header::parse(&block);
        match parsed.ok_or(Fault::Format("damaged, or an archive of other files"))? {
            Parsed::End => Ok(None),
            Parsed::Header(header) => {
                let name = header.name.strip_prefix(FOLDER);
                let name = name.ok_or_else(|| InvalidName(header.name.clone()))?;
                Ok(Some((name.to_owned(), header.size)))
            }
        }
    }

    fn content(&mut self, name: &str, size: u64, take: &mut Take<'_>) -> Result<(), Fault> {
        let mut sum = Context::new(&SHA256);
        copy(&mut self.input, size, &mut |bytes| {
            sum.update(bytes);
            take(bytes)
        })?;
        let padding = Header {
            name: String::new(),
            size,
        }
        .padding();
        copy(&mut self.input, padding as u64, &mut |_| Ok(()))?;
        let sum = HEXLOWER.encode(sum.finish().as_ref());
        self.sums.insert(name.to_owned(), sum);
        Ok(())
    }

    /// One of the two texts that belong to the archive itself.
    fn own(&mut self, name: &'static str, size: u64) -> Result<String, Fault> {
        if size > MOST_OWN {
            return Err(Fault::TooLarge { most: MOST_OWN });
        }
        let mut text = Vec::new();
        self.content(name, size, &mut |bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        })?;
        String::from_utf8(text).map_err(|_| Fault::Format("damaged text"))
    }

    /// Compares all checksums; each file must have one.
    fn compare(&mut self, text: &str) -> Result<(), Fault> {
        self.sums.remove(SUMS);
        for line in text.lines() {
            let parts = line.split_once("  ");
            let (sum, name) = parts.ok_or(Fault::Format("damaged SHA256SUMS"))?;
            if self.sums.remove(name).as_deref() != Some(sum) {
                return Err(Fault::Checksum(name.chars().take(COLUMN).collect()));
            }
        }
        match self.sums.pop_first() {
            Some((name, _)) => Err(Fault::Checksum(name)),
            None => Ok(()),
        }
    }

    /// Reads the padding of the archive.
    fn nothing_follows(&mut self) -> Result<(), Fault> {
        let mut rest = (&mut self.input).take(MOST_PADDING);
        let mut buffer = [0; BLOCK];
        loop {
            let read = rest.read(&mut buffer)?;
            let piece = buffer.get(..read).unwrap_or_default();
            if piece.iter().any(|byte| *byte != 0) || rest.limit() == 0 {
                return Err(Fault::Format("something follows the archive"));
            }
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// Characters of a name that a message shows.
const COLUMN: usize = 100;
