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
//! 3. The host program decides by `Admit`; a refused client is closed without a frame. Relay:
//!    `ServerInfo`.
//! 4. Client: `SendPacket` to a key. Relay: `RecvPacket` to the connection of that key.
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

pub mod frame;
pub mod handshake;
pub mod http;
pub mod key;
pub mod nacl;
pub mod stun;

pub use key::{Key, ServerSecret};
