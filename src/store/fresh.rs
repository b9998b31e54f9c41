//! A whole database in a new file: written under another name, synced, and only then given its own name. After a power
//! cut there is the old file or the new one.

use std::io;

use redb::{Builder, Database};

use super::backing::Backing;
use super::fault::WriteFault;
use super::folder::Folder;
use super::seal::Manifest;
use super::write::Writer;

/// Bytes of the file system that a new file leaves to others: the system has to write something, too.
const SPARED: u64 = 64 << 10;

/// Writes the values of a new database.
pub(super) type Fill<'a> = dyn FnMut(&mut Writer<'_>) -> Result<(), redb::Error> + 'a;

/// A new database, not yet under its own name.
pub(super) struct Fresh {
    pub(super) database: Database,
    pub(super) backing: Backing,
    pub(super) manifest: Manifest,
}

/// Why a new database is not under its own name.
pub(super) enum NotPlaced {
    /// It is not; the file of before is there.
    Certainly(WriteFault),
    /// It may be: the name could not be synced.
    Perhaps(WriteFault),
}

impl Fresh {
    /// Writes a new database of at least so many bytes to a file of this name, which is replaced if it is there. Does not
    /// begin, and fills no disk, if there is not enough room.
    pub(super) fn write(
        folder: &dyn Folder,
        name: &str,
        (cache_bytes, least): (usize, u64),
        fill: &mut Fill<'_>,
    ) -> Result<Self, WriteFault> {
        match folder.remove(name) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                return Err(WriteFault::at("removing an old temporary file")(fault));
            }
            _ => {}
        }
        let room = folder.free().ok().flatten();
        let room = room.map(|free| free.saturating_sub(SPARED));
        if let Some(room) = room.filter(|room| *room < least) {
            let text = format!(
                "all of the database has to be written again, which takes {} KiB at least; {} KiB are free",
                least.saturating_add(SPARED).div_ceil(1024),
                room.saturating_add(SPARED) / 1024
            );
            let fault = io::Error::new(io::ErrorKind::StorageFull, text);
            return Err(WriteFault::at("looking at the free space")(fault));
        }
        let made = Self::fill(folder, name, (cache_bytes, room), fill);
        if made.is_err() {
            // Half a file is of no use, and the disk may be full.
            let _ = folder.remove(name);
        }
        made
    }

    fn fill(
        folder: &dyn Folder,
        name: &str,
        (cache_bytes, most): (usize, Option<u64>),
        fill: &mut Fill<'_>,
    ) -> Result<Self, WriteFault> {
        let file = folder
            .create(name)
            .map_err(WriteFault::at("creating a new file"))?;
        file.lock()
            .map_err(WriteFault::at("locking the new file"))?;
        let backing = Backing::building(file, most);
        let database = Builder::new()
            .set_cache_size(cache_bytes)
            .create_with_backend(backing.clone())?;
        let transaction = database.begin_write()?;
        let mut writer = Writer::new(&transaction, Manifest::default());
        writer.schema()?;
        fill(&mut writer)?;
        let manifest = writer.finish()?;
        transaction.commit()?;
        Ok(Self {
            database,
            backing,
            manifest,
        })
    }

    /// Syncs it and gives it its own name; what has the name until now is kept as `keep`, if it is there. It stays open.
    pub(super) fn place(
        self,
        folder: &dyn Folder,
        (from, to): (&str, &str),
        keep: Option<&str>,
    ) -> Result<Self, NotPlaced> {
        let placed = self.try_place(folder, (from, to), keep);
        if let Err(NotPlaced::Certainly(_)) = &placed {
            self.backing.close_for_good();
            let _ = folder.remove(from);
        }
        placed.map(|()| self)
    }

    fn try_place(
        &self,
        folder: &dyn Folder,
        (from, to): (&str, &str),
        keep: Option<&str>,
    ) -> Result<(), NotPlaced> {
        let certainly = |step| move |fault| NotPlaced::Certainly(WriteFault::at(step)(fault));
        self.backing
            .finish()
            .map_err(certainly("syncing the new file"))?;
        if let Some(keep) = keep {
            keep_file(folder, to, keep).map_err(certainly("keeping the old file"))?;
        }
        folder
            .rename(from, to)
            .map_err(certainly("renaming the new file"))?;
        let perhaps = |step| move |fault| NotPlaced::Perhaps(WriteFault::at(step)(fault));
        // On FAT the new name has neither length nor content until the file itself is synced again.
        folder
            .settle(to)
            .map_err(perhaps("syncing the renamed file"))?;
        folder
            .sync(directory_of(to))
            .map_err(perhaps("syncing the directory"))
    }

    /// Closes it, syncs it and gives it its own name.
    pub(super) fn place_closed(
        self,
        folder: &dyn Folder,
        (from, to): (&str, &str),
    ) -> Result<(), WriteFault> {
        let Self {
            database, backing, ..
        } = self;
        let close = || -> Result<(), WriteFault> {
            database.close()?;
            backing
                .finish()
                .map_err(WriteFault::at("syncing the new file"))?;
            folder
                .rename(from, to)
                .map_err(WriteFault::at("renaming the new file"))?;
            folder
                .settle(to)
                .map_err(WriteFault::at("syncing the renamed file"))?;
            folder
                .sync(directory_of(to))
                .map_err(WriteFault::at("syncing the directory"))
        };
        let closed = close();
        if closed.is_err() {
            let _ = folder.remove(from);
        }
        closed
    }
}

/// Gives a file a second name, for good; nothing if it is missing or has it already.
fn keep_file(folder: &dyn Folder, name: &str, also: &str) -> io::Result<()> {
    let directory = directory_of(also);
    if !directory.is_empty() {
        folder.create_folder(directory)?;
    }
    match folder.keep(name, also) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => return Err(fault),
        _ => {}
    }
    folder.sync(directory)
}

fn directory_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}
