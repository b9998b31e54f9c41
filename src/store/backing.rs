//! The file under redb. It is opened for reading, and what redb writes then stays in memory; it is written for real from
//! the first change on.
//!
//! redb makes a commit by one write of the header, the first bytes of the file, among other writes, and one sync. Here
//! the header is kept back until all else was written: a failure before that leaves the file as it was. After a failed
//! sync the header of the last good one is known, so that it can be written back.
//! Source: redb `docs/design.md`, "1-phase + checksum durable commits".

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::fault::WriteFault;
use super::folder::{DataFile, Folder};

/// Bytes of redb's header. Source: `DB_HEADER_SIZE` in redb `tree_store/page_store/header.rs`.
const HEADER_BYTES: u64 = 320;
/// Unit in which writes are kept in memory, in bytes: redb's page size.
const BLOCK: u64 = 4096;

/// A file under redb. Clones are the same file.
#[derive(Debug, Clone)]
pub(super) struct Backing(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    file: Arc<dyn DataFile>,
    mode: Mode,
    /// The header as redb has it.
    header: Vec<u8>,
    /// The header as the disk has it, for all that is known.
    synced: Vec<u8>,
    /// Whether the file may have another header than `synced`.
    is_in_flight: bool,
    /// Whether anything was written since the last sync that succeeded.
    is_touched: bool,
    sync_has_failed: bool,
}

#[derive(Debug)]
enum Mode {
    /// Writes stay in memory.
    Overlay(Overlay),
    /// A file that nobody needs yet: it is synced once, when it is whole. It gets no longer than `most` bytes.
    Building { most: Option<u64> },
    /// Writes go to the file.
    InPlace,
    /// Nothing is written any more.
    Closed,
}

#[derive(Debug)]
struct Overlay {
    blocks: BTreeMap<u64, Box<[u8; BLOCK as usize]>>,
    len: u64,
    /// Length of the part of the file that was never cut off.
    of_file: u64,
    /// The headers that redb has synced, in their order: a power cut between two of them must find one or the other, for
    /// each says how much of the next one may be trusted.
    headers: Vec<Vec<u8>>,
}

impl Backing {
    /// A file to read. `header` is the one that it should have, if it may have another.
    pub(super) fn reading(file: Arc<dyn DataFile>, header: Option<Vec<u8>>) -> io::Result<Self> {
        let len = file.len()?;
        let header = match header {
            Some(header) => header,
            None => {
                let bytes = usize::try_from(len.min(HEADER_BYTES)).unwrap_or_default();
                let mut header = vec![0; bytes];
                file.read_at(0, &mut header)?;
                header
            }
        };
        let overlay = Overlay {
            blocks: BTreeMap::new(),
            len,
            of_file: len,
            headers: Vec::new(),
        };
        Ok(Self::new(file, Mode::Overlay(overlay), header))
    }

    /// An empty file to fill, with at most so many bytes.
    pub(super) fn building(file: Arc<dyn DataFile>, most: Option<u64>) -> Self {
        Self::new(file, Mode::Building { most }, Vec::new())
    }

    fn new(file: Arc<dyn DataFile>, mode: Mode, header: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            file,
            mode,
            synced: header.clone(),
            header,
            is_in_flight: false,
            is_touched: false,
            sync_has_failed: false,
        })))
    }

    /// Makes it the file itself that is written: opens it for writing, and writes and syncs what is in memory.
    pub(super) fn write_in_place(&self, folder: &dyn Folder, name: &str) -> Result<(), WriteFault> {
        let mut inner = self.inner();
        let Mode::Overlay(overlay) = &inner.mode else {
            return Ok(());
        };
        let file = folder
            .open_for_writing(name)
            .map_err(WriteFault::at("opening it for writing"))?;
        let is_same = file
            .identity()
            .and_then(|new| Ok(new == inner.file.identity()?));
        if !is_same.map_err(WriteFault::at("opening it for writing"))? {
            let fault = io::Error::other("another file has taken its place");
            return Err(WriteFault::at("opening it for writing")(fault));
        }
        // An earlier run may have given the file its name, and failed to sync that: what is written now would be gone with it.
        folder
            .sync("")
            .map_err(WriteFault::at("syncing the directory"))?;
        let write = |inner: &Overlay, file: &dyn DataFile| {
            if file.len()? != inner.len {
                file.set_len(inner.len)?;
            }
            for (at, block) in &inner.blocks {
                file.write_at(at.saturating_mul(BLOCK), &block[..])?;
            }
            match inner.blocks.is_empty() {
                true => Ok(()),
                // The pages before the header that leads to them.
                false => file.sync(),
            }
        };
        let (has_blocks, headers) = (!overlay.blocks.is_empty(), overlay.headers.clone());
        let written = write(overlay, &*file);
        inner.is_touched |= has_blocks;
        written.map_err(WriteFault::at("writing"))?;
        inner.file = file;
        inner.mode = Mode::InPlace;
        for header in headers {
            inner.header = header;
            inner.sync().map_err(WriteFault::at("syncing"))?;
        }
        Ok(())
    }

    /// Syncs a file that was built. From then on it is written in place.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.mode = Mode::InPlace;
        inner.sync()
    }

    /// Writes nothing any more, whatever redb may still want to write.
    pub(super) fn close_for_good(&self) {
        self.inner().mode = Mode::Closed;
    }

    /// The header as of the last sync that succeeded.
    pub(super) fn synced_header(&self) -> Vec<u8> {
        self.inner().synced.clone()
    }

    /// Whether the file is as it was at the last sync, free pages aside: no sync has failed, and the header was not written.
    pub(super) fn is_as_it_was(&self) -> bool {
        let inner = self.inner();
        !inner.is_in_flight && !inner.sync_has_failed
    }

    /// Whether the file may have another header than that of the last sync that succeeded.
    pub(super) fn is_in_flight(&self) -> bool {
        self.inner().is_in_flight
    }

    /// The file, to write its header back.
    pub(super) fn file(&self) -> Arc<dyn DataFile> {
        Arc::clone(&self.inner().file)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic of redb leaves nothing half done here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sync(&mut self) -> io::Result<()> {
        if self.header != self.synced || self.is_in_flight {
            let written = self.file.write_at(0, &self.header);
            // A write that failed may have left a part, and then the cache has it.
            self.is_in_flight = written.is_ok() || !self.has_synced_header();
            written?;
        } else if !self.is_touched {
            return Ok(());
        }
        let synced = self.file.sync();
        if synced.is_err() {
            self.sync_has_failed = true;
        }
        synced?;
        self.synced.clone_from(&self.header);
        (self.is_in_flight, self.is_touched) = (false, false);
        Ok(())
    }

    fn has_synced_header(&self) -> bool {
        let mut header = vec![0; self.synced.len()];
        self.file.read_at(0, &mut header).is_ok() && header == self.synced
    }
}

impl Overlay {
    fn read(&self, file: &dyn DataFile, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let (block, within) = (offset / BLOCK, offset % BLOCK);
            let most = usize::try_from(BLOCK.saturating_sub(within)).unwrap_or_default();
            let count = most.min(out.len());
            let (now, rest) = out.split_at_mut(count);
            match self.blocks.get(&block) {
                Some(bytes) => {
                    let from = usize::try_from(within).unwrap_or_default();
                    now.copy_from_slice(&bytes[from..from.saturating_add(count)]);
                }
                None => self.read_file(file, offset, now)?,
            }
            out = rest;
            offset = offset.saturating_add(count as u64);
        }
        Ok(())
    }

    /// Bytes of the file, and zeros after the part of it that was never cut off.
    fn read_file(&self, file: &dyn DataFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = self.of_file.saturating_sub(offset);
        let count = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        let (now, rest) = out.split_at_mut(count);
        rest.fill(0);
        match now.is_empty() {
            true => Ok(()),
            false => file.read_at(offset, now),
        }
    }

    fn write(&mut self, file: &dyn DataFile, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (block, within) = (offset / BLOCK, offset % BLOCK);
            let most = usize::try_from(BLOCK.saturating_sub(within)).unwrap_or_default();
            let (now, rest) = data.split_at(most.min(data.len()));
            if !self.blocks.contains_key(&block) {
                let mut bytes = Box::new([0; BLOCK as usize]);
                self.read_file(file, block.saturating_mul(BLOCK), &mut bytes[..])?;
                self.blocks.insert(block, bytes);
            }
            if let Some(bytes) = self.blocks.get_mut(&block) {
                let from = usize::try_from(within).unwrap_or_default();
                bytes[from..from.saturating_add(now.len())].copy_from_slice(now);
            }
            data = rest;
            offset = offset.saturating_add(now.len() as u64);
        }
        self.len = self.len.max(offset);
        Ok(())
    }

    fn set_len(&mut self, len: u64) {
        self.len = len;
        self.of_file = self.of_file.min(len);
        self.blocks
            .retain(|block, _| block.saturating_mul(BLOCK) < len);
    }
}

impl StorageBackend for Backing {
    fn len(&self) -> io::Result<u64> {
        let inner = self.inner();
        match &inner.mode {
            Mode::Overlay(overlay) => Ok(overlay.len),
            Mode::Building { .. } | Mode::InPlace | Mode::Closed => inner.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner();
        if offset == 0 && out.len() <= inner.header.len() {
            out.copy_from_slice(&inner.header[..out.len()]);
            return Ok(());
        }
        match &inner.mode {
            Mode::Overlay(overlay) => overlay.read(&*inner.file, offset, out),
            Mode::Building { .. } | Mode::InPlace | Mode::Closed => inner.file.read_at(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner();
        match &mut inner.mode {
            Mode::Overlay(overlay) => overlay.set_len(len),
            Mode::Building { .. } | Mode::InPlace => {
                inner.is_touched = true;
                inner.file.set_len(len)?;
            }
            Mode::Closed => return Err(closed()),
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        match &mut inner.mode {
            Mode::Overlay(overlay) => {
                if overlay.headers.last().unwrap_or(&inner.synced) != &inner.header {
                    overlay.headers.push(inner.header.clone());
                }
                Ok(())
            }
            Mode::Building { .. } => Ok(()),
            Mode::InPlace => inner.sync(),
            Mode::Closed => Err(closed()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut guard = self.inner();
        let inner = &mut *guard;
        if offset == 0 {
            // Kept back until the next sync.
            inner.header = data.to_vec();
            return Ok(());
        }
        match &mut inner.mode {
            Mode::Overlay(overlay) => overlay.write(&*inner.file, offset, data),
            Mode::Building { most: Some(most) }
                if offset.saturating_add(data.len() as u64) > *most =>
            {
                Err(io::ErrorKind::StorageFull.into())
            }
            Mode::Building { .. } | Mode::InPlace => {
                inner.is_touched = true;
                inner.file.write_at(offset, data)
            }
            Mode::Closed => Err(closed()),
        }
    }
}

fn closed() -> io::Error {
    io::Error::other("the file is no longer written")
}
