//! Route table: method, path, access, body limit and handler of everything that is served. 404 and
//! 405 responses, metrics by route, the OpenAPI document and docs/api.md are made from it.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod api;
mod dispatch;
pub mod document;
#[cfg(feature = "standalone-relay")]
mod relay_only;
pub mod route;
pub mod table;
mod upgrades;

pub use api::answer as answer_api;
pub use dispatch::{MACHINE, Router};
#[cfg(feature = "standalone-relay")]
pub use relay_only::RelayOnly;
