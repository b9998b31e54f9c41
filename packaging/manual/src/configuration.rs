//! The page of the configuration, from the commented example.

use std::io;

use clap_mangen::roff::{Roff, bold, roman};

use crate::program;

/// A line of the example that is more than a space holder.
enum Line<'a> {
    Section(&'a str),
    /// `#key = value` or `key = value`: the default, or an example of a value.
    Key(&'a str),
    Words(&'a str),
    Nothing,
}

/// The page in roff: comments become text, and keys examples between it.
pub(crate) fn page(example: &str) -> io::Result<Vec<u8>> {
    let mut page = Roff::new();
    page.control("SH", ["NAME"]);
    page.text([roman("hearth.toml - configuration of hearth")]);
    page.control("SH", ["DESCRIPTION"]);
    let mut last_was_key = false;
    for line in example.lines().map(of) {
        let is_key = matches!(line, Line::Key(_));
        if last_was_key && !is_key {
            page.control("RE", []);
            page.control("fi", []);
        }
        if is_key && !last_was_key {
            page.control("RS", ["4"]);
            page.control("nf", []);
        }
        match line {
            Line::Section(name) => {
                page.control("SH", [name]);
            }
            Line::Words(words) if last_was_key => {
                page.control("PP", []);
                page.text([roman(words)]);
            }
            Line::Words(words) => {
                page.text([roman(words)]);
            }
            Line::Key(key) => {
                page.text([bold(key)]);
            }
            Line::Nothing if last_was_key => {}
            Line::Nothing => {
                page.control("PP", []);
            }
        }
        last_was_key = is_key;
    }
    if last_was_key {
        page.control("RE", []);
        page.control("fi", []);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("hearth"), roman("(8)")]);
    let mut text = program::title("HEARTH.TOML", "5")?;
    page.to_writer(&mut text)?;
    Ok(text)
}

fn of(line: &str) -> Line<'_> {
    let comment = line.strip_prefix('#');
    match (line, comment) {
        ("" | "#", _) => Line::Nothing,
        (_, Some(words)) if words.starts_with(" == ") => {
            Line::Section(words.trim_matches([' ', '=']))
        }
        (_, Some(words)) if words.starts_with(' ') && !words.starts_with("  ") => {
            Line::Words(words.trim())
        }
        (_, Some(key)) => Line::Key(key.trim_end()),
        (key, None) => Line::Key(key.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_example_is_on_the_page() {
        let example = include_str!("../../../hearth.example.toml");
        let page = String::from_utf8(page(example).unwrap()).unwrap();
        let page = page.replace("\\*(Aq", "'");
        let flat = |text: &str| text.replace([' ', '"', '\\'], "");
        let page = flat(&page);
        for line in example.lines() {
            let text = line.trim_start_matches('#').trim_matches([' ', '=']);
            assert!(page.contains(&flat(text)), "{text}");
        }
    }
}
