//! A configuration file as it is written: values by dotted key, each with its position.
//!
//! Must not know: how TOML and JSON are parsed (see `toml_text` and `json_text`), nor what keys mean, but for
//! what `keys` says: which of them must not become more open because they cannot be read. That is the case
//! for a key with an invalid value, for one that an unknown key may mean, for one that a text with a syntax
//! error mentions, and for all of them if there is no text, or for those that were not read if it ends too early. What any
//! other text does not mention was not written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::fault::{ConfigFault, Location, Warning};
use super::keys::{self, Damaged, Name};
use super::mentions::{Mention, mentions};
use super::near::nearest;
use super::raw::{Entry, RawTable, RawValue, Spot};
use super::value::{Amount, Range, Setting};
use super::{json_text, toml_text};

/// Most invalid items of one list that are named.
const ITEMS_NAMED: usize = 8;

/// The suffix of a file that holds JSON; all others hold TOML.
const JSON_SUFFIX: &str = "json";

/// Why a file with NUL bytes is not read. A file system without journal leaves such files after a power failure.
const NUL_BYTES: &str = "it has NUL bytes, as after a power failure; restore it from a backup";

/// The keys of a file that have not been taken yet, and the faults found so far.
#[derive(Debug, Default)]
pub struct RawConfig {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    sections: BTreeMap<String, Spot>,
    locations: BTreeMap<&'static str, Location>,
    known: Vec<&'static str>,
    warnings: Vec<Warning>,
    /// Keys of `keys` that are written, or may be, and cannot be read.
    damaged: BTreeSet<&'static str>,
    /// Those among them that have a warning of their own.
    named: BTreeSet<&'static str>,
    /// Whether a part of the file was lost: it cannot be read, or has a syntax error.
    is_broken: bool,
    /// Whether the text ends too early, so that anything may be missing.
    is_cut: bool,
    /// What a text with syntax errors mentions, and whether the line has an error.
    mentions: Vec<(Mention, bool)>,
}

impl RawConfig {
    /// No file: every key has its default.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads a file. A file that cannot be read, has NUL bytes, or has been emptied is a warning; then all keys that
    /// restrict something count as damaged. Invalid UTF-8 is a warning and is replaced.
    pub fn read(path: &Path) -> Self {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return Self::lost(path, unreadable(&error.to_string())),
        };
        // Not `/dev/null`, which some name to have no settings.
        let is_file = || std::fs::metadata(path).is_ok_and(|found| found.is_file());
        if is_blank(&bytes) && is_file() {
            let fill = match is_json(path) {
                true => "{}",
                false => "# no settings",
            };
            return Self::lost(path, ConfigFault::Emptied { fill });
        }
        if bytes.contains(&0) {
            return Self::lost(path, unreadable(NUL_BYTES));
        }
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

    /// A file of which nothing can be read.
    fn lost(path: &Path, fault: ConfigFault) -> Self {
        Self {
            path: path.into(),
            warnings: vec![Warning {
                location: Some(Location::whole(path)),
                fault,
            }],
            damaged: keys::restrictive().collect(),
            is_broken: true,
            ..Self::default()
        }
    }

    /// Parses a text: as JSON if the name of the file ends in `.json`, else as TOML. After a syntax error
    /// in TOML the rest of the file is used: a lost `data_dir` would start another, empty server.
    pub fn parse(path: PathBuf, text: &str) -> Self {
        let is_json = is_json(&path);
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
            is_broken: !parsed.faults.is_empty() || parsed.is_cut,
            is_cut: parsed.is_cut,
            ..Self::default()
        };
        for (spot, fault) in parsed.faults {
            raw.warn(Some(raw.locate(spot)), fault);
        }
        if raw.is_cut {
            let end = Spot::of_byte(text, text.len());
            raw.warn(Some(raw.locate(end)), ConfigFault::CutOff);
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
        let is_object = || {
            let text = text.trim_start_matches('\u{feff}');
            text.trim_start().starts_with('{')
        };
        if raw.is_broken && is_json && !is_object() {
            raw.damaged = keys::restrictive().collect();
        } else if raw.is_broken {
            let mentions = mentions(text).into_iter();
            let with_state = mentions.map(|mention| {
                let is_broken = broken_lines.contains(&mention.line);
                (mention, is_broken)
            });
            let counts = |(mention, is_broken): &(Mention, bool)| mention.is_key || *is_broken;
            raw.mentions = with_state.filter(counts).collect();
        }
        raw
    }

    /// Closes the keys that restrict something and were not read, but may be written: those that a text with syntax
    /// errors mentions, and those that unknown keys may mean, by another spelling or in a wrong section.
    pub fn close_possibly_meant(&mut self, is_known: impl Fn(&str) -> bool) {
        for (mention, is_broken) in std::mem::take(&mut self.mentions) {
            let name = mention.name();
            let is_read = is_known(&name) && self.entries.contains_key(&name);
            if !is_broken && (is_read || mention.is_joined) {
                continue;
            }
            for key in keys::restrictive().filter(|key| mention.may_mean(key, is_broken)) {
                // A line with an error may contradict what another line says.
                if is_broken {
                    self.entries.remove(key);
                }
                if !self.entries.contains_key(key) {
                    self.damaged.insert(key);
                }
            }
        }
        let mut damaged = BTreeSet::new();
        if self.is_cut {
            let missing = keys::restrictive().filter(|key| !self.entries.contains_key(*key));
            damaged.extend(missing);
        }
        for (name, entry) in &self.entries {
            if is_known(name) {
                continue;
            }
            for name in written(name, &entry.value) {
                // A key of another section, below the wrong header.
                let misplaced = name.split_once('.').filter(|(_, key)| is_known(key));
                if let Some((_, misplaced)) = misplaced {
                    damaged.extend(keys::restrictive().filter(|key| *key == misplaced));
                    continue;
                }
                let leaf = name.rsplit('.').next().unwrap_or_default();
                let is_limit = is_known(&format!("limits.{leaf}"));
                let (whole, leaf) = (Name::of(&name), Name::of(leaf));
                // With a header lost, a key is in another section than its own.
                let is_meant = |key: &&str| {
                    whole.may_mean(key)
                        || !is_limit && whole.may_be_section_of(key)
                        || self.is_broken && leaf.may_mean(key)
                };
                let missing = keys::restrictive().filter(|key| !self.entries.contains_key(*key));
                damaged.extend(missing.filter(is_meant));
            }
        }
        self.damaged.extend(damaged);
    }

    /// Whether `key` restricts something, and is written, or may be, but cannot be read.
    pub fn is_damaged(&self, key: &str) -> bool {
        self.damaged.contains(key)
    }

    /// Whether something more closed than the default applies for a key that cannot be read.
    pub fn is_closed(&self) -> bool {
        let mut damaged = self.damaged.iter();
        damaged.any(|key| matches!(keys::damaged(key), Damaged::Closed(_)))
    }

    /// Whether a part of the file was lost: it cannot be read, or has a syntax error.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Says that it does not matter whether `key` can be read, because a flag takes precedence over it.
    pub fn ignore(&mut self, key: &str) {
        self.damaged.remove(key);
    }

    /// Takes the value of `key`; `default` if it is missing, and `closed` if it cannot be read.
    pub fn take_or<T: Setting>(&mut self, key: &'static str, default: T, closed: T) -> T {
        let value = self.take(key);
        value.unwrap_or(match self.is_damaged(key) {
            true => closed,
            false => default,
        })
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
            let fault = ConfigFault::BadValue {
                key,
                expected: T::EXPECTED,
                reason: T::reason(&entry.value),
                instead: self.close(key),
            };
            self.warn(Some(self.locate(entry.value_at)), fault);
            return None;
        }
        for item in T::skipped(&entry.value).into_iter().take(ITEMS_NAMED) {
            let reason = format!("{}; expected {}", item.value.shown(), T::EXPECTED);
            let location = Some(self.locate(item.at));
            self.warn(location, ConfigFault::BadItem { key, reason });
        }
        value
    }

    /// Makes a key count as damaged. Says what applies instead; `None` is the default.
    fn close(&mut self, key: &'static str) -> Option<&'static str> {
        let damaged = keys::damaged(key);
        if damaged != Damaged::Default {
            self.damaged.insert(key);
            self.named.insert(key);
        }
        match damaged {
            Damaged::Closed(instead) => Some(instead),
            Damaged::Default | Damaged::ClosedDefault => None,
        }
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
    pub fn close_table(&mut self, table: RawTable, prefix: &str, known: &[&str]) {
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
        let value_at = value_at.map(|at| self.locate(at));
        self.out_of_range(key, value_at, &range.least.show(), &range.most.show());
        None
    }

    /// Records that the value of a key is too small or too large.
    pub fn out_of_range(
        &mut self,
        key: &'static str,
        location: Option<Location>,
        least: &str,
        most: &str,
    ) {
        let fault = ConfigFault::OutOfRange {
            key,
            least: least.to_owned(),
            most: most.to_owned(),
            instead: self.close(key),
        };
        self.warn(location, fault);
    }

    /// The location of a key that was taken; `None` if it is not in the file.
    pub fn location_of(&self, key: &str) -> Option<Location> {
        self.locations.get(key).cloned()
    }

    /// Records a fault.
    pub fn warn(&mut self, location: Option<Location>, fault: ConfigFault) {
        self.warnings.push(Warning { location, fault });
    }

    /// All warnings in the order of the file; keys that nobody took are unknown. The last one says what applies in
    /// place of damaged keys without a warning of their own.
    pub fn finish(mut self) -> Vec<Warning> {
        let entries = std::mem::take(&mut self.entries);
        let names = self.known.iter().filter_map(|key| key.split_once('.'));
        let known: BTreeSet<&str> = names.map(|(section, _)| section).collect();
        let is_unknown = |name: &str| !name.is_empty() && !known.contains(name);
        let mut unknown = Vec::new();
        for (name, at) in &self.sections {
            if is_unknown(name) {
                let near = nearest(name, known.iter().copied()).map(str::to_owned);
                let (what, name) = ("section", name.clone());
                unknown.push((*at, ConfigFault::Unknown { what, name, near }));
            }
        }
        for (name, entry) in &entries {
            if is_unknown(keys::parts(name).0) {
                continue;
            }
            for name in flat(name, &entry.value) {
                unknown.push((entry.name_at, self.unknown_key(name)));
            }
        }
        for (at, fault) in unknown {
            self.warn(Some(self.locate(at)), fault);
        }
        self.warnings.sort_by(|a, b| a.location.cmp(&b.location));
        let silent = self.damaged.difference(&self.named);
        let instead: BTreeSet<&str> = silent
            .filter_map(|key| match keys::damaged(key) {
                Damaged::Closed(instead) => Some(instead),
                Damaged::Default | Damaged::ClosedDefault => None,
            })
            .collect();
        if !instead.is_empty() {
            let instead = instead.into_iter().collect::<Vec<_>>().join("; ");
            let location = Some(Location::whole(&self.path));
            self.warn(location, ConfigFault::Closed { instead });
        }
        self.warnings
    }

    /// What is wrong with an unknown key: a slip, or a key of another section, such as a line at the end of a file.
    /// A key of another section with another meaning is not suggested.
    fn unknown_key(&self, name: String) -> ConfigFault {
        let (section, inside) = keys::parts(&name);
        let header = self.sections.get(section).map(|at| at.line);
        let word = keys::plain(if header.is_some() { inside } else { &name });
        let known = || self.known.iter().copied();
        let whole = known().find(|key| *key == word);
        let slip = || {
            let siblings = || known().filter(|key| keys::parts(key).0 == section);
            let last = nearest(&word, siblings().map(|key| keys::parts(key).1))?;
            siblings().find(|key| keys::parts(key).1 == last)
        };
        // A word that says everything without its section. A limit may have the name of anything.
        let is_speaking = |key: &&str| {
            let (home, last) = keys::parts(key);
            last == word && home != "limits" && !keys::is_generic(last)
        };
        let (slip, moved) = match header {
            Some(_) if whole.is_some() => (None, whole),
            Some(_) => (slip(), known().find(is_speaking)),
            None => (nearest(&word, known()), known().find(is_speaking)),
        };
        let is_elsewhere = |key: &&str| keys::parts(key).0 != section;
        // A value where a section belongs.
        let is_header = || {
            section.is_empty() && !word.is_empty() && known().any(|key| keys::parts(key).0 == word)
        };
        let header_of = || is_header().then(|| format!("[{word}]"));
        match (slip, moved.filter(is_elsewhere), header) {
            (None, Some(key), Some(line)) => ConfigFault::Misplaced {
                section: section.to_owned(),
                line,
                belongs_at: self.sections.get(keys::parts(key).0).map(|at| at.line),
                key,
                name,
            },
            (near, _, _) => ConfigFault::Unknown {
                what: "key",
                near: near
                    .or(moved)
                    .map_or_else(header_of, |key| Some(key.to_owned())),
                name,
            },
        }
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

/// Whether the name of a file says that it holds JSON.
fn is_json(path: &Path) -> bool {
    let suffix = path.extension();
    suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(JSON_SUFFIX))
}

/// Whether nothing is written in a file: no bytes, or white space and NUL bytes alone. Nobody writes such a file, but a power
/// failure leaves one where settings were.
fn is_blank(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut bytes = bytes.iter();
    bytes.all(|byte| *byte == 0 || byte.is_ascii_whitespace())
}

fn unreadable(reason: &str) -> ConfigFault {
    let reason = reason.to_owned();
    ConfigFault::Unreadable { reason }
}

/// The name of an entry, or of each value in it if it is a table: `a.b.c = 1` inside of a section.
fn flat(name: &str, value: &RawValue) -> Vec<String> {
    match value {
        RawValue::Table(table) if !table.entries.is_empty() => {
            let inside = table.entries.iter();
            let names =
                inside.flat_map(|(inner, entry)| flat(&format!("{name}.{inner}"), &entry.value));
            names.collect()
        }
        _ => vec![name.to_owned()],
    }
}

/// The names that an entry writes: those of [`flat`], and those in a list of tables.
fn written(name: &str, value: &RawValue) -> Vec<String> {
    let mut names = flat(name, value);
    if let RawValue::List(items) = value {
        let tables = items.iter().map(|item| &item.value);
        let tables = tables.filter(|value| matches!(value, RawValue::Table(_)));
        names.extend(tables.flat_map(|table| flat(name, table)));
    }
    names
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
            warnings_of("data_dir = \"\"\n[derp]\nenabled = \"maybe\"\nport = -1\n"),
            [
                "hearth.toml:1:12: invalid value for `data_dir`: expected a path (using the default)",
                "hearth.toml:3:11: invalid value for `derp.enabled`: expected `true` or `false` (until it is fixed: the relay is off)",
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
    fn a_missing_file_is_named_with_what_applies_instead() {
        let raw = RawConfig::read(Path::new("/nonexistent/hearth.toml"));
        let warnings = raw.finish();
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[1]
                .to_string()
                .contains("new devices need approval")
        );
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
