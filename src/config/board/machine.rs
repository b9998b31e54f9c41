//! Detection of the machine that hearth runs on.
//!
//! Every file is read within bounds and may be missing. The root directory is a parameter.

use std::path::{Path, PathBuf};

use crate::files;

/// Longest file that is read, in bytes: `/proc/meminfo` has some 1,500.
const MAX_FILE: usize = 16 << 10;
/// Most names from one file: a device tree has two or three.
const MAX_NAMES: usize = 16;
/// Deepest control group that is read.
const MAX_DEPTH: usize = 32;

/// The source of the name of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `board` in the configuration or on the command line.
    Configuration,
    /// `/tmp/sysinfo/board_name`, written by OpenWrt at boot.
    OpenWrt,
    /// `/proc/device-tree`.
    DeviceTree,
    /// `/sys/class/dmi/id`, from the firmware of a PC.
    Firmware,
    /// The processor architecture.
    Processor,
    /// The size of the memory; nothing else is known.
    Memory,
    /// Unknown.
    Nothing,
}

impl Source {
    /// Description that follows the name of a board.
    pub fn words(self) -> &'static str {
        match self {
            Self::Configuration => "set in the configuration",
            Self::OpenWrt => "detected by OpenWrt",
            Self::DeviceTree => "detected from the device tree",
            Self::Firmware => "detected from the firmware",
            Self::Processor => "detected from the processor",
            Self::Memory => "detected from the memory size",
            Self::Nothing => "not detected",
        }
    }
}

/// The detected machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Its names, best first.
    pub names: Vec<(Source, String)>,
    /// The memory in bytes that this process may use.
    pub memory: Option<u64>,
}

impl Machine {
    /// Detects the machine of this process.
    pub fn of_this_process() -> Self {
        let mut machine = Self::below(Path::new("/"));
        let processor = std::env::consts::ARCH.to_owned();
        machine.names.push((Source::Processor, processor));
        machine
    }

    /// Detects the machine from the files below `root`.
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

/// The strings in a file; device trees end each with a zero byte.
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

/// `<vendor>-<product>` in lower case, as OpenWrt names PCs: `target/linux/x86/base-files/lib/preinit/01_sysinfo`.
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

/// The lowest memory limit of this process's control group and its parents (cgroup v2, `memory.max` and
/// `memory.high`): less than the memory of the machine in a container or a systemd unit with `MemoryMax`.
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

/// A number, or `None` for `max`.
fn limit(path: &Path) -> Option<u64> {
    let contents = files::read(path, MAX_FILE).ok()?;
    std::str::from_utf8(&contents).ok()?.trim().parse().ok()
}
