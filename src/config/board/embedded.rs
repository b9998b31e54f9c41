//! The files of `board-configs/`, as they are. A test compares this list with the directory.

use crate::config::file::RawConfig;

/// One file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Embedded {
    /// Its name without `.toml`.
    pub(super) name: &'static str,
    /// What it says.
    pub(super) text: &'static str,
}

impl Embedded {
    /// Its keys.
    pub(super) fn raw(&self) -> RawConfig {
        RawConfig::parse(
            format!("board-configs/{}.toml", self.name).into(),
            self.text,
        )
    }
}

macro_rules! embedded {
    ($($name:literal)*) => {
        &[$(Embedded {
            name: $name,
            text: include_str!(concat!("../../../board-configs/", $name, ".toml")),
        },)*]
    };
}

/// The classes of memory, smallest first.
pub(super) const CLASSES: &[Embedded] = embedded! {
    "memory-64"
    "memory-128"
    "memory-256"
    "memory-512"
    "memory-1024"
    "memory-2048"
    "memory-4096"
};

/// The boards.
pub(super) const BOARDS: &[Embedded] = embedded! {
    "bananapi_bpi-r3"
    "cznic_turris-omnia"
    "dlink_dir-860l-b1"
    "friendlyarm_nanopi-r4s"
    "friendlyarm_nanopi-r5s"
    "glinet_gl-ar750s"
    "glinet_gl-ar750s-nor"
    "glinet_gl-b1300"
    "glinet_gl-mt1300"
    "glinet_gl-mt3000"
    "glinet_gl-mt300n-v2"
    "glinet_gl-mt6000"
    "linksys_wrt3200acm"
    "mt7621"
    "netgear_r6220"
    "raspberrypi_3-model-b"
    "raspberrypi_4-model-b"
    "raspberrypi_5-model-b"
    "raspberrypi_model-zero-w"
    "tplink_archer-c7"
    "x86_64"
    "xiaomi_redmi-router-ax6000"
    "xiaomi_redmi-router-ax6s"
};
