//! hearth: a Tailscale-compatible control server, DERP relay and STUN responder in one binary.
//!
//! A functional core (protocols, state, map assembly: bytes and values in, bytes and values out),
//! one writer thread that commits before it publishes, and a thin async shell around both.
//! `ARCHITECTURE.md` has the map of modules and the life of a request.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests may write files and read clocks directly"
    )
)]

pub mod admin;
pub mod api;
pub mod backup;
pub mod cli;
pub mod config;
pub mod control;
pub mod engine;
pub mod files;
pub mod interfaces;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod outbound;
pub mod panics;
pub mod qr;
pub mod relay;
pub mod relay_key;
pub mod routes;
pub mod server;
pub mod service;
pub mod shutdown;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod store;
pub mod supervise;
pub mod system_clock;
pub mod web;
