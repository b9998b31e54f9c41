//! A disk in memory that fails, hangs and loses its power: it records every write and sync, and makes from that what a
//! machine finds after a power cut at any moment.
//!
//! What it knows of disks: a write reaches the disk at the latest with the next sync of its file, before that in any order,
//! whole, in part or not at all. A sync that fails leaves it open what reached the disk, and what did not never will,
//! although the cache may still have it. Names reach the disk in their order, at the latest with a sync of the directory.

mod chance;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::folder::{DataFile, Folder, Lock};
pub(crate) use chance::Chance;

/// How a disk handles writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// They succeed.
    #[default]
    Works,
    /// They fail: the disk is full.
    Fails,
    /// They block until the mood changes.
    Hangs,
    /// They fail, and so do reads: the disk is gone.
    Gone,
}

/// A disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<(Mutex<State>, Condvar)>);

/// Something that was done to a disk. Files have numbers.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Write(usize, u64, Vec<u8>),
    SetLen(usize, u64),
    Sync(usize),
    /// A sync that failed, and what became of the steps before it.
    FailedSync(usize, Vec<Fate>),
    Create(String, usize),
    Rename(String, String),
    Remove(String),
    Link(String, String),
    SyncFolder,
}

/// What reached the disk of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    Lost,
    /// Of each unit of so many bytes, whether it was written.
    Torn(usize, Vec<bool>),
}

/// What fails next.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan {
    /// How many syncs of files fail.
    pub(crate) syncs: usize,
    /// How many syncs of the directory fail.
    pub(crate) folder_syncs: usize,
    /// After how many writes the others fail.
    pub(crate) writes_until: Option<usize>,
    /// After how many reads the others fail.
    pub(crate) reads_until: Option<usize>,
    /// With which error writes fail.
    pub(crate) is_full: bool,
    /// Whether files can be created.
    pub(crate) no_new_files: bool,
    /// After how many steps the power is off: nothing else reaches the disk.
    pub(crate) steps_until_off: Option<usize>,
    /// Bytes that fit on it; `None` is unlimited, and then it does not say how many are free.
    pub(crate) capacity: Option<usize>,
    /// Whether the cache gives up what a failed sync did not write.
    pub(crate) drops_pages: bool,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    syncs: usize,
    plan: Plan,
    chance: Chance,
    /// As the running system sees it.
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    /// As the disk has it.
    durable: Durable,
    log: Vec<Step>,
}

/// What is on a disk, and what may be there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Durable {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    pending: Vec<Vec<Step>>,
    pending_names: Vec<Step>,
}

/// How much of what was not synced survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    AllKept,
    AllLost,
    Mixed,
    Torn(usize),
}

pub(crate) const CUTS: [Cut; 6] = [
    Cut::AllKept,
    Cut::AllLost,
    Cut::Mixed,
    Cut::Torn(4096),
    Cut::Torn(512),
    Cut::Torn(1),
];

impl Durable {
    /// What was on a disk before anything of a log.
    pub(crate) fn follow(&mut self, step: &Step) {
        match step {
            Step::Write(file, ..) | Step::SetLen(file, _) => self.pending[*file].push(step.clone()),
            Step::Sync(file) => {
                for step in std::mem::take(&mut self.pending[*file]) {
                    self.reach(&step, &Fate::Kept);
                }
            }
            Step::FailedSync(file, fates) => {
                let steps = std::mem::take(&mut self.pending[*file]);
                for (step, fate) in steps.iter().zip(fates) {
                    self.reach(step, fate);
                }
            }
            Step::Create(_, file) => {
                assert_eq!(*file, self.files.len());
                self.files.push(Vec::new());
                self.pending.push(Vec::new());
                self.pending_names.push(step.clone());
            }
            Step::Rename(..) | Step::Remove(_) | Step::Link(..) => {
                self.pending_names.push(step.clone());
            }
            Step::SyncFolder => {
                for step in std::mem::take(&mut self.pending_names) {
                    rename(&mut self.names, &step);
                }
            }
        }
    }

    fn reach(&mut self, step: &Step, fate: &Fate) {
        let (file, offset, data) = match step {
            Step::Write(file, offset, data) => (*file, usize::try_from(*offset).unwrap(), data),
            Step::SetLen(file, len) => {
                if *fate != Fate::Lost {
                    self.files[*file].resize(usize::try_from(*len).unwrap(), 0);
                }
                return;
            }
            other => unreachable!("{other:?} does not wait for a sync"),
        };
        let content = &mut self.files[file];
        for at in 0..data.len() {
            let is_kept = match fate {
                Fate::Kept => true,
                Fate::Lost => false,
                Fate::Torn(unit, kept) => kept[at / unit],
            };
            // What lies after the end of a file is not part of it.
            if let Some(byte) = content.get_mut(offset + at).filter(|_| is_kept) {
                *byte = data[at];
            }
        }
    }

    /// The disk as it is found after a power cut now.
    pub(crate) fn after(mut self, cut: Cut, chance: &mut Chance) -> Disk {
        for file in 0..self.pending.len() {
            for step in std::mem::take(&mut self.pending[file]) {
                let fate = chance.fate(cut, &step);
                self.reach(&step, &fate);
            }
        }
        let names = std::mem::take(&mut self.pending_names);
        let kept = match cut {
            Cut::AllKept => names.len(),
            Cut::AllLost => 0,
            Cut::Mixed | Cut::Torn(_) => chance.below(names.len() + 1),
        };
        for step in &names[..kept] {
            rename(&mut self.names, step);
        }
        let seed = chance.next();
        let state = State {
            chance: Chance::new(seed),
            names: self.names.clone(),
            files: self.files.clone(),
            durable: self,
            ..State::default()
        };
        Disk(Arc::new((Mutex::new(state), Condvar::new())))
    }
}

fn rename(names: &mut BTreeMap<String, usize>, step: &Step) {
    match step {
        Step::Create(name, file) => {
            names.insert(name.clone(), *file);
        }
        Step::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Step::Remove(name) => {
            names.remove(name);
        }
        Step::Link(name, also) => {
            if let Some(file) = names.get(name).copied() {
                names.insert(also.clone(), file);
            }
        }
        other => unreachable!("{other:?} is not about names"),
    }
}

impl Disk {
    /// A disk whose failures differ by seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        let disk = Self::default();
        disk.state().chance = Chance::new(seed);
        disk
    }

    /// Sets how writes are handled from now on.
    pub(crate) fn set(&self, mood: Mood) {
        self.state().mood = mood;
        self.0.1.notify_all();
    }

    /// How often it has synced a file or the directory.
    pub(crate) fn syncs(&self) -> usize {
        self.state().syncs
    }

    pub(crate) fn plan(&self, plan: Plan) {
        self.state().plan = plan;
    }

    /// Bytes of all files that have a name.
    pub(crate) fn used(&self) -> usize {
        self.state().used()
    }

    /// Limits how many bytes fit.
    pub(crate) fn limit(&self, capacity: Option<usize>) {
        self.state().plan.capacity = capacity;
    }

    /// How many steps there were.
    pub(crate) fn steps(&self) -> usize {
        self.state().log.len()
    }

    pub(crate) fn log(&self) -> Vec<Step> {
        self.state().log.clone()
    }

    /// What the disk has now, for all that is known.
    pub(crate) fn durable(&self) -> Durable {
        self.state().durable.clone()
    }

    /// Bytes that were written to files.
    pub(crate) fn written(&self) -> usize {
        let bytes = |step: &Step| match step {
            Step::Write(_, _, data) => data.len(),
            _ => 0,
        };
        self.state().log.iter().map(bytes).sum()
    }

    /// A file as the running system sees it.
    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|file| state.files[*file].clone())
    }

    /// Puts a file there, as if it had always been.
    pub(crate) fn put(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(content.clone());
        state.names.insert(name.to_owned(), file);
        state.durable.files.push(content);
        state.durable.pending.push(Vec::new());
        state.durable.names.insert(name.to_owned(), file);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("no panic while locked")
    }

    /// The state once nothing hangs; an error if the disk takes nothing.
    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        let hangs = |state: &mut State| state.mood == Mood::Hangs;
        let state = self.0.1.wait_while(self.state(), hangs);
        let state = state.expect("no panic while locked");
        if state.plan.steps_until_off == Some(0) {
            return Err(io::Error::other("I/O error"));
        }
        match state.mood {
            Mood::Fails => Err(io::ErrorKind::StorageFull.into()),
            Mood::Gone => Err(io::Error::other("I/O error")),
            Mood::Works | Mood::Hangs => Ok(state),
        }
    }

    fn readable(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        match state.mood {
            Mood::Gone => Err(io::Error::other("I/O error")),
            Mood::Works | Mood::Fails | Mood::Hangs => Ok(state),
        }
    }

    fn file(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        let file = self.readable()?.names.get(name).copied();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            file,
        }))
    }
}

impl State {
    fn step(&mut self, step: Step) {
        if let Some(left) = &mut self.plan.steps_until_off {
            *left = left.saturating_sub(1);
        }
        match &step {
            Step::Write(file, offset, data) => {
                let content = &mut self.files[*file];
                let start = usize::try_from(*offset).unwrap();
                let end = start + data.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(data);
            }
            Step::SetLen(file, len) => {
                self.files[*file].resize(usize::try_from(*len).unwrap(), 0);
            }
            Step::Create(..) => {
                self.files.push(Vec::new());
                rename(&mut self.names, &step);
            }
            Step::Rename(..) | Step::Remove(_) | Step::Link(..) => rename(&mut self.names, &step),
            Step::Sync(_) | Step::FailedSync(..) | Step::SyncFolder => {}
        }
        self.durable.follow(&step);
        if let Step::FailedSync(file, _) = step
            && self.plan.drops_pages
        {
            self.files[file] = self.durable.files[file].clone();
        }
        self.log.push(step);
    }

    fn may_read(&mut self) -> io::Result<()> {
        match &mut self.plan.reads_until {
            Some(0) => Err(io::Error::other("I/O error")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> usize {
        let files: std::collections::BTreeSet<&usize> = self.names.values().collect();
        files.into_iter().map(|file| self.files[*file].len()).sum()
    }

    /// Before a file gets this length, if it is longer than now.
    fn may_grow(&self, file: usize, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.files[file].len());
        match self.plan.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn may_write(&mut self) -> io::Result<()> {
        match &mut self.plan.writes_until {
            Some(0) if self.plan.is_full => Err(io::ErrorKind::StorageFull.into()),
            Some(0) => Err(io::Error::other("I/O error")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: Disk,
    file: usize,
}

impl DataFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.readable()?.files[self.file].len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.readable()?;
        state.may_read()?;
        let start = usize::try_from(offset).unwrap();
        let content = state.files[self.file].get(start..start + out.len());
        out.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.writable()?;
        state.may_write()?;
        state.may_grow(self.file, usize::try_from(offset).unwrap() + data.len())?;
        state.step(Step::Write(self.file, offset, data.to_vec()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.writable()?;
        state.may_write()?;
        state.may_grow(self.file, usize::try_from(len).unwrap())?;
        state.step(Step::SetLen(self.file, len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.writable()?;
        state.syncs += 1;
        if state.plan.syncs == 0 {
            state.step(Step::Sync(self.file));
            return Ok(());
        }
        state.plan.syncs -= 1;
        let pending = state.durable.pending[self.file].clone();
        let fates = pending.iter().map(|step| {
            let cut = *state.chance.one_of(&CUTS);
            state.chance.fate(cut, step)
        });
        let fates = fates.collect();
        state.step(Step::FailedSync(self.file, fates));
        Err(io::Error::other("I/O error"))
    }

    fn lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((0, self.file as u64))
    }
}

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

impl Folder for Disk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        self.file(name)
    }

    fn settle(&self, name: &str) -> io::Result<()> {
        drop(self.file(name)?);
        let mut state = self.writable()?;
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        if !state.durable.pending[file].is_empty() {
            state.step(Step::Sync(file));
        }
        state.files[file] = state.durable.files[file].clone();
        Ok(())
    }

    fn open_for_writing(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        drop(self.writable()?);
        self.file(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        let mut state = self.writable()?;
        if state.plan.no_new_files {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(!state.names.contains_key(name), "{name} is there");
        let file = state.files.len();
        state.step(Step::Create(name.to_owned(), file));
        drop(state);
        self.file(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.writable()?;
        state.step(Step::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.writable()?;
        match state.names.contains_key(name) {
            true => state.step(Step::Remove(name.to_owned())),
            false => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    fn keep(&self, name: &str, also: &str) -> io::Result<()> {
        let mut state = self.writable()?;
        match state.names.contains_key(name) {
            true => state.step(Step::Link(name.to_owned(), also.to_owned())),
            false => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    fn create_folder(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _folder: &str) -> io::Result<()> {
        let mut state = self.writable()?;
        state.syncs += 1;
        if state.plan.folder_syncs > 0 {
            state.plan.folder_syncs -= 1;
            return Err(io::Error::other("I/O error"));
        }
        state.step(Step::SyncFolder);
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let within = |name: &String| match folder {
            "" => Some(name.split('/').next().unwrap_or_default().to_owned()),
            folder => name
                .strip_prefix(folder)
                .and_then(|rest| rest.strip_prefix('/'))
                .map(str::to_owned),
        };
        Ok(state.names.keys().filter_map(within).collect())
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(NoLock)))
    }

    fn free(&self) -> io::Result<Option<u64>> {
        let state = self.readable()?;
        let capacity = state.plan.capacity;
        Ok(capacity.map(|capacity| capacity.saturating_sub(state.used()) as u64))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("/simulated").join(name)
    }
}
