//! The server as a whole.

use crate::config::Config;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
#[error("this build has no server")]
pub struct ServeError;

/// Runs the server until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part of it ends.
pub fn run(_config: Config) -> Result<(), ServeError> {
    Err(ServeError)
}
