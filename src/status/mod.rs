//! What parts of the server publish about themselves for others to read.

pub mod policy;
pub mod wan;
