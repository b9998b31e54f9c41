//! Status that parts of the server publish for others to read.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod addresses;
pub mod client_reports;
pub mod copies;
pub mod http_counters;
pub mod names;
pub mod policy;
pub mod public_url;
pub mod relay;
pub mod ssh_checks;
pub mod wan;
