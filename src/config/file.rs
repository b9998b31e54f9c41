//! A configuration file as it is written: values by dotted key, each with its place.
//!
//! Must not know: which keys there are. Whoever takes a key makes it known; what nobody took is
//! unknown. Nor how TOML and JSON are read: that is with `toml_text` and `json_text`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::near::nearest;
use super::value::{Amount, List, Range, Setting};
use super::{json_text, toml_text};

/// What a file's name ends in when it holds JSON; all others hold TOML.
const JSON_SUFFIX: &str = "json";

/// A value of the file. Sections are taken apart and do not occur, except inside a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawValue {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// A number with a fraction, as it is written.
    Fraction(String),
    /// A list of strings.
    Texts(Vec<String>),
    /// A table inside a section.
    Table(RawTable),
    /// A list of tables.
    Tables(Vec<RawTable>),
    /// Anything else, by what the language calls it.
    Other(&'static str),
}

/// A table inside a section: its keys are taken one by one, like those of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTable {
    at: Spot,
    entries: BTreeMap<String, Entry>,
}

impl RawTable {
    /// A table that begins at a place.
    pub(super) fn new(at: Spot, entries: BTreeMap<String, Entry>) -> Self {
        Self { at, entries }
    }

    /// The names of the keys that nobody has taken yet.
    pub fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }
}

impl Setting for RawTable {
    const EXPECTED: &'static str = "a table";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Table(table) => Some(table.clone()),
            _ => None,
        }
    }
}

impl Setting for List<RawTable> {
    const EXPECTED: &'static str = "a list of tables";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Tables(tables) => Some(Self(tables.clone())),
            RawValue::Texts(texts) if texts.is_empty() => Some(Self(Vec::new())),
            _ => None,
        }
    }
}

impl RawValue {
    /// A list of values of one kind, which may be texts or tables.
    pub(super) fn list(items: Vec<Self>) -> Self {
        let texts = items.iter().map(|item| match item {
            Self::Text(text) => Some(text.clone()),
            _ => None,
        });
        if let Some(texts) = texts.collect() {
            return Self::Texts(texts);
        }
        let tables = items.into_iter().map(|item| match item {
            Self::Table(table) => Some(table),
            _ => None,
        });
        let tables: Option<Vec<RawTable>> = tables.collect();
        tables.map_or(Self::Other("list"), Self::Tables)
    }
}

/// A place in a text; both start at 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Spot {
    /// Where a text begins.
    pub const START: Self = Self { line: 1, column: 1 };

    /// Where the byte at `at` of a text stands.
    pub(super) fn of_byte(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count().saturating_add(1),
            column: line.chars().count().saturating_add(1),
        }
    }
}

/// A place in a file; lines and columns start at 1, columns count characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, or 0 for the file as a whole.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The file as a whole.
    pub fn whole(path: &Path) -> Self {
        Self {
            path: path.into(),
            line: 0,
            column: 0,
        }
    }

    fn at(path: &Path, spot: Spot) -> Self {
        Self {
            path: path.into(),
            line: spot.line,
            column: spot.column,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match self.line {
            0 => Ok(()),
            line => write!(f, ":{line}:{}", self.column),
        }
    }
}

/// What is wrong with a configuration. None of these stops the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error("cannot be read: {reason} (using the defaults)")]
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// The file is not TOML at this place.
    #[error("{message} (using what can be read of the file)")]
    Syntax {
        /// What the parser said.
        message: String,
    },
    /// The file is not JSON. Unlike TOML it has no lines from which to go on.
    #[error("{message} (using the defaults)")]
    NotJson {
        /// What the parser said.
        message: String,
    },
    /// A byte of the file belongs to no character.
    #[error("this is no UTF-8 (using U+FFFD in its place)")]
    NotUtf8,
    /// There is no such key or section.
    #[error("unknown {what} `{name}`{}", offer(.near))]
    Unknown {
        /// `key` or `section`.
        what: &'static str,
        /// The dotted name as written.
        name: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// A key has a value that it cannot have.
    #[error("`{key}` has a bad value: expected {expected} (using the default)")]
    BadValue {
        /// The dotted name.
        key: &'static str,
        /// What the key expects.
        expected: &'static str,
    },
    /// A key has a value that is too small or too large.
    #[error("`{key}` is out of range: it goes from {least} to {most} (using the default)")]
    OutOfRange {
        /// The dotted name.
        key: &'static str,
        /// The smallest value.
        least: String,
        /// The largest value.
        most: String,
    },
    /// One key is given without another that it needs.
    #[error("`{key}` needs `{missing}` as well (ignoring it)")]
    Alone {
        /// The key that is given.
        key: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// An item of a list or table cannot be used.
    #[error("an item of `{key}` is left out: {reason}")]
    BadItem {
        /// The dotted name of the list or table.
        key: &'static str,
        /// Why.
        reason: String,
    },
    /// The name of the server would be hidden by the tailnet's own names.
    #[error("`base_domain` must not hold the host of `server_url` (using {instead})")]
    HostInBaseDomain {
        /// The base domain that is used.
        instead: String,
    },
    /// The server has no address that other machines could reach.
    #[error(
        "this machine has no private address: set `server_url`, else only clients on this machine can connect"
    )]
    NoHomeAddress,
    /// The carrier uses the addresses that nodes get.
    #[error(
        "{interface} has the address {address}, and nodes get theirs from the same range: traffic to one may end at the other; set `prefixes.v4 = \"{instead}\"`, restart, and run `hearth nodes backfill-ips`"
    )]
    CarrierAddress {
        /// The interface.
        interface: String,
        /// Its address.
        address: Ipv4Addr,
        /// A part of the range in which it is not.
        instead: &'static str,
    },
    /// There is no such board.
    #[error(
        "there is no board `{name}`{}; `hearth board list` shows all (using {instead})", offer(.near)
    )]
    UnknownBoard {
        /// What is written.
        name: String,
        /// What may have been meant.
        near: Option<String>,
        /// The board that is used.
        instead: String,
    },
    /// The limits allow more memory than the board has for hearth.
    #[error(
        "`limits` allow {needs} of memory, and {budget} fit {board}: under full load the system may end hearth (`hearth board` shows what needs how much)"
    )]
    OverBudget {
        /// What they allow.
        needs: String,
        /// What fits.
        budget: String,
        /// The board.
        board: String,
    },
    /// No listener is on.
    #[error("`listen.http` and `listen.https` are both off: no client can connect")]
    NoListener,
}

fn offer(near: &Option<String>) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::new(),
    }
}

/// A fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where, when it is in a file.
    pub place: Option<Place>,
    /// What.
    pub fault: Fault,
}

impl Warning {
    /// Whether it is what somebody wrote that is at fault, and not where the server runs.
    pub fn is_of_configuration(&self) -> bool {
        !matches!(
            self.fault,
            Fault::NoHomeAddress | Fault::CarrierAddress { .. } | Fault::OverBudget { .. }
        )
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}

/// A key of a table and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where the key stands.
    pub name_at: Spot,
    /// Where its value stands.
    pub value_at: Spot,
    /// The value.
    pub value: RawValue,
}

/// What is in the text of a file: its keys and sections, and what is no proper text.
pub(super) struct Written {
    /// The keys of the whole file. A section is a table among them.
    pub entries: BTreeMap<String, Entry>,
    /// Faults of the text.
    pub faults: Vec<(Spot, Fault)>,
}

/// The keys of a file that nobody has taken yet, and the faults found so far.
#[derive(Debug, Default)]
pub struct RawConfig {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    sections: BTreeMap<String, Spot>,
    places: BTreeMap<&'static str, Place>,
    known: Vec<&'static str>,
    warnings: Vec<Warning>,
}

impl RawConfig {
    /// No file at all: every key has its default.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads a file. One that cannot be read is a warning and counts as empty; one with bytes that are
    /// no UTF-8 is read without them.
    pub fn read(path: &Path) -> Self {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                return Self {
                    warnings: vec![Warning {
                        place: Some(Place::whole(path)),
                        fault: Fault::Unreadable {
                            reason: error.to_string(),
                        },
                    }],
                    ..Self::default()
                };
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(path.into(), &text),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let mut raw = Self::parse(path.into(), &text);
                raw.warn(Some(raw.place(Spot::of_byte(&text, good))), Fault::NotUtf8);
                raw
            }
        }
    }

    /// Takes a text apart: as JSON when the file is called so, else as TOML. After a syntax error in
    /// TOML what can still be understood is used: a lost `data_dir` would start another, empty server.
    pub fn parse(path: PathBuf, text: &str) -> Self {
        let is_json = path
            .extension()
            .is_some_and(|suffix| suffix.eq_ignore_ascii_case(JSON_SUFFIX));
        let written = match is_json {
            true => json_text::read(text),
            false => toml_text::read(text),
        };
        // What the parser makes of a value on a line with a syntax error is a guess.
        let faults = written.faults.iter();
        let broken_lines: Vec<usize> = faults.map(|(spot, _)| spot.line).collect();
        let is_whole = |entry: &Entry| !broken_lines.contains(&entry.name_at.line);
        let mut raw = Self {
            path,
            ..Self::default()
        };
        for (spot, fault) in written.faults {
            raw.warn(Some(raw.place(spot)), fault);
        }
        for (name, entry) in written.entries {
            let RawValue::Table(section) = entry.value else {
                if is_whole(&entry) {
                    raw.entries.insert(name, entry);
                }
                continue;
            };
            for (key, entry) in section.entries {
                if is_whole(&entry) {
                    raw.entries.insert(format!("{name}.{key}"), entry);
                }
            }
            raw.sections.insert(name, entry.name_at);
        }
        raw
    }

    /// Whether `key` is in the file and not taken yet.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Takes the value of `key`; `None` when it is not there or, with a warning, bad.
    pub fn take<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        self.known.push(key);
        let entry = self.entries.remove(key)?;
        self.places.insert(key, self.place(entry.name_at));
        self.read_entry(key, &entry)
    }

    fn read_entry<T: Setting>(&mut self, key: &'static str, entry: &Entry) -> Option<T> {
        let value = T::read(&entry.value);
        if value.is_none() {
            self.warn(
                Some(self.place(entry.value_at)),
                Fault::BadValue {
                    key,
                    expected: T::EXPECTED,
                },
            );
        }
        value
    }

    /// Takes the value of `name` out of a table; in messages it is `key`.
    pub fn take_from<T: Setting>(
        &mut self,
        table: &mut RawTable,
        name: &str,
        key: &'static str,
    ) -> Option<T> {
        let entry = table.entries.remove(name)?;
        self.read_entry(key, &entry)
    }

    /// Keeps a fault of a whole table.
    pub fn warn_about(&mut self, table: &RawTable, fault: Fault) {
        self.warn(Some(self.place(table.at)), fault);
    }

    /// Ends a table of which all known keys have been taken: the others are unknown. `prefix` stands
    /// before its keys in messages.
    pub fn close(&mut self, table: RawTable, prefix: &str, known: &[&str]) {
        for (name, entry) in table.entries {
            let near = nearest(&name, known.iter().copied());
            let fault = Fault::Unknown {
                what: "key",
                near: near.map(|near| format!("{prefix}.{near}")),
                name: format!("{prefix}.{name}"),
            };
            self.warn(Some(self.place(entry.name_at)), fault);
        }
    }

    /// Like [`take`](Self::take), and the value must be in `range`.
    pub fn take_in_range<T: Amount>(&mut self, key: &'static str, range: Range<T>) -> Option<T> {
        let value_at = self.entries.get(key).map(|entry| entry.value_at);
        let value: T = self.take(key)?;
        if range.least <= value && value <= range.most {
            return Some(value);
        }
        self.warn(
            value_at.map(|at| self.place(at)),
            Fault::OutOfRange {
                key,
                least: range.least.show(),
                most: range.most.show(),
            },
        );
        None
    }

    /// Where a key that was taken stands; `None` when it is not in the file.
    pub fn place_of(&self, key: &str) -> Option<Place> {
        self.places.get(key).cloned()
    }

    /// Keeps a fault that somebody else found.
    pub fn warn(&mut self, place: Option<Place>, fault: Fault) {
        self.warnings.push(Warning { place, fault });
    }

    /// All warnings in the order of the file; what nobody took is unknown.
    pub fn finish(mut self) -> Vec<Warning> {
        let sections: Vec<&str> = self
            .known
            .iter()
            .filter_map(|key| key.split_once('.'))
            .map(|(section, _)| section)
            .collect();
        let mut unknown = Vec::new();
        for (name, at) in &self.sections {
            if sections.contains(&name.as_str()) {
                continue;
            }
            let inside = format!("{name}.");
            self.entries.retain(|key, _| !key.starts_with(&inside));
            unknown.push((*at, "section", name.clone(), sections.clone()));
        }
        for (name, entry) in &self.entries {
            unknown.push((entry.name_at, "key", name.clone(), self.known.clone()));
        }
        for (at, what, name, known) in unknown {
            let near = nearest(&name, known).map(str::to_owned);
            let place = self.place(at);
            self.warn(Some(place), Fault::Unknown { what, name, near });
        }
        self.warnings.sort_by(|a, b| a.place.cmp(&b.place));
        self.warnings
    }

    /// The dotted names of all keys that were taken.
    #[cfg(test)]
    pub fn known(&self) -> &[&'static str] {
        &self.known
    }

    fn place(&self, at: Spot) -> Place {
        Place::at(&self.path, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings_of(text: &str) -> Vec<String> {
        let mut raw = RawConfig::parse("hearth.toml".into(), text);
        let _: Option<bool> = raw.take("derp.enabled");
        let _: Option<usize> = raw.take("derp.port");
        let _: Option<String> = raw.take::<PathBuf>("data_dir").map(|_| String::new());
        raw.finish().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_a_near_match() {
        assert_eq!(
            warnings_of("data_dri = \"/x\"\n\n[derp]\n  enable = true\ncolour = 1\n"),
            [
                "hearth.toml:1:1: unknown key `data_dri`; did you mean `data_dir`?",
                "hearth.toml:4:3: unknown key `derp.enable`; did you mean `derp.enabled`?",
                "hearth.toml:5:1: unknown key `derp.colour`",
            ]
        );
    }

    #[test]
    fn an_unknown_section_is_named_once() {
        assert_eq!(
            warnings_of("[drep]\nenabled = true\nport = 1\n[empty]\n"),
            [
                "hearth.toml:1:2: unknown section `drep`; did you mean `derp`?",
                "hearth.toml:4:2: unknown section `empty`",
            ]
        );
    }

    #[test]
    fn a_bad_value_is_named_with_what_was_expected() {
        assert_eq!(
            warnings_of("data_dir = \"\"\n[derp]\nenabled = \"yes\"\nport = -1\n"),
            [
                "hearth.toml:1:12: `data_dir` has a bad value: expected a path (using the default)",
                "hearth.toml:3:11: `derp.enabled` has a bad value: expected `true` or `false` (using the default)",
                "hearth.toml:4:8: `derp.port` has a bad value: expected a whole number (using the default)",
            ]
        );
    }

    #[test]
    fn after_a_syntax_error_the_rest_of_the_file_counts() {
        let text = "socket = /x/y\ndata_dir = \"/x\"\n[derp]\nenabled = false\n";
        let mut raw = RawConfig::parse("hearth.toml".into(), text);
        assert_eq!(raw.take::<bool>("derp.enabled"), Some(false));
        assert_eq!(raw.take::<PathBuf>("data_dir"), Some("/x".into()));
        assert_eq!(raw.take::<PathBuf>("socket"), None);
        let warnings = raw.finish();
        assert_eq!(warnings.len(), 1);
        let place = warnings[0].place.as_ref().map(ToString::to_string);
        assert_eq!(place.as_deref(), Some("hearth.toml:1:10"));
        assert!(matches!(warnings[0].fault, Fault::Syntax { .. }));
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(
            warnings_of("\"größe\" = 1\n[derp]\nenabled = true\nport = { \"ü\" = 1 }\n"),
            [
                "hearth.toml:1:1: unknown key `größe`",
                "hearth.toml:4:8: `derp.port` has a bad value: expected a whole number (using the default)",
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_one_warning() {
        let raw = RawConfig::read(Path::new("/nonexistent/hearth.toml"));
        let warnings = raw.finish();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0]
                .to_string()
                .starts_with("/nonexistent/hearth.toml: cannot be read: ")
        );
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "nobody misses a file of a test")]
    fn a_byte_that_is_no_utf8_costs_a_warning_and_nothing_else() {
        for (name, text) in [
            (
                "hearth.json",
                &b"{\"derp\": {\n\"region_name\": \"caf\xe9\", \"enabled\": false}}"[..],
            ),
            (
                "hearth.toml",
                &b"[derp]\nregion_name = \"caf\xe9\"\nenabled = false\n"[..],
            ),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            let mut raw = RawConfig::read(&path);
            assert_eq!(raw.take::<bool>("derp.enabled"), Some(false));
            let region: Option<String> = raw.take("derp.region_name");
            assert_eq!(region.as_deref(), Some("caf\u{fffd}"));
            let warnings = raw.finish();
            assert_eq!(warnings.len(), 1);
            assert_eq!(warnings[0].fault, Fault::NotUtf8);
            assert_eq!(warnings[0].place.as_ref().map(|place| place.line), Some(2));
        }
    }
}
