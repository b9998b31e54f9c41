//! Policy: who may reach whom, over which routes, with which capabilities.
//!
//! Pure: a policy and a [`Directory`] in, a [`Compiled`] out. No clock, no I/O, no caches that outlive a value.
//! Must not know: the state's model, HTTP, the database.

mod compiled;
mod directory;

pub use compiled::{Compiled, RouteView, Touched};
pub use directory::{Directory, Node, Owner, Posture, Role, User};
