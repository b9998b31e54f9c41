//! Diagnostics: an error in a policy and its position.

use std::fmt;

/// Position in a text: line and column, both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// An error in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line of the error, from 1.
    pub line: u32,
    /// Column of the error, from 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

/// A text without a policy, empty or `null`. Older versions of hearth took it for `{}`.
const EMPTY: &str = "the policy is empty; to allow everything, use {}";

impl Diagnostic {
    /// The error of a text without a policy.
    pub(super) fn empty_policy() -> Self {
        Self::at(Position { line: 1, column: 1 }, EMPTY)
    }

    /// Whether the text has no policy at all: it is empty or `null`.
    pub fn is_empty_policy(&self) -> bool {
        self.message == EMPTY
    }

    /// An error at a position.
    pub fn at(at: Position, message: impl Into<String>) -> Self {
        Self {
            line: at.line,
            column: at.column,
            message: message.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )
    }
}
