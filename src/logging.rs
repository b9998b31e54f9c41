//! Log output and log level.
//!
//! What is logged comes from peers, too: `Escaped` keeps it from ending a line, from beginning one with a priority of
//! its own, and from controlling a terminal.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::LogLevel;

/// Changes the log level at runtime.
#[derive(Debug, Clone)]
pub struct LogControl(reload::Handle<Targets, Registry>);

impl LogControl {
    /// Sets the log level.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only when logging has ended, at the exit of the program.
        let _ = self.0.reload(filter(level));
    }
}

/// The environment variable with device and inode of the stream to the journal. Source: `systemd.exec(5)`.
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// Starts logging to standard error, for procd, systemd and terminals. Lines for the journal have a priority and no
/// time, which the journal adds itself.
///
/// # Errors
/// If logging has been started already.
pub fn start(level: LogLevel) -> Result<LogControl, TryInitError> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer().fmt_fields(Escaped).with_writer(io::stderr);
    let lines = match is_journal() {
        true => lines.with_ansi(false).event_format(Journal).boxed(),
        false => lines
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .with_target(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()?;
    Ok(LogControl(handle))
}

/// Own lines from `level` on. Those of libraries only where everything is wanted: h2 warns at each odd frame of a peer, as
/// often as the peer likes.
fn filter(level: LogLevel) -> Targets {
    let (own, libraries) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::ERROR),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::DEBUG),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    // Also those of hearth-core and hearth-derp.
    Targets::new()
        .with_target("hearth", own)
        .with_default(libraries)
}

/// Whether standard error is connected to the journal, and was not redirected since systemd set the variable.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var(JOURNAL_VARIABLE) else {
        return false;
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let stderr = stderr.and_then(|stderr| File::from(stderr).metadata());
    stderr.is_ok_and(|stderr| is_stream(&stream, stderr.dev(), stderr.ino()))
}

/// Whether the variable contains this file, as `device:inode`.
fn is_stream(variable: &str, device: u64, inode: u64) -> bool {
    let named = variable.split_once(':');
    named.is_some_and(|(first, second)| first.parse() == Ok(device) && second.parse() == Ok(inode))
}

/// Format of the message and the fields of all lines: control characters, and those that reorder text or cannot be
/// seen, are written as escapes.
struct Escaped;

impl<'writer> FormatFields<'writer> for Escaped {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> std::fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        for symbol in text.chars() {
            match symbol {
                symbol if is_harmless(symbol) => writer.write_char(symbol)?,
                symbol => write!(writer, "{}", symbol.escape_default())?,
            }
        }
        Ok(())
    }
}

/// Whether a character shows as itself, where it is. Control characters are C0, DEL and C1; the others are those of
/// Unicode TR 36 section 2.4 (bidirectional controls), line separators, and characters without a width.
fn is_harmless(symbol: char) -> bool {
    !symbol.is_control()
        && !matches!(symbol,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Format of a line for the journal: `<priority>` and the fields. Source: `sd-daemon(3)`.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// The syslog priority. Source: `syslog(3)`.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What a line of each format looks like.
    fn logged(log: impl Fn()) -> [String; 2] {
        [true, false].map(|is_journal| {
            let bytes = Arc::new(Mutex::new(Vec::new()));
            let sink = bytes.clone();
            let writer = move || Sink(sink.clone());
            let lines = fmt::layer()
                .fmt_fields(Escaped)
                .with_ansi(false)
                .with_writer(writer);
            let lines = match is_journal {
                true => lines.event_format(Journal).boxed(),
                false => lines.with_target(false).boxed(),
            };
            let subscriber = tracing_subscriber::registry().with(lines);
            tracing::subscriber::with_default(subscriber, &log);
            String::from_utf8(bytes.lock().unwrap().clone()).unwrap()
        })
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_peers_send_makes_no_line_of_its_own_and_controls_no_terminal() {
        let hostile =
            "a\n<0>kernel: panic\r\u{1b}[2J\u{7f}\u{9b}31m\u{202e}gpj\u{200b}\u{2066}\u{2028}\0\tb";
        for lines in [
            logged(|| tracing::info!(user = hostile, "SSH check")),
            logged(|| tracing::info!(user = %hostile, host = ?hostile, "SSH check")),
            logged(|| tracing::warn!("{hostile}")),
            logged(|| tracing::warn!(fault = %io::Error::other(hostile), "failed")),
        ] {
            let [journal, terminal] = &lines;
            assert!(
                journal.starts_with("<6>") || journal.starts_with("<4>"),
                "{journal:?}"
            );
            for line in &lines {
                assert_eq!(line.matches('\n').count(), 1, "{line:?}");
                assert!(
                    line.trim_end_matches('\n').chars().all(is_harmless),
                    "{line:?}"
                );
                assert!(line.contains("panic") && line.contains("gpj"), "{line:?}");
            }
            assert!(terminal.contains("1b"), "{terminal:?}");
        }
    }

    #[test]
    fn other_languages_are_logged_as_they_are() {
        let names = "J\u{fc}rgens Caf\u{e9} \u{6211}\u{7684} \u{1f600} \u{5d0}";
        for line in logged(|| tracing::info!(names, "{names}")) {
            assert_eq!(line.matches(names).count(), 2, "{line:?}");
        }
    }

    #[test]
    fn the_journal_is_recognized_by_its_stream() {
        assert!(is_stream("8:1234", 8, 1234));
        for other in ["8:1235", "9:1234", "8", "", ":", "8:1234:1", "x:y"] {
            assert!(!is_stream(other, 8, 1234), "{other}");
        }
    }

    #[test]
    fn what_libraries_warn_of_is_not_logged() {
        let normal = filter(LogLevel::Info);
        for target in ["hearth", "hearth::engine::journal", "hearth_derp::relay"] {
            assert!(normal.would_enable(target, &Level::INFO), "{target}");
            assert!(!normal.would_enable(target, &Level::DEBUG), "{target}");
        }
        assert!(!normal.would_enable("h2::proto::ping_pong", &Level::WARN));
        let all = filter(LogLevel::Debug);
        assert!(all.would_enable("h2::proto::ping_pong", &Level::DEBUG));
    }

    #[test]
    fn priorities_follow_the_log_level() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG];
        assert_eq!(levels.map(priority), [3, 4, 6, 7]);
    }
}
