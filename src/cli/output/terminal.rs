//! The terminal that output goes to: whether it has colours, and how wide it is.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Read as _, Write as _};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Longest secret that is read, in bytes: that of a line of Linux terminals (`N_TTY_BUF_SIZE`).
const MOST_SECRET: usize = 4096;
/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// What the terminal can show. Output that goes elsewhere is plain and of any width, so that programs that
/// read it see the same each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Whether text may be coloured.
    pub color: bool,
    /// Columns; `None` is as wide as needed.
    pub width: Option<usize>,
}

impl Terminal {
    /// No terminal.
    pub const NONE: Self = Self {
        color: false,
        width: None,
    };

    /// The terminal behind a stream. `NO_COLOR` (<https://no-color.org>) and `TERM=dumb` switch colours off.
    pub fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        if !stream.is_terminal() {
            return Self::NONE;
        }
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let size = rustix::termios::tcgetwinsize(stream);
        let width = size.ok().map(|size| usize::from(size.ws_col));
        Self {
            color: !is_set("NO_COLOR") && !is_dumb,
            width: width.filter(|width| *width > 0),
        }
    }

    /// The text in the colour of a word; plain when the word has none, or the terminal.
    pub fn paint(self, word: &str, text: &str) -> String {
        match color_of(word).filter(|_| self.color) {
            Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            None => text.to_owned(),
        }
    }
}

/// Asks a person for a secret on the terminal of this process, whatever its input and output are, without showing what is
/// typed; `None` without a terminal.
///
/// # Errors
/// When the terminal cannot be read, its input ends, or Ctrl-C is pressed.
pub fn ask_secret(prompt: &str) -> io::Result<Option<Zeroizing<String>>> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let Ok(mut terminal) = opened else {
        return Ok(None);
    };
    let shown = tcgetattr(&terminal)?;
    let mut hidden = shown.clone();
    // Ctrl-C ends the line instead of this process, which has to show again what is typed.
    hidden
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ISIG);
    hidden.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
    write!(terminal, "{prompt}")?;
    tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
    let mut line = Zeroizing::new(vec![0; MOST_SECRET]);
    let read = terminal.read(&mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &shown)?;
    writeln!(terminal)?;
    let line = line.get(..read?).unwrap_or_default();
    if line.is_empty() || line.ends_with(&[INTERRUPT]) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let text = std::str::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData)?;
    let text = text.trim_end_matches(['\r', '\n']);
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// The colour of a word that says how something is: an SGR parameter (ECMA-48, 8.3.117).
fn color_of(word: &str) -> Option<&'static str> {
    Some(match word {
        "online" | "active" | "ok" | "approved" => "32",
        "needs approval" | "waiting" | "warning" | "no router online" => "33",
        "expired" | "problem" | "rejected" | "error" => "31",
        "offline" | "standby" => "2",
        "heading" => "1",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_painted_on_a_terminal_with_colours_only() {
        let color = Terminal {
            color: true,
            width: None,
        };
        assert_eq!(
            color.paint("online", "online "),
            "\u{1b}[32monline \u{1b}[0m"
        );
        assert_eq!(color.paint("nas", "nas"), "nas");
        assert_eq!(Terminal::NONE.paint("online", "online"), "online");
    }
}
