//! What may be said about policies.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[cfg(feature = "policy-tools")]
use hearth_core::policy::TEMPLATES;

/// Names the file with a policy.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct PolicyFile {
    /// The file, or `-` for standard input.
    #[arg(value_name = "FILE")]
    path: Option<PathBuf>,
    /// The file.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl PolicyFile {
    /// The one that is given.
    pub fn path(self) -> PathBuf {
        self.path.or(self.file).unwrap_or_default()
    }
}

/// What to do about policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print the policy.
    #[command(aliases = ["show", "view", "fetch"])]
    Get {
        /// An older version: `history` shows which are kept.
        #[arg(long, value_name = "VERSION")]
        version: Option<u64>,
    },
    /// Set the policy: it applies at once, unless it has faults or its tests fail.
    #[command(aliases = ["put", "update"])]
    Set {
        /// Where it is.
        #[command(flatten)]
        file: PolicyFile,
    },
    /// Say whether a policy could be set, without setting it. Without a running server only what is written is
    /// checked, not whom it names and whether its tests hold.
    Check {
        /// Where it is.
        #[command(flatten)]
        file: PolicyFile,
    },
    /// List the versions that are kept.
    #[command(alias = "versions")]
    History,
    /// Set an older version again.
    Rollback {
        /// The version [default: the one before the newest].
        version: Option<u64>,
    },
    /// Say whether traffic passes, and by which rule, or why not.
    Why {
        /// Name or address of a node, a tag, or a user, which means all of the user's nodes.
        src: String,
        /// The same for the destination, with a port: `nas:22`, `[fd7a:115c:a1e0::1]:22`.
        #[arg(value_name = "DST:PORT")]
        dst: String,
        /// Protocol, by name or number; those other than tcp, udp and sctp need no port.
        #[arg(long, default_value = "tcp")]
        proto: String,
    },
    #[cfg(feature = "policy-tools")]
    /// Print a policy to begin with, with tests in it.
    Template {
        /// Which.
        #[arg(value_parser = TEMPLATES)]
        name: String,
    },
    #[cfg(feature = "policy-tools")]
    /// Read made-up tailnets from standard input, one JSON object a line, and print what every node would be
    /// sent.
    Eval,
}
