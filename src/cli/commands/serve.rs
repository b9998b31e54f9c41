//! `hearth serve`, and how the relay alone is started.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::args::ServeFlags;
use crate::cli::output::{Format, print_error};
use crate::config::{Config, Surroundings};
use crate::logging::{self, LogControl};
use crate::server::ServeError;
use crate::service::Sockets;

/// Runs the server until it is stopped.
pub fn run(flags: ServeFlags, socket: Option<PathBuf>) -> ExitCode {
    start(flags, socket, |config, log, load, sockets| {
        crate::server::run(config, log, load, sockets)
    })
}

/// Reads the configuration, starts the log and then the server.
pub(super) fn start(
    flags: ServeFlags,
    socket: Option<PathBuf>,
    run: impl FnOnce(Config, &LogControl, &dyn Fn() -> Config, Sockets) -> Result<(), ServeError>,
) -> ExitCode {
    let sockets = Sockets::of_this_process();
    let overrides = sockets.override_flags(flags.overrides(socket));
    let load = || Config::load(overrides.clone(), &Surroundings::of_this_process());
    let config = load();
    let log = match logging::start(config.log_level) {
        Ok(log) => log,
        Err(fault) => {
            print_error(Format::Table, &fault.to_string(), None);
            return ExitCode::FAILURE;
        }
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match run(config, &log, &load, sockets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tracing::error!("{fault}");
            ExitCode::FAILURE
        }
    }
}
