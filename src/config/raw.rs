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
    /// A list.
    List(Vec<Item>),
    /// A table: a section, or a table inside a section.
    Table(RawTable),
    /// Anything else, by its name in the language.
    Other(&'static str),
}

/// An item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it is.
    pub at: Spot,
    /// The item.
    pub value: RawValue,
}

impl RawValue {
    /// The string, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as a person may have written it, for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(boolean) => boolean.to_string(),
            Self::Fraction(text) => text.clone(),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(what) => format!("a {what}"),
        }
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
    /// Whether it ends too early: in the middle of a line or a value, while all before that is valid.
    pub is_cut: bool,
}
