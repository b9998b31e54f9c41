//! Stanzas: the parts of a header, each of which is one way to the file key.

use data_encoding::BASE64_NOPAD;

/// Characters of a line of a body; a shorter one is its last.
pub(super) const COLUMNS: usize = 64;

/// One way to the file key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stanza {
    /// The type and its arguments.
    pub(super) words: Vec<String>,
    /// The wrapped file key.
    pub(super) body: Vec<u8>,
}

impl Stanza {
    /// Adds it to the text of a header.
    pub(super) fn write(&self, out: &mut String) {
        out.push_str("-> ");
        out.push_str(&self.words.join(" "));
        out.push('\n');
        let text = BASE64_NOPAD.encode(&self.body);
        let mut rest = text.as_str();
        while rest.len() >= COLUMNS {
            let (line, after) = rest.split_at(COLUMNS);
            out.push_str(line);
            out.push('\n');
            rest = after;
        }
        out.push_str(rest);
        out.push('\n');
    }
}
