//! The size of JSON in values: counted before anything is decoded.
//!
//! A decoded value takes up to a hundred times the memory of its text, so a limit in bytes alone allows either long texts
//! or little memory.

/// Most values of a body. The longest bodies of clients list the routes of a subnet router, about a thousand.
const VALUES_MAX: usize = 4096;

/// Deepest nesting. Bodies of clients nest four levels deep.
const DEPTH_MAX: usize = 32;

/// The answer to what is not [modest](is_modest).
pub const TOO_MANY: &str = "the JSON has too many values or is nested too deeply";

/// Whether a JSON text has a moderate number of values and levels. Other texts may count as either.
pub fn is_modest(text: &[u8]) -> bool {
    let (mut values, mut depth) = (0_usize, 0_usize);
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b',' | b':' => values = values.saturating_add(1),
            b'[' | b'{' => {
                values = values.saturating_add(1);
                depth = depth.saturating_add(1);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if values > VALUES_MAX || depth > DEPTH_MAX {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings_only() {
        let many = |piece: &str| format!("[{}]", vec![piece; 5000].join(","));
        for piece in ["1", "\"\"", "[]", "{}", r#"{"":0}"#] {
            assert!(!is_modest(many(piece).as_bytes()), "{piece}");
        }
        let nested = "[".repeat(DEPTH_MAX + 1);
        assert!(!is_modest(nested.as_bytes()) && is_modest(&nested.as_bytes()[1..]));
        let objects = r#"{"a":"#.repeat(DEPTH_MAX + 1);
        assert!(!is_modest(objects.as_bytes()));
        let text = format!(r#"{{"a":"{}","b\"[":["x"]}}"#, "[{,:\\\\".repeat(5000));
        assert!(is_modest(text.as_bytes()));
        // A router with a thousand routes.
        let routes = vec![r#""10.255.255.0/24""#; 1000].join(",");
        let hostinfo = format!(r#"{{"Hostinfo":{{"RoutableIPs":[{routes}]}}}}"#);
        assert!(is_modest(hostinfo.as_bytes()));
    }
}
