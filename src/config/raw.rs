//! Values of a configuration file with their positions, whatever language the file is written in.

use std::collections::BTreeMap;

use super::fault::ConfigFault;

/// A value of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawValue {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// A number with a fraction, as written.
    Fraction(String),
    /// A list of strings.
    Texts(Vec<String>),
    /// A table: a section, or a table inside a section.
    Table(RawTable),
    /// A list of tables.
    Tables(Vec<RawTable>),
    /// Anything else, by its name in the language.
    Other(&'static str),
}

impl RawValue {
    /// A list whose values are all strings or all tables; any other list is [`RawValue::Other`].
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

/// A table: its keys are taken one by one, like those of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTable {
    /// Where the table begins.
    pub(super) at: Spot,
    /// The keys that have not been taken yet.
    pub(super) entries: BTreeMap<String, Entry>,
}

impl RawTable {
    /// A table that begins at `at`.
    pub(super) fn new(at: Spot, entries: BTreeMap<String, Entry>) -> Self {
        Self { at, entries }
    }

    /// The names of the keys that have not been taken yet.
    pub fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }
}

/// A key of a table and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where the key is.
    pub name_at: Spot,
    /// Where the value is.
    pub value_at: Spot,
    /// The value.
    pub value: RawValue,
}

/// A position in a text. Lines and columns start at 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Spot {
    /// The position of the byte at `at`.
    pub(super) fn of_byte(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count().saturating_add(1),
            column: line.chars().count().saturating_add(1),
        }
    }
}

/// The result of parsing the text of a file.
pub(super) struct ParsedText {
    /// The keys of the whole file. A section is a table among them.
    pub entries: BTreeMap<String, Entry>,
    /// The syntax errors.
    pub faults: Vec<(Spot, ConfigFault)>,
}
