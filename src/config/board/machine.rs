//! What the system says about the machine that hearth runs on.
//!
//! Every file is read within bounds, and none of them has to be there. The root directory is a parameter.

use std::path::{Path, PathBuf};

use crate::files;

/// Longest file that is read, in bytes: `/proc/meminfo` has some 1,500.
const MAX_FILE: usize = 16 << 10;
/// Most names that one file may hold: a device tree has two or three.
const MAX_NAMES: usize = 16;
/// Deepest control group that is looked into.
const MAX_DEPTH: usize = 32;

/// Who gave the machine a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `board` in the configuration or on the command line.
    Configuration,
    /// `/tmp/sysinfo/board_name`, which OpenWrt makes at the start.
    OpenWrt,
    /// `/proc/device-tree`.
    DeviceTree,
    /// `/sys/class/dmi/id`, which is from the firmware of a PC.
    Firmware,
    /// The kind of its processor.
    Processor,
    /// Only the size of its memory is known.
    Memory,
    /// Nothing is known.
    Nothing,
}

impl Source {
    /// In words, to stand after the name of a board.
    pub fn words(self) -> &'static str {
        match self {
            Self::Configuration => "set in the configuration",
            Self::OpenWrt => "named by OpenWrt",
            Self::DeviceTree => "named by the device tree",
            Self::Firmware => "named by the firmware",
            Self::Processor => "by its processor",
            Self::Memory => "by its memory",
            Self::Nothing => "nothing is known of it",
        }
    }
}

/// What is known about the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Its names, best first.
    pub names: Vec<(Source, String)>,
    /// The memory in bytes that this process may have at most.
    pub memory: Option<u64>,
}

impl Machine {
    /// Asks the system.
    pub fn of_this_process() -> Self {
        let mut machine = Self::below(Path::new("/"));
        let processor = std::env::consts::ARCH.to_owned();
        machine.names.push((Source::Processor, processor));
        machine
    }

    /// What the files below `root` say.
    pub fn below(root: &Path) -> Self {
        let named = |source| move |name| (source, name);
        let openwrt = texts(root, "tmp/sysinfo/board_name");
        let compatible = texts(root, "proc/device-tree/compatible");
        let model = texts(root, "proc/device-tree/model");
        let mut names: Vec<_> = openwrt.into_iter().map(named(Source::OpenWrt)).collect();
        let tree = compatible.into_iter().chain(model);
        names.extend(tree.map(named(Source::DeviceTree)));
        names.extend(
            firmware_names(root)
                .into_iter()
                .map(named(Source::Firmware)),
        );
        let memory = [total_memory(root), control_group_memory(root)];
        Self {
            names,
            memory: memory.into_iter().flatten().min(),
        }
    }
}

/// The texts in a file; device trees end each of them with a zero byte.
fn texts(root: &Path, path: &str) -> Vec<String> {
    let contents = files::read(&root.join(path), MAX_FILE).unwrap_or_default();
    let parts = contents.split(|byte| *byte == 0);
    let parts = parts.filter_map(|part| Some(std::str::from_utf8(part).ok()?.trim().to_owned()));
    parts
        .filter(|part| !part.is_empty())
        .take(MAX_NAMES)
        .collect()
}

fn text(root: &Path, path: &str) -> Option<String> {
    texts(root, path).into_iter().next()
}

/// `<vendor>-<product>` in small letters, as OpenWrt names PCs: `target/linux/x86/base-files/lib/preinit/01_sysinfo`.
fn firmware_names(root: &Path) -> Vec<String> {
    let field = |name| text(root, &format!("sys/class/dmi/id/{name}"));
    let Some(vendor) = field("sys_vendor") else {
        return Vec::new();
    };
    let products = [field("product_name"), field("board_name")];
    let names = products.into_iter().flatten().map(|product| {
        let words = format!("{vendor} {product}").to_ascii_lowercase();
        let is_kept = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = words.split(|c| !is_kept(c)).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("-")
    });
    names.collect()
}

fn total_memory(root: &Path) -> Option<u64> {
    let meminfo = text(root, "proc/meminfo")?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least of the limits of this process's control group and those above it (cgroup v2, `memory.max` and
/// `memory.high`): in a container, and in a systemd unit with `MemoryMax`, that is less than the machine has.
fn control_group_memory(root: &Path) -> Option<u64> {
    let groups = text(root, "proc/self/cgroup")?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let all = root.join("sys/fs/cgroup");
    let mut directory = Some(all.join(group));
    let mut least = None;
    for _ in 0..MAX_DEPTH {
        let Some(present) = directory.take() else {
            break;
        };
        let limits = ["memory.max", "memory.high"].map(|file| limit(&present.join(file)));
        least = limits.into_iter().flatten().chain(least).min();
        if present != all {
            directory = present.parent().map(PathBuf::from);
        }
    }
    least
}

/// A number, or `max` for no limit.
fn limit(path: &Path) -> Option<u64> {
    let contents = files::read(path, MAX_FILE).ok()?;
    std::str::from_utf8(&contents).ok()?.trim().parse().ok()
}
