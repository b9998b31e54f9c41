//! What commands print: JSON as the server gave it, or tables for people.

use clap::ValueEnum;
use serde_json::Value;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON over several lines.
    Json,
    /// JSON on one line.
    JsonLine,
}

/// What a command leaves: its result, and notes for a person that are no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// For standard output, without the last newline.
    pub result: String,
    /// For standard error, without the last newline.
    pub notes: String,
    /// The exit code of the program.
    pub exit: u8,
}

impl Output {
    /// The result as JSON when that is wanted, else as `text`.
    pub fn of(format: Option<Format>, json: &Value, text: impl FnOnce() -> String) -> Self {
        let result = match format {
            Some(Format::Json) => format!("{json:#}"),
            Some(Format::JsonLine) => json.to_string(),
            None => text(),
        };
        Self {
            result,
            notes: String::new(),
            exit: 0,
        }
    }

    /// The same, and the program ends with this code.
    pub fn exit_code(self, exit: u8) -> Self {
        Self { exit, ..self }
    }

    /// With a note for the person, unless a program reads the result.
    pub fn note(mut self, format: Option<Format>, note: &str) -> Self {
        if format.is_none() {
            self.notes = note.into();
        }
        self
    }
}

/// Columns that are as wide as their widest cell, two blanks apart.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.into_iter().zip(widths) {
            line.push_str(cell);
            let blanks = (width + 2).saturating_sub(cell.chars().count());
            line.push_str(&" ".repeat(blanks));
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(head)];
    for row in rows {
        lines.push(line(row.each_ref().map(String::as_str)));
    }
    lines.join("\n")
}

/// A text from elsewhere for a terminal: without control characters, `-` when it is empty.
pub fn cell(text: &str) -> String {
    if text.is_empty() {
        return "-".into();
    }
    text.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            ["1".to_owned(), "größe".to_owned()],
            ["22".to_owned(), "b".to_owned()],
        ];
        assert_eq!(table(["ID", "Name"], &rows), "ID  Name\n1   größe\n22  b");
    }

    #[test]
    fn texts_of_peers_cannot_steer_the_terminal() {
        assert_eq!(cell("a\u{1b}[31m\nb"), "a?[31m?b");
        assert_eq!(cell(""), "-");
    }

    #[test]
    fn notes_are_for_people_only() {
        let json = serde_json::json!({"a": 1});
        let human = Output::of(None, &json, || "text".into()).note(None, "note");
        assert_eq!(
            (human.result.as_str(), human.notes.as_str()),
            ("text", "note")
        );
        let line = Some(Format::JsonLine);
        let program = Output::of(line, &json, || "text".into()).note(line, "note");
        assert_eq!(
            (program.result.as_str(), program.notes.as_str()),
            ("{\"a\":1}", "")
        );
    }
}
