//! Parser of a configuration file in TOML.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::fault::ConfigFault;
use super::raw::{Entry, ParsedText, RawTable, RawValue, Spot};

/// Parses a text. After a syntax error the parser continues at the next line.
pub(super) fn read(text: &str) -> ParsedText {
    let (table, errors) = DeTable::parse_recoverable(text);
    let faults = errors.iter().map(|error| {
        let begin = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        (Spot::of_byte(text, begin), ConfigFault::Syntax { message })
    });
    ParsedText {
        faults: faults.collect(),
        entries: entries(text, table.get_ref()),
    }
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
                self::value(text, at, item.get_ref())
            });
            RawValue::list(items.collect())
        }
    }
}
