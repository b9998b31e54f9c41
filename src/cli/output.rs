//! What commands print: JSON or YAML for programs, text and tables for people.

mod table;
mod terminal;
mod text;
mod yaml;

pub use table::table;
pub use terminal::{Terminal, ask_secret};
pub use text::{card, cell, lines, when, yes_no};

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde_json::Value;

use text::escaped_json;

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
            Format::Json => escaped_json(&format!("{json:#}")),
            Format::JsonLine => escaped_json(&json.to_string()),
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
    ///
    /// # Errors
    /// When the result cannot be written, for example to a file on a full disk.
    pub fn print(&self) -> io::Result<()> {
        if !self.result.is_empty() {
            write_line(&mut io::stdout().lock(), &self.result)?;
        }
        if !self.notes.is_empty() {
            let _ = writeln!(io::stderr().lock(), "{}", self.notes);
        }
        Ok(())
    }
}

fn write_line(out: &mut dyn io::Write, line: &str) -> io::Result<()> {
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // A reader that closed the pipe early has what it wanted.
        Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
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

    struct Broken(io::ErrorKind);

    impl io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error_and_a_closed_pipe_is_none() {
        let write = |kind| write_line(&mut Broken(kind), "text");
        assert!(write(io::ErrorKind::StorageFull).is_err());
        assert!(write(io::ErrorKind::BrokenPipe).is_ok());
    }

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
