//! What hearth knows and decides, without I/O: protocols, state, policy and network maps.
//!
//! Bytes, values and the time go in; bytes and values come out. The manifest names neither tokio nor hyper
//! nor redb, so the compiler proves it.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests may write files and read clocks directly"
    )
)]

pub mod age;
pub mod backup;
pub mod clock;
pub mod derp_map_file;
pub mod disk;
pub mod doctor;
pub mod id;
pub mod keys;
pub mod netmap;
pub mod noise;
pub mod policy;
mod redacted;
pub mod release;
pub mod state;
pub mod tailcfg;
pub mod visible;
pub mod wan;
