//! Control protocol: requests of clients inside the Noise session.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod activity;
pub mod c2n;
pub mod c2n_reply;
pub mod coalesce;
pub mod context;
mod convert;
pub mod full_map_turns;
pub mod key;
pub mod map;
pub mod map_streams;
pub mod newcomers;
mod node_auth;
pub mod noise_stream;
pub mod register;
pub mod reports;
pub mod route_failover;
pub mod ssh_action;
pub mod ts2021;
pub mod unsupported;
