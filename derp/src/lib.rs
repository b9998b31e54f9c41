//! A DERP relay and STUN responder for Tailscale clients.
//!
//! DERP ("Designated Encrypted Relay for Packets") carries packets between clients that know each
//! other only by public key. The packets are already encrypted end to end; the relay sees
//! addresses, sizes and times, no content.
//!
//! # Protocol flow
//! 1. The client asks for an HTTP upgrade of `/derp` ([`http`]). With `Derp-Fast-Start: 1` there is
//!    no HTTP answer.
//! 2. Relay: `ServerKey`. Client: `ClientInfo`, boxed, which proves that it owns its key
//!    ([`handshake`]).
//! 3. The host program decides by [`Admit`]; a refused client is closed without a frame. Relay:
//!    `ServerInfo`.
//! 4. Client: `SendPacket` to a key. Relay: `RecvPacket` to the connection of that key.
//!
//! Several relays can form one region: each connects to the others ([`link`]) with a shared key
//! ([`mesh`]), is told who is connected there, and forwards packets for them. A packet is forwarded
//! once at most.
//!
//! # How it is built
//! Everything but [`relay`] and [`udp`] is free of I/O and of clocks: it takes bytes and `now`, a
//! [`Duration`] since any fixed moment. [`relay`] and [`udp`] drive it with tokio and spawn no
//! task: the caller polls their futures.
//!
//! # Guarantees
//! - What a peer can make grow has a bound in bytes from [`Limits`]: partial frames and queued
//!   packets share one pool, each queue is bounded in packets and bytes, and the rest is a fixed
//!   amount for each connection.
//! - A slow reader never delays a sender: when its queue is full, its oldest packets are dropped
//!   and counted.
//! - The length of a frame is checked by its type before its body is buffered.
//! - Input from a peer cannot panic: this crate is compiled without `unwrap`, indexing or unchecked
//!   arithmetic.
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

pub mod address;
pub mod admit;
pub mod bucket;
pub mod conn;
mod deframer;
pub mod frame;
pub mod handshake;
pub mod http;
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

pub use admit::Admit;
pub use key::{Key, ServerSecret};
pub use limits::{Limits, Rates};
pub use mesh_key::MeshKey;
pub use registry::{CloseReason, ConnInfo};
pub use stats::Stats;
