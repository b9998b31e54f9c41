//! Opens a file that should be a backup, of whichever kind, and reads it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use hearth_core::age::{Decryptor, Fault as AgeFault, Identity, Keys};
use hearth_core::backup::{self, Fault, KIND_BYTES, Kind, Manifest, Name, Sink};

use super::MOST_UNPACKED;

/// Most bytes that are copied at once.
const COPIED: usize = 64 << 10;

/// Why a backup cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// It cannot be decrypted.
    #[error(transparent)]
    Age(#[from] AgeFault),
    /// It is damaged or no backup.
    #[error(transparent)]
    Backup(#[from] Fault),
    /// It is something else.
    #[error("neither a backup (.tar.zst, .tar.zst.age) nor a database (.redb) of hearth")]
    Unknown,
    /// It is in ASCII armor.
    #[error("in ASCII armor; remove it first: `age -d -o backup.tar.zst FILE`")]
    Armored,
}

/// What opens an encrypted backup. The passphrase is asked for only when the file has one.
pub struct Secrets<'a> {
    /// Gives the passphrase; `None` when there is nobody to ask.
    pub passphrase: &'a mut dyn FnMut() -> io::Result<Option<Zeroizing<String>>>,
    /// Identities.
    pub identities: &'a [Identity],
    /// Most bytes of memory for a passphrase.
    pub memory: u64,
}

/// What was in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A whole backup.
    Whole(Box<Manifest>),
    /// The database alone.
    Database,
}

/// Reads a backup; its files go to `sink`. `database` is the name of a file that is the database alone.
///
/// # Errors
/// [`OpenFault`]; what `sink` has then is worthless.
pub fn read(
    path: &Path,
    database: &Name,
    secrets: &mut Secrets<'_>,
    sink: &mut dyn Sink,
) -> Result<Opened, OpenFault> {
    let at = |source| OpenFault::File {
        path: path.to_owned(),
        source,
    };
    let input: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(at)?),
    };
    let mut input = BufReader::new(input);
    // A pipe gives its bytes in pieces, and these must be whole.
    let mut begin = Vec::new();
    let most = u64::try_from(KIND_BYTES).unwrap_or(0);
    let read = (&mut input).take(most).read_to_end(&mut begin);
    read.map_err(at)?;
    let kind = Kind::of(&begin);
    let mut input = BufReader::new(io::Cursor::new(begin).chain(input));
    match kind {
        Kind::Archive => {
            let manifest = backup::read(&mut input, MOST_UNPACKED, sink)?;
            Ok(Opened::Whole(Box::new(manifest)))
        }
        Kind::Encrypted => encrypted(&mut input, secrets, sink),
        Kind::Database => {
            plain(&mut input, database, sink)?;
            Ok(Opened::Database)
        }
        Kind::Armored => Err(OpenFault::Armored),
        Kind::Unknown => Err(OpenFault::Unknown),
    }
}

fn encrypted(
    input: &mut dyn Read,
    secrets: &mut Secrets<'_>,
    sink: &mut dyn Sink,
) -> Result<Opened, OpenFault> {
    // The header says what is necessary before anyone is asked; it is read again with the passphrase.
    let mut header = Header {
        input: &mut *input,
        seen: Vec::new(),
    };
    let keys = Keys {
        passphrase: None,
        identities: secrets.identities,
        memory: secrets.memory,
    };
    let passphrase = match Decryptor::new(&mut header, &keys) {
        Err(AgeFault::NeedsPassphrase) => (secrets.passphrase)().map_err(AgeFault::Io)?,
        Err(fault) => return Err(fault.into()),
        Ok(_) => None,
    };
    let seen = header.seen;
    let mut again = io::Cursor::new(seen).chain(input);
    let keys = Keys {
        passphrase: passphrase.as_ref().map(|text| text.as_str()),
        ..keys
    };
    let decryptor = Decryptor::new(&mut again, &keys)?;
    let mut plain = BufReader::with_capacity(COPIED, decryptor);
    let manifest = backup::read(&mut plain, MOST_UNPACKED, sink)?;
    Ok(Opened::Whole(Box::new(manifest)))
}

/// Remembers what is read of a header.
struct Header<'a> {
    input: &'a mut dyn Read,
    seen: Vec<u8>,
}

impl Read for Header<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(out)?;
        self.seen
            .extend_from_slice(out.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn plain(input: &mut dyn Read, name: &Name, sink: &mut dyn Sink) -> Result<(), Fault> {
    sink.begin(name, 0)?;
    let mut buffer = vec![0; COPIED];
    let mut rest = MOST_UNPACKED;
    loop {
        let read = input.read(&mut buffer)?;
        if read == 0 {
            return Ok(sink.end()?);
        }
        let spent = rest.checked_sub(u64::try_from(read).unwrap_or(u64::MAX));
        rest = spent.ok_or(Fault::TooLarge {
            most: MOST_UNPACKED,
        })?;
        sink.content(buffer.get(..read).unwrap_or_default())?;
    }
}
