//! What the command line does with database files that no server has open.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, Database};

use super::BACKUPS;
use super::backing::Backing;
use super::check::{Check, Report, Verdict, report};
use super::directory::Directory;
use super::entry::Key;
use super::fault::StoreError;
use super::folder::{DataFile, Folder};
use super::fresh::Fresh;
use super::load::{self, Loaded};
use super::read::Reader;
use super::schema::{DERP_SECRET, META, NOISE_SECRET, PENDING, SCHEMA_VERSION};

/// Cache for a file that is read once, in bytes.
const CACHE_BYTES: usize = 1 << 20;

/// Checks everything in a database file: redb's check of each page, the checksum of each value, the manifest. Never writes.
///
/// # Errors
/// If the file cannot be opened, or a server has it open. What cannot be read in it is a fault in the report.
pub fn verify(path: &Path) -> Result<Report, StoreError> {
    let _lock = open(path)?;
    let (folder, name) = split(path)?;
    report(&folder, &name, Check::usual()).map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })
}

/// Reads everything in a database file. Never writes.
///
/// # Errors
/// If the file cannot be opened or read, or a server has it open. [`verify`] first: redb may panic on damaged pages.
pub fn read_all(path: &Path) -> Result<Loaded, StoreError> {
    let (_database, reader) = reader(path)?;
    let (loaded, _) = load::read_all(&reader).map_err(Box::new)?;
    Ok(loaded)
}

/// Whether a damaged database file still has the server's private keys, without which no device would accept the rest of it.
///
/// [`verify`] first: redb may panic on damaged pages.
pub fn has_identity(path: &Path) -> bool {
    let Ok((_database, reader)) = reader(path) else {
        return false;
    };
    let mut found = 0;
    let _ = reader.each(META, &mut |key, stored| {
        let is_secret =
            matches!(key, Key::Text(name) if [NOISE_SECRET, DERP_SECRET].contains(&name.as_str()));
        if is_secret && reader.value(META, key, stored).is_some() {
            found += 1;
        }
        Ok(())
    });
    found == 2
}

/// A reader, and the database that it needs.
fn reader(path: &Path) -> Result<(Database, Reader), StoreError> {
    let backing = Backing::reading(open(path)?, None).map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })?;
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backing)
        .map_err(|fault| Box::new(fault.into()))?;
    let reader = Reader::new(&database).map_err(Box::new)?;
    match reader.schema {
        Some(found) if found > SCHEMA_VERSION => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: SCHEMA_VERSION,
        }),
        _ => Ok((database, reader)),
    }
}

/// Writes all values of a database file that can be read into a new one in the schema of this version, which replaces what
/// is at `to`. Gives the report on the old file: what its faults name is missing in the new one.
///
/// # Errors
/// If one of the files cannot be opened or is in use, nothing of the old one can be read, or the new one cannot be written; what is at `to` then remains.
pub fn rewrite(from: &Path, to: &Path) -> Result<Report, StoreError> {
    let report = verify(from)?;
    if report.schema.is_none() {
        let Verdict::Damaged { reason } = report.verdict else {
            return Ok(report);
        };
        return Err(StoreError::Damaged {
            path: from.to_owned(),
            backups: from.with_file_name(BACKUPS),
            reason,
        });
    }
    let (folder, name) = split(to)?;
    let target = folder.open(&name);
    if let Ok(target) = &target
        && !is_same(from, &**target)
        && !target.lock().unwrap_or(false)
    {
        return Err(StoreError::InUse {
            path: to.to_owned(),
        });
    }
    let (_database, reader) = reader(from)?;
    let temporary = format!("{name}.new");
    let sizes = (CACHE_BYTES, reader.content_bytes());
    let fresh = Fresh::write(&folder, &temporary, sizes, &mut |writer| {
        for table in reader.tables()?.iter().filter(|table| *table != PENDING) {
            if let Some(fault) = writer.copy(&reader, table, &mut |_, value| Ok(value))? {
                tracing::error!(table, %fault, "a table cannot be read to its end");
            }
        }
        Ok(())
    })?;
    fresh.place_closed(&folder, (&temporary, &name))?;
    Ok(report)
}

fn open(path: &Path) -> Result<Arc<dyn DataFile>, StoreError> {
    let at = |source| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(at)?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: path.to_owned(),
        }),
        // Where the file system has no locks there is none.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Arc::new(file)),
    }
}

fn is_same(path: &Path, file: &dyn DataFile) -> bool {
    let other = File::open(path);
    let same = other.and_then(|other| Ok(DataFile::identity(&other)? == file.identity()?));
    same.unwrap_or(false)
}

/// The directory of a file, and the name in it.
pub(super) fn split(path: &Path) -> Result<(Directory, String), StoreError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| StoreError::Open {
        path: path.to_owned(),
        source: io::ErrorKind::InvalidFilename.into(),
    })?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    Ok((Directory(parent.to_owned()), name.to_owned()))
}
