//! Arguments of `hearth ssh`.

use clap::{Args, Subcommand};

/// Names one SSH connection that waits for confirmation.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OneSsh {
    /// Name of one of its two devices, its ID or the beginning of it, or the URL that the SSH client shows.
    pub connection: Option<String>,
    /// The newest one.
    #[arg(long)]
    pub last: bool,
}

/// Commands about SSH connections that wait for confirmation (`"action": "check"` in the policy).
#[derive(Debug, Subcommand)]
pub enum Ssh {
    /// List waiting SSH connections and recent decisions.
    #[command(aliases = ["ls", "show"])]
    List,
    /// Approve an SSH connection.
    #[command(alias = "accept")]
    Approve {
        /// The connection.
        #[command(flatten)]
        which: OneSsh,
    },
    /// Reject an SSH connection.
    #[command(alias = "deny")]
    Reject {
        /// The connection.
        #[command(flatten)]
        which: OneSsh,
    },
}
