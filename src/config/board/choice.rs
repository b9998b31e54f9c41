//! Selection of the board and its limits.

use super::machine::{Machine, Source};
use super::{Board, Class};
use crate::config::limits::Limits;

/// The value of `board` for detection.
pub const AUTO: &str = "auto";

/// The selected board and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// How the board was determined.
    pub source: Source,
    /// The board, if known.
    pub board: Option<Board>,
    /// The class of its memory, if known.
    pub class: Option<Class>,
    /// The limits before the configuration changes them.
    pub limits: Limits,
}

impl Choice {
    /// Selects the board. `requested` is the value in the configuration; the second result is whether it is
    /// known.
    ///
    /// A board that is sold with several sizes of memory, and a container with less memory than the board,
    /// get the class of the available memory.
    pub fn make(requested: Option<&str>, machine: &Machine) -> (Self, bool) {
        let requested = requested.filter(|name| *name != AUTO);
        if let Some(class) = requested.and_then(Class::find) {
            return (Self::of(Source::Configuration, None, Some(class)), true);
        }
        let by_name = requested.and_then(Board::find);
        let is_known = requested.is_none() || by_name.is_some();
        let found = match by_name {
            Some(board) => Some((Source::Configuration, board)),
            None => machine
                .names
                .iter()
                .find_map(|(source, name)| Some((*source, Board::find(name)?))),
        };
        let by_memory = machine.memory.map(Class::of_memory);
        let by_board = found.as_ref().and_then(|(_, board)| board.class());
        let classes = by_memory.into_iter().chain(by_board);
        let class = classes.min_by_key(|class| class.ram_mib);
        let (source, board) = match found {
            Some((source, board)) => (source, Some(board)),
            None if class.is_some() => (Source::Memory, None),
            None => (Source::Nothing, None),
        };
        (Self::of(source, board, class), is_known)
    }

    fn of(source: Source, board: Option<Board>, class: Option<Class>) -> Self {
        let limits = class.as_ref().map(|class| class.limits.clone());
        let limits = limits.unwrap_or_default();
        let limits = match &board {
            Some(board) => board.adjust(limits),
            None => limits,
        };
        Self {
            source,
            board,
            class,
            limits,
        }
    }

    /// The name of the board or else of the class, for people.
    pub fn name(&self) -> &str {
        match (&self.board, &self.class) {
            (Some(board), _) => &board.name,
            (None, Some(class)) => class.name,
            (None, None) => "unknown",
        }
    }

    /// The memory budget in bytes of resident memory; `None` if the memory is unknown.
    pub fn budget(&self) -> Option<usize> {
        self.class.as_ref().map(|class| class.budget)
    }
}
