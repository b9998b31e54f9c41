//! Parser of a configuration file in TOML.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use super::fault::ConfigFault;
use super::raw::{Entry, Item, ParsedText, RawTable, RawValue, Spot};

/// Most times that lines with errors are taken out of a text.
const ATTEMPTS: usize = 8;

/// A whole line, whatever stands before it.
const PROBE: &str = "\nprobe = 1\n";

/// Parses a text without its lines that have syntax errors, and without the sections whose header is such a line.
pub(super) fn read(text: &str) -> ParsedText {
    let is_cut = is_cut(text);
    let mut text = text.to_owned();
    let mut faults = Vec::new();
    for _ in 0..ATTEMPTS {
        let (table, errors) = DeTable::parse_recoverable(&text);
        let found: Vec<(Spot, ConfigFault)> = errors
            .iter()
            .map(|error| {
                let spot = Spot::of_byte(&text, error.span().map_or(0, |span| span.start));
                let message = message(&text, spot.line, error.message());
                (spot, ConfigFault::Syntax { message })
            })
            .collect();
        if found.is_empty() {
            let entries = entries(&text, table.get_ref());
            return ParsedText {
                entries,
                faults,
                is_cut,
            };
        }
        let lines: BTreeSet<usize> = found.iter().map(|(spot, _)| spot.line).collect();
        let shorter = without(&text, &lines);
        faults.extend(found);
        if shorter == text {
            // The end of the text is missing: what the parser makes of it has to do.
            let entries = entries(&text, table.get_ref());
            return ParsedText {
                entries,
                faults,
                is_cut,
            };
        }
        text = shorter;
    }
    ParsedText {
        entries: BTreeMap::new(),
        faults,
        is_cut,
    }
}

/// Whether a text ends in the middle of a line or a value. A cut text is valid but for its end. A last line without a line
/// break counts as complete if it is valid, but for one in a text of comments alone.
fn is_cut(text: &str) -> bool {
    let trimmed = text.trim_end();
    let last_line = trimmed.rfind('\n').map_or(0, |at| at.saturating_add(1));
    let starts = |text: &str| -> (bool, Vec<usize>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let spans = errors.iter().map(|error| error.span());
        let starts = spans.map(|span| span.map_or(0, |span| span.start));
        (table.get_ref().is_empty(), starts.collect())
    };
    let (is_empty, faults) = starts(text);
    let is_ended = text.ends_with('\n');
    if faults.is_empty() {
        return is_empty && !trimmed.is_empty() && !is_ended;
    }
    if faults.iter().any(|start| *start < last_line) {
        return false;
    }
    // A list, a table or a text that goes on takes in whatever follows.
    let goes_on = || {
        let (_, faults) = starts(&format!("{text}{PROBE}"));
        faults.iter().any(|start| *start > text.len())
    };
    !is_ended || goes_on()
}

fn message(text: &str, line: usize, message: &str) -> String {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let message = message.lines().collect::<Vec<_>>().join(", ");
    match line.trim_start().starts_with('[') && message.contains("duplicate") {
        true => format!(
            "section {} is defined above, by a header or by keys with its name: put its keys there",
            line.trim()
        ),
        false => message,
    }
}

/// The text with these lines empty. All keys below a header among them are in another section then, so these lines
/// are empty as well.
fn without(text: &str, broken: &BTreeSet<usize>) -> String {
    let mut is_in_broken_section = false;
    let lines = text.lines().zip(1..).map(|(line, number)| {
        if line.trim_start().starts_with('[') {
            is_in_broken_section = broken.contains(&number);
        }
        match is_in_broken_section || broken.contains(&number) {
            true => "",
            false => line,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn entries(text: &str, table: &DeTable<'_>) -> BTreeMap<String, Entry> {
    let entries = table.iter().map(|(name, item)| {
        let value_at = Spot::of_byte(text, item.span().start);
        let entry = Entry {
            name_at: Spot::of_byte(text, name.span().start),
            value_at,
            value: value(text, value_at, item.get_ref()),
        };
        (name.get_ref().to_string(), entry)
    });
    entries.collect()
}

fn value(text: &str, at: Spot, value: &DeValue<'_>) -> RawValue {
    match value {
        DeValue::String(string) => RawValue::Text(string.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(RawValue::Other("number"), RawValue::Integer),
        DeValue::Boolean(boolean) => RawValue::Boolean(*boolean),
        DeValue::Float(number) => RawValue::Fraction(number.as_str().to_owned()),
        DeValue::Datetime(_) => RawValue::Other("date"),
        DeValue::Table(table) => RawValue::Table(RawTable::new(at, entries(text, table))),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| {
                let at = Spot::of_byte(text, item.span().start);
                let value = self::value(text, at, item.get_ref());
                Item { at, value }
            });
            RawValue::List(items.collect())
        }
    }
}
