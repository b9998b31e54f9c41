//! Known boards and classes of memory, and the limits of each.
//!
//! A file of `board-configs/` describes one board or one class of memory. All of them are embedded in the
//! program. [`choice`] selects one from what [`machine`] detects.

pub mod choice;
mod embedded;
pub mod machine;

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::file::RawConfig;
use super::limits::Limits;
use super::near::nearest;
use super::raw::RawValue;
use super::value::{ByteCount, List, Setting};
use embedded::{BOARDS, CLASSES, Embedded};

const MIB: usize = 1 << 20;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The storage that holds the data of a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// NOR flash with JFFS2: small, slow to erase.
    Nor,
    /// NAND flash with UBIFS: each commit writes a whole page.
    Nand,
    /// Flash with a controller of its own, soldered in.
    Emmc,
    /// A memory card.
    Sd,
    /// A disk.
    Ssd,
}

impl Storage {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Nor, "nor"),
        (Self::Nand, "nand"),
        (Self::Emmc, "emmc"),
        (Self::Sd, "sd"),
        (Self::Ssd, "ssd"),
    ];

    /// The name in a board file.
    pub fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(storage, _)| *storage == self);
        known.map_or("", |(_, name)| name)
    }

    /// Time between two small writes of data that may be lost: a commit is 25 to 42 KB (`redb`, measured), whatever changed.
    fn flush_interval(self) -> Duration {
        Duration::from_secs(match self {
            Self::Nor => 2 * HOUR,
            Self::Nand | Self::Emmc | Self::Sd => HOUR,
            Self::Ssd => 5 * MINUTE,
        })
    }
}

impl Setting for Storage {
    const EXPECTED: &'static str = "one of `nor`, `nand`, `emmc`, `sd` and `ssd`";

    fn read(value: &RawValue) -> Option<Self> {
        let RawValue::Text(text) = value else {
            return None;
        };
        let known = Self::ALL.iter().find(|(_, name)| name == text);
        known.map(|(storage, _)| *storage)
    }
}

/// A board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// ID for programs: the first `compatible` of the device tree, as in OpenWrt's
    /// `/tmp/sysinfo/board_name`.
    pub id: String,
    /// Other IDs.
    pub aliases: Vec<String>,
    /// Name for people.
    pub name: String,
    /// Processor.
    pub soc: String,
    /// OpenWrt target.
    pub openwrt_target: String,
    /// OpenWrt package architecture.
    pub package_arch: String,
    /// Rust target.
    pub rust_target: String,
    /// `big` or `little`.
    pub endian: String,
    /// Memory in MiB, unless the board is sold with several sizes.
    pub ram_mib: Option<usize>,
    /// Storage of the data.
    pub storage: Storage,
    /// Whether it has a real-time clock with a battery.
    pub has_rtc: bool,
    /// Whether the processor has AES instructions.
    pub aes: bool,
    file: &'static Embedded,
}

impl Board {
    /// All boards that have a file.
    pub fn all() -> impl Iterator<Item = Self> {
        BOARDS.iter().filter_map(Self::read)
    }

    /// The board with this ID, alias or name.
    pub fn find(name: &str) -> Option<Self> {
        // Parsing all files takes long on a small processor, so only possible ones are parsed.
        let quoted = format!("\"{name}\"");
        let possible = BOARDS.iter().filter(|file| file.text.contains(&quoted));
        let mut boards = possible.filter_map(Self::read);
        boards.find(|board| board.is_called(name))
    }

    fn is_called(&self, name: &str) -> bool {
        self.id == name || self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// The class of its memory, if the board is sold with one size only.
    pub fn class(&self) -> Option<Class> {
        self.ram_mib.map(|ram| Class::of_memory(bytes_of(ram)))
    }

    /// `limits`, changed by the file of this board.
    pub fn adjust(&self, mut limits: Limits) -> Limits {
        limits.flush_interval = self.storage.flush_interval();
        Limits::take(&mut self.file.raw(), limits)
    }

    fn read(file: &'static Embedded) -> Option<Self> {
        let board = Self::take(file, &mut file.raw());
        debug_assert!(board.is_some(), "{}", file.name);
        board
    }

    fn take(file: &'static Embedded, raw: &mut RawConfig) -> Option<Self> {
        let aliases = match raw.take::<List<String>>("board.aliases") {
            Some(List(aliases)) => aliases,
            None => Vec::new(),
        };
        Some(Self {
            id: raw.take("board.id")?,
            aliases,
            name: raw.take("board.name")?,
            soc: raw.take("board.soc")?,
            openwrt_target: raw.take("board.openwrt_target")?,
            package_arch: raw.take("board.package_arch")?,
            rust_target: raw.take("board.rust_target")?,
            endian: raw.take("board.endian")?,
            ram_mib: raw.take("board.ram_mib"),
            storage: raw.take("board.storage")?,
            has_rtc: raw.take("board.has_rtc")?,
            aes: raw.take("board.aes")?,
            file,
        })
    }
}

fn bytes_of(mib: usize) -> u64 {
    u64::try_from(mib.saturating_mul(MIB)).unwrap_or(u64::MAX)
}

/// The most similar name of a board or class, as a suggestion.
pub(super) fn near(name: &str) -> Option<String> {
    let boards: Vec<Board> = Board::all().collect();
    let ids = boards.iter().map(|board| board.id.as_str());
    let classes = CLASSES.iter().map(|file| file.name);
    nearest(name, ids.chain(classes)).map(str::to_owned)
}

/// A class of memory and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// `memory-<MiB>`.
    pub name: &'static str,
    /// Memory in MiB of machines of this class.
    pub ram_mib: usize,
    /// Memory budget of hearth, in bytes of resident memory.
    pub budget: usize,
    /// Limits that keep hearth within the budget.
    pub limits: Limits,
}

impl Class {
    /// The classes, smallest first.
    pub fn all() -> impl Iterator<Item = Self> {
        CLASSES.iter().filter_map(Self::read)
    }

    /// The class of this name.
    pub fn find(name: &str) -> Option<Self> {
        let file = CLASSES.iter().find(|file| file.name == name)?;
        Self::read(file)
    }

    /// The class for a machine with this much memory in bytes.
    ///
    /// The kernel and a graphics processor reserve up to a fifth, so a machine sold with 512 MB shows 430 of
    /// them. A machine with less than the smallest class gets the smallest.
    pub fn of_memory(bytes: u64) -> Self {
        let fits = |class: &Self| bytes_of(class.ram_mib) / 5 * 4 <= bytes;
        let fitting = Self::all().take_while(fits).last();
        fitting
            .or_else(|| Self::all().next())
            .unwrap_or_else(Self::without_files)
    }

    /// Never used: a test reads all files.
    fn without_files() -> Self {
        Self {
            name: "",
            ram_mib: 0,
            budget: usize::MAX,
            limits: Limits::default(),
        }
    }

    fn read(file: &'static Embedded) -> Option<Self> {
        let class = Self::take(file, &mut file.raw());
        debug_assert!(class.is_some(), "{}", file.name);
        class
    }

    fn take(file: &'static Embedded, raw: &mut RawConfig) -> Option<Self> {
        let ram_mib = raw.take("memory.ram_mib")?;
        let ByteCount(budget) = raw.take("memory.budget")?;
        Some(Self {
            name: file.name,
            ram_mib,
            budget,
            limits: Limits::take(raw, Limits::default()),
        })
    }
}
