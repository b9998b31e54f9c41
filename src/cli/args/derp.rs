//! Arguments of `hearth derp`.

use clap::{Args, Subcommand};

use super::ServeFlags;

/// `hearth derp`.
#[derive(Debug, Args)]
pub struct DerpArgs {
    /// The command.
    #[command(subcommand)]
    pub command: Option<DerpCommand>,
    /// Flags of the relay: those of the server.
    #[command(flatten)]
    pub flags: ServeFlags,
}

/// Commands to a running relay, standalone or part of a server.
#[derive(Debug, Subcommand)]
pub enum DerpCommand {
    /// Show relay and STUN statistics.
    #[command(alias = "show")]
    Status,
}
