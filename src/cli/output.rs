//! What commands print: JSON or YAML for programs, text and tables for people.

mod table;
mod terminal;
mod text;
mod yaml;

pub use table::table;
pub use terminal::Terminal;
pub use text::{card, cell, when, yes_no};

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde_json::Value;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Text and tables for people.
    #[default]
    Table,
    /// JSON on several lines.
    Json,
    /// JSON on one line.
    JsonLine,
    /// YAML.
    Yaml,
}

/// What a command prints: its result, and notes for a person that are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// For standard output, without the last newline.
    pub result: String,
    /// For standard error, without the last newline.
    pub notes: String,
    /// Exit code of the program.
    pub exit: u8,
    format: Format,
}

impl Output {
    /// `json` in the format for programs that was asked for, else `text`.
    pub fn of(format: Format, json: &Value, text: impl FnOnce() -> String) -> Self {
        let result = match format {
            Format::Json => format!("{json:#}"),
            Format::JsonLine => json.to_string(),
            Format::Yaml => yaml::emit(json),
            Format::Table => text(),
        };
        Self {
            result,
            notes: String::new(),
            exit: 0,
            format,
        }
    }

    /// Text that is the same in all formats.
    pub fn text(text: &str) -> Self {
        Self {
            result: text.into(),
            ..Self::default()
        }
    }

    /// The same, with this exit code.
    pub fn exit_code(self, exit: u8) -> Self {
        Self { exit, ..self }
    }

    /// The same with a note for the person, unless a program reads the result.
    pub fn note(mut self, note: &str) -> Self {
        if self.format == Format::Table {
            self.notes = note.into();
        }
        self
    }

    /// Prints the result and the notes.
    pub fn print(&self) {
        // A reader that closed the pipe early has what it wanted.
        if !self.result.is_empty() {
            let _ = writeln!(io::stdout().lock(), "{}", self.result);
        }
        if !self.notes.is_empty() {
            let _ = writeln!(io::stderr().lock(), "{}", self.notes);
        }
    }
}

/// Prints an error. `hint` is the next step for a person; programs do not get it.
pub fn print_error(format: Format, message: &str, hint: Option<&str>) {
    let output = Output::of(format, &serde_json::json!({ "error": message }), || {
        let label = Terminal::of(&io::stderr()).paint("error", "Error:");
        match hint {
            Some(hint) => format!("{label} {message}\n{hint}"),
            None => format!("{label} {message}"),
        }
    });
    let _ = writeln!(io::stderr().lock(), "{}", output.result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_for_people_only() {
        let json = serde_json::json!({"a": 1});
        let human = Output::of(Format::Table, &json, || "text".into()).note("note");
        assert_eq!(
            (human.result.as_str(), human.notes.as_str()),
            ("text", "note")
        );
        for (format, result) in [(Format::JsonLine, "{\"a\":1}"), (Format::Yaml, "a: 1")] {
            let program = Output::of(format, &json, || "text".into()).note("note");
            assert_eq!(
                (program.result.as_str(), program.notes.as_str()),
                (result, "")
            );
        }
    }
}
