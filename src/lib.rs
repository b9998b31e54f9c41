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

pub mod api;
pub mod bucket;
pub mod cli;
pub mod clock;
pub mod config;
pub mod derp_map;
pub mod doctor;
pub mod engine;
pub mod files;
pub mod http;
pub mod id;
pub mod interfaces;
pub mod keys;
pub mod logging;
pub mod netmap;
pub mod noise;
pub mod panics;
pub mod policy;
pub mod qr;
pub mod release;
pub mod server;
pub mod service;
pub mod shutdown;
pub mod state;
pub mod store;
pub mod supervise;
pub mod tailcfg;
pub mod tls;
pub mod wan;
