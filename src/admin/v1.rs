//! Headscale's REST API v1.

pub(super) mod convert;
mod keys;
pub(super) mod nodes;
mod pending;
pub(super) mod policy;
pub(super) mod users;
