//! A configuration file as it is written: values by dotted key, each with its position.
//!
//! Must not know: which keys exist. Taking a key makes it known; a key that nobody took is unknown.
//! Nor how TOML and JSON are parsed: see `toml_text` and `json_text`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::fault::{ConfigFault, Location, Warning};
use super::near::nearest;
use super::raw::{Entry, RawTable, RawValue, Spot};
use super::value::{Amount, Range, Setting};
use super::{json_text, toml_text};

/// The suffix of a file that holds JSON; all others hold TOML.
const JSON_SUFFIX: &str = "json";

/// The keys of a file that have not been taken yet, and the faults found so far.
#[derive(Debug, Default)]
pub struct RawConfig {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    sections: BTreeMap<String, Spot>,
    locations: BTreeMap<&'static str, Location>,
    known: Vec<&'static str>,
    warnings: Vec<Warning>,
}

impl RawConfig {
    /// No file: every key has its default.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads a file. A file that cannot be read is a warning and counts as empty; invalid UTF-8 is a
    /// warning and is replaced.
    pub fn read(path: &Path) -> Self {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                return Self {
                    warnings: vec![Warning {
                        location: Some(Location::whole(path)),
                        fault: ConfigFault::Unreadable {
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
                raw.warn(
                    Some(raw.locate(Spot::of_byte(&text, good))),
                    ConfigFault::NotUtf8,
                );
                raw
            }
        }
    }

    /// Parses a text: as JSON if the name of the file ends in `.json`, else as TOML. After a syntax error
    /// in TOML the rest of the file is used: a lost `data_dir` would start another, empty server.
    pub fn parse(path: PathBuf, text: &str) -> Self {
        let is_json = path
            .extension()
            .is_some_and(|suffix| suffix.eq_ignore_ascii_case(JSON_SUFFIX));
        let parsed = match is_json {
            true => json_text::read(text),
            false => toml_text::read(text),
        };
        // What the parser makes of a value on a line with a syntax error is a guess.
        let faults = parsed.faults.iter();
        let broken_lines: Vec<usize> = faults.map(|(spot, _)| spot.line).collect();
        let is_intact = |entry: &Entry| !broken_lines.contains(&entry.name_at.line);
        let mut raw = Self {
            path,
            ..Self::default()
        };
        for (spot, fault) in parsed.faults {
            raw.warn(Some(raw.locate(spot)), fault);
        }
        for (name, entry) in parsed.entries {
            let RawValue::Table(section) = entry.value else {
                if is_intact(&entry) {
                    raw.entries.insert(name, entry);
                }
                continue;
            };
            for (key, entry) in section.entries {
                if is_intact(&entry) {
                    raw.entries.insert(format!("{name}.{key}"), entry);
                }
            }
            raw.sections.insert(name, entry.name_at);
        }
        raw
    }

    /// Whether `key` is in the file and has not been taken yet.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Takes the value of `key`; `None` if it is missing or, with a warning, invalid.
    pub fn take<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        self.known.push(key);
        let entry = self.entries.remove(key)?;
        self.locations.insert(key, self.locate(entry.name_at));
        self.read_entry(key, &entry)
    }

    /// Takes a key that has no effect any more. Suggestions do not name it.
    pub fn retire(&mut self, key: &'static str) {
        if let Some(entry) = self.entries.remove(key) {
            self.warn(
                Some(self.locate(entry.name_at)),
                ConfigFault::Retired { key },
            );
        }
    }

    fn read_entry<T: Setting>(&mut self, key: &'static str, entry: &Entry) -> Option<T> {
        let value = T::read(&entry.value);
        if value.is_none() {
            self.warn(
                Some(self.locate(entry.value_at)),
                ConfigFault::BadValue {
                    key,
                    expected: T::EXPECTED,
                },
            );
        }
        value
    }

    /// Takes the value of `name` from a table; messages call it `key`.
    pub fn take_from<T: Setting>(
        &mut self,
        table: &mut RawTable,
        name: &str,
        key: &'static str,
    ) -> Option<T> {
        let entry = table.entries.remove(name)?;
        self.read_entry(key, &entry)
    }

    /// Records a fault of a whole table.
    pub fn warn_about(&mut self, table: &RawTable, fault: ConfigFault) {
        self.warn(Some(self.locate(table.at)), fault);
    }

    /// Ends a table whose known keys have all been taken: the others are unknown. `prefix` precedes
    /// its keys in messages.
    pub fn close(&mut self, table: RawTable, prefix: &str, known: &[&str]) {
        for (name, entry) in table.entries {
            let near = nearest(&name, known.iter().copied());
            let fault = ConfigFault::Unknown {
                what: "key",
                near: near.map(|near| format!("{prefix}.{near}")),
                name: format!("{prefix}.{name}"),
            };
            self.warn(Some(self.locate(entry.name_at)), fault);
        }
    }

    /// Like [`take`](Self::take); the value must be in `range`.
    pub fn take_in_range<T: Amount>(&mut self, key: &'static str, range: Range<T>) -> Option<T> {
        let value_at = self.entries.get(key).map(|entry| entry.value_at);
        let value: T = self.take(key)?;
        if range.least <= value && value <= range.most {
            return Some(value);
        }
        self.warn(
            value_at.map(|at| self.locate(at)),
            ConfigFault::OutOfRange {
                key,
                least: range.least.show(),
                most: range.most.show(),
            },
        );
        None
    }

    /// The location of a key that was taken; `None` if it is not in the file.
    pub fn location_of(&self, key: &str) -> Option<Location> {
        self.locations.get(key).cloned()
    }

    /// Records a fault.
    pub fn warn(&mut self, location: Option<Location>, fault: ConfigFault) {
        self.warnings.push(Warning { location, fault });
    }

    /// All warnings in the order of the file; keys that nobody took are unknown.
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
            let location = self.locate(at);
            self.warn(Some(location), ConfigFault::Unknown { what, name, near });
        }
        self.warnings.sort_by(|a, b| a.location.cmp(&b.location));
        self.warnings
    }

    /// The dotted names of all keys that were taken.
    #[cfg(test)]
    pub fn known(&self) -> &[&'static str] {
        &self.known
    }

    fn locate(&self, at: Spot) -> Location {
        Location {
            path: self.path.clone(),
            line: at.line,
            column: at.column,
        }
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
    fn an_unknown_key_is_named_with_its_location_and_a_suggestion() {
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
    fn an_invalid_value_is_named_with_what_was_expected() {
        assert_eq!(
            warnings_of("data_dir = \"\"\n[derp]\nenabled = \"yes\"\nport = -1\n"),
            [
                "hearth.toml:1:12: invalid value for `data_dir`: expected a path (using the default)",
                "hearth.toml:3:11: invalid value for `derp.enabled`: expected `true` or `false` (using the default)",
                "hearth.toml:4:8: invalid value for `derp.port`: expected a whole number (using the default)",
            ]
        );
    }

    #[test]
    fn after_a_syntax_error_the_rest_of_the_file_is_used() {
        let text = "socket = /x/y\ndata_dir = \"/x\"\n[derp]\nenabled = false\n";
        let mut raw = RawConfig::parse("hearth.toml".into(), text);
        assert_eq!(raw.take::<bool>("derp.enabled"), Some(false));
        assert_eq!(raw.take::<PathBuf>("data_dir"), Some("/x".into()));
        assert_eq!(raw.take::<PathBuf>("socket"), None);
        let warnings = raw.finish();
        assert_eq!(warnings.len(), 1);
        let location = warnings[0].location.as_ref().map(ToString::to_string);
        assert_eq!(location.as_deref(), Some("hearth.toml:1:10"));
        assert!(matches!(warnings[0].fault, ConfigFault::Syntax { .. }));
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(
            warnings_of("\"größe\" = 1\n[derp]\nenabled = true\nport = { \"ü\" = 1 }\n"),
            [
                "hearth.toml:1:1: unknown key `größe`",
                "hearth.toml:4:8: invalid value for `derp.port`: expected a whole number (using the default)",
            ]
        );
    }

    #[test]
    fn a_missing_file_is_one_warning() {
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
    fn invalid_utf8_is_one_warning_and_nothing_else_is_lost() {
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
            assert_eq!(warnings[0].fault, ConfigFault::NotUtf8);
            assert_eq!(
                warnings[0].location.as_ref().map(|location| location.line),
                Some(2)
            );
        }
    }
}
