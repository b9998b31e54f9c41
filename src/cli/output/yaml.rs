//! JSON values as YAML 1.2 in block style.

use hearth_core::visible::is_visible;
use serde_json::Value;

/// Plain words that YAML 1.1 or 1.2 reads as something other than text.
const RESERVED: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// The value as YAML, without the last newline.
pub fn emit(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out.truncate(out.trim_end_matches('\n').len());
    out
}

/// Writes a value whose first line is indented already, and a newline.
fn block(out: &mut String, value: &Value, indent: usize) {
    let begin = |out: &mut String, at: usize| {
        if at > 0 {
            out.push_str(&" ".repeat(indent));
        }
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                begin(out, at);
                out.push_str("- ");
                block(out, item, indent + 2);
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            for (at, (name, field)) in fields.iter().enumerate() {
                begin(out, at);
                out.push_str(&scalar(name));
                let is_nested = match field {
                    Value::Array(items) => !items.is_empty(),
                    Value::Object(fields) => !fields.is_empty(),
                    _ => false,
                };
                match is_nested {
                    true => {
                        out.push_str(":\n");
                        out.push_str(&" ".repeat(indent + 2));
                    }
                    false => out.push_str(": "),
                }
                block(out, field, indent + 2);
            }
        }
        Value::String(text) => {
            out.push_str(&scalar(text));
            out.push('\n');
        }
        other => {
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

/// A text: as it is when nothing reads it as anything else, otherwise in double quotes. A JSON string is one
/// of YAML as well, but for characters that nobody can see.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-/@".contains(&byte))
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    let mut quoted = String::new();
    for letter in Value::from(text).to_string().chars() {
        match u32::from(letter) {
            _ if is_visible(letter) => quoted.push(letter),
            code @ ..=0xffff => quoted.push_str(&format!("\\u{code:04x}")),
            code => quoted.push_str(&format!("\\U{code:08x}")),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_nested_by_indentation() {
        let value = json!({
            "empty": [], "list": [1, [2, 3], {"a": true, "b": {"c": null}}], "none": {}, "text": "x"
        });
        let text = "empty: []\nlist:\n  - 1\n  - - 2\n    - 3\n  - a: true\n    b:\n      c: null\nnone: {}\ntext: x";
        assert_eq!(emit(&value), text);
        assert_eq!(emit(&json!([])), "[]");
    }

    #[test]
    fn texts_that_could_be_read_as_something_else_are_quoted() {
        for plain in ["nas", "anna@example.org", "a-b_c/d.e", "nodes"] {
            assert_eq!(scalar(plain), plain);
        }
        for (text, quoted) in [
            ("", "\"\""),
            ("Yes", "\"Yes\""),
            ("3", "\"3\""),
            ("1e3", "\"1e3\""),
            ("2027-01-31T12:00:00Z", "\"2027-01-31T12:00:00Z\""),
            ("tag:web", "\"tag:web\""),
            ("a: b # c", "\"a: b # c\""),
            ("- x", "\"- x\""),
            ("a\n\"b\"", "\"a\\n\\\"b\\\"\""),
            ("\u{7f}\u{85}", "\"\\u007f\\u0085\""),
            ("\u{202e}\u{e0041}", "\"\\u202e\\U000e0041\""),
        ] {
            assert_eq!(scalar(text), quoted);
        }
    }
}
