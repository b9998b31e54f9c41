//! Policy: who may reach whom, over which routes, with which capabilities.
//!
//! Pure: a policy and a [`Directory`] in, a [`Compiled`] out. No clock, no I/O, no caches that outlive a value.
//! Must not know: the state's model, HTTP, the database.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod ast;
mod bitset;
mod change_log;
mod checks;
mod compiled;
mod diagnostic;
mod directory;
mod filter;
mod hujson;
mod names;
mod parse;
mod posture;
mod preview;
mod ranges;
mod resolved;
mod resolved_set;
mod routes;
mod source_cache;
mod source_json;
mod ssh;
#[cfg(feature = "policy-tools")]
mod template;
mod why;

pub use ast::{CheckPeriod, ExtraRecord, Policy};
pub use change_log::Touched;
pub use compiled::{Compiled, RouteView};
pub use diagnostic::{Diagnostic, Position};
pub use directory::{Directory, Node, Owner, Posture, Role, User};
pub use hujson::{Kind, MAX_BYTES, Member, Value, parse as parse_hujson};
pub use names::{spelling, user_selector};
pub use parse::selector::protocol;
pub use preview::as_json;
#[cfg(feature = "policy-tools")]
pub use template::{TEMPLATES, template};
pub use why::{Cause, Why};

#[cfg(test)]
mod tests;
