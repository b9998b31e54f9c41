//! Parser of a configuration file in JSON, which programs write, such as OpenWrt's scripts, whose library
//! escapes every value. Comments and trailing commas are allowed.

use std::collections::BTreeMap;

use super::fault::ConfigFault;
use super::raw::{Entry, Item, ParsedText, RawTable, RawValue, Spot};
use hearth_core::policy::{Kind, Member, Position, Value, parse_hujson};

/// Parses a text. With a syntax error there are no keys.
pub(super) fn read(text: &str) -> ParsedText {
    let (spot, message) = match parse_hujson(text) {
        Ok(Value {
            kind: Kind::Object(members),
            ..
        }) => {
            return ParsedText {
                entries: entries(members),
                faults: Vec::new(),
                is_cut: false,
            };
        }
        Ok(other) => (
            spot(other.at),
            format!("expected an object, found {}", other.is()),
        ),
        Err(fault) => {
            let at = Position {
                line: fault.line,
                column: fault.column,
            };
            (spot(at), fault.message)
        }
    };
    ParsedText {
        entries: BTreeMap::new(),
        faults: vec![(spot, ConfigFault::NotJson { message })],
        is_cut: is_cut(text),
    }
}

/// Whether a text ends within a string or a comment, or before all brackets are closed.
fn is_cut(text: &str) -> bool {
    let mut depth = 0_usize;
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '{' | '[' => depth = depth.saturating_add(1),
            '}' | ']' => depth = depth.saturating_sub(1),
            '"' => loop {
                match rest.next() {
                    Some('"') => break,
                    Some('\\') => {
                        rest.next();
                    }
                    Some(_) => {}
                    None => return true,
                }
            },
            '/' if rest.next_if_eq(&'/').is_some() => {
                while rest.next_if(|letter| *letter != '\n').is_some() {}
            }
            '/' if rest.next_if_eq(&'*').is_some() => loop {
                match rest.next() {
                    Some('*') if rest.peek() == Some(&'/') => break,
                    Some(_) => {}
                    None => return true,
                }
            },
            _ => {}
        }
    }
    depth > 0
}

fn spot(at: Position) -> Spot {
    let number = |number| usize::try_from(number).unwrap_or(usize::MAX);
    Spot {
        line: number(at.line),
        column: number(at.column),
    }
}

fn entries(members: Vec<Member>) -> BTreeMap<String, Entry> {
    let entries = members.into_iter().map(|member| {
        let entry = Entry {
            name_at: spot(member.at),
            value_at: spot(member.value.at),
            value: value(member.value),
        };
        (member.name, entry)
    });
    entries.collect()
}

fn value(Value { at, kind }: Value) -> RawValue {
    match kind {
        Kind::Text(text) => RawValue::Text(text),
        Kind::Bool(boolean) => RawValue::Boolean(boolean),
        Kind::Number(text) => match text.parse() {
            Ok(number) => RawValue::Integer(number),
            Err(_) if text.contains(['.', 'e', 'E']) => RawValue::Fraction(text),
            Err(_) => RawValue::Other("number"),
        },
        Kind::List(items) => {
            let items = items.into_iter().map(|item| Item {
                at: spot(item.at),
                value: value(item),
            });
            RawValue::List(items.collect())
        }
        Kind::Object(members) => RawValue::Table(RawTable::new(spot(at), entries(members))),
        Kind::Null => RawValue::Other("null"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::RawConfig;
    use super::super::value::{List, Score};
    use super::*;

    fn parse(text: &str) -> RawConfig {
        RawConfig::parse("hearth.json".into(), text)
    }

    fn warnings(raw: RawConfig) -> Vec<String> {
        raw.finish().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_value_is_read_as_it_would_be_from_toml() {
        let mut raw = parse(
            r#"{
  "server_url": "http:\/\/192.168.1.1:8080",
  "derp": { "port": 443, "stun_only": false, "region_score": 0.5, "map_files": [] },
  "dns": {
    "nameservers": ["1.1.1.1", "9.9.9.9"],
    "split": { "corp.example": ["10.0.0.53"] },
    "records": [{ "name": "printer", "value": "192.168.1.20" }],
  },
}"#,
        );
        let url: Option<String> = raw.take("server_url");
        assert_eq!(url.as_deref(), Some("http://192.168.1.1:8080"));
        assert_eq!(raw.take::<u16>("derp.port"), Some(443));
        assert_eq!(raw.take::<bool>("derp.stun_only"), Some(false));
        assert_eq!(raw.take::<Score>("derp.region_score"), Some(Score(500)));
        let files = raw.take::<List<std::path::PathBuf>>("derp.map_files");
        assert_eq!(files, Some(List(Vec::new())));
        let servers = raw.take::<List<String>>("dns.nameservers");
        assert_eq!(
            servers,
            Some(List(vec!["1.1.1.1".into(), "9.9.9.9".into()]))
        );
        let split = raw.take::<RawTable>("dns.split").map(|table| table.names());
        assert_eq!(split, Some(vec!["corp.example".into()]));
        let List(mut records) = raw.take::<List<RawTable>>("dns.records").unwrap();
        let name: Option<String> = raw.take_from(&mut records[0], "name", "dns.records");
        assert_eq!(name.as_deref(), Some("printer"));
        assert_eq!(warnings(raw), [""; 0]);
    }

    #[test]
    fn a_fault_is_named_with_its_line_and_column() {
        let mut raw = parse(
            "{\n  \"colour\": 1,\n  \"derp\": {\n    \"prot\": 1,\n    \"port\": \"x\" }\n}\n",
        );
        assert_eq!(raw.take::<u16>("derp.port"), None);
        assert_eq!(
            warnings(raw),
            [
                "hearth.json:2:3: unknown key `colour`",
                "hearth.json:4:5: unknown key `derp.prot`; did you mean `derp.port`?",
                "hearth.json:5:13: invalid value for `derp.port`: expected a whole number up to 65535 (using the default)",
            ]
        );
    }

    #[test]
    fn a_text_that_is_not_a_json_object_is_one_warning() {
        let cases = [
            (
                "",
                "hearth.json:1:1: expected a value, found the end of the text",
            ),
            ("[1]", "hearth.json:1:1: expected an object, found a list"),
            (
                "{\n\"a\": 1,\n\"a\": 2}",
                "hearth.json:3:1: duplicate name \"a\"",
            ),
            ("{\"a\": tru}", "hearth.json:1:7:"),
        ];
        for (text, expected) in cases {
            let warnings = warnings(parse(text));
            // From a file without an object everything may be missing.
            let is_lost = !text.starts_with('{');
            assert_eq!(warnings.len(), 1 + usize::from(is_lost), "{text}");
            assert!(warnings[0].starts_with(expected), "{warnings:?}");
            assert!(
                warnings[0].ends_with(" (nothing in the file is used)"),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn a_number_that_is_too_large_is_an_invalid_value() {
        let mut raw = parse("{ \"limits\": { \"nodes\": 99999999999999999999 } }");
        assert_eq!(raw.take::<usize>("limits.nodes"), None);
        assert_eq!(warnings(raw).len(), 1);
    }

    #[test]
    fn only_the_end_of_the_name_makes_a_file_json() {
        for (name, is_json) in [
            ("a.json", true),
            ("A.JSON", true),
            ("json", false),
            ("a.json.toml", false),
        ] {
            let raw = RawConfig::parse(name.into(), "{}");
            assert_eq!(warnings(raw).is_empty(), is_json, "{name}");
        }
    }
}
