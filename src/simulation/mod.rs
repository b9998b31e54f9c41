//! The whole server in a simulation: real parts of the server, on one thread, with a clock, a network and a disk that a
//! seed decides about, and devices and an administrator that use it. After each step of a plan the invariants are looked
//! at; a plan that fails is made shorter, and printed with the command that runs it again.
//!
//! More of it: `HEARTH_SIMULATION_ROUNDS=1000 HEARTH_SIMULATION_SEED=1 cargo test --lib simulation -- --nocapture`.

mod device;
mod errors;
mod facts;
mod invariants;
mod machine;
mod network;
mod plan;
mod relay;
mod shrink;
mod tests;
mod world;

use std::time::Duration;

/// Most connections that the server takes.
const CONNECTIONS: usize = 64;
/// How long the keys of nodes live.
const LOGIN: Duration = Duration::from_secs(20 * 24 * 60 * 60);
