//! The files of `board-configs/`, the budgets, and finding out which board it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::choice::Choice;
use super::machine::{Machine, Source};
use super::*;
use crate::config::budget::{Needs, show_mib};

#[test]
fn every_file_is_part_of_the_program_and_has_no_faults() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("board-configs");
    let files = fs::read_dir(directory).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = names
        .filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned()))
        .collect();
    let embedded = BOARDS.iter().chain(CLASSES);
    assert_eq!(files, embedded.map(|file| file.name.to_owned()).collect());

    for file in BOARDS {
        let mut raw = file.raw();
        let board = Board::take(file, &mut raw);
        let _ = Limits::take(&mut raw, Limits::default());
        assert!(board.is_some() && raw.finish().is_empty(), "{}", file.name);
    }
    for file in CLASSES {
        let mut raw = file.raw();
        let class = Class::take(file, &mut raw);
        let warnings: Vec<String> = raw.finish().iter().map(ToString::to_string).collect();
        assert_eq!(warnings, [""; 0], "{}", file.name);
        let ram = class.unwrap().ram_mib;
        assert_eq!(file.name, format!("memory-{ram}"));
    }
}

#[test]
fn boards_are_found_by_each_of_their_names_and_no_two_have_the_same() {
    let mut seen = BTreeSet::new();
    for board in Board::all() {
        for name in board.aliases.iter().chain([&board.id, &board.name]) {
            assert_eq!(Board::find(name).as_ref(), Some(&board), "{name}");
            assert!(seen.insert(name.clone()), "{name}");
        }
    }
    assert_eq!(Board::find("glinet"), None);
    assert_eq!(Board::find("big"), None);
}

#[test]
fn the_facts_about_a_board_fit_together() {
    for board in Board::all() {
        let big = board.rust_target.starts_with("mips-");
        assert_eq!(
            board.endian,
            if big { "big" } else { "little" },
            "{}",
            board.id
        );
        let fits = match board.rust_target.as_str() {
            "mips-unknown-linux-musl" => board.package_arch == "mips_24kc",
            "mipsel-unknown-linux-musl" => board.package_arch == "mipsel_24kc",
            "arm-unknown-linux-musleabihf" => board.package_arch == "arm_arm1176jzf-s_vfp",
            "armv7-unknown-linux-musleabihf" => board.package_arch.starts_with("arm_cortex-a"),
            "aarch64-unknown-linux-musl" => board.package_arch.starts_with("aarch64_"),
            "x86_64-unknown-linux-musl" => board.package_arch == "x86_64",
            _ => false,
        };
        assert!(fits, "{}", board.id);
        assert!(board.openwrt_target.split('/').count() == 2, "{}", board.id);
        assert!(
            !board.aes || !board.rust_target.starts_with("mips"),
            "{}",
            board.id
        );
    }
}

/// What is left of the budget of each class, and of each board with each class that it can have.
#[test]
fn the_limits_of_every_file_add_up_to_no_more_than_its_budget() {
    for class in Class::all() {
        let check = |limits: &Limits, name: &str| {
            let needs = Needs::of(limits);
            let (total, budget) = (needs.total(), class.budget);
            let [total_text, budget_text] = [total, budget].map(show_mib);
            assert!(
                total <= budget,
                "{name} with {}: {total_text} of {budget_text}\n{:#?}",
                class.name,
                needs.parts
            );
            // A budget that nobody can use up is the wrong one.
            assert!(
                total >= budget / 100 * 90,
                "{name}: {total_text} of {budget_text}"
            );
        };
        check(&class.limits, "the class");
        for board in Board::all() {
            let own = board.class();
            if own.is_none_or(|own| own.ram_mib >= class.ram_mib) {
                check(&board.adjust(class.limits.clone()), &board.id);
            }
        }
    }
}

#[test]
fn within_a_class_the_limits_leave_room_for_each_other() {
    let mut smaller: Option<Class> = None;
    for class in Class::all() {
        let limits = &class.limits;
        let name = class.name;
        let taken = limits.map_streams + limits.derp_connections;
        // For those that join, come back or are people with a browser.
        assert!(limits.connections >= taken + taken / 16, "{name}");
        assert!(limits.map_streams <= limits.nodes, "{name}");
        assert!(limits.derp_connections <= limits.nodes, "{name}");
        assert_eq!(
            limits.reserved_for_strangers(),
            limits.connections - taken,
            "{name}"
        );
        // Nobody alone takes most of what strangers have, and a household that comes back at once finds room.
        let shares = limits.connections / 4..=limits.connections / 2;
        assert!(shares.contains(&limits.connections_per_address), "{name}");
        // At least one of the longest bodies can arrive.
        assert!(limits.request_bodies >= limits.map_body, "{name}");
        assert!(limits.request_bodies >= limits.register_body, "{name}");
        // Where a word has 32 bits, a hundred budgets may be too many for it.
        let share = class.budget as u64 * 100 / ((class.ram_mib as u64) << 20);
        assert!((9..=17).contains(&share), "{name}: {share} % of the memory");
        if let Some(smaller) = smaller {
            assert!(smaller.ram_mib < class.ram_mib);
            assert!(smaller.limits.nodes < limits.nodes, "{name}");
        }
        smaller = Some(class);
    }
}

#[test]
fn small_classes_take_small_bodies() {
    let of = |mib: usize| {
        let class = Class::all().into_iter().find(|class| class.ram_mib == mib);
        let limits = class.unwrap_or_else(|| panic!("{mib}")).limits;
        (limits.map_body >> 10, limits.register_body >> 10)
    };
    assert_eq!((of(64), of(128), of(256)), ((16, 16), (16, 16), (32, 32)));
}

#[test]
fn the_class_follows_from_what_the_kernel_leaves_of_the_memory() {
    for (mib, class) in [
        (0, "memory-64"),
        (59, "memory-64"),
        (121, "memory-128"),
        (247, "memory-256"),
        (300, "memory-256"),
        (430, "memory-512"),
        (920, "memory-1024"),
        (7_800, "memory-4096"),
        (usize::MAX >> 20, "memory-4096"),
    ] {
        assert_eq!(Class::of_memory(bytes_of(mib)).name, class, "{mib}");
    }
}

/// A root directory with these files.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn chosen(requested: Option<&str>, files: &[(&str, &str)]) -> (Choice, bool) {
    Choice::make(requested, &Machine::below(root(files).path()))
}

fn found(files: &[(&str, &str)]) -> (String, Source, &'static str) {
    let (choice, is_understood) = chosen(None, files);
    assert!(is_understood);
    let class = choice.class.as_ref().map_or("", |class| class.name);
    (choice.name().to_owned(), choice.source, class)
}

const LITTLE: (&str, &str) = (
    "proc/meminfo",
    "MemTotal:         121384 kB\nMemFree: 1 kB\n",
);
const PLENTY: (&str, &str) = ("proc/meminfo", "MemTotal:        7891234 kB\n");

#[test]
fn the_board_is_found_by_openwrt_then_the_device_tree_then_the_firmware() {
    let compatible = (
        "proc/device-tree/compatible",
        "glinet,gl-mt6000\0mediatek,mt7986a\0",
    );
    let openwrt = ("tmp/sysinfo/board_name", "glinet,gl-mt300n-v2\n");
    let both = found(&[openwrt, compatible]);
    assert_eq!(
        both,
        ("GL.iNet GL-MT300N-V2".into(), Source::OpenWrt, "memory-128")
    );
    let tree = found(&[compatible]);
    assert_eq!(
        tree,
        (
            "GL.iNet GL-MT6000".into(),
            Source::DeviceTree,
            "memory-1024"
        )
    );
    let model = ("proc/device-tree/model", "Turris Omnia\0");
    assert_eq!(found(&[model, PLENTY]).1, Source::DeviceTree);
    let second = (
        "proc/device-tree/compatible",
        "someone,router\0mediatek,mt7621-soc\0",
    );
    let generic = found(&[second, LITTLE]);
    assert_eq!(
        generic,
        ("MediaTek MT7621".into(), Source::DeviceTree, "memory-128")
    );
}

#[test]
fn a_pc_is_named_as_openwrt_names_it() {
    let files = [
        ("sys/class/dmi/id/sys_vendor", "PC Engines\n"),
        ("sys/class/dmi/id/product_name", "apu2, Rev. B\n"),
        ("sys/class/dmi/id/board_name", "apu2\n"),
    ];
    let machine = Machine::below(root(&files).path());
    let names = ["pc-engines-apu2-rev-b", "pc-engines-apu2"];
    assert_eq!(
        machine.names,
        names.map(|name| (Source::Firmware, name.to_owned()))
    );
    assert!(
        Machine::of_this_process()
            .names
            .iter()
            .any(|(source, _)| *source == Source::Processor)
    );
}

#[test]
fn without_a_board_the_memory_decides_and_without_that_nothing_changes() {
    assert_eq!(
        found(&[LITTLE]),
        ("memory-128".into(), Source::Memory, "memory-128")
    );
    let (nothing, _) = chosen(None, &[]);
    assert_eq!((nothing.source, nothing.budget()), (Source::Nothing, None));
    assert_eq!(nothing.limits, Limits::default());
    let nonsense = [
        ("proc/meminfo", "MemTotal: much kB\n"),
        ("tmp/sysinfo/board_name", "\0\0"),
    ];
    assert_eq!(found(&nonsense).1, Source::Nothing);
    let long = "x".repeat(100_000);
    assert_eq!(
        found(&[("tmp/sysinfo/board_name", &long)]).1,
        Source::Nothing
    );
}

#[test]
fn a_container_gets_the_class_of_its_own_memory() {
    let group = |files: &[(&str, &str)]| {
        found(&[&[PLENTY, ("proc/self/cgroup", "0::/a/b\n")], files].concat()).2
    };
    assert_eq!(group(&[]), "memory-4096");
    let limit = ("sys/fs/cgroup/a/b/memory.max", "134217728\n");
    assert_eq!(group(&[limit]), "memory-128");
    let none = ("sys/fs/cgroup/a/b/memory.max", "max\n");
    assert_eq!(group(&[none]), "memory-4096");
    let above = ("sys/fs/cgroup/a/memory.high", "268435456\n");
    assert_eq!(group(&[none, above]), "memory-256");
    // Inside a container its own group is the root.
    let inside = [
        PLENTY,
        ("proc/self/cgroup", "0::/\n"),
        ("sys/fs/cgroup/memory.max", "67108864\n"),
    ];
    assert_eq!(found(&inside).2, "memory-64");
    // The limit is also less than what the board has.
    let board = ("tmp/sysinfo/board_name", "glinet,gl-mt6000");
    assert_eq!(group(&[board, limit]), "memory-128");
}

#[test]
fn the_configured_board_takes_precedence_and_an_unknown_one_is_ignored() {
    let board = ("tmp/sysinfo/board_name", "glinet,gl-mt6000");
    let (choice, is_understood) = chosen(Some("netgear,r6220"), &[board, PLENTY]);
    assert_eq!(
        (choice.name(), choice.source),
        ("Netgear R6220", Source::Configuration)
    );
    assert!(is_understood);
    let (choice, _) = chosen(Some("memory-64"), &[board, PLENTY]);
    assert_eq!((choice.name(), choice.board.is_none()), ("memory-64", true));
    let (choice, is_understood) = chosen(Some("auto"), &[board, PLENTY]);
    assert_eq!((choice.name(), is_understood), ("GL.iNet GL-MT6000", true));
    let (choice, is_understood) = chosen(Some("memory-127"), &[board, PLENTY]);
    assert_eq!((choice.name(), is_understood), ("GL.iNet GL-MT6000", false));
}

#[test]
fn a_board_differs_from_its_class_in_what_its_flash_and_processor_ask_for() {
    let (choice, _) = chosen(Some("glinet,gl-mt300n-v2"), &[]);
    let class = Class::find("memory-128").unwrap();
    assert_eq!(choice.limits.nodes, class.limits.nodes);
    assert_eq!(choice.limits.flush_interval, Duration::from_secs(2 * HOUR));
    let intervals = Storage::ALL.map(|(storage, _)| storage.flush_interval());
    assert!(intervals.is_sorted_by(|longer, shorter| longer >= shorter));
}
