//! Headscale's REST API v1.

pub mod convert;
pub mod keys;
pub mod nodes;
pub mod pending;
pub mod policy;
pub mod users;
