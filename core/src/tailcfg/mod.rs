//! JSON types of the control protocol, as far as hearth reads or writes them.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `tailcfg/derpmap.go`. Decoding is as lenient as Go's decoder
//! (names in any case, null for anything, unknown names ignored); encoding writes what every known
//! client accepts. Must not know: the domain types.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod capability;
pub mod derpmap;
pub mod dns;
pub mod fields;
pub mod filter;
pub mod hostinfo;
pub mod json;
pub mod map;
pub mod node;
pub mod notice;
pub mod register;
pub mod requests;
pub mod ssh_action;
