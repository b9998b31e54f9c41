//! Arguments of `hearth ssh`.

use clap::Subcommand;

/// Commands about SSH connections that wait for confirmation (`"action": "check"` in the policy).
#[derive(Debug, Subcommand)]
pub enum Ssh {
    /// List waiting SSH connections and recent decisions.
    #[command(aliases = ["ls", "show"])]
    List,
    /// Approve an SSH connection.
    #[command(alias = "accept")]
    Approve {
        /// ID of the connection, or the URL that the SSH client shows.
        id: String,
    },
    /// Reject an SSH connection.
    #[command(alias = "deny")]
    Reject {
        /// ID of the connection, or the URL that the SSH client shows.
        id: String,
    },
}
