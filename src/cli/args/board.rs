//! Arguments of `hearth board`.

use clap::{Args, Subcommand};

use super::ServeFlags;

/// `hearth board`.
#[derive(Debug, Args)]
pub struct BoardArgs {
    /// The command.
    #[command(subcommand)]
    pub command: Option<BoardCommand>,
    /// Flags of the server.
    #[command(flatten)]
    pub flags: ServeFlags,
}

/// Which boards to show.
#[derive(Debug, Subcommand)]
pub enum BoardCommand {
    /// List supported boards and memory classes.
    #[command(alias = "ls")]
    List,
    /// Show one board or memory class.
    Show {
        /// Board ID such as `glinet,gl-mt6000`, or memory class such as `memory-128`.
        id: String,
    },
}
