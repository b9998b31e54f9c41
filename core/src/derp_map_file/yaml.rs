//! The subset of YAML that hand-written DERP maps use: nested mappings and lists by indentation, plain and
//! quoted scalars, comments, and empty or simple lists in brackets. Anything else is an error with its line.

use serde_json::{Map, Value};

use super::InvalidMap;

/// Deepest nesting; a DERP map has five levels.
const MAX_DEPTH: usize = 16;

/// One line without its comment and indentation.
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// Parses a text; an empty one is null.
pub(super) fn read(text: &str) -> Result<Value, InvalidMap> {
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let number = at.saturating_add(1);
        let content = without_comment(line).trim_end();
        let text = content.trim_start_matches(' ');
        if text.is_empty() || (text == "---" && lines.is_empty()) {
            continue;
        }
        if text.starts_with('\t') {
            return Err(fault(number, "tabs are not allowed in the indentation"));
        }
        let indent = content.len().saturating_sub(text.len());
        lines.push(Line {
            number,
            indent,
            text,
        });
    }
    let mut reader = Reader { lines, at: 0 };
    let Some(indent) = reader.line().map(|line| line.indent) else {
        return Ok(Value::Null);
    };
    let value = reader.block(indent, 0)?;
    match reader.line() {
        None => Ok(value),
        Some(line) => Err(fault(line.number, "invalid indentation")),
    }
}

fn fault(line: usize, what: &'static str) -> InvalidMap {
    InvalidMap::Yaml { line, what }
}

struct Reader<'a> {
    lines: Vec<Line<'a>>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn line(&self) -> Option<&Line<'a>> {
        self.lines.get(self.at)
    }

    /// Everything from here on with this indentation, and what is nested in it.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Value, InvalidMap> {
        let Some(first) = self.line() else {
            return Ok(Value::Null);
        };
        if depth >= MAX_DEPTH {
            return Err(fault(first.number, "nested too deeply"));
        }
        match is_item(first.text) {
            true => self.list(indent, depth),
            false => self.mapping(indent, depth),
        }
    }

    fn list(&mut self, indent: usize, depth: usize) -> Result<Value, InvalidMap> {
        let mut items = Vec::new();
        while let Some(&Line {
            number,
            indent: found,
            text,
        }) = self.line()
        {
            if found != indent || !is_item(text) {
                break;
            }
            let rest = text.get(1..).unwrap_or_default();
            let content = rest.trim_start();
            if content.is_empty() {
                self.at = self.at.saturating_add(1);
                items.push(self.nested(indent, false, depth)?);
            } else if split_key(content).is_some() || is_item(content) {
                // What follows the dash is the first line of a block of its own.
                let inner = found.saturating_add(text.len().saturating_sub(content.len()));
                if let Some(line) = self.lines.get_mut(self.at) {
                    (line.indent, line.text) = (inner, content);
                }
                items.push(self.block(inner, depth.saturating_add(1))?);
            } else {
                self.at = self.at.saturating_add(1);
                items.push(scalar(content, number)?);
            }
        }
        Ok(Value::Array(items))
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Result<Value, InvalidMap> {
        let mut map = Map::new();
        while let Some(&Line {
            number,
            indent: found,
            text,
        }) = self.line()
        {
            if found != indent || is_item(text) {
                break;
            }
            let Some((key, content)) = split_key(text) else {
                return Err(fault(number, "expected `key: value`"));
            };
            let key = match scalar(key, number)? {
                Value::String(key) => key,
                Value::Number(number) => number.to_string(),
                _ => return Err(fault(number, "a key must be a string or a number")),
            };
            self.at = self.at.saturating_add(1);
            let value = match content.is_empty() {
                true => self.nested(indent, true, depth)?,
                false => scalar(content, number)?,
            };
            if map.insert(key, value).is_some() {
                return Err(fault(number, "duplicate key"));
            }
        }
        Ok(Value::Object(map))
    }

    /// The block below a key or a dash: deeper, or below a key a list at the same depth.
    fn nested(&mut self, indent: usize, is_key: bool, depth: usize) -> Result<Value, InvalidMap> {
        let Some(line) = self.line() else {
            return Ok(Value::Null);
        };
        let is_below = line.indent > indent;
        if is_below || (is_key && line.indent == indent && is_item(line.text)) {
            let inner = line.indent;
            return self.block(inner, depth.saturating_add(1));
        }
        Ok(Value::Null)
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// Removes a comment: a `#` at the start or after a space, outside quotes.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (at, letter) in line.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open && before != '\\' => quote = None,
            (None, '"' | '\'') if matches!(before, ' ' | '[' | ',' | '{') => quote = Some(letter),
            (None, '#') if before == ' ' || before == '\t' => {
                return line.get(..at).unwrap_or_default();
            }
            _ => {}
        }
        before = letter;
    }
    line
}

/// Splits at the colon that ends the key.
fn split_key(text: &str) -> Option<(&str, &str)> {
    let after_quote = match text.chars().next()? {
        quote @ ('"' | '\'') => text.get(1..)?.find(quote)?.saturating_add(2),
        '[' | '{' => return None,
        _ => 0,
    };
    let rest = text.get(after_quote..)?;
    let colon = rest
        .match_indices(':')
        .map(|(at, _)| at)
        .find(|at| {
            let next = rest
                .get(at.saturating_add(1)..)
                .and_then(|rest| rest.chars().next());
            next.is_none_or(|next| next == ' ')
        })?
        .saturating_add(after_quote);
    let (key, value) = text.split_at_checked(colon)?;
    Some((key.trim_end(), value.get(1..).unwrap_or_default().trim()))
}

fn scalar(text: &str, line: usize) -> Result<Value, InvalidMap> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']');
        let inner = inner
            .ok_or(fault(line, "unterminated list in brackets"))?
            .trim();
        if inner.is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        if inner.contains(['[', '{', '"', '\'']) {
            return Err(fault(line, "unsupported list in brackets"));
        }
        let items = inner.split(',').map(|item| scalar(item, line));
        return items.collect::<Result<Vec<_>, _>>().map(Value::Array);
    }
    if text == "{}" {
        return Ok(Value::Object(Map::new()));
    }
    let quoted = |quote: char| {
        let inner = text.strip_prefix(quote)?;
        Some(
            inner
                .strip_suffix(quote)
                .filter(|inner| !inner.contains(quote)),
        )
    };
    if let Some(inner) = quoted('"').or_else(|| quoted('\'')) {
        let inner = inner.filter(|inner| !inner.contains('\\'));
        let inner = inner.ok_or(fault(line, "unsupported quoting"))?;
        return Ok(Value::String(inner.to_owned()));
    }
    if text.starts_with(['&', '*', '!', '|', '>', '%', '@', '`', '{']) {
        return Err(fault(line, "unsupported YAML syntax"));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        text => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    })
}

fn number(text: &str) -> Option<Value> {
    let looks_like_one = |letter: u8| letter.is_ascii_digit() || b".-+eE".contains(&letter);
    if !text.bytes().all(looks_like_one) {
        return None;
    }
    match text.parse::<i64>() {
        Ok(number) => Some(Value::from(number)),
        Err(_) => text
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map(Value::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn blocks_lists_and_scalars_are_read() {
        let text = "---\na: 1\nb:\n  - x\n  - y: 'it # is'\n    z: \"q\" # why\n  -\n    - 1.5\nc:\n- {}\n- [1, two, ]\nd: []\ne:\nf: 10.0.0.1\n\"g h\": a:b\n";
        let expected = json!({
            "a": 1,
            "b": ["x", {"y": "it # is", "z": "q"}, [1.5]],
            "c": [{}, [1, "two", null]],
            "d": [],
            "e": null,
            "f": "10.0.0.1",
            "g h": "a:b",
        });
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read("# nothing\n"), Ok(Value::Null));
    }

    #[test]
    fn unsupported_syntax_is_reported_with_its_line() {
        for (text, line) in [
            ("a: 1\n b: 2\n", 2),
            ("a: 1\na: 2\n", 2),
            ("a: &x 1\n", 1),
            ("a: |\n  text\n", 1),
            ("a: {b: 1}\n", 1),
            ("a:\n  - [1\n", 2),
            ("a\n", 1),
            ("a: \"b\n", 1),
            (&"- ".repeat(20), 1),
        ] {
            let fault = read(text).unwrap_err();
            assert!(
                matches!(fault, InvalidMap::Yaml { line: at, .. } if at == line),
                "{text:?}: {fault}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-a: #\"'\n\\[\\]{}1\t,]{0,60}") {
            let _ = read(&text);
        }
    }
}
