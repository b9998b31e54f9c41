//! HuJSON: JSON with comments and trailing commas, parsed into values with positions.
//!
//! Source: the grammar in the README of github.com/tailscale/hujson. Duplicate names in an object are an error.

use std::iter::Peekable;
use std::str::Chars;

use super::diagnostic::{Diagnostic, Position};

/// Longest text that is parsed, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// Deepest nesting of values.
pub const MAX_DEPTH: u32 = 64;

/// A value and its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Position of its first character.
    pub at: Position,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of values.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// As it is written.
    Number(String),
    /// A string, unescaped.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// In the order of the text.
    Object(Vec<Member>),
}

/// A name in an object and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The name.
    pub name: String,
    /// Position of the name.
    pub at: Position,
    /// The value.
    pub value: Value,
}

impl Value {
    /// Type of the value, for messages.
    pub fn is(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "a string",
            Kind::List(_) => "a list",
            Kind::Object(_) => "an object",
        }
    }

    /// The value as JSON without comments; a number that serde cannot hold becomes null.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.kind {
            Kind::Null => Json::Null,
            Kind::Bool(value) => Json::Bool(*value),
            Kind::Number(text) => serde_json::from_str(text).unwrap_or_default(),
            Kind::Text(text) => Json::String(text.clone()),
            Kind::List(values) => values.iter().map(Value::to_json).collect(),
            Kind::Object(members) => members
                .iter()
                .map(|member| (member.name.clone(), member.value.to_json()))
                .collect(),
        }
    }
}

/// Parses a text that is one value.
///
/// # Errors
///
/// The first syntax error: what was found and what was expected.
pub fn parse(text: &str) -> Result<Value, Diagnostic> {
    if text.len() > MAX_BYTES {
        let limit = format!("the text is longer than {MAX_BYTES} bytes");
        return Err(Diagnostic::at(Position { line: 1, column: 1 }, limit));
    }
    let mut reader = Reader {
        rest: text
            .strip_prefix('\u{feff}')
            .unwrap_or(text)
            .chars()
            .peekable(),
        at: Position { line: 1, column: 1 },
    };
    reader.space()?;
    let value = reader.value(0)?;
    reader.space()?;
    match reader.rest.peek() {
        None => Ok(value),
        Some(_) => Err(reader.expected("the end of the text")),
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    at: Position,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.at = if c == '\n' {
            Position {
                line: self.at.line.saturating_add(1),
                column: 1,
            }
        } else {
            Position {
                column: self.at.column.saturating_add(1),
                ..self.at
            }
        };
        Some(c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.rest.peek() == Some(&wanted);
        if found {
            self.next();
        }
        found
    }

    fn fault(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(self.at, message)
    }

    fn expected(&mut self, what: &str) -> Diagnostic {
        let found = match self.rest.peek() {
            None => "the end of the text".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        self.fault(format!("expected {what}, found {found}"))
    }

    /// Skips white space and comments.
    fn space(&mut self) -> Result<(), Diagnostic> {
        while let Some(&c) = self.rest.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' => {
                    self.next();
                }
                '/' => self.comment()?,
                _ => break,
            }
        }
        Ok(())
    }

    fn comment(&mut self) -> Result<(), Diagnostic> {
        let begin = self.at;
        self.next();
        if self.take('/') {
            while self.rest.peek().is_some_and(|&c| c != '\n') {
                self.next();
            }
            return Ok(());
        }
        if !self.take('*') {
            return Err(self.expected("a comment, '//' or '/*'"));
        }
        loop {
            match self.next() {
                Some('*') if self.take('/') => return Ok(()),
                Some(_) => {}
                None => {
                    let message = "unterminated comment: '*/' is missing";
                    return Err(Diagnostic::at(begin, message));
                }
            }
        }
    }

    fn value(&mut self, depth: u32) -> Result<Value, Diagnostic> {
        if depth > MAX_DEPTH {
            return Err(self.fault(format!("values are nested deeper than {MAX_DEPTH} levels")));
        }
        let at = self.at;
        let kind = match self.rest.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Kind::Text(self.text()?),
            Some('-' | '0'..='9') => self.number()?,
            Some('a'..='z' | 'A'..='Z') => self.word()?,
            _ => return Err(self.expected("a value")),
        };
        Ok(Value { at, kind })
    }

    fn object(&mut self, depth: u32) -> Result<Kind, Diagnostic> {
        self.next();
        let mut members: Vec<Member> = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        loop {
            self.space()?;
            if self.take('}') {
                return Ok(Kind::Object(members));
            }
            let at = self.at;
            if self.rest.peek() != Some(&'"') {
                return Err(self.expected("a name in quotes or '}'"));
            }
            let name = self.text()?;
            if !names.insert(name.clone()) {
                return Err(Diagnostic::at(at, format!("duplicate name {name:?}")));
            }
            self.space()?;
            if !self.take(':') {
                return Err(self.expected("':'"));
            }
            self.space()?;
            let value = self.value(depth.saturating_add(1))?;
            members.push(Member { name, at, value });
            self.space()?;
            if !self.take(',') && self.rest.peek() != Some(&'}') {
                return Err(self.expected("',' or '}'"));
            }
        }
    }

    fn list(&mut self, depth: u32) -> Result<Kind, Diagnostic> {
        self.next();
        let mut values = Vec::new();
        loop {
            self.space()?;
            if self.take(']') {
                return Ok(Kind::List(values));
            }
            values.push(self.value(depth.saturating_add(1))?);
            self.space()?;
            if !self.take(',') && self.rest.peek() != Some(&']') {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    fn text(&mut self) -> Result<String, Diagnostic> {
        let begin = self.at;
        self.next();
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape(at)?),
                Some(c) if c < ' ' => {
                    return Err(Diagnostic::at(
                        at,
                        "control characters in strings must be escaped",
                    ));
                }
                Some(c) => text.push(c),
                None => {
                    let message = "unterminated string: '\"' is missing";
                    return Err(Diagnostic::at(begin, message));
                }
            }
        }
    }

    fn escape(&mut self, at: Position) -> Result<char, Diagnostic> {
        Ok(match self.next() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let unit = self.unit(at)?;
                let mut units = vec![unit];
                if (0xd800..0xdc00).contains(&unit) {
                    if !(self.take('\\') && self.take('u')) {
                        return Err(Diagnostic::at(at, "half of a surrogate pair"));
                    }
                    units.push(self.unit(at)?);
                }
                let mut decoded = char::decode_utf16(units);
                match (decoded.next(), decoded.next()) {
                    (Some(Ok(c)), None) => c,
                    _ => return Err(Diagnostic::at(at, "half of a surrogate pair")),
                }
            }
            _ => return Err(Diagnostic::at(at, "invalid escape")),
        })
    }

    fn unit(&mut self, at: Position) -> Result<u16, Diagnostic> {
        let mut unit = 0u16;
        for _ in 0..4 {
            let digit = self.next().and_then(|c| c.to_digit(16));
            let Some(digit) = digit.and_then(|digit| u16::try_from(digit).ok()) else {
                return Err(Diagnostic::at(at, "expected four hexadecimal digits"));
            };
            unit = unit << 4 | digit;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<Kind, Diagnostic> {
        let at = self.at;
        let mut text = String::new();
        while let Some(&c @ ('-' | '+' | '.' | 'e' | 'E' | '0'..='9')) = self.rest.peek() {
            text.push(c);
            self.next();
        }
        match serde_json::from_str::<serde_json::Number>(&text) {
            Ok(_) => Ok(Kind::Number(text)),
            Err(_) => Err(Diagnostic::at(at, format!("{text:?} is not a number"))),
        }
    }

    fn word(&mut self) -> Result<Kind, Diagnostic> {
        let at = self.at;
        let mut word = String::new();
        while let Some(&c) = self.rest.peek() {
            if !c.is_ascii_alphanumeric() {
                break;
            }
            word.push(c);
            self.next();
        }
        match word.as_str() {
            "null" => Ok(Kind::Null),
            "true" => Ok(Kind::Bool(true)),
            "false" => Ok(Kind::Bool(false)),
            _ => Err(Diagnostic::at(
                at,
                format!("expected a value, found {word}; strings need quotes"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        parse(text).unwrap().to_json().to_string()
    }

    fn fault(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn comments_and_trailing_commas_are_skipped() {
        let text =
            "// head\n{ /* a */ \"a\": [1, 2.5e3, -0,], // b\n \"b\": {\"c\": null,},}\n/**/";
        assert_eq!(json(text), r#"{"a":[1,2500.0,-0.0],"b":{"c":null}}"#);
        assert_eq!(json("\u{feff}[true, false]"), "[true,false]");
    }

    #[test]
    fn escapes_become_characters() {
        let text = r#""\u00e9 \ud83d\ude80 \" \\ \/ \n""#;
        let value = parse(text).unwrap();
        assert_eq!(value.kind, Kind::Text("é 🚀 \" \\ / \n".to_owned()));
        assert_eq!(
            fault(r#""\ud83d""#),
            "line 1, column 2: half of a surrogate pair"
        );
        assert_eq!(
            fault(r#""\ud83d\u0041""#),
            "line 1, column 2: half of a surrogate pair"
        );
    }

    #[test]
    fn errors_name_their_position() {
        for (text, wanted) in [
            (
                "{\n  \"a\": 1\n  \"b\": 2\n}",
                "line 3, column 3: expected ',' or '}', found '\"'",
            ),
            (
                "{a: 1}",
                "line 1, column 2: expected a name in quotes or '}', found 'a'",
            ),
            ("{\"é\": }", "line 1, column 7: expected a value, found '}'"),
            (
                "[1, 2",
                "line 1, column 6: expected ',' or ']', found the end of the text",
            ),
            (
                "{\"a\": 1, \"a\": 2}",
                "line 1, column 10: duplicate name \"a\"",
            ),
            ("[01]", "line 1, column 2: \"01\" is not a number"),
            (
                "/* x",
                "line 1, column 1: unterminated comment: '*/' is missing",
            ),
            (
                "\"x",
                "line 1, column 1: unterminated string: '\"' is missing",
            ),
            (
                "{} {}",
                "line 1, column 4: expected the end of the text, found '{'",
            ),
            (
                "",
                "line 1, column 1: expected a value, found the end of the text",
            ),
            ("[,]", "line 1, column 2: expected a value, found ','"),
            (
                "yes",
                "line 1, column 1: expected a value, found yes; strings need quotes",
            ),
        ] {
            assert_eq!(fault(text), wanted, "{text}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let deep = "[".repeat(100_000);
        assert!(fault(&deep).contains("deeper than 64 levels"));
        let long = " ".repeat(MAX_BYTES + 1);
        assert!(fault(&long).contains("longer than 262144 bytes"));
    }
}
