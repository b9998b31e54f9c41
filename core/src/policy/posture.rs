//! Postures: conditions on what a client reports about its machine.
//!
//! Source: Tailscale's documentation of device posture, "attributes" and "postures" of the policy file.

use std::cmp::Ordering;

use serde_json::Value;

use super::directory::Posture;

/// A condition, for example `node:tsVersion >= '1.60'`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    attribute: Box<str>,
    comparison: Comparison,
}

#[derive(Debug, Clone, PartialEq)]
enum Comparison {
    Compare(Operator, Value),
    In(Vec<Value>),
    NotIn(Vec<Value>),
    IsSet,
    NotSet,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Parses a condition.
    ///
    /// # Errors
    ///
    /// What was expected instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let end = text
            .find(|c: char| c.is_whitespace() || "=!<>".contains(c))
            .ok_or_else(|| format!("posture condition {text:?}: expected an operator"))?;
        let (attribute, rest) = text.split_at(end);
        if !attribute.contains(':') {
            return Err(format!(
                "posture condition {text:?}: expected an attribute such as node:os"
            ));
        }
        let comparison = Comparison::parse(rest.trim())
            .map_err(|what| format!("posture condition {text:?}: expected {what}"))?;
        Ok(Self {
            attribute: attribute.into(),
            comparison,
        })
    }

    /// Whether a machine meets it. An unknown attribute only meets `NOT SET`.
    pub fn holds(&self, machine: &Posture) -> bool {
        let found = attribute(machine, &self.attribute);
        let same = |value: &Value| {
            found.as_ref().and_then(|found| order(found, value)) == Some(Ordering::Equal)
        };
        match &self.comparison {
            Comparison::IsSet => found.is_some(),
            Comparison::NotSet => found.is_none(),
            Comparison::In(values) => values.iter().any(same),
            Comparison::NotIn(values) => found.is_some() && !values.iter().any(same),
            Comparison::Compare(operator, value) => {
                let Some(order) = found.as_ref().and_then(|found| order(found, value)) else {
                    return found.is_some() && *operator == Operator::NotEqual;
                };
                match operator {
                    Operator::Equal => order.is_eq(),
                    Operator::NotEqual => order.is_ne(),
                    Operator::Less => order.is_lt(),
                    Operator::LessOrEqual => order.is_le(),
                    Operator::Greater => order.is_gt(),
                    Operator::GreaterOrEqual => order.is_ge(),
                }
            }
        }
    }
}

impl Comparison {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let is = |wanted: &[&str]| {
            words.len() == wanted.len()
                && words
                    .iter()
                    .zip(wanted)
                    .all(|(word, wanted)| word.eq_ignore_ascii_case(wanted))
        };
        if is(&["IS", "SET"]) {
            return Ok(Self::IsSet);
        }
        if is(&["NOT", "SET"]) || is(&["IS", "NOT", "SET"]) {
            return Ok(Self::NotSet);
        }
        for (sign, operator) in [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ] {
            if let Some(rest) = text.strip_prefix(sign) {
                return Ok(Self::Compare(operator, scalar(rest)?));
            }
        }
        let (comparison, rest): (fn(Vec<Value>) -> Self, _) = match words.as_slice() {
            [word, ..] if word.eq_ignore_ascii_case("IN") => (Self::In, text.get(2..)),
            [not, word, ..]
                if not.eq_ignore_ascii_case("NOT") && word.eq_ignore_ascii_case("IN") =>
            {
                let after = text.get(3..).map(str::trim_start);
                (Self::NotIn, after.and_then(|after| after.get(2..)))
            }
            _ => return Err("one of ==, !=, <, <=, >, >=, IN, NOT IN, IS SET, NOT SET"),
        };
        let list = rest.unwrap_or_default().trim();
        let inner = list
            .strip_prefix('[')
            .and_then(|list| list.strip_suffix(']'));
        let inner = inner
            .ok_or("a list in brackets")?
            .trim()
            .trim_end_matches(',');
        let values = inner.split(',').map(scalar).collect::<Result<_, _>>()?;
        Ok(comparison(values))
    }
}

/// A string in quotes, a number or a boolean.
fn scalar(text: &str) -> Result<Value, &'static str> {
    let text = text.trim();
    for quote in ['\'', '"'] {
        if let Some(inner) = text
            .strip_prefix(quote)
            .and_then(|text| text.strip_suffix(quote))
        {
            return Ok(Value::from(inner));
        }
    }
    match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => Ok(value),
        _ => Err("a string in quotes, a number, true or false"),
    }
}

/// The value of an attribute; the operating system is in lower case.
fn attribute(machine: &Posture, name: &str) -> Option<Value> {
    let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    // `1.60.0-t3cd..` is version 1.60.0.
    let version = machine
        .client_version
        .split(['-', '+'])
        .next()
        .unwrap_or_default();
    if let Some((_, value)) = machine
        .attributes
        .iter()
        .find(|(known, _)| **known == *name)
    {
        return Some(value.clone());
    }
    match name {
        "node:os" => text(&machine.os.to_ascii_lowercase()),
        "node:osVersion" => text(&machine.os_version),
        "node:tsVersion" => text(version),
        // Even minor versions are releases. Source: `IsUnstableBuild` in tailscale `version/prop.go`.
        "node:tsReleaseTrack" => {
            let minor: u32 = version.split('.').nth(1)?.parse().ok()?;
            text(if minor.is_multiple_of(2) {
                "stable"
            } else {
                "unstable"
            })
        }
        _ => None,
    }
}

/// Compares two values of the same type; strings that look like versions as versions.
fn order(found: &Value, wanted: &Value) -> Option<Ordering> {
    match (found, wanted) {
        (Value::String(found), Value::String(wanted)) => {
            let numeric = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
            Some(match numeric(found) && numeric(wanted) {
                true => versions(found, wanted),
                false => found.cmp(wanted),
            })
        }
        (Value::Number(found), Value::Number(wanted)) => {
            found.as_f64()?.partial_cmp(&wanted.as_f64()?)
        }
        (Value::Bool(found), Value::Bool(wanted)) => Some(found.cmp(wanted)),
        _ => None,
    }
}

/// Compares numbers between dots; missing ones at the end count as 0.
fn versions(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.split(['.', '-', '+']), other.split(['.', '-', '+']));
    loop {
        let (a, b) = match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => (a.unwrap_or("0"), b.unwrap_or("0")),
        };
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Posture {
        Posture {
            os: "macOS".into(),
            os_version: "13.4.1".into(),
            client_version: "1.60.0-tabc-gdef".into(),
            attributes: [("custom:tier".into(), Value::from(3))].into(),
        }
    }

    #[test]
    fn conditions_compare_known_attributes() {
        for (text, wanted) in [
            ("node:os == 'macos'", true),
            ("node:os=='linux'", false),
            ("node:os != 'linux'", true),
            ("node:os IN ['linux', 'macos']", true),
            ("node:os NOT IN ['linux', 'macos']", false),
            ("node:osVersion >= '13.4'", true),
            ("node:osVersion < '13.10'", true),
            ("node:tsVersion >= '1.60'", true),
            ("node:tsVersion > '1.60.0'", false),
            ("node:tsReleaseTrack == 'stable'", true),
            ("custom:tier > 2", true),
            ("custom:tier == '3'", false),
            ("custom:tier IS SET", true),
            ("custom:other NOT SET", true),
            ("custom:other != 'x'", false),
            ("custom:other NOT IN ['x']", false),
        ] {
            assert_eq!(
                Condition::parse(text).unwrap().holds(&machine()),
                wanted,
                "{text}"
            );
        }
    }

    #[test]
    fn errors_say_what_was_expected() {
        for text in [
            "os",
            "os == 'x'",
            "node:os ~ 'x'",
            "node:os == x",
            "node:os IN 'x'",
            "",
        ] {
            assert!(
                Condition::parse(text).unwrap_err().contains("expected"),
                "{text}"
            );
        }
    }
}
