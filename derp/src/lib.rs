//! A DERP relay and STUN responder for Tailscale clients.
//!
//! DERP ("Designated Encrypted Relay for Packets") forwards packets between clients, which are
//! addressed by public key. The packets are encrypted end to end; the relay sees addresses, sizes
//! and times, but no content.
//!
//! # Protocol flow
//! 1. The client requests an HTTP upgrade of `/derp` ([`headers`]). With `Derp-Fast-Start: 1` there is
//!    no HTTP response.
//! 2. Relay: `ServerKey`. Client: `ClientInfo` in a NaCl box, which proves that it owns its key
//!    ([`handshake`]).
//! 3. The host program decides about admission ([`Admit`]). Relay: `ServerInfo`, or it closes the
//!    connection without a frame.
//! 4. Client: `SendPacket` to a key. Relay: `RecvPacket` to the connection of that key.
//!
//! # Mesh
//! Several relays can form one region: each connects to the others ([`mesh_link`]) with a shared key
//! ([`mesh_key`]), subscribes to the presence of their clients, and forwards packets to them
//! (`registry/mesh.rs`). A packet is forwarded at most once.
//!
//! # Structure
//! All modules but [`relay`], [`udp`] and the stream of [`websocket`] are sans-IO: they take bytes
//! and `now`, a [`Duration`] since any fixed moment. [`relay`] and [`udp`] drive them with tokio and
//! spawn no task: the caller polls their futures.
//!
//! # Guarantees
//! - All memory that a peer can use is bounded by [`Limits`]: partial frames and queued packets share
//!   one pool, each queue is bounded in packets and bytes, and the rest is a fixed amount for each
//!   connection.
//! - Connections that have not logged in, strangers and known clients ([`Standing`]) each have places
//!   of their own. When these are used up, the address with the most connections (among known clients:
//!   the key) loses one.
//! - A slow receiver never delays a sender: when its queue is full, its oldest packets are dropped
//!   and counted.
//! - The length of a frame is checked by its type before its body is buffered.
//! - Input from a peer cannot panic: lints deny `unwrap`, indexing and unchecked arithmetic.
//!
//! [`Duration`]: std::time::Duration
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod admit;
pub mod conn;
mod deframer;
pub mod frame;
pub mod handshake;
pub mod headers;
pub mod key;
pub mod limits;
pub mod mesh_key;
pub mod mesh_link;
pub mod nacl;
pub mod outbox;
pub mod pool;
pub mod queue;
pub mod registry;
#[cfg(feature = "tokio")]
pub mod relay;
pub mod stats;
pub mod stun;
#[cfg(test)]
mod testing;
#[cfg(feature = "tokio")]
pub mod udp;
pub mod websocket;

pub use admit::{Admit, Standing};
pub use key::{Key, ServerSecret};
pub use limits::{Limits, Rates};
pub use mesh_key::MeshKey;
pub use registry::{CloseReason, ConnInfo};
pub use stats::Stats;
