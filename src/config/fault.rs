//! Faults of a configuration and where they are. None of them stops the server.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// A location in a file. Lines and columns start at 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file.
    pub path: PathBuf,
    /// The line, or 0 for the whole file.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Location {
    /// The whole file.
    pub fn whole(path: &Path) -> Self {
        Self {
            path: path.into(),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match self.line {
            0 => Ok(()),
            line => write!(f, ":{line}:{}", self.column),
        }
    }
}

/// A fault of a configuration. The text says what hearth does instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFault {
    /// The file cannot be read.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// The error of the system, or what is wrong with the file.
        reason: String,
    },
    /// A file in which nothing is written, not even a comment.
    #[error(
        "the file is empty, as after a power failure: restore its settings from a backup; if it is to have none, write `{fill}` into it"
    )]
    Emptied {
        /// What a file without settings has in its language.
        fill: &'static str,
    },
    /// A text that ends in the middle of a line or a value.
    #[error(
        "the file ends too early, as after a power failure, so more may be missing: restore it from a backup, or complete its last line"
    )]
    CutOff,
    /// A syntax error in TOML.
    #[error("{message} (using the rest of the file)")]
    Syntax {
        /// The error of the parser.
        message: String,
    },
    /// A syntax error in JSON. Unlike TOML it has no lines from which to go on.
    #[error("{message} (nothing in the file is used)")]
    NotJson {
        /// The error of the parser.
        message: String,
    },
    /// A byte that is not UTF-8.
    #[error("invalid UTF-8 (replaced with U+FFFD)")]
    NotUtf8,
    /// An unknown key or section.
    #[error("unknown {what} `{name}`{}", suggestion(.near))]
    Unknown {
        /// `key` or `section`.
        what: &'static str,
        /// The dotted name as written.
        name: String,
        /// The most similar known name.
        near: Option<String>,
    },
    /// A key that has no effect any more.
    #[error("`{key}` is no longer used (ignored)")]
    Retired {
        /// The dotted name.
        key: &'static str,
    },
    /// A key in a section that it does not belong to.
    #[error(
        "unknown key `{name}`: this line is inside [{section}], which begins at line {line}; `{key}` belongs {}",
        home(.key, *.belongs_at)
    )]
    Misplaced {
        /// The dotted name as it is read.
        name: String,
        /// The section that the line is in.
        section: String,
        /// Line of that section's header.
        line: usize,
        /// The key that is meant.
        key: &'static str,
        /// Line of the header of its section, if that is in the file.
        belongs_at: Option<usize>,
    },
    /// What applies in place of restrictive keys that are lost.
    #[error(
        "settings that cannot be read count as restrictive; until the file is fixed: {instead}"
    )]
    Closed {
        /// What applies.
        instead: String,
    },
    /// A value of the wrong type or form.
    #[error(
        "invalid value for `{key}`: {} ({})", reason.as_deref().map_or_else(|| format!("expected {expected}"), str::to_owned), used(.instead)
    )]
    BadValue {
        /// The dotted name.
        key: &'static str,
        /// What the key expects.
        expected: &'static str,
        /// Why it is invalid, if more is known.
        reason: Option<String>,
        /// What applies until it is fixed; `None` is the default.
        instead: Option<&'static str>,
    },
    /// A value that is too small or too large.
    #[error("`{key}` is out of range: allowed are {least} to {most} ({})", used(.instead))]
    OutOfRange {
        /// What applies until it is fixed; `None` is the default.
        instead: Option<&'static str>,
        /// The dotted name.
        key: &'static str,
        /// The smallest value.
        least: String,
        /// The largest value.
        most: String,
    },
    /// A key without another one that it requires.
    #[error("`{key}` requires `{missing}` (ignored)")]
    Alone {
        /// The key that is set.
        key: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// An invalid item of a list or table.
    #[error("invalid item in `{key}` (skipped): {reason}")]
    BadItem {
        /// The dotted name of the list or table.
        key: &'static str,
        /// Why it is invalid.
        reason: String,
    },
    /// MagicDNS would hide the name of the server.
    #[error("`base_domain` must not contain the host of `server_url` (using {instead})")]
    HostInBaseDomain {
        /// The base domain that is used.
        instead: String,
    },
    /// A base domain in which others answer.
    #[error("`base_domain` must not be `{domain}`: {reason} (using {instead})")]
    BadBaseDomain {
        /// The domain as written.
        domain: String,
        /// Who answers there.
        reason: &'static str,
        /// The base domain that is used.
        instead: String,
    },
    /// A base domain of one label, which may be a public one.
    #[error(
        "`base_domain = \"{domain}\"` is a top-level domain: devices can resolve no public name in it; use a name such as `{domain}.internal`"
    )]
    TopLevelBaseDomain {
        /// The domain.
        domain: String,
    },
    /// A program that would run as root.
    #[error(
        "`{key}` is never run as root, since anyone who can edit this file could then run anything: run hearth as a user of its own, as the packages do"
    )]
    ProgramAsRoot {
        /// The key.
        key: &'static str,
    },
    /// A URL that clients refuse, or would trust without reason.
    #[error(
        "`server_url` is plain HTTP with a public host: clients refuse it or can be deceived; use an `https://` URL or a private address"
    )]
    PlainAndPublic,
    /// A CGNAT address of this machine inside the prefix of the nodes.
    #[error(
        "{interface} has the CGNAT address {address}, which is inside the range of the nodes: traffic may go to the wrong one; set `prefixes.v4 = \"{instead}\"`, restart, and run `hearth nodes backfill-ips`"
    )]
    CarrierAddress {
        /// The interface.
        interface: String,
        /// Its address.
        address: Ipv4Addr,
        /// A range that does not contain it.
        instead: &'static str,
    },
    /// An unknown board.
    #[error(
        "unknown board `{name}`{} (using {instead}); `hearth board list` shows all boards", suggestion(.near)
    )]
    UnknownBoard {
        /// The name as written.
        name: String,
        /// The most similar known board.
        near: Option<String>,
        /// The board that is used.
        instead: String,
    },
    /// Limits above the memory budget of the board.
    #[error(
        "[limits] can use up to {needs} but the budget of {board} is {budget}; the kernel may kill hearth under load"
    )]
    OverBudget {
        /// The most memory that the limits allow.
        needs: String,
        /// The memory budget.
        budget: String,
        /// The board.
        board: String,
    },
    /// All listeners are off.
    #[error("`listen.http` and `listen.https` are both off: no client can connect")]
    NoListener,
}

/// What applies in place of a damaged key.
fn used(instead: &Option<&'static str>) -> String {
    match instead {
        Some(instead) => format!("until it is fixed: {instead}"),
        None => "using the default".to_owned(),
    }
}

/// Where a key belongs.
fn home(key: &str, line: Option<usize>) -> String {
    match (key.split_once('.'), line) {
        (None, _) => "above the first [section]".to_owned(),
        (Some((section, _)), Some(line)) => format!("under [{section}] (line {line})"),
        (Some((section, _)), None) => format!("under [{section}]"),
    }
}

fn suggestion(near: &Option<String>) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::new(),
    }
}

/// A fault and its location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The location, if the fault is in a file.
    pub location: Option<Location>,
    /// The fault.
    pub fault: ConfigFault,
}

impl Warning {
    /// Whether the fault is in the configuration itself, not in the machine that hearth runs on.
    pub fn is_of_configuration(&self) -> bool {
        !matches!(
            self.fault,
            ConfigFault::ProgramAsRoot { .. }
                | ConfigFault::CarrierAddress { .. }
                | ConfigFault::OverBudget { .. }
        )
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{location}: {}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}
