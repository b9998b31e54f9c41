//! Where log lines go and how many there are.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::LogLevel;

/// Changes the level of a running program.
#[derive(Debug, Clone)]
pub struct LogControl(reload::Handle<LevelFilter, Registry>);

impl LogControl {
    /// From now on this much is logged.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only when nothing is logged any more, at the end of the program.
        let _ = self.0.reload(filter(level));
    }
}

/// Sends log lines to standard error, where procd, systemd and terminals collect them.
///
/// # Errors
/// When the process logs already.
pub fn start(level: LogLevel) -> Result<LogControl, TryInitError> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::registry()
        .with(filter)
        .with(
            fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(colours)
                .with_target(false),
        )
        .try_init()?;
    Ok(LogControl(handle))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
