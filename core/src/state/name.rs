//! DNS labels of nodes: derived from the hostname that a client reports, unique in the tailnet.

/// Longest DNS label, in bytes (RFC 1035, section 2.3.4).
pub const LABEL_MAX: usize = 63;

/// Label for a hostname without a usable character, and the begin of one for a hostname of digits.
const FALLBACK: &str = "node";

/// The label for a hostname: in lower case, with a dash for each run of characters that are not letters or
/// digits, without dashes at the ends and without `.local` and the like, at most [`LABEL_MAX`] bytes. A label of digits
/// alone would be taken for an ID: `13` becomes `node-13`.
///
/// Source of the rules: `SanitizeHostname` in tailscale `util/dnsname/dnsname.go`.
pub fn label_for(hostname: &str) -> String {
    let trimmed = hostname.trim().trim_end_matches('.');
    let first = [".local", ".localdomain", ".lan", ".home"]
        .iter()
        .find_map(|suffix| trimmed.strip_suffix(suffix))
        .unwrap_or(trimmed);
    let mut label = String::with_capacity(LABEL_MAX);
    for symbol in first.chars() {
        let next = match symbol {
            'a'..='z' | '0'..='9' => symbol,
            'A'..='Z' => symbol.to_ascii_lowercase(),
            '\'' | '\u{2019}' => continue,
            _ => '-',
        };
        if next != '-' || !(label.is_empty() || label.ends_with('-')) {
            label.push(next);
        }
        if label.len() == LABEL_MAX {
            break;
        }
    }
    let kept = label.trim_end_matches('-').len();
    label.truncate(kept);
    if label.is_empty() {
        label.push_str(FALLBACK);
    }
    if is_number(&label) || is_special(&label) {
        label.insert_str(0, "node-");
        label.truncate(LABEL_MAX);
    }
    label
}

/// Whether a text consists of digits, as an ID does.
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether programs give a name a meaning of its own in any domain that they search: this machine, a proxy that a browser
/// should use, a tunnel. Sources: RFC 6761 section 6.3, draft-ietf-wrec-wpad section 4.4.2, RFC 5214 section 8.3.2.
fn is_special(label: &str) -> bool {
    ["localhost", "wpad", "isatap"].contains(&label)
}

/// Whether a text can be chosen as the label of a node: a valid label that is not taken for an ID and has no meaning of its
/// own.
pub fn is_free_label(text: &str) -> bool {
    is_label(text) && !is_number(text) && !is_special(text)
}

/// Whether a text is a valid label of a node as it is.
pub fn is_label(text: &str) -> bool {
    let clean = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_MAX).contains(&text.len())
        && text.bytes().all(clean)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The label itself or, if it is taken, the first free one of `label-1`, `label-2`, ...
pub fn unique(label: &str, is_taken: impl Fn(&str) -> bool) -> String {
    if !is_taken(label) {
        return label.to_owned();
    }
    for number in 1_u32.. {
        let suffix = format!("-{number}");
        let room = LABEL_MAX.saturating_sub(suffix.len());
        let stem = label.get(..room).unwrap_or(label).trim_end_matches('-');
        let candidate = format!("{stem}{suffix}");
        if !is_taken(&candidate) {
            return candidate;
        }
    }
    label.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostnames_become_labels() {
        assert_eq!(label_for("Anna's MacBook Pro"), "annas-macbook-pro");
        assert_eq!(label_for("nas.local"), "nas");
        assert_eq!(label_for("box.example.com"), "box-example-com");
        assert_eq!(label_for("我的电脑"), "node");
        assert_eq!(label_for(""), "node");
        assert_eq!(label_for("--a__b--"), "a-b");
    }

    #[test]
    fn no_label_is_mistaken_for_an_id() {
        for (hostname, label) in [
            ("13", "node-13"),
            ("013.local", "node-013"),
            (" 7. ", "node-7"),
            ("-42-", "node-42"),
            ("1-2", "1-2"),
            ("4k", "4k"),
        ] {
            assert_eq!(label_for(hostname), label, "{hostname}");
        }
        let long = label_for(&"9".repeat(100));
        assert!(is_free_label(&long) && long.len() == LABEL_MAX, "{long}");
        assert!(is_label("13") && !is_free_label("13"));
    }

    #[test]
    fn taken_labels_get_a_number() {
        let taken = ["nas", "nas-1"];
        assert_eq!(unique("nas", |name| taken.contains(&name)), "nas-2");
        assert_eq!(unique("pi", |name| taken.contains(&name)), "pi");
        let long = "a".repeat(LABEL_MAX);
        let other = unique(&long, |name| name == long);
        assert!(is_label(&other) && other.ends_with("-1"));
    }

    proptest! {
        #[test]
        fn every_hostname_gives_a_valid_label(hostname in ".{0,200}|[0-9.-]{0,80}") {
            prop_assert!(is_free_label(&label_for(&hostname)));
        }
    }

    #[test]
    fn a_name_with_a_meaning_of_its_own_is_given_to_no_device() {
        for name in ["localhost", "WPAD", "wpad.lan", "isatap"] {
            let label = label_for(name);
            assert!(label.starts_with("node-"), "{label}");
        }
        assert!(!is_free_label("wpad") && is_free_label("wpad-1"));
    }
}
