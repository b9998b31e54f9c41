//! Which board it is, and which limits follow from that.

use super::machine::{Machine, Source};
use super::{Board, Class};
use crate::config::limits::Limits;

/// What the configuration says when hearth shall find out by itself.
pub const AUTO: &str = "auto";

/// The board that was found, and what hearth makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// How the board was found.
    pub source: Source,
    /// The board, if it has a file.
    pub board: Option<Board>,
    /// The class of its memory, when that is known.
    pub class: Option<Class>,
    /// The limits before the configuration changes them.
    pub limits: Limits,
}

impl Choice {
    /// Finds out. `wish` is what the configuration says; the second value says whether it is understood.
    ///
    /// A board that is sold with several sizes of memory, and a container with less than the board has, get
    /// the class of the memory that there is.
    pub fn make(wish: Option<&str>, machine: &Machine) -> (Self, bool) {
        let wish = wish.filter(|wish| *wish != AUTO);
        if let Some(class) = wish.and_then(Class::find) {
            return (Self::of(Source::Configuration, None, Some(class)), true);
        }
        let wished = wish.and_then(Board::find);
        let is_understood = wish.is_none() || wished.is_some();
        let found = match wished {
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
        (Self::of(source, board, class), is_understood)
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

    /// The name of the board, or else of the class, for people.
    pub fn name(&self) -> &str {
        match (&self.board, &self.class) {
            (Some(board), _) => &board.name,
            (None, Some(class)) => class.name,
            (None, None) => "unknown",
        }
    }

    /// What hearth may take, in bytes of resident memory; `None` when the memory is not known.
    pub fn budget(&self) -> Option<usize> {
        self.class.as_ref().map(|class| class.budget)
    }
}
